# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# (pyarrow publishes no types)
"""A version of the emitted set as columns, read from its snapshot or from the examples that emit kept.

Never as objects: of a million examples some hundred MB.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.dataset.versions import (
    FOLDER,
    SetDigest,
    SnapshotRow,
    content_of,
    find_version,
    read_versions,
    snapshot_path,
)
from tasks.errors import ManifestError

MOST_BYTES = 16 << 30
"""Of a version's columns, unpacked: 20 million examples. A small file can say that it has more."""
_SLICE = 50_000
_LEAST = 100
"""Bytes a row takes however well it is packed: ids, digests, places."""
_EMITTED_SLICE = 5_000
"""Of rows with their whole prompts: 50,000 took 600 MB."""
_NAMES = tuple(SnapshotRow.model_fields)
_SCHEMA = pa.schema([(name, pa.string()) for name in _NAMES])
# Few distinct values: as dictionaries they take four bytes an item.
_REPEATED = ("label", "origin", "why", "subset", "task", "source")
_EMITTED = ("sample_id", "label", "reason", "origin", "why", "subset", "task", "source", "messages", "images")


@dataclass(frozen=True)
class Snapshot:
    """One side of a comparison."""

    name: str
    """For people: where it was read."""
    version: str
    """Content digest of the set (64 hex)."""
    table: Any
    """pyarrow table with the columns of `SnapshotRow`."""

    @property
    def rows(self) -> int:
        """How many examples it has."""
        return cast(int, self.table.num_rows)


def open_snapshot(name: str, output: Path | None = None) -> Snapshot:
    """The version that `name` stands for: a run's folder, an emit folder, a file, or the beginning of a digest.

    A run's folder means its latest recorded version; an emit folder or its kept.parquet is read as it is. Digests are
    looked up among the versions of `output`. Raises ManifestError where there is none.
    """
    path = Path(name)
    if not path.exists():
        if output is None:
            raise ManifestError(f"{name}: no such file or folder; if it is a version's digest, say --in OUTPUT too")
        return _read(snapshot_path(output, find_version(output, name)))
    if path.is_file():
        return _read(path)
    run = path.parent if path.name == FOLDER else path
    if log := read_versions(run):
        return _read(snapshot_path(run, log[-1]))
    for kept in (path / "emit" / "kept.parquet", path / "kept.parquet"):
        if kept.is_file():
            return _read(kept)
    raise ManifestError(f"{path}: has neither versions/ nor emit/kept.parquet; give a run's output folder")


def _read(path: Path) -> Snapshot:
    try:
        _check_size(path)
        names = set(pq.read_schema(path).names)
        if names >= set(_NAMES):
            table = pq.read_table(path, columns=list(_NAMES), read_dictionary=list(_REPEATED)).unify_dictionaries()
        elif names >= set(_EMITTED):
            table = _emitted(path)
        elif names == {"sample_id"} and not pq.read_metadata(path).num_rows:
            table = _SCHEMA.empty_table()  # what an empty stage leaves
        else:
            raise ManifestError(f"{path}: holds no examples; give emit/kept.parquet or a snapshot of versions/")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path}: cannot be read as Parquet: {_first_line(error)}; run emit") from error
    return Snapshot(str(path), _version(table), table)


def _check_size(path: Path) -> None:
    about = pq.read_metadata(path)
    size = max(sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)), about.num_rows * _LEAST)
    if size > MOST_BYTES:
        raise ManifestError(f"{path}: would take {size >> 30} GiB of memory: no version of a set; give another file")


def _emitted(path: Path) -> Any:
    """The columns of a snapshot, made from the examples that emit kept."""
    batches: list[Any] = []
    for batch in pq.ParquetFile(path).iter_batches(_EMITTED_SLICE, columns=list(_EMITTED)):
        digests: list[str] = []
        messages, images = batch.column("messages").to_pylist(), batch.column("images").to_pylist()
        for turns, shown in zip(messages, images, strict=True):
            words = ((turn["role"], turn["content"]) for turn in orjson.loads(turns))
            digests.append(content_of(words, (image["sha256"] for image in orjson.loads(shown))))
        arrays = [pa.array(digests) if name == "content" else batch.column(name) for name in _NAMES]
        batches.append(pa.RecordBatch.from_arrays(arrays, schema=_SCHEMA))
    return pa.Table.from_batches(batches, schema=_SCHEMA)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _version(table: Any) -> str:
    total = SetDigest()
    for start in range(0, table.num_rows, _SLICE):
        some = table.slice(start, _SLICE)
        columns = [some.column(name).to_pylist() for name in ("sample_id", "content", "label", "subset")]
        for row in zip(*columns, strict=True):
            total.add(*row)
    return total.hex
