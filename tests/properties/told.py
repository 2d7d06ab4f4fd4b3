"""What a room made of a bad input, and whether it may: no crash, nothing lost without a word."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tasks.errors import LabelstillError


@dataclass
class Told:
    """How a room ended with one input."""

    reasons: Counter[str] = field(default_factory=Counter[str])
    """`kept`, the reason codes of what was dropped, or the class of the error."""
    lost: list[str] = field(default_factory=list[str])
    """What vanished without a word, or an error that doesn't name its place."""

    def count(self, *reasons: str) -> "Told":
        """Note outcomes."""
        self.reasons.update(reasons)
        return self

    def must(self, holds: bool, what: str) -> "Told":
        """Note a loss unless `holds`."""
        if not holds:
            self.lost.append(what)
        return self

    def refused(self, error: LabelstillError, *files: Path) -> "Told":
        """Note an error of ours, which must be short and name one of the files."""
        said = str(error)
        self.must(any(str(file) in said for file in files), f"names none of its files: {said}")
        self.must(0 < len(said.splitlines()) <= 2, f"more than two lines: {said}")
        return self.count(type(error).__name__)


def together(tolds: Iterable[Told]) -> Told:
    """All of them added up."""
    total = Told()
    for told in tolds:
        total.reasons.update(told.reasons)
        total.lost += told.lost
    return total
