"""How rationales are asked for, and which are kept."""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from tasks.records import Sampling
from tasks.settings import Settings

NEAR = 0.5
"""Jaccard index of two reasons' character bigrams from which on they are near-duplicates: a word of two characters in
13 differs, or two such words in 25: a template with other things in it. At 0.7 one in eight of planted ones got by."""

_RETRY_TEMPERATURE = 0.8
"""A greedy answer asked again would come out the same, where a pack's template does not show the complaint."""


class Support(StrEnum):
    """Whether a model is asked, blind, for the label after a reason, and what it sees beside it.

    The demo's generator tells right reasons from those of another class by P(label) with an area under ROC of 0.53
    beside the item, at which it looks instead, and 0.75 alone, though it was never asked so
    (tests/benchmarks/reasons.py). A question costs a prefill; alone, one without images.
    """

    NO = "no"
    WITH_ITEM = "with_item"
    REASON_ALONE = "reason_alone"


class RationaleSettings(Settings):
    """How rationales are asked for."""

    max_tokens: int = Field(default=96, ge=8, description="Longest answer, in tokens")
    temperature: float = Field(default=0.0, ge=0, description="0 is greedy")
    attempts: int = Field(
        default=2, ge=1, description="A refused reason is asked again, with the complaint and sampled, so often in all"
    )
    support: Support = Field(
        default=Support.NO, description="Ask, blind to it, for the label after each reason that passed all else"
    )
    alike: float = Field(
        default=NEAR, gt=0, le=1, description="From which share of common character pairs on two reasons are alike"
    )
    opening_share: float = Field(
        default=0.1, gt=0, le=1, description="At most this share of a class (half of it: of all) may begin alike"
    )
    without_reason: Literal["keep_item", "drop_item"] = Field(
        default="keep_item", description="Items without a good reason: taught with the label alone, or left out"
    )

    def sampling(self, attempt: int, seed: int) -> Sampling:
        """Return the sampling of the given attempt, counted from 0."""
        temperature = self.temperature if attempt == 0 else max(self.temperature, _RETRY_TEMPERATURE)
        return Sampling(temperature=temperature, max_tokens=self.max_tokens, seed=seed + attempt)
