"""Write a pack and a run.yaml for a labelled set, and say what was found; nothing that exists is overwritten."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from tasks.errors import ConfigError, EngineError, ManifestError
from tasks.items.cutting import PLACEHOLDER
from tasks.items.duplicates import find_near_duplicates
from tasks.items.image_hashes import ImageHashes
from tasks.items.image_names import ImageFolder
from tasks.items.known_files import KNOWN, UNPACKED
from tasks.items.ocr import OcrReader
from tasks.items.refusals import Unusable
from tasks.items.samples import Intake, read_image_names, read_label, read_samples
from tasks.packs.columns import Columns
from tasks.packs.pack import load_pack
from tasks.records import Sample, Split
from tasks.start.columns import FLAGS, LONGEST_LABEL, Ask, Found, find_columns
from tasks.start.conversions import LABEL, Row
from tasks.start.discover import Source, discover
from tasks.start.grouping import find_known_pack, group_items
from tasks.start.image_folder import Located, locate_images
from tasks.start.starter_files import NAMES, choose_language, make_ocr_option, make_run_file, write_pack
from tasks.storage.files import write_bytes
from tasks.students.folds import make_folds

PACK, ITEMS, RUN = "pack", "items", "run.yaml"
"""What is written into the working folder; `items` only if the data cannot be read as they stand."""
_SAMPLED_IMAGES = 12
_WITH_TEXT = 0.25
"""Share of the sampled images that must show text, so that all are read."""
_FEWEST_LETTERS = 4
_COMPARED = 2000
"""Of larger sets, near-duplicates are not looked for before a run."""


@dataclass(frozen=True)
class Caches:
    """Folders in which runs keep what they learn about images and the text on them."""

    images: Path
    texts: Path


def start(
    data: Path, images: Path | None, folder: Path, caches: Caches, wanted: Mapping[str, str | None], ask: Ask | None
) -> Iterator[str]:
    """Write `folder`/pack and `folder`/run.yaml for the labelled items in `data`; yield lines for people.

    If the items cannot be read as they stand, they are written to `folder`/items. `wanted` maps fields to the columns
    that a person named; `ask` asks a person (see `find_columns`). Raises ConfigError if a file exists already, and
    ManifestError if no item can be used; then nothing is written.
    """
    for name in (PACK, ITEMS, RUN):
        if os.path.lexists(folder / name):
            raise ConfigError(f"{folder / name}: exists already, and `init` overwrites nothing; work in another folder")
    if images is not None and not images.is_dir():
        raise ManifestError(f"{images}: no such image folder; correct the second argument")
    with tempfile.TemporaryDirectory(prefix=".labelstill-init-", dir=folder) as temporary:
        work = Path(temporary)
        source = discover(data, work / ITEMS / "images")
        found = find_columns(source.rows, wanted, ask)
        located, found = _locate(source, found, images, work / ITEMS / "images")
        manifest, columns = source.manifest, _make_columns(found)
        if manifest is None or columns is None or located.rename or _has_lists(source.rows, found):
            manifest, columns = _write_items(source.rows, found, located, work / ITEMS)
        rows = source.rows
        items = [(_get_text(row, found), label) for row in rows if (label := _get_label(row, found))]
        if not items:
            raise ManifestError(f"{data}: `{found.output}` has no labels, or only texts; name the column with --label")
        language = choose_language(items)
        known = find_known_pack(items, columns)
        if known is not None:
            shutil.copytree(known.folder, work / PACK)
        else:
            first = any(PLACEHOLDER not in _get_text(row, found) and _get_images(row, found) for row in rows)
            tasks = group_items(items)
            write_pack(
                work / PACK, data, language, columns, tasks, images_first=first and found.instruction is not None
            )
        pack = load_pack(work / PACK)
        intake = read_samples(
            manifest, located.folder, pack, Split.LABELLED,
            known=caches.images / KNOWN, unpacked=caches.images / UNPACKED,
        )  # fmt: skip
        if not intake.kept:
            detail = intake.dropped[0].detail
            raise ManifestError(f"{data}: none of its {intake.read} items can be used; the first, {detail}")
        yield f"{data}: {source.kind}; {_describe_columns(found)}"
        yield from (*source.remarks, *found.remarks)
        if known is not None:
            yield f"the items are those of the pack {known.name}, which was copied"
        shown = _look_for_text(intake.kept, caches.texts)
        if shown.startswith("OCR on") and pack.ocr is None:
            with (work / PACK / "pack.yaml").open("a", encoding="utf-8") as file:
                file.write(make_ocr_option(pack.language))
            load_pack(work / PACK)
        labels = Counter(sample.given for sample in intake.kept)
        yield f"{intake.read:,} items, {len(labels):,} labels, {NAMES[language]}{shown and f'; {shown}'}"
        yield from _describe_items(intake, labels)
        folds = _choose_folds(intake.kept, caches)
        final = (
            Path(str(manifest).replace(str(work), str(folder), 1)),
            Path(str(located.folder).replace(str(work), str(folder), 1)),
        )
        for name in (ITEMS, PACK):
            if (work / name).exists():
                os.rename(work / name, folder / name)
        write_bytes(folder / RUN, make_run_file(data, *final, folds).encode())
    if final[0] != source.manifest:
        yield f"the items were written to {final[0]}, where labelstill reads them"
    yield f"wrote {PACK}/ and {RUN}; next: labelstill find-errors" + (
        "" if folds else ", once at least two labels have two different items each"
    )


# --- what the columns hold -----------------------------------------------------------------------------------


def _get_text(row: Row, found: Found) -> str:
    value = row.get(found.instruction or "")
    return value if isinstance(value, str) else "" if value is None or value != value else str(value)


def _get_label(row: Row, found: Found) -> str | None:
    label = read_label(_unwrap(row.get(found.output)))
    return label if isinstance(label, str) and len(label) <= LONGEST_LABEL else None


def _unwrap(value: object) -> object:
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _has_lists(rows: Sequence[Row], found: Found) -> bool:
    return any(isinstance(row.get(found.output), list) for row in rows)


def _get_images(row: Row, found: Found) -> list[str]:
    try:
        return read_image_names(row.get(found.image or ""))
    except Unusable:
        return []


def _make_columns(found: Found) -> Columns | None:
    """Return the columns for a pack; None if items cannot be told apart by them."""
    if found.id is None:
        return None
    return Columns(id=found.id, instruction=found.instruction, image=found.image, output=found.output)


def _describe_columns(found: Found) -> str:
    named = [f"{FLAGS[role][2:]} `{name}`" for role in FLAGS if (name := getattr(found, role)) is not None]
    return f"{', '.join(named)} (change with --id, --text, --image, --label)"


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
    return [str(value)] if isinstance(value, int) else _get_images(row, found)


def _write_items(rows: Sequence[Row], found: Found, located: Located, folder: Path) -> tuple[Path, Columns]:
    """Write all items as JSON Lines, in their order, and return the file and its columns."""
    rename = located.rename or str
    lines: list[bytes] = []
    for number, row in enumerate(rows, 1):
        own = row.get(found.id or "")
        item = {"id": own if isinstance(own, int | str) and str(own).strip() else f"row-{number}"}
        item |= {"instruction": _get_text(row, found)} if found.instruction else {}
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


def _look_for_text(samples: Sequence[Sample], texts: Path) -> str:
    """Return how many of some images show text, and whether all should be read; empty if there are no images."""
    images = list({image.sha256: image for sample in samples for image in sample.images}.values())
    sampled = images[:: max(1, -(-len(images) // _SAMPLED_IMAGES))]
    if not sampled:
        return ""
    reader = OcrReader(texts)
    try:
        found = reader.read(sampled)
    except EngineError as error:
        return f"OCR off: {error}"
    shown = sum(sum(map(str.isalnum, text)) >= _FEWEST_LETTERS for text in found.values())
    on = shown >= _WITH_TEXT * len(sampled)
    return f"OCR {'on' if on else 'off'}: {shown} of {len(sampled)} sampled images show text"


# --- items ---------------------------------------------------------------------------------------------------


def _describe_items(intake: Intake, labels: Mapping[str | None, int]) -> Iterator[str]:
    ordered = sorted(labels.items(), key=lambda pair: -pair[1])
    yield "labels: " + ", ".join(f"{label} {n:,}" for label, n in ordered[:12]) + (" …" if len(ordered) > 12 else "")
    if intake.dropped:
        reasons = Counter(dropped.reason.replace("_", " ") for dropped in intake.dropped).most_common()
        listed = ", ".join(f"{reason} {n:,}" for reason, n in reasons)
        yield f"{len(intake.kept):,} usable, {len(intake.dropped):,} not: {listed}; `labelstill check` lists them"


def _choose_folds(samples: Sequence[Sample], caches: Caches) -> int | None:
    """Return the largest number of folds, up to 5, that holds out half of the items, else that which holds out most.

    None if no number holds out any, or if there is only one label.
    """
    if len({sample.given for sample in samples}) < 2:
        return None
    links = (
        find_near_duplicates(samples, ImageHashes(caches.images / "hashes.sqlite")) if len(samples) <= _COMPARED else []
    )
    held: dict[int, int] = {}
    for k in (5, 4, 3, 2):
        try:
            held[k] = len(make_folds(samples, k, 0, links=links).fold_of)
        except ConfigError:
            continue
        if 2 * held[k] >= len(samples):
            return k
    return max(held, key=lambda k: held[k], default=None)
