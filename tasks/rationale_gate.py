"""Which rationales to keep, and why not: cheap checks on the text itself."""

import re
from enum import StrEnum

from tasks.records import Sample

_LEAK = re.compile(r"(给定|已知|所给|正确)的?标签|根据标签|标签(是|为)|正确答案|the given label", re.IGNORECASE)
_MIN_CHARS = 4


class BadReason(StrEnum):
    """Why a rationale is refused."""

    TOO_SHORT = "reason_too_short"
    TOO_LONG = "reason_too_long"
    LEAKS_LABEL = "reason_says_the_label_was_given"
    NAMES_OTHER_LABEL = "reason_names_another_label"


def judge_reason(reason: str, sample: Sample, label: str, max_chars: int) -> BadReason | None:
    """What is wrong with `reason` as an explanation of `label`, or None when nothing is.

    Another label counts as named only where it stands whole and is no part of the right label or of the item's text.
    """
    if len(reason.strip()) < _MIN_CHARS:
        return BadReason.TOO_SHORT
    if len(reason) > max_chars:
        return BadReason.TOO_LONG
    if _LEAK.search(reason):
        return BadReason.LEAKS_LABEL
    said = "".join(p.text for p in sample.parts if p.type == "text")
    for other in sample.labels:
        if other != label and other in reason and other not in label and other not in said:
            return BadReason.NAMES_OTHER_LABEL
    return None
