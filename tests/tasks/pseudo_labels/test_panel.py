from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from tasks.pseudo_labels.decide import PoolDecision
from tasks.pseudo_labels.evidence import Opinions
from tasks.pseudo_labels.panel import Offer, PoolInputs, Standing, ask_in_turn, choose_next, judge, measure_doubt
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.records import Outcome, Prediction, Sample, Split

LABELS = ("a", "b", "c")
SETTINGS = PseudoLabelSettings(target_precision=0.95)


class Panel:
    """Teachers with these accuracies: each is sure and right on about one half, and less sure of the others."""

    def __init__(self, accuracies: Sequence[float], labelled: int = 300, pool: int = 300) -> None:
        rng = np.random.default_rng(0)
        self.truth = {f"{n}": str(rng.choice(LABELS)) for n in range(labelled + pool)}
        self.answers = [{i: self.answer(i, accuracy, rng) for i in self.truth} for accuracy in accuracies]
        names = list(self.truth)
        known = [self.make(i, Split.LABELLED) for i in names[:labelled]]
        self.inputs = PoolInputs([self.make(i, Split.UNLABELLED) for i in names[labelled:]], known, {}, {})
        self.asked: list[tuple[int, Split, int]] = []

    def make(self, name: str, split: Split) -> Sample:
        given = self.truth[name] if split is Split.LABELLED else None
        return Sample(id=name, task="t", parts=(), labels=LABELS, given=given, split=split, source="s")

    def answer(self, name: str, accuracy: float, rng: np.random.Generator) -> Prediction:
        sure = rng.random() < 0.5
        right = rng.random() < (0.98 if sure else 2 * accuracy - 0.98)
        label = self.truth[name] if right else next(x for x in LABELS if x != self.truth[name])
        p = 0.9 if sure else 0.5
        shares = {x: p if x == label else (1 - p) / 2 for x in LABELS}
        return Prediction(
            sample_id=name, source="teacher", outcome=Outcome.OK, label=label, probabilities=shares, model="m"
        )

    def judge(self, there: Opinions, here: Opinions) -> Standing:
        return judge(self.inputs, there, here, SETTINGS, 0)

    def start(self) -> Standing:
        none: tuple[Mapping[str, Prediction], ...] = tuple({} for _ in self.answers)
        there, here = (
            Opinions(none).add_answers(0, {s.id: self.answers[0][s.id] for s in items})
            for items in (self.inputs.labelled, self.inputs.pool)
        )
        return self.judge(there, here)

    def ask(self, teacher: int, split: Split, items: Sequence[str]) -> dict[str, Prediction]:
        self.asked.append((teacher, split, len(items)))
        return {i: self.answers[teacher][i] for i in items}

    def run(self, waiting: Mapping[int, float], prices: Sequence[float]) -> tuple[Standing, list[int]]:
        """Return where it ends, and the teachers in the order in which they were asked about the pool."""
        found = ask_in_turn(self.start(), waiting, self.ask, prices.__getitem__, self.judge)
        return found, [teacher for teacher, split, _ in self.asked if split is Split.UNLABELLED]


def count_kept(standing: Standing) -> int:
    return sum(t.decision is PoolDecision.KEPT for t in standing.trust.items)


def test_a_strong_teacher_is_asked_only_about_what_is_uncertain_and_more_is_kept() -> None:
    panel = Panel([0.8, 0.97])
    before = count_kept(panel.start())
    after, order = panel.run({1: 1.0}, [1, 10])
    asked = sum(n for teacher, split, n in panel.asked if split is Split.UNLABELLED)
    assert order == [1] and asked == 300 - before < 200
    assert count_kept(after) > before + 60
    kept = [t for t in after.trust.items if t.decision is PoolDecision.KEPT]
    assert np.mean([t.label == panel.truth[t.sample_id] for t in kept]) >= 0.93
    assert any(t.label != panel.answers[0][t.sample_id].label for t in kept)  # it also overrules the first


def test_the_price_decides_between_teachers_that_tell_about_as_much() -> None:
    for prices, first in (([1, 1, 9], 1), ([1, 9, 1], 2)):
        assert Panel([0.8, 0.9, 0.91]).run({1: 1.0, 2: 1.0}, prices)[1][0] == first


def test_a_share_limits_what_a_teacher_is_asked() -> None:
    panel = Panel([0.8, 0.97])
    panel.run({1: 0.1}, [1, 1])
    assert [n for _, _, n in panel.asked] == [30, 30]


def test_nobody_is_asked_when_everything_is_trusted() -> None:
    panel = Panel([0.99, 0.97])
    after, order = panel.run({1: 1.0}, [1, 1])
    assert count_kept(after) == 300 and order == [] and panel.asked == []


def test_the_next_teacher_has_the_highest_gain_per_price() -> None:
    offers = [Offer(1, 0.2, 10), Offer(2, 0.1, 1), Offer(3, 0.05, 1)]
    assert choose_next(offers) == offers[1]
    assert choose_next([Offer(1, 0.2, 0), Offer(2, 0.3, 0)]) == Offer(2, 0.3, 0)
    assert choose_next([Offer(1, 0.1, 0), Offer(2, 0.3, 5)]) == Offer(1, 0.1, 0)  # one without a price is free
    assert choose_next([Offer(1, 0.0, 1), Offer(2, -0.1, 1)]) is None and choose_next([]) is None


def test_doubt_is_one_bit_at_even_odds() -> None:
    assert measure_doubt(np.array([0.0, 0.5, 1.0])) == pytest.approx([0, 1, 0])
