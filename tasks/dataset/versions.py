"""Record the versions of a training set: a log of their digests, and a snapshot of each for comparison.

``<output>/versions/versions.jsonl`` has one line per version, oldest first. ``<output>/versions/<12 hex>.parquet`` is a
snapshot: the columns in `_NAMES` for every example. Versions can thus be compared even after `emit` was rewritten.
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

_SHORT = 12


class Version(Record):
    """A line of the log. Made by `record_version`; read by flows/relabel.py, reports and `labelstill diff`."""

    version: str
    """Content digest of the set (64 hexadecimal digits)."""
    parent: str | None
    """The previous version in the same output folder; None for the first."""
    made_at: float = Field(default_factory=time.time)
    """Seconds since 1970."""
    rows: int
    origins: dict[Origin, int]
    """Maps the origin of a label to the number of examples."""
    recipe: str
    """Recipe hash of the emit stage (tasks/storage/stages.py)."""
    code: str

    @property
    def short(self) -> str:
        """The first 12 hexadecimal digits of the digest, used as the version's name in files and messages."""
        return self.version[:_SHORT]


class SetDigest:
    """Computes a digest of a set of examples in constant memory. The order of the examples does not matter.

    The digest is based on the sum of the rows' sha256 modulo 2**256, so a row that occurs twice counts twice. It
    identifies a version but does not protect against tampering, because such sums can be forged (Wagner, "A Generalized
    Birthday Problem", 2002).
    """

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, snapshot: Any) -> None:
        """Add the rows of a pyarrow table or batch, which must have a snapshot's columns."""
        columns = [snapshot.column(name).to_pylist() for name in ("sample_id", "content", "label", "subset")]
        for row in zip(*columns, strict=True):
            self._sum += int.from_bytes(hashlib.sha256(orjson.dumps(row)).digest())
        self._sum %= 1 << 256
        self.rows += snapshot.num_rows

    @property
    def hex(self) -> str:
        """The digest of the rows so far (64 hexadecimal digits)."""
        return hashlib.sha256(f"{self.rows}:{self._sum:064x}".encode()).hexdigest()


def record_version(output: Path, kept: Path, recipe: str) -> Version:
    """Record the examples in `kept` (emit's kept.parquet) as a version, and return that version.

    Writes a snapshot of the examples, and adds a line to the log unless the set equals the last version. Memory use
    does not grow with the size of the set.
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
    # The log is written last, so that every version in it has its snapshot.
    os.replace(unnamed, snapshot_path(output, made))
    if last is not None and last.version == made.version:
        return last
    write_json_lines(output / FOLDER / LOG, [*log, made])
    return made


def read_versions(output: Path) -> list[Version]:
    """Return the versions in `output`, oldest first. Raises ManifestError if a line of the log is invalid."""
    path = output / FOLDER / LOG
    if not path.exists():
        return []
    return list(read_models(path, Version, "version", ManifestError, "remove the line"))


def find_version(output: Path, prefix: str) -> Version:
    """Return the version whose digest begins with `prefix`; raises ManifestError unless there is exactly one."""
    log = read_versions(output)
    found = {v.version: v for v in log if v.version.startswith(prefix)}
    if len(found) == 1:
        return next(iter(found.values()))
    known = ", ".join(dict.fromkeys(v.short for v in log)) or "none; run emit first"
    many = f"{len(found)} versions begin with" if found else "no version begins with"
    raise ManifestError(f"{output / FOLDER / LOG}: {many} `{prefix}`; there are: {known}")


def snapshot_path(output: Path, version: Version) -> Path:
    """Return the path of a version's snapshot."""
    return output / FOLDER / f"{version.short}.parquet"


# --- reading a version back ----------------------------------------------------------------------------------

MOST_BYTES = 16 << 30
"""Maximum unpacked size of a version, about 20 million examples. The limit guards against small files that unpack to
far more."""
_SLICE = 50_000
_LEAST = 100
"""Minimum number of bytes that a row takes in memory (ids, digests, indices), however well it is compressed."""
_EMITTED_SLICE = 5_000
"""Rows per slice if rows contain whole prompts; slices of 50,000 rows took 600 MB."""
_NAMES = ("sample_id", "label", "reason", "origin", "why", "subset", "task", "source", "content")
"""Columns of a snapshot. `content` is a digest (32 hexadecimal digits) of the training texts, images and frames."""
_SCHEMA = pa.schema([(name, pa.string()) for name in _NAMES])
# Columns with few distinct values: as dictionaries they take four bytes per row.
_REPEATED = ("label", "origin", "why", "subset", "task", "source")
_CONTENT = ("messages", "images", "videos")
_EMITTED = (*_NAMES[:-1], *_CONTENT)


@dataclass(frozen=True)
class Snapshot:
    """A version that was loaded for comparison."""

    name: str
    """The file that the version was read from, to show to people."""
    version: str
    """Content digest of the set (64 hexadecimal digits)."""
    table: Any
    """A pyarrow table with the columns in `_NAMES`."""

    @property
    def rows(self) -> int:
        """Number of examples."""
        return cast(int, self.table.num_rows)


def open_snapshot(name: str, output: Path | None = None) -> Snapshot:
    """Load the version that `name` refers to: a run's folder, an emit folder, a Parquet file, or the start of a digest.

    A run's folder stands for its latest recorded version, and an emit folder for its kept.parquet. Digests are looked
    up among the versions of `output`. Raises ManifestError if there is no such version.
    """
    path = Path(name)
    if not path.exists():
        if output is None:
            raise ManifestError(f"{name}: no such file or folder; if it is the digest of a version, add --in OUTPUT")
        return _read(snapshot_path(output, find_version(output, name)))
    if path.is_file():
        return _read(path)
    run = path.parent if path.name == FOLDER else path
    if log := read_versions(run):
        return _read(snapshot_path(run, log[-1]))
    for kept in (path / "emit" / "kept.parquet", path / "kept.parquet"):
        if kept.is_file():
            return _read(kept)
    raise ManifestError(f"{path}: contains neither versions/ nor emit/kept.parquet; give the output folder of a run")


def _read(path: Path) -> Snapshot:
    try:
        _check_size(path)
        names = set(pq.read_schema(path).names)
        if names >= set(_NAMES):
            table = pq.read_table(path, columns=list(_NAMES), read_dictionary=list(_REPEATED)).unify_dictionaries()
        elif names >= set(_EMITTED):
            table = pa.Table.from_batches(_read_emitted(path), schema=_SCHEMA)
        elif names == {"sample_id"} and not pq.read_metadata(path).num_rows:
            table = _SCHEMA.empty_table()  # what a stage without results writes
        else:
            raise ManifestError(f"{path}: contains no examples; give emit/kept.parquet or a snapshot in versions/")
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise ManifestError(f"{path}: cannot be read as Parquet: {_first_line(error)}; run emit again") from error
    return Snapshot(str(path), _compute_digest(table), table)


def _check_size(path: Path) -> None:
    about = pq.read_metadata(path)
    size = max(sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)), about.num_rows * _LEAST)
    if size > MOST_BYTES:
        raise ManifestError(
            f"{path}: comparing this version would need {size >> 30} GiB of memory, too much; give a smaller one"
        )


def _read_emitted(path: Path) -> Iterator[Any]:
    """Yield the examples in emit's kept.parquet as batches with the columns of a snapshot."""
    file = pq.ParquetFile(path)
    for batch in file.iter_batches(_EMITTED_SLICE, columns=list(_EMITTED)) if file.metadata.num_rows else ():
        rows = zip(*(batch.column(name).to_pylist() for name in _CONTENT), strict=True)
        contents = pa.array([_digest_content(*map(orjson.loads, row)) for row in rows], pa.string())
        yield pa.RecordBatch.from_arrays([*(batch.column(name) for name in _NAMES[:-1]), contents], schema=_SCHEMA)


def _digest_content(messages: list[dict[str, str]], images: list[dict[str, str]], videos: list[dict[str, Any]]) -> str:
    """Return the digest of what a model is trained on.

    That is role and text of each turn, sha256 of each image, and for each recording sha256 and time of each frame.
    """
    content: list[Any] = [[(turn["role"], turn["content"]) for turn in messages], [image["sha256"] for image in images]]
    if videos:  # so that sets without recordings keep the digests that they had before
        content.append([[[frame["sha256"] for frame in v["frames"]], v["times"]] for v in videos])
    return hashlib.sha256(orjson.dumps(content)).hexdigest()[:32]


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _compute_digest(table: Any) -> str:
    digest = SetDigest()
    for start in range(0, table.num_rows, _SLICE):
        digest.add(table.slice(start, _SLICE))
    return digest.hex
