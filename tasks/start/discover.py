"""Find out what a file or folder holds, and read its items with all their columns."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from tasks.errors import ManifestError
from tasks.items.manifests import KINDS, list_manifest_files, read_all_columns
from tasks.items.tables import contains_bytes, unpack_image
from tasks.start.columns import is_image, is_video
from tasks.start.conversions import LABEL, Row, convert_rows

_DESCRIPTIONS = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
"""Files that describe data sets, and contain no items."""
LABEL_FOLDERS = "a folder per label"
_OTHER_SPLITS = ("test", "val", "dev", "eval", "unlabel", "pool")


@dataclass(frozen=True)
class Source:
    """The items at DATA, with all their columns."""

    kind: str
    """What it is, for people."""
    rows: list[Row]
    manifest: Path | None
    """What intake can read as it stands; None if the items must be written as a new manifest."""
    base: Path
    """The folder to which image names are probably relative."""
    remarks: tuple[str, ...] = ()


def discover(data: Path, unpacked: Path) -> Source:
    """Return the items of a manifest file or of a folder; images inside tables are written to `unpacked`.

    Raises ManifestError if there are none.
    """
    if data.is_file():
        return _read_files([data], unpacked)
    if not data.is_dir():
        raise ManifestError(f"{data}: no such file or folder; give a manifest or a folder of labelled items")
    try:
        files = sorted(data.rglob("*.arrow")) or _list_described(data) or _list_manifests(data)
        if not files:
            return _read_label_folders(data)
        chosen, others = _choose_split(files, data)
        source = _read_files(chosen, unpacked)
    except OSError as error:
        raise ManifestError(f"{data}: cannot be read: {error.strerror or error}; check its permissions") from error
    left = f"left out: {', '.join(str(file.relative_to(data)) for file in others[:4])}{' …' if len(others) > 4 else ''}"
    return Source(
        source.kind, source.rows, source.manifest, source.base,
        (*source.remarks, *([f"{left}; run.yaml may name them as `evaluation` or `unlabelled`"] if others else [])),
    )  # fmt: skip


def _list_described(data: Path) -> list[Path]:
    """Return the files that LLaMA-Factory's dataset_info.json names."""
    try:
        content: object = json.loads((data / "dataset_info.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    entries = list(cast(dict[str, object], content).values()) if isinstance(content, dict) else []
    names = [cast(Row, entry).get("file_name") for entry in entries if isinstance(entry, dict)]
    return [data / name for name in names if isinstance(name, str) and (data / name).is_file()]


def _list_manifests(data: Path) -> list[Path]:
    """Return the manifests in a folder, or else in its sub-folders and theirs."""
    level = [data]
    for _ in range(4):
        files = [file for folder in level for file in list_manifest_files(folder) if file.name not in _DESCRIPTIONS]
        if files:
            return [file for file in files if not _is_description(file)] or files
        level = [path for folder in level for path in _list_folders(folder)]
    return []


def _is_description(file: Path) -> bool:
    """Return whether a .json file is a single object, as settings and descriptions are."""
    try:
        return file.suffix.lower() == ".json" and isinstance(json.loads(file.read_bytes()), dict)
    except (ValueError, RecursionError):
        return False


def _list_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _choose_split(paths: Sequence[Path], data: Path) -> tuple[list[Path], list[Path]]:
    """Return the paths of the training split, and the others: those named train, or else those of no other split."""
    words = {path: re.findall(r"[a-z]+", str(path.relative_to(data)).casefold()) for path in paths}
    other = [path for path in paths if any(word.startswith(_OTHER_SPLITS) for word in words[path])]
    train = [
        path for path in paths if any(word.startswith(("train", "label")) for word in words[path]) and path not in other
    ]
    plain = [path for path in paths if path not in other]
    chosen = train or plain or list(paths[:1])
    return chosen, [path for path in paths if path not in chosen]


def _read_files(files: Sequence[Path], unpacked: Path) -> Source:
    """Return the items of manifests or tables of one kind."""
    base, kind = files[0].parent, files[0].suffix.lower().removeprefix(".")
    if any(_needs_reading(file) for file in files):
        rows = [row for file in files for row in _read_rows(file, unpacked)]
        manifest, kind = None, f"Hugging Face data set ({kind})"
    else:
        rows = [row for file in files for row in _read_rows(file, unpacked)]
        whole = sorted(files) == list_manifest_files(base)
        manifest = files[0] if len(files) == 1 else base if whole else None
    if not rows:
        raise ManifestError(f"{files[0] if len(files) == 1 else base}: contains no items; give a manifest with items")
    converted = convert_rows(rows)
    if converted is not None:
        return Source(converted[0], converted[1], None, base)
    return Source(kind, rows, manifest, base)


# --- tables of Hugging Face data sets ------------------------------------------------------------------------


def _read_rows(file: Path, unpacked: Path) -> Iterable[Row]:
    is_table = file.suffix.lower() in (".arrow", ".parquet")
    return _read_table(file, unpacked) if is_table else (item.fields or {} for item in read_all_columns(file))


def _needs_reading(file: Path) -> bool:
    if file.suffix.lower() != ".parquet":
        return file.suffix == ".arrow"
    try:
        schema = pq.read_schema(file)
    except (pa.ArrowException, OSError):
        return False  # the reader of manifests says why
    return any(contains_bytes(field.type) for field in schema) or bool(_find_class_names(schema))


def _find_class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Map each column of class numbers to the names of the classes, as `datasets` stores them beside the columns."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: kind["names"] for name, kind in features.items() if kind.get("_type") == "ClassLabel"}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _read_table(file: Path, unpacked: Path) -> Iterator[Row]:
    """Yield the rows of an Arrow or Parquet file with class names for class numbers, and file names for images."""
    try:
        schema, batches = _open_table(file)
        classes = _find_class_names(schema)
        packed = {field.name for field in schema if contains_bytes(field.type)}
        for batch in batches:
            for row in cast(list[Row], batch.to_pylist()):
                for name in packed & row.keys():
                    row[name] = unpack_image(row[name], unpacked)
                for name in classes.keys() & row.keys():
                    number = row[name]
                    row[name] = classes[name][number] if isinstance(number, int) and number >= 0 else None
                yield row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        why = (str(error).splitlines() or [""])[0]
        raise ManifestError(f"{file}: not a readable table: {why}; export it again") from error


def _open_table(file: Path) -> tuple[pa.Schema, Iterator[Any]]:
    if file.suffix != ".arrow":
        table = pq.ParquetFile(file)
        return table.schema_arrow, table.iter_batches(64)
    try:
        reader = pyarrow.ipc.open_stream(pa.memory_map(str(file)))
        return reader.schema, iter(reader)
    except pa.ArrowInvalid:
        whole = pyarrow.ipc.open_file(pa.memory_map(str(file)))
        return whole.schema, (whole.get_batch(i) for i in range(whole.num_record_batches))


# --- a folder per label --------------------------------------------------------------------------------------


def _read_label_folders(data: Path) -> Source:
    """Return an item per image or recording, and per text file (.txt) without one of that name, in the sub-folders."""
    root, remarks = data, list[str]()
    while (folders := _list_folders(root)) and not _list_files(folders[0]) and _list_folders(folders[0]):
        chosen, others = _choose_split(folders, root)
        if len(chosen) > 1:
            break
        remarks += [f"left out: {', '.join(folder.name for folder in others)}"] if others else []
        root = chosen[0]
    rows: list[Row] = []
    skipped = 0
    for folder in folders:
        files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
        texts = {path.with_suffix(""): path for path in files if path.suffix.lower() == ".txt"}
        media = [path for path in files if is_image(path.name) or is_video(path.name)]
        for path in media:
            rows.append(_make_row(root, path, texts.pop(path.with_suffix(""), None), folder.name))
        rows += [_make_row(root, None, path, folder.name) for path in texts.values()]
        skipped += len(files) - len(media) - sum(path.suffix.lower() == ".txt" for path in files)
        if not files:
            remarks.append(f"{folder.name}: contains no images, recordings or texts")
    if not rows:
        kinds = ", ".join(KINDS)
        raise ManifestError(
            f"{data}: contains no items; give a manifest ({kinds}) or a folder with a sub-folder per label"
        )
    if skipped:
        remarks.append(f"{skipped} files in {root} are neither images, recordings nor texts, and were left out")
    return Source(LABEL_FOLDERS, rows, None, root, tuple(remarks))


def _list_files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]


def _make_row(root: Path, media: Path | None, text: Path | None, label: str) -> Row:
    path = media or text
    assert path is not None
    instruction = None if text is None else text.read_bytes().decode("utf-8", "replace").strip()
    row: Row = {"id": str(path.relative_to(root)), "instruction": instruction, LABEL: label}
    if media is not None:
        row["video" if is_video(media.name) else "image"] = str(media.relative_to(root))
    return row
