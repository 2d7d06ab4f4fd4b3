"""Recorded versions, for tests."""

from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

from tasks.dataset.versions import Version, VersionWriter
from tasks.records import Example


def record_version(output: Path, recipe: str, examples: Iterable[Example]) -> Version:
    """Record `examples` as a version of `output`."""
    with VersionWriter(output, recipe) as writer:
        for example in examples:
            writer.add(example)
    return writer.version


def version_of(examples: Iterable[Example]) -> str:
    """Return the content digest of a set."""
    with TemporaryDirectory() as folder:
        return record_version(Path(folder), "r", examples).version
