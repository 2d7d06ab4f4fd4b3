"""The `rationales:` settings."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tasks.records import Sampling
from tasks.settings import Settings

NEAR = 0.5
"""Jaccard index of two reasons' character bigrams from which they are near-duplicates: they differ in one word of two
characters in 13, or in two such words in 25. At 0.7, one in eight planted near-duplicates was missed."""

_RETRY_TEMPERATURE = 0.8
"""Greedy decoding would give the same answer again if the pack's template does not show the complaint."""


class Support(StrEnum):
    """Whether a model is asked, without seeing the given label, for the label after a reason, and what else it sees.

    The demo's generator separates right reasons from those of another class by P(label) with an area under the ROC
    curve of 0.53 when it sees the item, at which it looks instead, and of 0.75 when it sees the reason alone
    (tests/benchmarks/reasons.py). A question costs one prefill; with the reason alone, one without images.
    """

    NO = "no"
    WITH_ITEM = "with_item"
    REASON_ALONE = "reason_alone"


class RationaleSettings(Settings):
    """How rationales are asked for, and which are kept."""

    max_tokens: int = Field(default=96, ge=8)
    """Maximum tokens of an answer."""
    temperature: float = Field(default=0.0, ge=0)
    """Sampling temperature of the first attempt; 0 is greedy."""
    attempts: int = Field(default=2, ge=1)
    """Maximum attempts per item; a refused reason is asked again with a complaint."""
    support: Support = Support.NO
    """Ask a model for the label after each reason, without showing the given label."""
    alike: float = Field(default=NEAR, gt=0, le=1)
    """Share of common character pairs from which two reasons are too similar."""
    opening_share: float = Field(default=0.1, gt=0, le=1)
    """Maximum share of a class whose reasons begin alike; half for the whole set."""
    without_reason: Literal["keep_item", "drop_item"] = "keep_item"
    """Items without a good reason: keep them with the label alone, or drop them."""

    def sampling(self, attempt: int, seed: int) -> Sampling:
        """Return the sampling of the given attempt, counted from 0."""
        temperature = self.temperature if attempt == 0 else max(self.temperature, _RETRY_TEMPERATURE)
        return Sampling(temperature=temperature, max_tokens=self.max_tokens, seed=seed + attempt)
