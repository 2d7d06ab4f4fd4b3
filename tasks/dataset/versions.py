# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
# (pyarrow publishes no types)
"""Versions of the emitted set: what it holds as a digest, a log of them, and a snapshot of each to compare with.

``<output>/versions/versions.jsonl`` has a line a version, oldest first; ``<output>/versions/<12 hex>.parquet`` says of
every example what `_NAMES` lists, so that a version can be compared after `<output>/emit` was written anew.
"""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from tasks.errors import ManifestError
from tasks.records import Origin, Record
from tasks.storage.files import replace_file
from tasks.storage.json_lines import read_models, write_json_lines
from tasks.storage.stages import code_version

FOLDER = "versions"
LOG = "versions.jsonl"
CANDIDATE = "candidate"
"""The folder, beside `emit`, of a merged set that is not published."""

_SHORT = 12


class Version(Record):
    """A line of the log. Made by `record_version`; read by diff, flows/relabel.py and reports."""

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


class SetDigest:
    """The digest of a set of examples, whatever their order; constant memory.

    The sum of the rows' sha256 modulo 2**256: rows may come in any order, and one that occurs twice counts twice. Such
    a sum can be forged by somebody who tries to (Wagner, "A Generalized Birthday Problem", 2002); it names versions,
    and proves nothing about them.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, snapshot: Any) -> None:
        """Count the rows of a pyarrow table or batch with a snapshot's columns."""
        columns = [snapshot.column(name).to_pylist() for name in ("sample_id", "content", "label", "subset")]
        for row in zip(*columns, strict=True):
            self._sum += int.from_bytes(hashlib.sha256(orjson.dumps(row)).digest())
        self._sum %= 1 << 256
        self.rows += snapshot.num_rows

    @property
    def hex(self) -> str:
        """The digest so far (64 hex)."""
        return hashlib.sha256(f"{self.rows}:{self._sum:064x}".encode()).hexdigest()


def record_version(output: Path, kept: Path, recipe: str) -> Version:
    """Record the examples in `kept`, which emit has written, as a version of `output`, with their snapshot.

    The log gets a line, unless the set is the one of its last line. Memory stays flat.
    """
    digest = SetDigest()
    origins: Counter[Origin] = Counter()
    unnamed = output / FOLDER / ".snapshot.parquet"
    with replace_file(unnamed) as temporary, pq.ParquetWriter(temporary, _SCHEMA) as file:
        for batch in _read_emitted(kept):
            file.write_batch(batch)
            digest.add(batch)
            origins.update(map(Origin, batch.column("origin").to_pylist()))
    log = read_versions(output)
    last = log[-1] if log else None
    made = Version(
        version=digest.hex,
        parent=last.version if last else None,
        rows=digest.rows,
        origins=dict(sorted(origins.items())),
        recipe=recipe,
        code=code_version(),
    )
    # The log comes last: a version that it names has its snapshot.
    os.replace(unnamed, snapshot_path(output, made))
    if last is not None and last.version == made.version:
        return last
    write_json_lines(output / FOLDER / LOG, [*log, made])
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


# --- reading a version back ----------------------------------------------------------------------------------

MOST_BYTES = 16 << 30
"""Of a version's columns, unpacked: 20 million examples. A small file can say that it has more."""
_SLICE = 50_000
_LEAST = 100
"""Bytes a row takes however well it is packed: ids, digests, places."""
_EMITTED_SLICE = 5_000
"""Of rows with their whole prompts: 50,000 took 600 MB."""
_NAMES = ("sample_id", "label", "reason", "origin", "why", "subset", "task", "source", "content")
"""Columns of a snapshot. `content` is the digest (32 hex) of the words and images that are trained on."""
_SCHEMA = pa.schema([(name, pa.string()) for name in _NAMES])
# Few distinct values: as dictionaries they take four bytes an item.
_REPEATED = ("label", "origin", "why", "subset", "task", "source")
_EMITTED = (*_NAMES[:-1], "messages", "images")


@dataclass(frozen=True)
class Snapshot:
    """One side of a comparison."""

    name: str
    """For people: where it was read."""
    version: str
    """Content digest of the set (64 hex)."""
    table: Any
    """pyarrow table with the columns in `_NAMES`."""

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
            table = pa.Table.from_batches(_read_emitted(path), schema=_SCHEMA)
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


def _read_emitted(path: Path) -> Iterator[Any]:
    """Yield batches with the columns of a snapshot, made from the examples that emit kept."""
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(_EMITTED_SLICE, columns=list(_EMITTED)) if file.metadata.num_rows else ():
        texts = zip(batch.column("messages").to_pylist(), batch.column("images").to_pylist(), strict=True)
        contents = pa.array([_digest_content(orjson.loads(m), orjson.loads(i)) for m, i in texts], pa.string())
        yield pa.RecordBatch.from_arrays([*(batch.column(name) for name in _NAMES[:-1]), contents], schema=_SCHEMA)


def _digest_content(messages: list[dict[str, str]], images: list[dict[str, str]]) -> str:
    """Return the digest of what is trained on: role and words of each turn, and the sha256 of each image, in order."""
    content = [[(turn["role"], turn["content"]) for turn in messages], [image["sha256"] for image in images]]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()[:32]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _version(table: Any) -> str:
    digest = SetDigest()
    for start in range(0, table.num_rows, _SLICE):
        digest.add(table.slice(start, _SLICE))
    return digest.hex
