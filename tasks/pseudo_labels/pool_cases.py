"""Questions to a person about pseudo-labels that are not trusted."""

from collections.abc import Mapping, Sequence

from tasks.pseudo_labels.decide import PoolDecision, Trusted
from tasks.records import Prediction, ReviewCase, Sample


def build_review_cases(
    samples: Sequence[Sample],
    items: Sequence[Trusted],
    teacher: Mapping[str, Prediction],
    students: Sequence[Mapping[str, Prediction]],
    budget: int,
) -> list[ReviewCase]:
    """At most `budget` of the untrusted, those nearest to even odds first: there an answer tells most.

    What was asked and judged before stays in the queue, so that its verdicts can be changed. The teacher's label stands
    as the given one, its second as the candidate.
    """
    by_id = {s.id: s for s in samples}
    judged = [i for i in items if i.decision in (PoolDecision.REVIEWED, PoolDecision.REVIEWER_SAID_NEITHER)]
    open_ = [i for i in items if i.decision is PoolDecision.NOT_TRUSTED]
    open_.sort(key=lambda i: (-_gain(i), i.sample_id))
    chosen = [*open_[:budget], *judged]
    return [_case(by_id[i.sample_id], i, teacher[i.sample_id], students) for i in chosen if i.sample_id in teacher]


def _gain(item: Trusted) -> float:
    p = item.expected or 0.0
    return 1 - p if p >= 0.5 else p


def _case(sample: Sample, item: Trusted, said: Prediction, students: Sequence[Mapping[str, Prediction]]) -> ReviewCase:
    label = said.label or sample.labels[0]
    others = {other: p for other, p in said.probabilities.items() if other != label}
    told = [run[sample.id].probabilities for run in students if sample.id in run]
    return ReviewCase(
        sample_id=sample.id,
        parts=sample.parts,
        labels=sample.labels,
        given=label,
        candidate=max(others, key=lambda other: others[other]) if others else None,
        student={name: sum(p.get(name, 0.0) for p in told) / len(told) for name in sample.labels} if told else {},
        teacher=dict(said.probabilities),
        reason=said.reason,
        why=f"the teacher's label, {item.why}",
        gain=_gain(item) if item.decision is PoolDecision.NOT_TRUSTED else 0.0,
    )
