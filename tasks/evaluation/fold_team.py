"""The run's fold students as one model: their adapters fused, or the mean of their probabilities."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FoldTeam:
    """The fold students of one repeat."""

    seed: int
    """The run's seed, plus the number of the repeat."""
    folders: tuple[Path, ...]
    """The folder of each student."""
    fused: Path
    """The folder of their fused adapter."""
