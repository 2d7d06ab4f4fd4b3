# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (pyarrow publishes no types)
"""How far a set has moved from the version before it, and whether that is too far to be published unseen."""

from dataclasses import dataclass

import pyarrow.compute as pc

from tasks.dataset.diff import Change, Kind, Tally, differences
from tasks.dataset.snapshots import Snapshot

SHOWN = 50
"""Relabelled items that a person is shown in a form; the diff has them all."""


@dataclass(frozen=True)
class Limits:
    """The most that a set may move unseen, each as a share from 0 to 1."""

    relabelled: float = 0.05
    removed: float = 0.1
    balance: float = 0.1
    confidence: float = 0.05


@dataclass(frozen=True)
class Drift:
    """What differs between two versions. Made by `drift_between`; read by flows/relabel.py and people."""

    before: int
    """Examples of the earlier version."""
    after: int
    added: int
    removed: int
    relabelled: int
    balance: float
    """Total variation distance of the two distributions of labels, 0 to 1: the share of a set that would have to change
    its label for the balance to be as it was (Levin and Peres, "Markov Chains and Mixing Times", chapter 4)."""
    confidence: float | None
    """Mean expected precision of the pool's labels, now minus then; None where one of them is unknown."""
    changed: tuple[Change, ...]
    """The first relabelled items."""

    def beyond(self, limits: Limits) -> tuple[str, ...]:
        """A sentence for each limit that is passed; none for the first version, which has nothing before it."""
        if not self.before:
            return ()
        common = self.before - self.removed
        shares = (
            ("labels changed", self.relabelled / common if common else 0.0, limits.relabelled),
            ("items gone", self.removed / self.before, limits.removed),
            ("class balance moved", self.balance, limits.balance),
            ("mean expected precision fell", -(self.confidence or 0.0), limits.confidence),
        )
        return tuple(
            f"{what}: {100 * share:.1f} % (limit {100 * most:g} %)" for what, share, most in shares if share > most
        )

    def rows(self) -> list[tuple[str, str]]:
        """What a table shows."""
        confidence = "unknown" if self.confidence is None else f"{self.confidence:+.3f}"
        return [
            ("examples before", f"{self.before:,}"), ("examples now", f"{self.after:,}"), ("added", f"{self.added:,}"),
            ("removed", f"{self.removed:,}"), ("relabelled", f"{self.relabelled:,}"),
            ("class balance moved", f"{100 * self.balance:.1f} %"), ("change of mean expected precision", confidence),
        ]  # fmt: skip


def drift_between(before: Snapshot | None, after: Snapshot, confidence: tuple[float | None, float | None]) -> Drift:
    """How far `after` is from `before` (None: there is none); `confidence` is the mean expected precision of both."""
    if before is None:
        return Drift(0, after.rows, after.rows, 0, 0, 0.0, None, ())
    tally, changed = Tally(), list[Change]()
    for change in differences(before, after):
        tally.add(change)
        if Kind.RELABELLED in change.kinds and len(changed) < SHOWN:
            changed.append(change)
    then, now = confidence
    return Drift(
        before=before.rows,
        after=after.rows,
        added=tally.kinds[Kind.ADDED],
        removed=tally.kinds[Kind.REMOVED],
        relabelled=tally.kinds[Kind.RELABELLED],
        balance=_distance(_shares(before), _shares(after)),
        confidence=None if then is None or now is None else now - then,
        changed=tuple(changed),
    )


def _shares(side: Snapshot) -> dict[str, float]:
    """The share of each label among examples that have one."""
    counts = {c["values"]: c["counts"] for c in pc.value_counts(side.table.column("label").cast("string")).to_pylist()}
    counts.pop("", None)
    total = sum(counts.values())
    return {label: n / total for label, n in counts.items()}


def _distance(a: dict[str, float], b: dict[str, float]) -> float:
    return sum(abs(a.get(label, 0.0) - b.get(label, 0.0)) for label in a.keys() | b.keys()) / 2
