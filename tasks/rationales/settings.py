"""How rationales are asked for, and which are kept."""

from typing import Literal

from pydantic import Field

from tasks.rationales.diversity import NEAR, Crowds
from tasks.rationales.reasoner import Support
from tasks.settings import Settings


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

    def crowds(self) -> Crowds:
        """What is too alike, for the gate."""
        return Crowds(near=self.alike, opening_share=self.opening_share)
