"""Read the items at DATA: their columns and images, and a new manifest if intake cannot read them as they stand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from tasks.errors import ManifestError
from tasks.items.image_names import ImageFolder
from tasks.items.refusals import Unusable
from tasks.items.samples import read_image_names, read_label
from tasks.packs.columns import Columns
from tasks.start.columns import LONGEST_LABEL, Ask, Found, find_columns
from tasks.start.conversions import LABEL, Row
from tasks.start.discover import Source, discover
from tasks.start.image_folder import Located, locate_images
from tasks.storage.files import write_bytes


@dataclass(frozen=True)
class Data:
    """The items, and how labelstill reads them."""

    source: Source
    found: Found
    located: Located
    manifest: Path
    columns: Columns
    labelled: list[tuple[str, str]]
    """(text, label) of each item with a label."""


def read_data(data: Path, images: Path | None, items: Path, wanted: Mapping[str, str | None], ask: Ask | None) -> Data:
    """Return the items in `data`; if they cannot be read as they stand, write them to the folder `items`."""
    source = discover(data, items / "images")
    found = find_columns(source.rows, wanted, ask)
    located, found = _locate(source, found, images, items / "images")
    labelled = [(get_text(row, found), label) for row in source.rows if (label := _get_label(row, found))]
    if not labelled:
        raise ManifestError(f"{data}: `{found.output}` has no labels, or only texts; name the column with --label")
    columns = _make_columns(source.rows, found)
    if source.manifest is None or columns is None or located.rename or _has_lists(source.rows, found):
        manifest, columns = _write_items(source.rows, found, located, items)
        return Data(source, found, located, manifest, columns, labelled)
    return Data(source, found, located, source.manifest, columns, labelled)


# --- what the columns hold -----------------------------------------------------------------------------------


def get_text(row: Row, found: Found) -> str:
    value = row.get(found.instruction or "")
    return value if isinstance(value, str) else "" if value is None or value != value else str(value)


def _get_label(row: Row, found: Found) -> str | None:
    label = read_label(_unwrap(row.get(found.output)))
    return label if isinstance(label, str) and len(label) <= LONGEST_LABEL else None


def _unwrap(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _has_lists(rows: Sequence[Row], found: Found) -> bool:
    return any(isinstance(row.get(found.output), list) for row in rows)


def get_images(row: Row, found: Found) -> list[str]:
    try:
        return read_image_names(row.get(found.image or ""))
    except Unusable:
        return []


def _make_columns(rows: Sequence[Row], found: Found) -> Columns | None:
    """Return the columns for a pack; None if items cannot be told apart by them."""
    images = [tuple(get_images(row, found)) for row in rows] if found.id is None else []
    if found.id == found.image or (found.id is None and (not all(images) or len(set(images)) < len(images))):
        return None
    return Columns(id=found.id, instruction=found.instruction, image=found.image, output=found.output)


# --- images --------------------------------------------------------------------------------------------------


def _locate(source: Source, found: Found, given: Path | None, unpacked: Path) -> tuple[Located, Found]:
    """Return where the images are, and the columns; without a column of images, a given folder may have them by id."""
    if unpacked.is_dir() and given is None:
        given = unpacked
    by_id = found.image is None and given is not None and found.id is not None
    looked = Found(found.id, found.instruction, found.id, found.output, found.remarks) if by_id else found
    names = [name for row in source.rows for name in _get_names(row, looked)]
    located = locate_images(names, source.base, given)
    if by_id and not located.found:
        raise ManifestError(f"{given}: no file is named after an item's `{found.id}`; name the column with --image")
    if looked.image is not None and names and not located.found:
        try:
            ImageFolder(located.folder).find(names[0])
        except Unusable as why:
            raise ManifestError(
                f"{why.detail}; none of {located.looked_up} images was found: give their folder as second argument"
            ) from why
    return located, looked


def _get_names(row: Row, found: Found) -> list[str]:
    value = row.get(found.image or "")
    return [str(value)] if isinstance(value, int) else get_images(row, found)


def _write_items(rows: Sequence[Row], found: Found, located: Located, folder: Path) -> tuple[Path, Columns]:
    """Write all items as JSON Lines, in their order, and return the file and its columns."""
    rename = located.rename or str
    lines: list[bytes] = []
    for number, row in enumerate(rows, 1):
        own = row.get(found.id or "")
        own = int(own) if isinstance(own, float) and own.is_integer() else own
        item = {"id": own if isinstance(own, int | str) and str(own).strip() else f"row-{number}"}
        item |= {"instruction": get_text(row, found)} if found.instruction else {}
        item |= {"image": [rename(name) for name in _get_names(row, found)]} if found.image else {}
        item |= {LABEL: _unwrap(row.get(found.output))}
        lines.append(orjson.dumps(_clean(item), default=str))
    write_bytes(folder / "items.jsonl", b"\n".join(lines) + b"\n")
    return folder / "items.jsonl", Columns(
        id="id",
        instruction=found.instruction and "instruction",
        image=found.image and "image",
        output=LABEL,
    )


def _clean(value: object) -> object:
    """Return the value with a question mark for each byte that is not UTF-8."""
    if isinstance(value, dict):
        return {key: _clean(field) for key, field in value.items()}
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
