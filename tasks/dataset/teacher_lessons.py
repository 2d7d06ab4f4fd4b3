"""What students can learn from a teacher's answers beside its labels: probabilities, and pairs of reasons.

Nothing is asked for this: the teacher has labelled both sets without seeing their labels, with several votes per item.
"""

from collections.abc import Iterable

from tasks.prompts.prompter import Prompter
from tasks.rationales.gate import judge_reason
from tasks.records import USABLE, Example, Origin, Pair, Prediction, Sample


def add_lessons(example: Example, sample: Sample, answer: Prediction | None, prompter: Prompter) -> Example:
    """Return the example with what the teacher's `answer` about its item adds to it.

    A pseudo-labelled example without a reason gets the teacher's probability of each label. A label that a person gave
    or confirmed says more than these, and after a reason the label is no longer open.
    """
    if answer is None or answer.outcome not in USABLE or answer.sample_id != sample.id:
        return example
    soft = example.origin is Origin.PSEUDO and answer.label == example.label and not example.reason
    probabilities = answer.probabilities if soft else {}
    return example.model_copy(
        update={"probabilities": probabilities, "pairs": make_pairs(example, sample, answer, prompter)}
    )


def make_pairs(example: Example, sample: Sample, answer: Prediction, prompter: Prompter) -> tuple[Pair, ...]:
    """Pair the votes for the example's label with those for other labels; each vote is used once, and so is each text.

    The example's own reason counts as a vote for its label. Reasons that fail the gate are not used. In a pack whose
    reasons point at boxes there are no pairs, because votes have no boxes that are known to be right.
    """
    if prompter.pack.boxes:
        return ()
    votes = [(vote.label, vote.reason) for vote in answer.answers]
    right = {reason for label, reason in votes if label == example.label} | {example.reason}
    chosen = _choose_sound([*votes, (example.label, example.reason)], sample, prompter, wanted={example.label})
    others = {label for label, _ in votes} - {example.label}
    rejected = [v for v in _choose_sound(votes, sample, prompter, wanted=others) if v[1] not in right]
    return tuple(
        Pair(
            messages=prompter.training_turns(sample, label, reason),
            rejected=prompter.answer(wrong_label, wrong_reason),
        )
        for (label, reason), (wrong_label, wrong_reason) in zip(chosen, rejected, strict=False)
    )


def _choose_sound(
    votes: Iterable[tuple[str, str]], sample: Sample, prompter: Prompter, *, wanted: set[str]
) -> list[tuple[str, str]]:
    """Return the votes for a wanted label whose reason passes the gate for that label, each reason once."""
    found: dict[str, str] = {}
    for label, reason in votes:
        known = not reason or reason in found or label not in wanted
        if not known and judge_reason(reason, sample, label, prompter.pack) is None:
            found[reason] = label
    return [(label, reason) for reason, label in found.items()]
