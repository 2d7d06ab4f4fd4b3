"""Does the report name the two labels whose definitions overlap? On the demo's items, beside cleanlab's ranking.

The glosses of two labels are made vague on purpose: whoever should choose between the two (the labellers, the teacher,
the person who reviews) then picks either of them at random, for a share of their items. The fold students are probes
trained on these labels; the teacher is a probe trained on other items, labelled as vaguely, and asked about suspicious
items only. 12 % of the demo's labels are wrong for other reasons. `rank`: the place of the pair among all pairs.

    python tests/benchmarks/overlap.py [--pairs 5]
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import orjson

from tasks.correction.decide import Adjudicator, correct
from tasks.correction.judgements import Floats, Ints, judge_by_predictions, list_labels, tabulate
from tasks.correction.overlap import ENOUGH, collect_opinions, rank_overlaps
from tasks.correction.settings import CorrectionSettings
from tasks.demo.dataset import DIALOGUE_LABELS, IMAGE_LABELS, write_demo
from tasks.items.samples import read_samples
from tasks.packs.pack import load_pack
from tasks.records import Prediction, Sample, Split
from tasks.students.folds import make_folds
from tasks.students.probe import ProbeRecipe, predict_probe
from tasks.students.probe_features import Vector, describe_images
from tasks.students.settings import ProbeSpec
from tests.benchmarks.correction.report import goal, table
from tests.benchmarks.correction.rules import ask_cleanlab

FOLDS = 5
REVIEWS = 30
VAGUE = (0.0, 0.5, 1.0)
"""Shares of the two labels' items for which either label is picked at random; 0: both glosses as they are."""


@dataclass(frozen=True)
class Demo:
    """The demo's items: `labelled` with wrong labels among theirs, `pool` without labels, and the truth of all."""

    labelled: tuple[Sample, ...]
    pool: tuple[Sample, ...]
    truth: dict[str, str]
    images: dict[str, Vector]


@dataclass(frozen=True)
class Found:
    """The place of the vague pair in each ranking (from 1), and how many pairs our report would name."""

    ours: int
    students: int
    teacher: int
    warned: int
    warned_right: bool


def read_demo(folder: Path) -> Demo:
    """Draw the demo's sets and describe their images."""
    paths, pack = write_demo(folder), load_pack("demo")
    truth = {row["id"]: row["label"] for row in map(orjson.loads, paths.truth.read_bytes().splitlines())}
    labelled = read_samples(paths.labelled.manifest, paths.labelled.images, pack, Split.LABELLED).kept
    pool = read_samples(paths.unlabelled.manifest, paths.unlabelled.images, pack, Split.UNLABELLED).kept
    labelled, pool = ([s for s in each if s.id in truth] for each in (labelled, pool))
    images = describe_images(ProbeSpec(), [*labelled, *pool])
    return Demo(tuple(labelled), tuple(pool), truth, dict(images))


def blur(labels: list[str], pair: tuple[str, str], share: float, rng: np.random.Generator) -> list[str]:
    """Return the labels as somebody gives them who can't tell the two of `pair` apart in this share of the items."""
    return [str(rng.choice(pair)) if label in pair and rng.random() < share else label for label in labels]


def measure(demo: Demo, pair: tuple[str, str], share: float, seed: int, folder: Path) -> Found:
    """Make the two labels' glosses vague and rank all pairs."""
    rng = np.random.default_rng(seed)
    given = blur([s.given or "" for s in demo.labelled], pair, share, rng)
    samples = [s.model_copy(update={"given": label}) for s, label in zip(demo.labelled, given, strict=True)]
    taught = blur([demo.truth[s.id] for s in demo.pool], pair, share, rng)
    lessons = [s.model_copy(update={"given": label}) for s, label in zip(demo.pool, taught, strict=True)]
    spec = ProbeSpec(folds=FOLDS)
    fold_of = make_folds(samples, FOLDS, seed).fold_of
    samples = [s for s in samples if s.id in fold_of]
    run: dict[str, Prediction] = {}
    for fold in range(FOLDS):
        train = [s for s in samples if fold_of[s.id] != fold]
        held_out = [s for s in samples if fold_of[s.id] == fold]
        home = ProbeRecipe(spec, spec.seed_of(0), {}, demo.images).train(
            train, fold, folder / str(fold), lambda *_: None
        )
        run |= {p.sample_id: p for p in predict_probe(home, held_out, {}, demo.images)}
    home = ProbeRecipe(spec, 1, {}, demo.images).train(lessons, 0, folder / "teacher", lambda *_: None)
    labels = list_labels(samples)
    answers = tabulate({p.sample_id: p for p in predict_probe(home, samples, {}, demo.images)}, samples, labels)
    teacher = np.column_stack([answers, np.zeros(len(answers))]).astype(np.float32)
    seen = blur([demo.truth[s.id] for s in samples], pair, share, rng)

    def ask_teacher(items: Ints) -> Floats:
        return teacher[items]

    def look_up(items: Ints) -> dict[int, int]:
        return {item: labels.index(seen[item]) for item in items.tolist()}

    judgements = judge_by_predictions(samples, [run], labels)
    settings = CorrectionSettings(review_budget=REVIEWS)
    decisions = correct(judgements, settings, [Adjudicator(ask_teacher)], look_up, seed=seed)
    overlaps = rank_overlaps(judgements.given, collect_opinions(decisions))
    everybody = judgements.students.astype(float)
    (asked,) = decisions.asked
    everybody[asked] = (everybody[asked] + answers[asked]) / 2
    peers = ask_cleanlab(
        {"students": (judgements.given, judgements.students.astype(float)), "teacher": (judgements.given, everybody)}
    )
    wanted = {labels.index(label) for label in pair}
    places = {name: [set(row) for row in peer.overlaps.tolist()].index(wanted) + 1 for name, peer in peers.items()}
    ours = [{each.first, each.second} for each in overlaps]
    warned = [{each.first, each.second} for each in overlaps if each.least >= ENOUGH]
    return Found(ours.index(wanted) + 1, places["students"], places["teacher"], len(warned), wanted in warned)


def main() -> None:
    parser = argparse.ArgumentParser(description="Overlapping definitions, beside cleanlab")
    parser.add_argument("--pairs", type=int, default=5, help="number of pairs, drawn at random")
    given = parser.parse_args()
    rng = np.random.default_rng(0)
    rows: list[list[str | float]] = []
    firsts: list[bool] = []
    with tempfile.TemporaryDirectory() as folder:
        demo = read_demo(Path(folder) / "demo")
        sets = (IMAGE_LABELS, IMAGE_LABELS, DIALOGUE_LABELS)
        drawn = [rng.choice(sets[n % 3], 2, replace=False).tolist() for n in range(given.pairs)]
        pairs = [(str(a), str(b)) for a, b in drawn]
        for share in VAGUE:
            homes = [Path(folder) / f"{share}-{seed}" for seed in range(len(pairs))]
            found = [measure(demo, pair, share, seed, homes[seed]) for seed, pair in enumerate(pairs)]
            names = ("ours", "students", "teacher")
            first = [float(np.mean([getattr(f, name) == 1 for f in found])) for name in names]
            worst = [float(np.max([getattr(f, name) for f in found])) for name in names]
            named = [float(np.mean([f.warned - f.warned_right for f in found]))]
            rows.append([f"{share:.0%}", *first, *worst, *named, float(np.mean([f.warned_right for f in found]))])
            firsts += [f.ours == 1 for f in found if share == 1]
    print(f"\n{given.pairs} pairs of the demo's labels, {REVIEWS} reviews; the vague pair's place among all pairs")
    groups = (("", 1), ("share of runs in which it is first", 3), ("worst place", 3), ("named", 2))
    peers = ["ours", "cleanlab", "c. + t."]
    table(groups, ["guessed", *peers, *peers, "others", "it"], rows)
    print("  c. + t.: cleanlab, given the mean of students and teacher")
    print(
        goal("share of runs in which it is first, all of the items guessed", float(np.mean(firsts)), 1, at_most=False)
    )


if __name__ == "__main__":
    main()
