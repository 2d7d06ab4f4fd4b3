"""Read the items at DATA: their columns and images, and a new manifest if intake cannot read them as they stand."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from tasks.errors import ManifestError
from tasks.items.boxes import read_boxes
from tasks.items.foreign_files import rank_column
from tasks.items.image_names import ImageFolder, VideoName, read_image_names, read_video_names
from tasks.items.refusals import Unusable
from tasks.items.samples import read_label
from tasks.packs.columns import DEFAULT_COLUMNS, Columns
from tasks.start.columns import LONGEST_LABEL, Ask, Found, check_header, find_columns
from tasks.start.conversions import LABEL, Row
from tasks.start.discover import Source, discover
from tasks.start.image_folder import Located, locate_images
from tasks.storage.files import write_bytes

_BOXES = ("boxes", "objects", "annotations")
"""The columns in which boxes are looked for: ours, ms-swift's and COCO's."""
_BASE64_IMAGES = ("iVBORw0KGgo", "/9j/", "UklGR", "R0lGOD", "data:image/")
"""Beginnings of images in base64: PNG, JPEG, WebP and GIF."""


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
    if source.kind in ("csv", "tsv"):
        check_header(data, source.rows)
    found = find_columns(source.rows, wanted, ask)
    _check_values(data, source.rows, found)
    given = items / "images" if images is None and (items / "images").is_dir() else images
    if found.image is None and found.video is None:
        found = _find_bare_names(source, found, given)
    located, found = _locate(source, found, given)
    labelled = [(get_text(row, found), label) for row in source.rows if (label := _get_label(row, found))]
    if not labelled:
        raise ManifestError(f"{data}: `{found.output}` has no labels, or only texts; name the column with --label")
    columns = _make_columns(source.rows, found)
    if source.manifest is None or columns is None or located.rename or _must_write(source.rows, found):
        manifest, columns = _write_items(source.rows, found, located, items)
        return Data(source, found, located, manifest, columns, labelled)
    return Data(source, found, located, source.manifest, columns, labelled)


# --- what cannot be used --------------------------------------------------------------------------------------


def _check_values(data: Path, rows: Sequence[Row], found: Found) -> None:
    """Raise ManifestError for images written into the data, and for items with several labels each."""
    packed = Counter(key for row in rows for key, value in row.items() if _is_packed_image(value))
    for name, count in packed.most_common(1):
        if 2 * count > len(rows):
            raise ManifestError(
                f"{data}: `{name}` has images in base64; save each as a file, and give the files' names"
            )
    several = [row for row in rows if isinstance(value := row.get(found.output), list) and len(value) > 1]
    if 10 * len(several) > len(rows):
        raise ManifestError(
            f"{data}: {len(several):,} of {len(rows):,} items have several labels in `{found.output}`, such as "
            f"{several[0][found.output]}; labelstill gives an item one label: write one each, such as `a+b` for both"
        )


def _is_packed_image(value: object) -> bool:
    return isinstance(value, str) and len(value) >= 100 and value.startswith(_BASE64_IMAGES)


# --- what the columns hold -----------------------------------------------------------------------------------


def get_text(row: Row, found: Found) -> str:
    value = row.get(found.instruction or "")
    return value if isinstance(value, str) else "" if value is None or value != value else str(value)


def _get_label(row: Row, found: Found) -> str | None:
    label = read_label(_unwrap(row.get(found.output)))
    return label if isinstance(label, str) and len(label) <= LONGEST_LABEL else None


def _unwrap(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _must_write(rows: Sequence[Row], found: Found) -> bool:
    """Return whether intake cannot read a label that is a list, or the name of an image that is a number."""
    return any(isinstance(row.get(found.output), list) or isinstance(row.get(found.image or ""), int) for row in rows)


def get_images(row: Row, found: Found) -> list[str]:
    value = row.get(found.image or "")
    try:
        return [str(value)] if isinstance(value, int) else read_image_names(value)
    except Unusable:
        return []


def get_videos(row: Row, found: Found) -> list[VideoName]:
    try:
        return read_video_names(row.get(found.video or ""))
    except Unusable:
        return []


def _list_files(row: Row, found: Found) -> list[str]:
    """Return the names of an item's images, of its recordings, and of the images of which these consist."""
    names = get_images(row, found)
    for video in get_videos(row, found):
        names += [video] if isinstance(video, str) else video
    return names


def _make_columns(rows: Sequence[Row], found: Found) -> Columns | None:
    """Return the columns for a pack; None if items cannot be told apart by them."""
    files = [tuple(_list_files(row, found)) for row in rows] if found.id is None else []
    if found.id is not None and found.id == found.image:
        return None
    if found.id is None and (not all(files) or len(set(files)) < len(files)):
        return None
    boxes = next((name for name in _BOXES if _contains_boxes(rows, name)), None)
    if boxes is None and not any("boxes" in row for row in rows):
        boxes = DEFAULT_COLUMNS.boxes  # as in packs that name no columns, whose data may get boxes later
    there = {name for row in rows for name in row}
    return Columns(
        id=found.id, instruction=found.instruction, image=found.image, output=found.output, boxes=boxes,
        video=found.video or ("video" if "video" not in there else None),
        fps=found.fps or ("fps" if "fps" not in there else None),
    )  # fmt: skip


def _contains_boxes(rows: Sequence[Row], name: str) -> bool:
    """Return whether a column has boxes in a form that intake reads, and nothing else."""
    try:
        read = [read_boxes(row.get(name)) for row in rows]
    except Unusable:
        return False
    return any(item.boxes for item in read)


# --- images --------------------------------------------------------------------------------------------------


def _find_bare_names(source: Source, found: Found, given: Path | None) -> Found:
    """Return the columns with one called like an image, if files have its values as names without extension."""
    remarks = list(found.remarks)
    for name in dict.fromkeys(name for row in source.rows for name in row if rank_column("image", name)[0] == 0):
        if name in (found.id, found.instruction, found.output):
            continue
        looked = replace(found, image=name)
        located = locate_images([name for row in source.rows for name in get_images(row, looked)], source.base, given)
        if 0 < located.looked_up <= 2 * located.found:
            return looked
        if located.looked_up:
            remarks.append(f"not read: `{name}`, as no images have its values as names; --image names their column")
    return replace(found, remarks=tuple(remarks))


def _locate(source: Source, found: Found, given: Path | None) -> tuple[Located, Found]:
    """Return where the images are, and the columns; without a column of images, a given folder may have them by id."""
    by_id = found.image is None and found.video is None and given is not None and found.id is not None
    looked = replace(found, image=found.id) if by_id else found
    names = [name for row in source.rows for name in _list_files(row, looked)]
    located = locate_images(names, source.base, given)
    if by_id and not located.found:
        raise ManifestError(f"{given}: no file is named after an item's `{found.id}`; name the column with --image")
    if names and not located.found:
        try:
            ImageFolder(located.folder).find(names[0])
        except Unusable as why:
            fix = "give their folder as second argument" if given is None else f"{given} is not their folder"
            raise ManifestError(f"{why.detail}; none of {located.looked_up} images was found: {fix}") from why
    return located, looked


def _name_columns(found: Found) -> Columns:
    """Return the columns of rewritten items: those of the data, so that messages name what users know."""
    image = found.image and ("image" if found.image == found.id else found.image)
    names = (found.id or "id", found.instruction, image, found.output)
    given = [name for name in names if name is not None]
    if len(set(given)) < len(given):
        names = ("id", found.instruction and "instruction", image and "image", LABEL)
    taken = {"video", "fps"} & set(names)
    return Columns(
        id=names[0], instruction=names[1], image=names[2], output=names[3],
        video=None if taken else "video", fps=None if taken else "fps",
    )  # fmt: skip


def _write_items(rows: Sequence[Row], found: Found, located: Located, folder: Path) -> tuple[Path, Columns]:
    """Write all items as JSON Lines, in their order, and return the file and its columns, which keep their names."""
    rename = located.rename or str
    columns = _name_columns(found)
    lines: list[bytes] = []
    for number, row in enumerate(rows, 1):
        own = row.get(found.id or "")
        own = int(own) if isinstance(own, float) and own.is_integer() else own
        item: Row = {columns.id or "": own if isinstance(own, int | str) and str(own).strip() else f"row-{number}"}
        item |= {columns.instruction: get_text(row, found)} if columns.instruction else {}
        item |= {columns.image: [rename(name) for name in get_images(row, found)]} if columns.image else {}
        if columns.video and (videos := get_videos(row, found)):
            item[columns.video] = [rename(v) if isinstance(v, str) else [*map(rename, v)] for v in videos]
            item |= {columns.fps: row.get(found.fps)} if columns.fps and found.fps else {}
        item |= {columns.output or "": _unwrap(row.get(found.output))}
        lines.append(orjson.dumps(_clean(item), default=str))
    write_bytes(folder / "items.jsonl", b"\n".join(lines) + b"\n")
    return folder / "items.jsonl", columns


def _clean(value: object) -> object:
    """Return the value with a question mark for each byte that is not UTF-8."""
    if isinstance(value, dict):
        return {key: _clean(field) for key, field in value.items()}
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value
