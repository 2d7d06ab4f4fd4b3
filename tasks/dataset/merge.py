"""Labelled items, pool and mix merged into one training set: review > correction > given > pseudo, nothing twice."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from tasks.dataset.decisions import Decision, Reason, pseudo_decision
from tasks.dataset.merge_plan import Plan, Rules, Sources, plan_merge
from tasks.items.image_hashes import Looks
from tasks.prompts.prompter import Prompter
from tasks.records import Correction, Dropped, Example, Prediction, ReviewCase, Sample, Subset
from tasks.review.queue import order_queue

STAGE = "emit"


def merge(
    labelled: Sequence[Sample],
    pool: Sequence[Sample],
    corrections: Mapping[str, Correction],
    pseudo: Mapping[str, Prediction],
    reasons: Mapping[str, str],
    prompter: Prompter,
    *,
    waiting: Literal["keep", "drop"] = "keep",
) -> tuple[list[Example], list[Dropped]]:
    """Merge a set that fits in memory; kept and dropped together are `labelled` + `pool`, each in this order.

    `corrections` and `reasons` (rationales of the *given* label) go by labelled id, `pseudo` (the kept pseudo-labels)
    by pool id. Any of them may be empty when its stage was left out. What becomes of equal and of nearly equal items is
    `decisions.fates`' to say. `waiting` says what becomes of items that still wait for review: taught with the given
    label, or dropped.
    """
    decided = {identity: pseudo_decision(prediction) for identity, prediction in pseudo.items()}
    sources = Sources(labelled, pool, corrections=corrections, pseudo=decided, reasons=reasons)
    rules = Rules(waiting=waiting)
    plan = plan_merge(sources, rules, Looks())
    return list(examples(plan, sources, rules, prompter)), list(drops(plan, sources))


def examples(plan: Plan, sources: Sources, rules: Rules, prompter: Prompter) -> Iterator[Example]:
    """The examples, one by one, in the order of their items; those of the mix last."""
    everything = zip(sources.decided(rules.waiting), plan.fates, plan.validation.tolist(), strict=True)
    for place, ((sample, decision), fate, held_out) in enumerate(everything):
        if place == plan.own:
            break
        if fate.reason is None:
            yield _example(sample, decision, prompter, Subset.VALIDATION if held_out else Subset.TRAIN)
    fates = iter(plan.fates[plan.own :])
    for row in sources.mix[: plan.mixed]:
        if row.example is not None and next(fates).reason is None:
            yield row.example


def drops(plan: Plan, sources: Sources) -> Iterator[Dropped]:
    """The items that are left out, and why, in order; those of the mix last."""
    for place in range(plan.own):
        yield from _dropped(plan, place)
    place = plan.own
    for row in sources.mix[: plan.mixed]:
        if row.example is None:
            yield Dropped(sample_id=row.id, stage=STAGE, reason=row.reason, detail=row.detail)
        else:
            yield from _dropped(plan, place)
            place += 1


def input_ids(plan: Plan, sources: Sources) -> list[str]:
    """The ids of all items that are kept or dropped."""
    return [*plan.ids[: plan.own], *(row.id for row in sources.mix[: plan.mixed])]


def conflicts(plan: Plan, sources: Sources, rules: Rules, most: int) -> list[ReviewCase]:
    """Return the questions to a person about items that conflict with others like them, `most` at a time.

    Those they have judged stay among them, so that a verdict can be taken back; one that no longer holds doesn't count.
    """
    said = {place for place in range(plan.own) if plan.ids[place] in sources.verdicts}
    judged = {place for place, sample in sources.at(said) if sources.verdict(sample) is not None}
    torn = {place for place in range(plan.own) if plan.fates[place].reason is Reason.CONFLICTING}
    labelled = len(sources.labelled)

    def case(place: int, sample: Sample) -> ReviewCase:
        decision = sources.of_labelled(sample, rules.waiting) if place < labelled else sources.of_pool(sample)
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
            why="; ".join(filter(None, (decision.why, _detail(plan, place)))),
            # one of the labels in conflict is right, and nothing says which
            gain=0.0 if place in judged or not labels else 1 - 1 / len(labels),
        )

    cases = (case(place, sample) for place, sample in sources.at(judged | torn))
    return order_queue(cases, most, kept={plan.ids[place] for place in judged})


def _example(sample: Sample, decision: Decision, prompter: Prompter, subset: Subset) -> Example:
    assert decision.label is not None
    return Example(
        sample_id=sample.id,
        messages=prompter.training_turns(sample, decision.label, decision.reason),
        images=sample.images,
        label=decision.label,
        reason=decision.reason,
        origin=decision.origin,
        why=decision.why,
        source=sample.source,
        task=sample.task,
        subset=subset,
    )


def _dropped(plan: Plan, place: int) -> Iterator[Dropped]:
    reason = plan.fates[place].reason
    if reason is not None:
        yield Dropped(sample_id=plan.ids[place], stage=STAGE, reason=reason, detail=_detail(plan, place))


def _detail(plan: Plan, place: int) -> str:
    fate = plan.fates[place]
    if fate.other is None:
        return "shows a picture of the evaluation split" if fate.reason is Reason.CONTAMINATES else ""
    other = plan.ids[fate.other]
    match fate.reason:
        case Reason.CONTAMINATES:
            return f"is, or is nearly, evaluation item {other}"
        case Reason.DUPLICATE:
            return f"same content as {other}"
        case Reason.OVERRULED:
            return f"the label of {other}, equal or nearly so, has the stronger origin"
        case Reason.CONFLICTING:
            return f"items equal or nearly so, such as {other}, have labels {list(fate.labels)}"
        case _:
            return f"nearly the same as {other}"
