"""Recorded versions, for tests."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.dataset import versions
from tasks.dataset.versions import Version
from tasks.records import Example
from tasks.storage.rows import write_rows


def record_version(output: Path, recipe: str, examples: Iterable[Example]) -> Version:
    """Record `examples` as a version of `output`."""
    with TemporaryDirectory() as folder:
        kept = Path(folder) / "kept.parquet"
        write_rows(kept, list(examples))
        return versions.record_version(output, kept, recipe)


def digest_set(examples: Iterable[Example]) -> str:
    """Return the content digest of a set."""
    with TemporaryDirectory() as folder:
        return record_version(Path(folder), "r", examples).version
