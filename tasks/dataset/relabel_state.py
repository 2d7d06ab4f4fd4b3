"""What the last re-labelling of a folder saw and did: ``<output>/relabel.json``."""

import time
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from tasks.errors import ManifestError
from tasks.records import Record
from tasks.storage.files import write_bytes

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
