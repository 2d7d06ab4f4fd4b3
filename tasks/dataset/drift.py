# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportAttributeAccessIssue=false
# (pyarrow publishes no types)
"""How far a new version has moved from the published one, and whether it is published, held back, or asked about.

What the last re-labelling saw and did stands in ``<output>/relabel.json``.
"""

import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from tasks.dataset.diff import Change, Kind, Tally, differences
from tasks.dataset.settings import ApprovalSettings, DriftSettings
from tasks.dataset.versions import Snapshot
from tasks.errors import ManifestError
from tasks.records import Record
from tasks.storage.files import write_bytes

SHOWN = 50
"""Relabelled items that a person is shown in a form; the diff has them all."""


@dataclass(frozen=True)
class Drift:
    """What differs between two versions. Made by `measure_drift`; read by flows/relabel.py and people."""

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

    def beyond(self, limits: DriftSettings) -> tuple[str, ...]:
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

    def relabellings(self) -> list[tuple[str, str, str, str]]:
        """Return (item, label before, label now, why) of the first relabelled items."""
        return [(c.id, c.before.label, c.after.label, c.after.why) for c in self.changed if c.before and c.after]

    def rows(self) -> list[tuple[str, str]]:
        """What a table shows."""
        confidence = "unknown" if self.confidence is None else f"{self.confidence:+.3f}"
        return [
            ("examples before", f"{self.before:,}"), ("examples now", f"{self.after:,}"), ("added", f"{self.added:,}"),
            ("removed", f"{self.removed:,}"), ("relabelled", f"{self.relabelled:,}"),
            ("class balance moved", f"{100 * self.balance:.1f} %"), ("change of mean expected precision", confidence),
        ]  # fmt: skip


def measure_drift(before: Snapshot | None, after: Snapshot, confidence: tuple[float | None, float | None]) -> Drift:
    """Return how far `after` is from `before`, if there is one; `confidence` is the mean expected precision of both."""
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
    """What becomes of a new version."""

    PUBLISH = "publish"
    ASK = "ask"
    """A person decides."""
    HOLD_BACK = "hold back"


def judge_release(
    drift: Drift, settings: DriftSettings, approval: ApprovalSettings, *, publish: bool, approved: bool
) -> tuple[Release, tuple[str, ...]]:
    """Return whether the new version is published, and what stands against it, in sentences for people.

    An empty set is never published. `publish` releases any other; so does `approved`: a person has already said yes to
    this very version, and the run that was to publish it was broken off.
    """
    if not drift.after:
        return Release.HOLD_BACK, ("nothing is left to train on",)
    against = drift.beyond(settings)
    if publish or approved:
        return Release.PUBLISH, against
    if approval.ask == "always" or (against and approval.ask == "drift"):
        return Release.ASK, against
    return Release.HOLD_BACK if against else Release.PUBLISH, against


FILE = "relabel.json"


class RelabelOutcome(StrEnum):
    """How a re-labelling ended."""

    PUBLISHED = "published"
    UNCHANGED = "unchanged"
    """Nothing that decides the set has changed since the last one; nothing was done."""
    HELD_BACK = "held back"
    """The new set is not written for trainers: it moved too far, nothing is left of it, or a person said no."""
    BUDGET_SPENT = "budget spent"


class RelabelState(Record):
    """Made by flows/relabel.py at the end of each run that did something; read by the next."""

    watched: str
    """Digest of all that decides the set, as it was when the run began; empty: the next run has something to do."""
    outcome: RelabelOutcome
    why: tuple[str, ...] = ()
    """Sentences for people."""
    version: str | None = None
    """Digest of the published set."""
    approved: str = ""
    """The `watched` that is being published: a run that finds it here was broken off, and nobody is asked again."""
    confidence: float | None = None
    """Mean expected precision of the pool's labels when it was published."""
    at: float = Field(default_factory=time.time)
    """Seconds since 1970."""


def read_state(output: Path) -> RelabelState | None:
    """The state of `output`; None before the first re-labelling. Raises ManifestError if the file can't be read."""
    path = output / FILE
    try:
        return RelabelState.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise ManifestError(
            f"{path}: is no state of a re-labelling; delete it, the next run looks at everything"
        ) from error


def write_state(output: Path, state: RelabelState) -> RelabelState:
    """Write it, atomically; gives it back."""
    write_bytes(output / FILE, state.model_dump_json(indent=2).encode())
    return state
