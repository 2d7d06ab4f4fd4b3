"""Write a pack and a run.yaml for a labelled set, and say what was found; nothing that exists is overwritten."""

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import ConfigError, EngineError, ManifestError
from tasks.items.cutting import PLACEHOLDER, VIDEO_PLACEHOLDER
from tasks.items.duplicates import find_near_duplicates
from tasks.items.image_hashes import ImageHashes
from tasks.items.key_frames import list_pictures
from tasks.items.ocr import OcrReader
from tasks.items.samples import Intake, read_samples
from tasks.packs.pack import Pack, load_pack
from tasks.records import Sample, Split
from tasks.start.columns import FLAGS, Ask
from tasks.start.data import Data, get_images, get_text, get_videos, read_data
from tasks.start.discover import LABEL_FOLDERS
from tasks.start.grouping import find_known_pack, group_items
from tasks.start.instructions import find_frames
from tasks.start.starter_files import NAMES, choose_language, make_ocr_option, make_run_file, write_pack
from tasks.storage.files import write_bytes
from tasks.storage.html import format_count
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
    _check_folders(folder, images)
    created = [path for path in (caches.images, *caches.images.parents) if not path.exists()]
    with tempfile.TemporaryDirectory(prefix=".labelstill-init-", dir=folder) as temporary:
        work = Path(temporary)
        read = read_data(data, images, work / ITEMS, wanted, ask)
        pack, remark = _write_pack(data, read, work / PACK)
        intake = read_samples(read.manifest, read.located.folder, pack, Split.LABELLED, cache=caches.images)
        if not intake.kept:
            if created:
                shutil.rmtree(created[-1])
            detail = intake.dropped[0].detail
            raise ManifestError(f"{data}: none of its {intake.read} items can be used; the first, {detail}")
        yield from (*_describe_data(data, read), *filter(None, [remark]))
        shown, on = _look_for_text(intake.kept, caches.texts)
        if on and pack.ocr is None:
            with (work / PACK / "pack.yaml").open("a", encoding="utf-8") as file:
                file.write(make_ocr_option(pack.language))
            load_pack(work / PACK)
        yield from _describe_items(intake, NAMES.get(pack.language, pack.language), shown)
        folds = _choose_folds(intake.kept, caches)
        manifest, place = (
            Path(str(path).replace(str(work), str(folder), 1)) for path in (read.manifest, read.located.folder)
        )
        for name in (ITEMS, PACK):
            if (work / name).exists():
                os.rename(work / name, folder / name)
        write_bytes(folder / RUN, make_run_file(data, manifest, place, folds).encode(errors="replace"))
    if manifest != read.source.manifest:
        yield f"the items were written to {manifest}, where labelstill reads them"
    yield f"wrote {PACK}/ and {RUN}; next: labelstill find-errors" + ("" if folds else _explain_no_folds(intake.kept))


def _check_folders(folder: Path, images: Path | None) -> None:
    for name in (PACK, ITEMS, RUN):
        if os.path.lexists(folder / name):
            raise ConfigError(f"{folder / name}: exists already, and `init` overwrites nothing; work in another folder")
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"{folder.resolve()}: nothing can be written here; work in another folder")
    if images is not None and not images.is_dir():
        raise ManifestError(f"{images}: no such image folder; correct the second argument")


def _write_pack(data: Path, read: Data, folder: Path) -> tuple[Pack, str]:
    """Write a pack: a copy of the one that knows these items, or else a new one. Return it, and a remark about it."""
    known = find_known_pack(read.labelled, read.columns)
    if known is not None:
        shutil.copytree(known.folder, folder)
        return load_pack(folder), f"the items are those of the pack {known.name}, which was copied"
    found, rows = read.found, read.source.rows
    first = found.instruction is not None and any(
        (PLACEHOLDER not in get_text(row, found) and get_images(row, found))
        or (VIDEO_PLACEHOLDER not in get_text(row, found) and get_videos(row, found))
        for row in rows
    )
    language = choose_language(read.labelled)
    tasks = group_items(read.labelled)
    find_frames(tasks, [text for text, _ in read.labelled])
    write_pack(folder, data, language, read.columns, tasks, images_first=first)
    listed = "; ".join(f"{task.name}: {', '.join(list(task.labels)[:3])} …" for task in tasks)
    return load_pack(folder), (
        f"{len(tasks)} tasks, told apart by how the texts begin: {listed}; see {PACK}/pack.yaml"
        if len(tasks) > 1
        else ""
    )


# --- what is said --------------------------------------------------------------------------------------------


def _describe_data(data: Path, read: Data) -> Iterator[str]:
    found = read.found
    named = [f"{FLAGS[role][2:]} `{name}`" for role in FLAGS if (name := getattr(found, role)) is not None]
    columns = f"; {', '.join(named)} (change with {', '.join(FLAGS.values())})"
    yield f"{data}: {read.source.kind}" + (columns if read.source.kind != LABEL_FOLDERS else "")
    yield from (*read.source.remarks, *found.remarks)
    if read.located.by_last_part:
        yield f"images are those in {read.located.folder} whose file names are the last part of the names in the data"
    elif found.image is not None and not read.located.folder.resolve().is_relative_to(read.source.base.resolve()):
        yield f"images are those in {read.located.folder}"


def _describe_items(intake: Intake, language: str, shown: str) -> Iterator[str]:
    labels = Counter(sample.given for sample in intake.kept)
    counts = f"{format_count(intake.read, 'item')}, {format_count(len(labels), 'label')}, {language}"
    yield f"{counts}; {shown}" if shown else counts
    listed = ", ".join(f"{label} {n:,}" for label, n in labels.most_common(12))
    yield f"labels: {listed}{' …' if len(labels) > 12 else ''}"
    if intake.dropped:
        reasons = Counter(dropped.reason.replace("_", " ") for dropped in intake.dropped).most_common()
        listed = ", ".join(f"{reason} {n:,}" for reason, n in reasons)
        yield f"{len(intake.kept):,} usable, {len(intake.dropped):,} not: {listed}; `labelstill check` lists them"


def _look_for_text(samples: Sequence[Sample], texts: Path) -> tuple[str, bool]:
    """Return a sentence about how many of some images show text, and whether all images should be read."""
    images = list({picture.sha256: picture for sample in samples for picture in list_pictures(sample)}.values())
    sampled = images[:: max(1, -(-len(images) // _SAMPLED_IMAGES))]
    if not sampled:
        return "", False
    reader = OcrReader(texts)
    try:
        found = reader.read(sampled)
    except EngineError as error:
        return f"OCR off: {error}", False
    shown = sum(sum(map(str.isalnum, text)) >= _FEWEST_LETTERS for text in found.values())
    on = shown >= _WITH_TEXT * len(sampled)
    note = " (reading takes about a second of a core per screenshot, once; to go without, delete `ocr` from pack.yaml)"
    return f"OCR {'on' if on else 'off'}: {shown} of {len(sampled)} sampled images show text{note if on else ''}", on


def _explain_no_folds(samples: Sequence[Sample]) -> str:
    counts = Counter(sample.given for sample in samples)
    if sum(count > 1 for count in counts.values()) < 2:
        return ", once at least two labels have two different items each"
    return (
        ", once at least two labels have two items that share no images or texts: what shares them is held out "
        "together, and nothing would be left to learn from"
    )


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
