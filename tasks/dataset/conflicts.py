"""Choose which duplicates with different labels a person reviews, and estimate how much an answer would help."""

from collections import Counter

from tasks.dataset.decisions import LeftOutReason
from tasks.dataset.merge_plan import Plan
from tasks.dataset.sources import Sources, qualify_id
from tasks.records import ReviewCase, Sample, Split
from tasks.review.queue import order_queue


def find_conflicts(plan: Plan, sources: Sources, most: int) -> list[ReviewCase]:
    """Return review cases for the items whose duplicates have other labels.

    At most `most` of the cases are unanswered. Cases that already have a valid verdict are included too, so that the
    verdict can be changed. Outdated verdicts are ignored. If a labelled and a pool item have the same id, the ids of
    their cases begin with the set, as in `labelled/7`.
    """
    shared = {identity for identity, count in Counter(plan.ids[: plan.own]).items() if count > 1}
    named = {i for i in range(plan.own) if plan.ids[i] in shared or plan.ids[i] in sources.verdicts}
    found = {place: sources.find_verdict(sample) for place, sample in sources.read_places(named)}
    judged = {place: verdict for place, verdict in found.items() if verdict is not None}
    conflicting = {place for place in range(plan.own) if plan.outcomes[place].reason is LeftOutReason.CONFLICTING}
    names = dict[int, str]()
    cases: list[ReviewCase] = []
    for place, sample in sources.read_places(judged.keys() | conflicting):
        names[place] = qualify_id(sample) if sample.id in shared else sample.id
        cases.append(_build_case(plan, sources, place, sample, names[place], place in judged))
    return order_queue(cases, most, kept={names[place] for place in judged})


def _build_case(plan: Plan, sources: Sources, place: int, sample: Sample, name: str, judged: bool) -> ReviewCase:
    decision = sources.decide(place, sample)
    pseudo = sources.pseudo.get(sample.id)
    taught = pseudo.label if pseudo is not None and sample.split is Split.UNLABELLED else None
    given = sample.given or taught or ""
    labels = plan.outcomes[place].labels
    others = [label for label in labels if label != given]
    return ReviewCase(
        sample_id=name,
        source=sample.source,
        parts=sample.parts,
        boxes=sample.boxes,
        labels=sample.labels,
        given=given,
        candidate=others[0] if others else None,
        reason=decision.reason,
        why="; ".join(filter(None, (decision.why, plan.detail(place)))),
        # One of the conflicting labels is right, and there is no evidence which.
        gain=0.0 if judged or not labels else 1 - 1 / len(labels),
    )
