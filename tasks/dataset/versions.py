# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# (pyarrow publishes no types)
"""Versions of the emitted set: what it holds as a digest, a log of them, and a snapshot of each to compare with.

``<output>/versions/versions.jsonl`` has a line a version, oldest first; ``<output>/versions/<12 hex>.parquet`` says of
every example what `SnapshotRow` holds, so that a version can be compared after `<output>/emit` was written anew.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from tasks.errors import ManifestError
from tasks.records import Example, Origin, Record, Subset
from tasks.storage.json_lines import read_models, write_json_lines
from tasks.storage.rows import RowWriter
from tasks.storage.stages import code_version

FOLDER = "versions"
LOG = "versions.jsonl"
CANDIDATE = "candidate"
"""The folder, beside `emit`, of a merged set that is not published."""

_SHORT = 12


class SnapshotRow(Record):
    """What a snapshot keeps of an example. Made by `VersionWriter`; read by version_diff, as columns."""

    sample_id: str
    label: str
    reason: str
    origin: Origin
    why: str
    subset: Subset
    task: str
    source: str
    content: str
    """Digest (32 hex) of the words and images that are trained on."""


class Version(Record):
    """A line of the log. Made by `VersionWriter`; read by version_diff and reports."""

    version: str
    """Content digest of the set (64 hex)."""
    parent: str | None
    """The version that was emitted before it into the same folder; None for the first."""
    made_at: float = Field(default_factory=time.time)
    """Seconds since 1970."""
    rows: int
    origins: dict[Origin, int]
    """Examples by where their label comes from."""
    recipe: str
    """Recipe hash of the emission (tasks/storage/stages.py)."""
    code: str

    @property
    def short(self) -> str:
        """The first 12 hex digits: what people and files call it."""
        return self.version[:_SHORT]


def content_of(turns: Iterable[tuple[str, str]], images: Iterable[str]) -> str:
    """Digest of what is trained on: (role, words) of each turn, and the sha256 of each image, in order."""
    return hashlib.sha256(orjson.dumps([list(turns), list(images)])).hexdigest()[:32]


class SetDigest:
    """The digest of a set of examples, whatever their order; constant memory.

    The sum of the rows' sha256 modulo 2**256: rows may come in any order, and one that occurs twice counts twice. Such
    a sum can be forged by somebody who tries to (Wagner, "A Generalized Birthday Problem", 2002); it names versions,
    and proves nothing about them.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, sample_id: str, content: str, label: str, subset: str) -> None:
        """Count one example."""
        row = hashlib.sha256(orjson.dumps([sample_id, content, label, subset])).digest()
        self._sum = (self._sum + int.from_bytes(row)) % (1 << 256)
        self.rows += 1

    @property
    def hex(self) -> str:
        """The digest so far (64 hex)."""
        return hashlib.sha256(f"{self.rows}:{self._sum:064x}".encode()).hexdigest()


class VersionWriter:
    """Records the set that is being emitted as a version of `output`; memory stays flat.

    A context manager: tell it every example with `add`. When the block ends without an error, `version` is set, the
    snapshot is in place and the log has a line more, unless the set is the one of the last line.
    """

    version: Version

    def __init__(self, output: Path, recipe: str) -> None:
        self._output, self._recipe = output, recipe
        self._total = SetDigest()
        self._origins: Counter[Origin] = Counter()
        folder = output / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._unnamed = folder / f".snapshot.{os.getpid()}.parquet"
        self._rows = RowWriter(self._unnamed, SnapshotRow)

    def __enter__(self) -> "VersionWriter":
        self._rows.__enter__()
        return self

    def __exit__(self, failed: object, *others: object) -> None:
        self._rows.__exit__(failed, *others)
        if not failed:
            self.version = self._log()

    def add(self, example: Example) -> None:
        """Count one example of the set."""
        content = _content(example)
        self._total.add(example.sample_id, content, example.label, example.subset)
        self._origins[example.origin] += 1
        self._rows.write(
            SnapshotRow.model_construct(
                sample_id=example.sample_id, label=example.label, reason=example.reason, origin=example.origin,
                why=example.why, subset=example.subset, task=example.task, source=example.source, content=content,
            )
        )  # fmt: skip

    def _log(self) -> Version:
        log = read_versions(self._output)
        last = log[-1] if log else None
        made = Version(
            version=self._total.hex,
            parent=last.version if last else None,
            rows=self._total.rows,
            origins=dict(sorted(self._origins.items())),
            recipe=self._recipe,
            code=code_version(),
        )
        # The log comes last: a version that it names has its snapshot.
        os.replace(self._unnamed, snapshot_path(self._output, made))
        if last is not None and last.version == made.version:
            return last
        write_json_lines(self._output / FOLDER / LOG, [*log, made])
        return made


def read_versions(output: Path) -> list[Version]:
    """The log of `output`, oldest first; empty where nothing was recorded. Raises ManifestError for a broken line."""
    path = output / FOLDER / LOG
    if not path.exists():
        return []
    return list(read_models(path, Version, "version", ManifestError, "take the line out"))


def find_version(output: Path, prefix: str) -> Version:
    """The version of `output` whose digest begins with `prefix`; raises ManifestError if none or several do."""
    log = read_versions(output)
    found = {v.version: v for v in log if v.version.startswith(prefix)}
    if len(found) == 1:
        return next(iter(found.values()))
    known = ", ".join(dict.fromkeys(v.short for v in log)) or "none; run emit first"
    many = f"{len(found)} versions begin with" if found else "no version begins with"
    raise ManifestError(f"{output / FOLDER / LOG}: {many} `{prefix}`; there are: {known}")


def snapshot_path(output: Path, version: Version) -> Path:
    """Where the snapshot of a version lies."""
    return output / FOLDER / f"{version.short}.parquet"


def _content(example: Example) -> str:
    return content_of(((m.role, m.content) for m in example.messages), (image.sha256 for image in example.images))


# --- reading a version back ----------------------------------------------------------------------------------

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
