"""Keep using the commit of a hub model that answered first, although the model's name means the newest commit.

Requests to a model without `revision` have the same key whatever the hub serves under its name. So the ledger stores
the commit of the first answers, and the model is loaded at that commit from then on.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from huggingface_hub import HfApi, try_to_load_from_cache

from tasks.errors import LedgerError
from tasks.models.engines.spec import EngineSpec
from tasks.models.ledger.file import open_existing, open_ledger

_SECONDS = 5.0
"""Longest wait for the hub."""


def choose_revision(model: str, revision: str | None, ledger: Path) -> str | None:
    """Return the revision at which to load a checkpoint; None for a folder, or if no commit of a hub model is known.

    Without `revision` it is the commit that the ledger has, or else the newest one, which is then stored there.
    Without a network, the newest is the one in the local cache. Raises LedgerError when the ledger cannot be written.
    """
    if revision is not None or Path(model).is_dir():
        return revision
    commit = read_pin(model, ledger) or find_newest_commit(model) or _find_cached_commit(model)
    if commit is None:
        return None
    try:
        with closing(open_ledger(ledger)[0]) as connection:
            connection.execute("INSERT INTO models VALUES (?, ?) ON CONFLICT DO NOTHING", (model, commit))
    except sqlite3.Error as error:
        raise LedgerError(f"{ledger}: the commit of {model} cannot be stored: {error}; free disk space") from error
    return read_pin(model, ledger)  # another run may have been first


def pin_model(spec: EngineSpec, ledger: Path) -> EngineSpec:
    """Return `spec` with the revision at which its model is to be loaded here; raise what `choose_revision` raises."""
    if spec.engine not in ("vllm", "local"):
        return spec
    return spec.model_copy(update={"revision": choose_revision(spec.model, spec.revision, ledger)})


def name_commit(spec: EngineSpec, ledger: Path) -> EngineSpec:
    """Return `spec` with the commit that the ledger has for its model, if it chooses no revision itself."""
    return spec.model_copy(update={"revision": spec.revision or read_pin(spec.model, ledger)})


def read_pin(model: str, ledger: Path) -> str | None:
    """Return the commit that the ledger has for `model`; None if it has none or cannot be read."""
    try:
        with closing(open_existing(ledger)) as connection:
            row = connection.execute("SELECT revision FROM models WHERE name = ?", (model,)).fetchone()
    except (LedgerError, sqlite3.Error):  # also a ledger of an earlier release, which has no such table
        return None
    return None if row is None else str(row[0])


def find_newest_commit(model: str) -> str | None:
    """Return the newest commit of `model` on the hub; None without a network or with HF_HUB_OFFLINE."""
    try:
        return HfApi().model_info(model, timeout=_SECONDS).sha
    except Exception:  # of the network, the hub or the proxy: nobody needs the answer
        return None


def describe_newer_commit(model: str, ledger: Path) -> str:
    """Return a sentence about a commit of `model` that is newer than the ledger's; empty if there is none."""
    pinned = read_pin(model, ledger)
    newest = find_newest_commit(model) if pinned else None
    if newest is None or newest == pinned:
        return ""
    return (
        f"{model}: the hub has a newer commit, {newest}; this ledger's answers are from {pinned}, which is still used. "
        f"Set `revision: {newest}` to use the newer one; everything is then asked again"
    )


def _find_cached_commit(model: str) -> str | None:
    file = try_to_load_from_cache(model, "config.json")
    return Path(file).parent.name if isinstance(file, str) else None
