"""The `rationales:` settings."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from tasks.models.engines.spec import EngineSpec
from tasks.settings import Settings

NEAR = 0.5
"""Two reasons are near-duplicates if the Jaccard index of their character bigrams is at least this. Such reasons differ
in one word of two characters in 13, or in two such words in 25. At 0.7, one in eight planted near-duplicates was
missed."""


class Support(StrEnum):
    """Whether a model is asked to which label a reason leads, and whether it also sees the item.

    The model never sees the given label. In the demo, the probability that it gives to this label separates right
    reasons from those of another class. The area under the ROC curve is 0.53 if the model sees the item, because it
    then judges the item instead, and 0.75 if it sees the reason alone (tests/benchmarks/reasons.py). A question costs
    one prefill; with the reason alone, one without images.
    """

    NO = "no"
    WITH_ITEM = "with_item"
    REASON_ALONE = "reason_alone"


class RationaleSettings(Settings):
    """How rationales are asked for, and which are kept."""

    support: Support = Support.NO
    """Whether the model is also asked which label each reason points to, without seeing the given label."""
    judge: EngineSpec | None = None
    """Model that scores each reason that passed the other checks, preferably not the generator; none by default.
    The pack needs a judge.jinja."""
    teach_thinking: bool = False
    """Train students on the teacher's thinking, shortened to a reason by `generator`; needs `thinking_tokens`."""
    alike: float = Field(default=NEAR, gt=0, le=1)
    """Two reasons count as too similar when they share at least this fraction of character pairs."""
    opening_share: SkipJsonSchema[float] = Field(default=0.1, gt=0, le=1)
    """Maximum share of a class's reasons that may begin alike; for the whole set, half this share."""
    without_reason: Literal["keep_item", "drop_item"] = "keep_item"
    """What to do with items without a good reason: keep them with the label alone, or drop them."""

    def check_engines(self, panel: Sequence[EngineSpec], generator: EngineSpec | None) -> None:
        """Raise ValueError if `teach_thinking` is set without a generator or without a teacher that thinks."""
        if self.teach_thinking and (generator is None or not any(spec.thinking_tokens for spec in panel)):
            raise ValueError(
                "`rationales.teach_thinking` needs a `generator` and a teacher that thinks: add `generator`, and "
                "`thinking_tokens` to the teacher"
            )
