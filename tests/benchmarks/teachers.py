"""Several teachers: what asking a cheap one first saves, and whether more teachers are worth it.

Strong and cheap cost 10 and 1 per answer. A set has 1,000 labelled items (with wrong labels, corrected with 100 reviews
and the students' help) and a pool of 2,000; all answers are paid, those about the labelled set too. `kept` is the share
of the pool whose label is trusted at the target precision, `right` how many of these are, `surest` the same of the
surest 90 % of the pool.

1. CIFAR-10N, where ../shared has it: five real models as students and teachers of each other. They were trained on the
   noisy labels, out of fold, which teachers are not.
2. Drawn items with simulated zero-shot teachers (tests/benchmarks/correction): one that is right on about four in five.

    python tests/benchmarks/teachers.py [--seeds 5] [cost correction]
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from tasks.correction.decide import Adjudicator, Decisions, correct
from tasks.correction.judgements import Ints, Judgements
from tasks.correction.outcome import record_corrections
from tasks.correction.settings import CorrectionSettings
from tasks.pseudo_labels.decide import PoolDecision
from tasks.pseudo_labels.evidence import Opinions
from tasks.pseudo_labels.panel import PoolInputs, Standing, ask_in_turn, judge
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.records import Outcome, Prediction, Sample, Split
from tests.benchmarks.correction.noisy_sets import Setting, make
from tests.benchmarks.correction.real import DATA
from tests.benchmarks.correction.report import goal
from tests.benchmarks.correction.scoring import f1
from tests.benchmarks.correction.students import Student

LABELLED, POOL, REVIEWS = 1000, 2000, 100
PRECISION, KEPT, CHEAPER = 0.95, 0.9, 2.0
PRICES = {"cheap": 1.0, "strong": 10.0}


@dataclass(frozen=True)
class Items:
    """Items with a given and a true label each, and every model's probabilities [models, N, C]."""

    given: Ints
    truth: Ints
    models: NDArray[np.float32]

    def draw(self, seed: int, count: int) -> "Items":
        """Return `count` of the items, drawn at random."""
        rows = np.random.default_rng(seed).choice(len(self.truth), count, replace=False)
        return Items(self.given[rows], self.truth[rows], self.models[:, rows])


@dataclass(frozen=True)
class Way:
    """A way of asking: each teacher's model, what it is asked about (`all` or `uncertain`), and what kind it is."""

    name: str
    teachers: tuple[tuple[int, str, str], ...]


def read_cifar() -> Items:
    """Read CIFAR-10N with the five models' out-of-fold probabilities."""
    with np.load(DATA, allow_pickle=False) as stored:
        models = stored["pred_probs"].astype(np.float32)
        given, truth = stored["given"].astype(np.int64), stored["true"].astype(np.int64)
    return Items(given, truth, models / models.sum(-1, keepdims=True))


def draw_items() -> Items:
    """Draw items with human-like noise; the models are a student, and two cheap teachers and a strong one."""
    students = (Student("logistic", 1.2), *(Student("zero-shot", blur) for blur in (2.1, 2.2, 0.5)))
    made = make(Setting("drawn", "human-like", 0.12, students, items=12_000), 0)
    return Items(made.given, made.truth, np.stack([s.probabilities for s in made.students]).astype(np.float32))


# --- what a way of asking costs ---------------------------------------------------------------------------------


def label_pool(items: Items, student: int, way: Way, target: float, seed: int) -> tuple[float, float, float, float]:
    """Return the kept share of the pool, its precision, that of the surest 90 %, and the price per pool item."""
    drawn = items.draw(seed, LABELLED + POOL)
    names = tuple(f"class {c}" for c in range(drawn.models.shape[-1]))

    def sample(i: int, split: Split) -> Sample:
        given = names[drawn.given[i]] if split is Split.LABELLED else None
        return Sample(id=f"{i}", task="", parts=(), labels=names, given=given, split=split, source="")

    def answer(model: int, identity: str) -> Prediction:
        shares = dict(zip(names, drawn.models[model, int(identity)].tolist(), strict=True))
        label = max(shares, key=lambda name: shares[name])
        return Prediction(sample_id=identity, source="m", outcome=Outcome.OK, label=label, probabilities=shares)

    labelled = [sample(i, Split.LABELLED) for i in range(LABELLED)]
    pool = [sample(i, Split.UNLABELLED) for i in range(LABELLED, LABELLED + POOL)]
    known = Items(drawn.given[:LABELLED], drawn.truth[:LABELLED], drawn.models[:, :LABELLED])
    decisions = correct_labels(known, student, (), REVIEWS, seed)
    fold_of, model_of = {s.id: 0 for s in labelled}, {s.id: "" for s in labelled}
    records = record_corrections(labelled, decisions, fold_of, model_of, {}, {}, {})
    inputs = PoolInputs(pool, labelled, {c.sample_id: c for c in records}, {})
    paid = [0] * len(way.teachers)

    def ask(teacher: int, split: Split, wanted: Sequence[str]) -> dict[str, Prediction]:
        paid[teacher] += len(wanted)
        return {i: answer(way.teachers[teacher][0], i) for i in wanted}

    settings = PseudoLabelSettings(target_precision=target)

    def judge_again(there: Opinions, here: Opinions) -> Standing:
        return judge(inputs, there, here, settings, seed)

    sides: list[Opinions] = []
    for some in (labelled, pool):
        opinions = Opinions(tuple({} for _ in paid), students=({s.id: answer(student, s.id) for s in some},))
        for place, (_, asked, _) in enumerate(way.teachers):
            if asked == "all":
                opinions = opinions.add_answers(place, ask(place, some[0].split, [s.id for s in some]))
        sides.append(opinions)
    waiting = {place: 1.0 for place, (_, asked, _) in enumerate(way.teachers) if asked != "all"}
    prices = [PRICES[price] for _, _, price in way.teachers]
    found = ask_in_turn(judge_again(*sides), waiting, ask, prices.__getitem__, judge_again)
    ranked = sorted(found.trust.items, key=lambda t: -(t.expected or 0.0))
    right = {t.sample_id: t.label == names[drawn.truth[int(t.sample_id)]] for t in ranked}
    kept = [right[t.sample_id] for t in ranked if t.decision is PoolDecision.KEPT]
    surest = [right[t.sample_id] for t in ranked[: round(KEPT * POOL)]]
    return len(kept) / POOL, float(np.mean(kept)), float(np.mean(surest)), float(np.dot(prices, paid)) / POOL


def compare_costs(name: str, items: Items, student: int, ways: Sequence[Way], target: float, seeds: int) -> None:
    """Print what each way of asking keeps and costs, and how much cheaper the last is than the first."""
    print(f"\n{name}: target precision {target}, {seeds} draws of {LABELLED:,} labelled and {POOL:,} others")
    print(f"  {'':28} {'kept':>15} {'right':>15} {'surest':>15} {'price per pool item':>20}")
    prices: dict[str, float] = {}
    for way in ways:
        rows = np.array([label_pool(items, student, way, target, seed) for seed in range(seeds)])
        kept, right, surest = (format_interval(column) for column in rows.T[:3])
        price = rows[:, 3].mean()
        print(f"  {way.name:28} {kept:>15} {right:>15} {surest:>15} {price:>20.2f}", flush=True)
        prices[way.name] = price if rows[:, 2].mean() >= target else np.inf
    ratio = prices["strong alone"] / prices["cheap, then strong"]
    print(goal(f"times cheaper, precision {target} of the surest {KEPT:.0%}", ratio, CHEAPER, at_most=False))


def format_interval(values: NDArray[np.float64]) -> str:
    """Return the mean and half the width of its 95 % interval."""
    return f"{values.mean():.3f} ± {1.96 * values.std(ddof=1) / np.sqrt(len(values)):.3f}"


# --- correction ---------------------------------------------------------------------------------------------------


def correct_labels(
    items: Items, student: int, teachers: Sequence[tuple[int, float | None]], reviews: int, seed: int
) -> Decisions:
    """Correct the given labels; each teacher is a model and its share (see `Adjudicator`)."""
    table = items.models[student]
    names = tuple(f"class {c}" for c in range(table.shape[1]))
    ids = tuple(f"{i}" for i in range(len(items.given)))
    dissent = (table.argmax(1) != items.given).astype(np.float32)

    def make_ask(model: int) -> Callable[[Ints], NDArray[np.float32]]:
        return lambda asked: np.pad(items.models[model, asked], ((0, 0), (0, 1)))

    panel = [Adjudicator(make_ask(model), share) for model, share in teachers]
    judgements = Judgements(ids, names, items.given, table, dissent)
    settings = CorrectionSettings(review_budget=reviews)

    def look_up(asked: Ints) -> dict[int, int]:
        return {i: int(items.truth[i]) for i in asked.tolist()}

    return correct(judgements, settings, panel, look_up, seed=seed)


def compare_corrections(items: Items, seeds: int) -> None:
    """Print what further teachers add to the search for wrong labels, and what they cost."""
    ways: dict[str, tuple[tuple[int, float | None, str], ...]] = {
        "no teacher": (),
        "cheap alone": ((3, None, "cheap"),),
        "two cheap ones": ((1, None, "cheap"), (3, None, "cheap")),
        "strong alone": ((4, None, "strong"),),
        "cheap and strong, all": ((3, None, "cheap"), (4, None, "strong")),
        "cheap, then strong": ((3, None, "cheap"), (4, 1.0, "strong")),
    }
    print(f"\nCIFAR-10N, correction of {LABELLED:,} labels with 60 reviews, {2 * seeds} draws; student: resnet18")
    print(f"  {'':24} {'label accuracy':>15} {'F1 of flags':>15} {'avg. precision':>15} {'price per item':>15}")
    for name, way in ways.items():
        rows: list[tuple[float, float, float, float]] = []
        for seed in range(2 * seeds):
            drawn = items.draw(seed, LABELLED)
            found = correct_labels(drawn, 0, [(model, share) for model, share, _ in way], 60, seed)
            unseen = np.ones(LABELLED, bool)
            unseen[list(found.verdicts)] = False
            wrong = (drawn.given != drawn.truth)[unseen]
            ranked = float(average_precision_score(wrong, found.beliefs.p_wrong[unseen]))
            price = sum(PRICES[price] * len(asked) for (_, _, price), asked in zip(way, found.asked, strict=True))
            accuracy = float((found.label == drawn.truth).mean())
            rows.append((accuracy, f1(found.flagged[unseen], wrong), ranked, price / LABELLED))
        cells = [format_interval(column) for column in np.array(rows).T[:3]]
        print(f"  {name:24} {cells[0]:>15} {cells[1]:>15} {cells[2]:>15} {np.mean(rows, axis=0)[3]:>15.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Several teachers: cost and worth")
    parser.add_argument("parts", nargs="*", default=["cost", "correction"], help="cost, correction")
    parser.add_argument("--seeds", type=int, default=5)
    given = parser.parse_args()
    real = read_cifar() if DATA.exists() else None
    if real is None:
        print(f"CIFAR-10N: SKIPPED, no {DATA}")
    if "cost" in given.parts:
        if real is not None:
            cheap, other, strong = (2, "all", "cheap"), (1, "all", "cheap"), (4, "all", "strong")
            ways = [
                Way("strong alone", (strong,)),
                Way("cheap alone", (cheap,)),
                Way("two cheap ones", (cheap, other)),
                Way("cheap and strong, all", (cheap, strong)),
                Way("cheap, then strong", (cheap, (4, "uncertain", "strong"))),
            ]
            compare_costs("CIFAR-10N, efficientnet and swin", real, 0, ways, PRECISION, given.seeds)
        ways = [
            Way("strong alone", ((3, "all", "strong"),)),
            Way("cheap alone", ((1, "all", "cheap"),)),
            Way("two cheap ones", ((1, "all", "cheap"), (2, "all", "cheap"))),
            Way("cheap, then strong", ((1, "all", "cheap"), (3, "uncertain", "strong"))),
        ]
        compare_costs("Drawn items", draw_items(), 0, ways, PRECISION, given.seeds)
    if "correction" in given.parts and real is not None:
        compare_corrections(real, given.seeds)


if __name__ == "__main__":
    main()
