"""Which duplicates with different labels a person is asked about, and how much an answer would help."""

from tasks.dataset.decisions import Reason
from tasks.dataset.merge_plan import Plan
from tasks.dataset.sources import Sources
from tasks.records import ReviewCase, Sample
from tasks.review.queue import order_queue


def find_conflicts(plan: Plan, sources: Sources, most: int) -> tuple[list[ReviewCase], dict[str, str]]:
    """Return the questions about items that conflict with others like them, `most` unanswered ones, and the answers.

    Those that a person has judged stay among them, so that a verdict can be taken back; a verdict that no longer holds
    doesn't count.
    """
    named = {place for place in range(plan.own) if plan.ids[place] in sources.verdicts}
    judged = {place: verdict for place, s in sources.at(named) if (verdict := sources.verdict(s)) is not None}
    torn = {place for place in range(plan.own) if plan.fates[place].reason is Reason.CONFLICTING}
    verdicts = {plan.ids[place]: verdict for place, verdict in judged.items()}
    cases = (_case(plan, sources, place, sample, place in judged) for place, sample in sources.at(judged.keys() | torn))
    return order_queue(cases, most, kept=verdicts), verdicts


def _case(plan: Plan, sources: Sources, place: int, sample: Sample, judged: bool) -> ReviewCase:
    decision = sources.decide(place, sample)
    pseudo = sources.pseudo.get(sample.id)
    given = sample.given or (pseudo.label if pseudo is not None else None) or ""
    labels = plan.fates[place].labels
    others = [label for label in labels if label != given]
    return ReviewCase(
        sample_id=sample.id,
        source=sample.source,
        parts=sample.parts,
        labels=sample.labels,
        given=given,
        candidate=others[0] if others else None,
        reason=decision.reason,
        why="; ".join(filter(None, (decision.why, plan.detail(place)))),
        # One of the labels in conflict is right, and nothing says which.
        gain=0.0 if judged or not labels else 1 - 1 / len(labels),
    )
