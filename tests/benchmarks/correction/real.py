"""CIFAR-10N with five models' out-of-fold probabilities, where ../shared has it. Nothing of it is kept."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.benchmarks.correction import scoring
from tests.benchmarks.correction.command import Corrected, correct
from tests.benchmarks.correction.noisy_sets import Files, NoisySet, write
from tests.benchmarks.correction.report import goal, table
from tests.benchmarks.correction.rules import Cleanlab, ask_cleanlab
from tests.benchmarks.correction.students import Predicted
from tests.benchmarks.correction.synthetic import WORST_RUN
from tests.stub_server import ROOT

DATA = ROOT.parent / "shared/data/correction/cifar10n_aggregate.npz"
REVIEWS, PAIR_REVIEWS = 100, 200
F1_GOAL, ACCURACY_GOAL, CALLS_GOAL = 0.840, 0.979, 0.15
SECONDS_GOAL, MIB_GOAL = 120, 2048


@dataclass(frozen=True)
class Figures:
    """One run on a set: F1 of ours and of cleanlab's two filters, what hindsight gives, accuracy after."""

    f1: float
    cleanlab: float
    by_class: float
    best: float
    precision: float
    self_confidence: float
    after: float


def run(seeds: Sequence[int], command: Sequence[str]) -> None:
    """Measure and print; only a message where the data is absent."""
    if not DATA.exists():
        print(f"\nReal data: skipped, no ../{DATA.relative_to(ROOT.parent)}")
        return
    with np.load(DATA, allow_pickle=False) as stored:
        probabilities = stored["pred_probs"].astype(float)
        given, truth = stored["given"].astype(np.int64), stored["true"].astype(np.int64)
        models = [str(name) for name in stored["models"]]
    probabilities /= probabilities.sum(-1, keepdims=True)
    names = tuple(f"class {number:02d}" for number in range(probabilities.shape[-1]))
    all_five = NoisySet(names, given, truth, tuple(Predicted(each) for each in probabilities))
    changes = _detection(all_five, models, seeds, command)
    changes += _pairs(all_five, models, seeds, command)
    print(goal("worst run's change of accuracy, points", min(changes), WORST_RUN, at_most=False))
    _size(all_five, command)


def _detection(all_five: NoisySet, models: list[str], seeds: Sequence[int], command: Sequence[str]) -> list[float]:
    """Each model alone, and their mean; the changes of accuracy of all runs, in points."""
    alone = {name: replace(all_five, students=(each,)) for name, each in zip(models, all_five.students, strict=True)}
    alone["their mean"] = replace(all_five, students=(Predicted(all_five.mean),))
    peers = ask_cleanlab({f"{number}": (noisy.given, noisy.mean) for number, noisy in enumerate(alone.values())})
    given = all_five.given
    before, rows, unasked = scoring.accuracy(given, all_five.truth), [], 0
    changes: list[float] = []
    for number, (name, noisy) in enumerate(alone.items()):
        with _files(noisy) as files:
            cold = correct(noisy, files, reviews=0, command=command)
            runs = [correct(noisy, files, reviews=REVIEWS, seed=seed, command=command) for seed in seeds]
        unasked += int((cold.labels != noisy.given).sum())
        found = [_figures(noisy, ours, peers[f"{number}"]) for ours in runs]
        changes += [scoring.points(one.after, before) for one in found]
        fields = ("f1", "cleanlab", "by_class", "best", "precision", "self_confidence", "after")
        rows.append([name, *[scoring.mean([getattr(one, field) for one in found]) for field in fields]])
    print(f"\nReal labels: {len(given):,} items, {REVIEWS} reviews, {len(seeds)} seeds; accuracy before {before:.4f}")
    columns = ["model", "ours", "cleanl.", "class", "best", "AP ours", "AP s.c.", "after"]
    table((("", 1), ("F1 of detection", 4), ("", 3)), columns, rows)
    ours, filters = [row[1] for row in rows], [max(row[2], row[3]) for row in rows]
    best = np.mean([row[4] for row in rows])
    print(f"  means: cleanlab's better filter {np.mean(filters):.3f}, the best threshold in hindsight {best:.3f}")
    print(goal("mean F1", float(np.mean(ours)), F1_GOAL, at_most=False))
    above = sum(one > other for one, other in zip(ours, filters, strict=True))
    print(goal("sets where ours is above cleanlab's better filter", above, len(rows), at_most=False))
    lower = sum(row[-1] < before - 1e-9 for row in rows)
    print(goal("sets with a lower mean accuracy", lower, 0, at_most=True))
    print(goal("labels changed without any review", unasked, 0, at_most=True))
    return changes


def _figures(noisy: NoisySet, ours: Corrected, peer: Cleanlab) -> Figures:
    unseen = ~ours.reviewed
    wrong = (noisy.given != noisy.truth)[unseen]
    return Figures(
        f1=scoring.f1(ours.flagged[unseen], wrong),
        cleanlab=scoring.f1(peer.default[unseen], wrong),
        by_class=scoring.f1(peer.by_class[unseen], wrong),
        best=scoring.best_f1(ours.suspicion[unseen], wrong),
        precision=scoring.average_precision(ours.suspicion[unseen], wrong),
        self_confidence=scoring.average_precision(peer.self_confidence[unseen], wrong),
        after=scoring.accuracy(ours.labels, noisy.truth),
    )


def _pairs(all_five: NoisySet, models: list[str], seeds: Sequence[int], command: Sequence[str]) -> list[float]:
    """Each of the first four as the student, the last as the teacher; the changes of accuracy in points."""
    teacher = all_five.students[-1]
    before, rows, changes = scoring.accuracy(all_five.given, all_five.truth), [], []
    for name, student in zip(models[:-1], all_five.students[:-1], strict=True):
        noisy = replace(all_five, students=(student,), teacher=teacher)
        with _files(noisy) as files:
            runs = [correct(noisy, files, reviews=PAIR_REVIEWS, seed=seed, command=command) for seed in seeds]
        after = [scoring.accuracy(ours.labels, noisy.truth) for ours in runs]
        changes += [scoring.points(one, before) for one in after]
        calls = [ours.summary["teacher_calls"] / len(noisy.given) for ours in runs]
        dropped = [float((ours.labels < 0).mean()) for ours in runs]
        rows.append([name, before, scoring.mean(after), min(after), scoring.mean(calls), scoring.mean(dropped)])
    print(f"\nReal labels, {models[-1]} as the teacher, {PAIR_REVIEWS} reviews, {len(seeds)} seeds")
    table((("", 1), ("label accuracy", 3), ("", 2)), ["student", "before", "after", "worst", "calls", "dropped"], rows)
    print(goal("mean accuracy after", float(np.mean([row[2] for row in rows])), ACCURACY_GOAL, at_most=False))
    print(goal("most teacher calls, share of items", max(row[4] for row in rows), CALLS_GOAL, at_most=True))
    return changes


def _size(all_five: NoisySet, command: Sequence[str]) -> None:
    """All five files at once: how long and how large."""
    with _files(all_five) as files:
        ours = correct(all_five, files, reviews=REVIEWS, command=command)
    count, classes = all_five.mean.shape
    print(f"\nSize: {count:,} items × {classes} labels × {len(all_five.students)} files in one call")
    print(goal("seconds", ours.seconds, SECONDS_GOAL, at_most=True))
    print(goal("peak MiB", ours.peak_mib, MIB_GOAL, at_most=True))
    print(f"  label accuracy after {scoring.accuracy(ours.labels, all_five.truth):.4f}")


@contextmanager
def _files(noisy: NoisySet) -> Iterator[Files]:
    with tempfile.TemporaryDirectory() as folder:
        yield write(noisy, Path(folder))
