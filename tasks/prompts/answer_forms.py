"""A pack's answer template cut at its values, for engines that let the model fill in only these."""

from dataclasses import dataclass

from tasks.errors import PackError

# Private-use characters stand for the two values while an answer template is cut around them.
REASON, LABEL = "\ue000", "\ue001"


@dataclass(frozen=True)
class AnswerForm:
    """The answer template cut at its values (see `records.LabelAnswer`)."""

    opening: str
    between: str | None
    closing: str


def cut_answer(text: str, file: str) -> AnswerForm:
    """Cut an answer with a reason, written for REASON and LABEL; raises PackError if the label comes first."""
    opening, found_reason, rest = text.partition(REASON)
    between, found_label, closing = rest.partition(LABEL)
    if not (found_reason and found_label) or REASON in rest or LABEL in closing:
        raise PackError(
            f"{file}: must write `reason | json_string` once and after it `label | json_string` once (reason before "
            "label)"
        )
    return AnswerForm(opening, between, closing)


def cut_bare_answer(text: str, file: str) -> AnswerForm:
    """Cut an answer without a reason, written for LABEL."""
    opening, found, closing = text.partition(LABEL)
    if not found or LABEL in closing:
        raise PackError(f"{file}: must write `label | json_string` once when reason is empty")
    return AnswerForm(opening, None, closing)
