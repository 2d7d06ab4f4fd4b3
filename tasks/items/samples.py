"""Manifest -> samples: every item checked on its way in, and each that fails leaves with its reason."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tasks.errors import ManifestError
from tasks.items.cutting import PLACEHOLDER, Cut, cut, literal_list
from tasks.items.images import MAX_PIXELS, checking_images, locate
from tasks.items.manifests import RawItem, is_utf8, kind_of, read_set
from tasks.items.refusals import Reason, Unusable
from tasks.packs.columns import Columns
from tasks.packs.pack import Pack, TaskPack
from tasks.records import Dropped, ImageRef, Sample, Split

__all__ = ["STAGE", "Intake", "Reason", "read_samples"]

STAGE = "samples"


@dataclass(frozen=True)
class Intake:
    """What came in: `len(kept) + len(dropped) == read`, each in the manifest's order."""

    kept: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    read: int


@dataclass(frozen=True)
class _Draft:
    """An item that passed all checks but those of its image files; `sample` has no parts yet."""

    sample: Sample
    where: str
    content: Cut
    paths: tuple[Path, ...]


def read_samples(
    manifest: Path,
    images: Path,
    pack: Pack,
    split: Split,
    *,
    max_image_pixels: int = MAX_PIXELS,
    known: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Intake:
    """Read a manifest, or the set of those in a folder, and the images it names.

    `progress` is told items done and items in all. `known` is a file that remembers images between intakes (see
    tasks/items/known_files.py): those that have not changed are not opened again, and the outcome is the same.
    Labels (of a pack of free text: texts) are demanded in LABELLED, checked where present in TEST, and ignored in
    UNLABELLED. Of items with one id the first counts; where the manifest has no ids, an item is called after its
    images. Raises ManifestError when the file or the image folder as a whole is unusable; no bad item
    raises: it is in `dropped`, and an intake that kept nothing is still an intake.
    """
    if not os.path.isdir(images):
        raise ManifestError(f"{images}: no such image folder (for {manifest}); correct the path of `images`")
    items = read_set(manifest, pack.columns)
    reader = _Reader(pack, split, images.resolve())
    drafts = [reader.draft(item, source) for source, item in items]
    paths = (path for draft in drafts if isinstance(draft, _Draft) for path in draft.paths)
    kept: list[Sample] = []
    dropped: list[Dropped] = []
    with checking_images(paths, max_image_pixels, known) as check:
        for done, draft in enumerate(drafts, 1):
            result = draft if isinstance(draft, Dropped) else _finish(draft, check)
            if isinstance(result, Sample):
                kept.append(result)
            else:
                dropped.append(result)
            if progress is not None:
                progress(done, len(items))
    return Intake(tuple(kept), tuple(dropped), len(items))


def _dropped(sample_id: str, where: str, why: Unusable) -> Dropped:
    # A file name may hold what is not UTF-8; the books must be writable all the same.
    detail = f"{where}: {why.detail}".encode(errors="replace").decode()
    return Dropped(sample_id=sample_id, stage=STAGE, reason=why.reason, detail=detail)


def _finish(draft: _Draft, check: Callable[[Path], ImageRef]) -> Sample | Dropped:
    try:
        images = [check(path) for path in draft.paths]
    except Unusable as why:
        return _dropped(draft.sample.id, draft.where, why)
    return draft.sample.model_copy(update={"parts": draft.content.parts(images)})


# --- one item ------------------------------------------------------------------------------------------------


class _Reader:
    """Checks items one by one, remembering the ids it has seen."""

    def __init__(self, pack: Pack, split: Split, root: Path) -> None:
        self._pack = pack
        self._columns = pack.columns
        self._split = split
        self._root = root
        self._seen: dict[str, str] = {}

    def draft(self, item: RawItem, source: str) -> _Draft | Dropped:
        sample_id = own_id(item, self._columns) or item.fallback_id
        try:
            return self._check(item, sample_id, source)
        except Unusable as why:
            return _dropped(sample_id, item.where, why)

    def _check(self, item: RawItem, sample_id: str, source: str) -> _Draft:
        if item.flaw is not None:
            raise item.flaw
        fields = item.fields
        if fields is None:
            raise Unusable(Reason.NOT_AN_OBJECT, f"is a {kind_of(item.value)}, expected an object")
        identity = own_id(item, self._columns)
        if identity is not None:
            first = self._seen.setdefault(identity, item.where)
            if first != item.where:
                raise Unusable(Reason.DUPLICATE_ID, f"id `{identity}` was taken by {first}")
        bad = [key for key in self._columns.named if not _all_utf8(fields.get(key))]
        if bad:
            raise Unusable(Reason.NOT_UTF8, f"`{'`, `'.join(bad)}` holds bytes that are not UTF-8")
        names = _image_names(fields.get(self._columns.image or ""))
        if identity is None:
            raise Unusable(Reason.MISSING_FIELD, f"has no `{self._columns.id or self._columns.image}`")
        instruction = self._instruction(fields, len(names))
        task = self._recognise(instruction)
        content = cut(instruction, task)
        labels = () if task.free_text else content.offered or tuple(task.labels)
        given = None if self._split is Split.UNLABELLED else self._given(fields, task, labels)
        if content.slots != len(names):
            detail = f"{content.slots} `<image>` in the text, {len(names)} in `{self._columns.image}`"
            raise Unusable(Reason.PLACEHOLDER_MISMATCH, detail)
        if not content.pieces:
            raise Unusable(Reason.EMPTY_ITEM, "nothing is left of the instruction but role sentence and labels")
        paths = tuple(locate(name, self._root) for name in names)
        sample = Sample(
            id=sample_id, task=task.name, parts=(), labels=labels, given=given, split=self._split, source=source
        )
        return _Draft(sample, item.where, content, paths)

    def _instruction(self, fields: dict[str, object], images: int) -> str:
        """The item's own; the places of its images alone where the manifest has no instructions."""
        column = self._columns.instruction
        if column is None:
            return PLACEHOLDER * images
        if column not in fields:
            raise Unusable(Reason.MISSING_FIELD, f"has no `{column}`")
        instruction = fields[column]
        if not isinstance(instruction, str):
            raise Unusable(Reason.INSTRUCTION_NOT_TEXT, f"`{column}` is a {kind_of(instruction)}, expected text")
        return instruction

    def _recognise(self, instruction: str) -> TaskPack:
        for task in self._pack.tasks.values():
            if task.recognise is None or task.recognise.search(instruction):
                return task
        raise Unusable(Reason.UNRECOGNISED, f"no task of pack {self._pack.name} begins like `{instruction[:40]!r}`")

    def _given(self, fields: dict[str, object], task: TaskPack, labels: tuple[str, ...]) -> str | None:
        output = fields.get(self._columns.output or "")
        label = output.strip() if isinstance(output, str) else output
        if label is None or label == "" or label != label:  # a table's empty cell may be NaN
            if self._split is Split.LABELLED:
                raise Unusable(Reason.MISSING_LABEL, f"has no `{self._columns.output}`")
            return None
        if isinstance(label, str) and (task.free_text or label in labels):
            return label
        if task.free_text:
            raise Unusable(Reason.OUTPUT_NOT_TEXT, f"`{self._columns.output}` is a {kind_of(label)}, expected text")
        if isinstance(label, str) and label in task.labels:
            raise Unusable(Reason.LABEL_NOT_OFFERED, f"label `{label}` is not in the item's own list")
        raise Unusable(Reason.UNKNOWN_LABEL, f"label `{label}` is none of task {task.name}")


def own_id(item: RawItem, columns: Columns) -> str | None:
    """Return the item's own id as text, or its images' names where there are no ids; None when it has none to use."""
    fields = item.fields or {}
    if columns.id is not None:
        value = fields.get(columns.id)
    else:
        try:
            value = ",".join(_image_names(fields.get(columns.image or "")))
        except Unusable:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    text = str(value)
    return text if text.strip() and is_utf8(text) else None


def _all_utf8(value: object) -> bool:
    if isinstance(value, str):
        return is_utf8(value)
    if isinstance(value, list):
        return all(_all_utf8(entry) for entry in cast(list[object], value))
    return True


def _image_names(value: object) -> list[str]:
    """The names in `image`: a list, one name, a list written into one cell, or nothing at all."""
    if value is None or value == "" or value != value:
        return []
    if isinstance(value, str):
        listed = literal_list(value) if value.startswith("[") else None
        return [value] if listed is None else _image_names(listed)
    if isinstance(value, list):
        entries = cast(list[object], value)
        names = [name for name in entries if isinstance(name, str)]
        if len(names) == len(entries):
            return names
    raise Unusable(Reason.IMAGE_NOT_A_NAME, f"its image is {repr(cast(object, value))[:80]}, expected file names")
