"""Choose the items of the pool that a person is asked about."""

from collections.abc import Collection, Mapping, Sequence

from tasks.pseudo_labels.decide import PoolDecision, Trusted
from tasks.records import Prediction, ReviewCase, Sample
from tasks.review.queue import order_queue


def build_review_cases(
    samples: Sequence[Sample],
    items: Sequence[Trusted],
    teacher: Mapping[str, Prediction],
    students: Sequence[Mapping[str, Prediction]],
    budget: int,
    disagreed: Collection[str] = (),
) -> list[ReviewCase]:
    """Return review cases for at most `budget` untrusted items, those with a probability near 0.5 first.

    Items that have already been reviewed stay in the queue, so that their verdicts can be changed, and so do those on
    which reviewers disagree (`disagreed`, sample ids). The teacher's label is shown as the given label, and its second
    choice as the candidate.
    """
    by_id = {s.id: s for s in samples}
    answered = [i for i in items if i.sample_id in teacher]
    reviewed = (PoolDecision.REVIEWED, PoolDecision.REVIEWER_SAID_NEITHER)
    judged = {i.sample_id for i in answered if i.decision in reviewed or i.sample_id in disagreed}
    asked = (i for i in answered if i.decision is PoolDecision.NOT_TRUSTED or i.sample_id in judged)
    cases = (_build_case(by_id[i.sample_id], i, teacher[i.sample_id], students) for i in asked)
    return order_queue(cases, budget, kept=judged)


def _expect_gain(item: Trusted) -> float:
    p = item.expected or 0.0
    return min(p, 1 - p) if item.decision is PoolDecision.NOT_TRUSTED else 0.0


def _build_case(
    sample: Sample, item: Trusted, answer: Prediction, students: Sequence[Mapping[str, Prediction]]
) -> ReviewCase:
    label = answer.label or sample.labels[0]
    others = {other: p for other, p in answer.probabilities.items() if other != label}
    runs = [run[sample.id].probabilities for run in students if sample.id in run]
    return ReviewCase(
        sample_id=sample.id,
        source=sample.source,
        parts=sample.parts,
        boxes=sample.boxes,
        labels=sample.labels,
        given=label,
        candidate=max(others, key=lambda other: others[other]) if others else None,
        student={name: sum(p.get(name, 0.0) for p in runs) / len(runs) for name in sample.labels} if runs else {},
        teacher=dict(answer.probabilities),
        reason=answer.reason,
        why=f"the teacher's label, {item.why}",
        gain=_expect_gain(item),
    )
