"""Have several teachers label the pool: choose who is asked next about uncertain items, and join the answers.

The next teacher is the one that adds the most information per price, measured on labelled items that are as uncertain
as those of the pool.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import entr

from tasks.pseudo_labels.calibration_targets import ENOUGH, Checked, build_targets, find_checked
from tasks.pseudo_labels.decide import Trust, decide, list_calibration_items, list_untrusted
from tasks.pseudo_labels.evidence import Evidence, Opinions
from tasks.pseudo_labels.joint_label import fit_weights, join_all
from tasks.pseudo_labels.settings import PseudoLabelSettings
from tasks.pseudo_labels.trust import TrustModel, Values, fit_trust
from tasks.records import Correction, Prediction, Sample, Split

AskTeacher = Callable[[int, Split, Sequence[str]], Mapping[str, Prediction]]
"""Asks a teacher (its place in the configuration) about items of one set (their ids), the most important first."""


@dataclass(frozen=True)
class PoolInputs:
    """What the stage pseudo_labels starts from. Made by the flow; read by `judge`."""

    pool: list[Sample]
    labelled: list[Sample]
    corrections: dict[str, Correction]
    verdicts: dict[str, str]
    """People's verdicts on items of the pool, keyed by item id."""
    disagreed: tuple[str, ...] = ()
    """Ids of pool items on which people disagree."""


@dataclass(frozen=True)
class Standing:
    """The opinions so far and what follows from them. Made by `judge`."""

    there: Opinions
    """The opinions about the labelled set."""
    here: Opinions
    """The opinions about the pool."""
    answers_there: dict[str, Prediction]
    """The teachers' joint answers about the labelled set, keyed by sample id."""
    answers_here: dict[str, Prediction]
    model: TrustModel | None
    """None if too few items have known labels. Then the teachers' own probabilities are used."""
    trust: Trust


@dataclass(frozen=True)
class Offer:
    """What asking a teacher about an uncertain item is expected to bring, and what it costs."""

    teacher: int
    """Its place in the configuration."""
    gain: float
    """Bits of uncertainty about whether the label is correct that its answer removes, on average."""
    price: float
    """Price per answer; 0 if it has none."""


def judge(
    inputs: PoolInputs,
    there: Opinions,
    here: Opinions,
    settings: PseudoLabelSettings,
    seed: int,
    *,
    by_rule: bool = False,
) -> Standing:
    """Join the teachers' answers, fit the trust model on the items with checked labels, and decide about the pool.

    `by_rule` says that the first teacher is a scripted rule, which is not trusted at all.
    """
    known = [Checked(s, there.teachers[0][s.id], Evidence(), inputs.corrections.get(s.id)) for s in inputs.labelled]
    weights = fit_weights(known, there.teachers)
    answers_there, answers_here = join_all(there.teachers, weights), join_all(here.teachers, weights)
    found = here.collect_evidence(answers_here)
    evidence = there.collect_evidence(answers_there)
    items = find_checked(inputs.labelled, answers_there, evidence, inputs.corrections, {})
    items += find_checked(inputs.pool, answers_here, found, {}, inputs.verdicts)
    model = None if by_rule or len(items) < ENOUGH else fit_trust(build_targets(items), seed)
    predictions = [answers_here[s.id] for s in inputs.pool]
    trust = decide(predictions, found, model, settings, inputs.verdicts, seed, by_rule=by_rule)
    return Standing(there, here, answers_there, answers_here, model, trust)


def ask_in_turn(
    first: Standing,
    waiting: Mapping[int, float],
    ask: AskTeacher,
    find_price: Callable[[int], float],
    judge_again: Callable[[Opinions, Opinions], Standing],
) -> Standing:
    """Ask one teacher after another about the items that are not trusted yet; return what follows from all answers.

    `waiting` maps each teacher to the share of a set that it may be asked about. Before each turn, every waiting
    teacher is asked about the uncertain labelled items, which its answers are calibrated on; the one that is expected
    to tell most for its price is asked about the pool. It ends when all is trusted or nobody is expected to help.
    """
    standing, left, there = first, dict(waiting), first.there
    while left and (untrusted := list_untrusted(standing.trust)):
        alike = list_calibration_items(standing.trust, standing.model, standing.answers_there, _find_evidence(standing))
        offers: list[Offer] = []
        for teacher, share in left.items():
            pilot = alike[: int(share * len(standing.answers_there))]
            new = [i for i in pilot if i not in there.teachers[teacher]]
            there = there.add_answers(teacher, ask(teacher, Split.LABELLED, new))
            gain = _measure_gain(standing, teacher, there, pilot, judge_again)
            offers.append(Offer(teacher, gain, find_price(teacher)))
        best = choose_next(offers)
        if best is None:
            break
        share = left.pop(best.teacher)
        doubt = measure_doubt(np.array(list(untrusted.values())))
        order = [list(untrusted)[i] for i in np.argsort(-doubt, kind="stable")]
        asked = order[: int(share * len(standing.answers_here))]
        here = standing.here.add_answers(best.teacher, ask(best.teacher, Split.UNLABELLED, asked))
        told = standing.there.add_answers(best.teacher, there.teachers[best.teacher])
        standing = judge_again(told, here)
    return standing


def choose_next(offers: Sequence[Offer]) -> Offer | None:
    """Return the offer with the highest gain per price, or None if no teacher is expected to tell anything.

    If only some have a price, the others count as free. Of equal offers the first is returned.
    """
    useful = [offer for offer in offers if offer.gain > 0]
    priced = any(offer.price > 0 for offer in useful)
    return max(useful, key=lambda o: o.gain / max(o.price, 1e-12) if priced else o.gain, default=None)


def measure_doubt(expected: Values) -> Values:
    """Return the uncertainty [N], in bits, about labels that are correct with the probabilities `expected`."""
    return (entr(expected) + entr(1 - expected)) / np.log(2)


def _find_evidence(standing: Standing) -> dict[str, Evidence]:
    return standing.there.collect_evidence(standing.answers_there)


def _measure_gain(
    before: Standing,
    teacher: int,
    there: Opinions,
    pilot: Sequence[str],
    judge_again: Callable[[Opinions, Opinions], Standing],
) -> float:
    """Return the mean doubt about the labels of `pilot` that the teacher's answers remove; 1 without a trust model."""
    if before.model is None or not pilot:
        return 1.0
    told = before.there.add_answers(teacher, there.teachers[teacher])
    after = judge_again(told, before.here)
    doubts = [_expect(standing, pilot) for standing in (before, after)]
    return float(np.mean(measure_doubt(doubts[0])) - np.mean(measure_doubt(doubts[1])))


def _expect(standing: Standing, items: Sequence[str]) -> Values:
    evidence = _find_evidence(standing)
    assert standing.model is not None
    known = [i for i in items if i in evidence]
    return standing.model.expect_precision(
        [evidence[i] for i in known], [standing.answers_there[i].label or "" for i in known]
    )
