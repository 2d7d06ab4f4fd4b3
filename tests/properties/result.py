"""What a reader made of a bad input, and whether it may: no crash, nothing lost without a word."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import LabelstillError


@dataclass
class Result:
    """How a reader ended with one input."""

    reasons: Counter[str] = field(default_factory=Counter[str])
    """`kept`, the reason codes of what was dropped, or the class of the error."""
    lost: list[str] = field(default_factory=list[str])
    """What vanished without a word, or an error that doesn't name its place."""

    def count(self, *reasons: str) -> "Result":
        """Note outcomes."""
        self.reasons.update(reasons)
        return self

    def require(self, holds: bool, what: str) -> "Result":
        """Note a loss unless `holds`."""
        if not holds:
            self.lost.append(what)
        return self

    def count_refusal(self, error: LabelstillError, *files: Path) -> "Result":
        """Note an error of ours, which must be short and name one of the files."""
        said = str(error)
        self.require(any(str(file) in said for file in files), f"names none of its files: {said}")
        self.require(0 < len(said.splitlines()) <= 2, f"more than two lines: {said}")
        return self.count(type(error).__name__)
