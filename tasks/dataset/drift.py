"""Measure how much a new version differs from the published one, and decide whether to publish it.

``<output>/relabel.json`` stores the result of the last re-labelling.
"""

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tasks.dataset.diff import Change, ChangeCounts, ChangeKind, compare_snapshots
from tasks.dataset.settings import ApprovalSettings, DriftSettings
from tasks.dataset.versions import Snapshot
from tasks.errors import ManifestError
from tasks.records import Record
from tasks.storage.files import write_bytes

SHOWN = 50
"""Number of relabelled items shown in the approval form; `labelstill diff` shows all."""


@dataclass(frozen=True)
class Drift:
    """Differences between two versions. Made by `measure_drift`; read by flows/relabel.py and shown to people."""

    before: int
    """Number of examples in the earlier version."""
    after: int
    added: int
    removed: int
    relabelled: int
    balance: float
    """Total variation distance between the two label distributions, from 0 to 1: the share of examples that would need
    another label to restore the old distribution (Levin and Peres, "Markov Chains and Mixing Times", chapter 4)."""
    confidence: float | None
    """Change in the pseudo-labels' mean expected precision; None if it is unknown for either version."""
    changed: tuple[Change, ...]
    """The first relabelled items, at most `SHOWN`."""

    def list_exceeded(self, limits: DriftSettings) -> tuple[str, ...]:
        """Return a text for each exceeded limit; empty for the first version, which has no predecessor."""
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

    def list_relabelled(self) -> list[tuple[str, str, str, str]]:
        """Return (item id, label before, label now, why) for each of the first relabelled items."""
        return [(c.id, c.before.label, c.after.label, c.after.why) for c in self.changed if c.before and c.after]

    def tabulate(self) -> list[tuple[str, str]]:
        """Return (name, value) pairs for a table."""
        confidence = "unknown" if self.confidence is None else f"{self.confidence:+.3f}"
        return [
            ("examples before", f"{self.before:,}"), ("examples now", f"{self.after:,}"), ("added", f"{self.added:,}"),
            ("removed", f"{self.removed:,}"), ("relabelled", f"{self.relabelled:,}"),
            ("class balance moved", f"{100 * self.balance:.1f} %"), ("change of mean expected precision", confidence),
        ]  # fmt: skip


def measure_drift(before: Snapshot | None, after: Snapshot, confidence: tuple[float | None, float | None]) -> Drift:
    """Compare `after` with `before` (None for the first version).

    `confidence` contains the pseudo-labels' mean expected precision in `before` and in `after`; None if unknown.
    """
    if before is None:
        return Drift(0, after.rows, after.rows, 0, 0, 0.0, None, ())
    counts, changed = ChangeCounts(), list[Change]()
    for change in compare_snapshots(before, after):
        counts.add(change)
        if ChangeKind.RELABELLED in change.kinds and len(changed) < SHOWN:
            changed.append(change)
    then, now = confidence
    return Drift(
        before=before.rows,
        after=after.rows,
        added=counts.kinds[ChangeKind.ADDED],
        removed=counts.kinds[ChangeKind.REMOVED],
        relabelled=counts.kinds[ChangeKind.RELABELLED],
        balance=float(_find_shares(before).sub(_find_shares(after), fill_value=0).abs().sum()) / 2,
        confidence=None if then is None or now is None else now - then,
        changed=tuple(changed),
    )


def _find_shares(side: Snapshot) -> Any:
    """Return the share of each label among the examples that have one, as a pandas series."""
    labels = side.table.column("label").cast("string").to_pandas()
    return labels[labels != ""].value_counts(normalize=True)


# --- publishing ----------------------------------------------------------------------------------------------


class Release(StrEnum):
    """What to do with a new version."""

    PUBLISH = "publish"
    ASK = "ask"
    """Pause until a person decides."""
    HOLD_BACK = "hold back"


def judge_release(
    drift: Drift, settings: DriftSettings, approval: ApprovalSettings, *, approved: bool
) -> tuple[Release, tuple[str, ...]]:
    """Return what to do with the new version, and the objections to it as texts for people.

    An empty set is never published. With `approved`, any other set is published: a person has already approved this
    version, but the run was interrupted before publishing it.
    """
    if not drift.after:
        return Release.HOLD_BACK, (NOTHING_LEFT,)
    against = drift.list_exceeded(settings)
    if approved:
        return Release.PUBLISH, against
    if approval.ask == "always" or (against and approval.ask == "drift"):
        return Release.ASK, against
    return Release.HOLD_BACK if against else Release.PUBLISH, against


FILE = "relabel.json"
NOTHING_LEFT = "nothing is left to train on"


class RelabelOutcome(StrEnum):
    """How a re-labelling ended."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    """No input has changed since the last re-labelling, so nothing was done."""
    HELD_BACK = "held back"
    """The new set was not exported: it differs too much, it is empty, or nobody approved it."""
    BUDGET_SPENT = "budget spent"


class HeldBack(Record):
    """The version in `output`/candidate that a person may look at and publish."""

    version: str
    """Digest of the version."""
    confidence: float | None
    """Mean expected precision of its pseudo-labels."""
    taken_back: bool = False
    """A person went back from this version to the one before, so it is not published again without a person."""


class RelabelState(Record):
    """The result of a re-labelling. Written by flows/relabel.py after each run that did something; read by the next."""

    watched: str
    """Digest of all inputs when the run began; empty if the next run must not skip its work."""
    outcome: RelabelOutcome
    why: tuple[str, ...] = ()
    """Explanations for people."""
    version: str | None = None
    """Digest of the published version."""
    held: HeldBack | None = None
    """The version that is held back, if there is one."""
    approved: str = ""
    """The value of `watched` that a person approved. If publishing was interrupted, the next run does not ask again."""
    confidence: float | None = None
    """Mean expected precision of the pseudo-labels in the published version."""
    at: float = Field(default_factory=time.time)
    """Seconds since 1970."""


def read_state(output: Path) -> RelabelState | None:
    """Return the stored state, or None before the first re-labelling. Raises ManifestError if the file is invalid."""
    path = output / FILE
    try:
        return RelabelState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ManifestError(
            f"{path}: not a valid re-labelling state; delete the file, and the next run will check everything again"
        ) from error


def write_state(output: Path, state: RelabelState) -> RelabelState:
    """Write the state atomically and return it."""
    write_bytes(output / FILE, state.model_dump_json(indent=2).encode())
    return state
