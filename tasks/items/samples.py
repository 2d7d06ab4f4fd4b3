"""Read the items of a manifest as samples; every item that fails a check is dropped with its reason."""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from tasks.errors import ManifestError
from tasks.items.boxes import ItemBoxes, place_boxes, read_boxes
from tasks.items.cutting import PLACEHOLDER, VIDEO_PLACEHOLDER, Cut, cut_instruction
from tasks.items.foreign_files import suggest_columns
from tasks.items.ids import check_digits, find_own_id, settle_ids
from tasks.items.image_names import ImageFolder, read_image_names, read_video_names
from tasks.items.images import MAX_PIXELS, check_images
from tasks.items.known_files import FRAMES, KNOWN, UNPACKED
from tasks.items.manifests import read_manifests
from tasks.items.raw_items import RawItem, count_unread, describe_type, is_empty, is_utf8
from tasks.items.refusals import STAGE, Reason, Unusable, drop_item
from tasks.items.settings import VideoSettings
from tasks.items.videos import LISTED_FPS, Recordings, check_videos
from tasks.media import ImageRef, TextPart, VideoRef
from tasks.packs.label_names import find_equal_label, match_label
from tasks.packs.pack import Pack, TaskPack
from tasks.records import Dropped, Sample, Split

__all__ = ["STAGE", "Intake", "Reason", "read_samples"]

_OTHER_MEDIA = re.compile(r"<(?:video|audio)>|<\|(?:video|audio)(?:_pad)?\|>", re.IGNORECASE)
"""Placeholders of media that are not read, and spellings of `<video>` that no recording takes the place of."""


@dataclass(frozen=True)
class Intake:
    """The items of a manifest, in its order; `read` is their number, the sum of kept and dropped ones."""

    kept: tuple[Sample, ...]
    dropped: tuple[Dropped, ...]
    read: int
    unread: Mapping[str, int] = field(default_factory=dict[str, int])
    """Maps each key that nothing reads to the number of items in which it has a value, most frequent first."""
    respelled: Mapping[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    """Maps (text in the manifest, label it was read as) to the number of items."""

    def list_warnings(self) -> list[str]:
        """Return a sentence for people about the keys that nothing reads, and one about labels in other spellings."""
        found: list[str] = []
        if self.unread:
            listed = ", ".join(f"`{key}` ({count} items)" for key, count in self.unread.items())
            fix = "if they matter, name them in `columns` of pack.yaml or move their content"
            found.append(f"keys that nothing reads: {listed}; {fix}")
        if self.respelled:
            listed = ", ".join(f"`{text}` as `{label}` ({n} items)" for (text, label), n in self.respelled.items())
            found.append(
                f"labels that differ from the pack's in case, width, spaces or brackets, read as these: {listed}"
            )
        return found


@dataclass(frozen=True)
class _Draft:
    """An item that passed all checks except those of its images and recordings; `sample` has no parts yet."""

    sample: Sample
    where: str
    content: Cut
    paths: tuple[Path, ...]
    recordings: tuple[Path | tuple[Path, ...], ...]
    """The file of each, or the image files of its frames."""
    fps: float
    boxes: ItemBoxes

    @property
    def images(self) -> Iterator[Path]:
        """Yield all image files, those of frames too."""
        yield from self.paths
        for recording in self.recordings:
            yield from recording if isinstance(recording, tuple) else ()


def read_samples(
    manifest: Path,
    images: Path,
    pack: Pack,
    split: Split,
    *,
    max_image_pixels: int = MAX_PIXELS,
    video: VideoSettings = VideoSettings(),
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Intake:
    """Read and check the items of a manifest, or of all manifests in a folder, with their images and recordings.

    `progress` is called with the number of items done and the total. `cache` is a folder that several runs may share.
    It stores the frames of recordings, the images that were inside Parquet files, and the results of checks (see
    tasks/items/known_files.py): unchanged files are not opened again, and the result is the same. Without it, files
    are always opened, and recordings cannot be read. If the
    split is LABELLED, each item must have a label (a text, for a free-text pack); in TEST, a label is checked if it is
    present; in UNLABELLED, it is ignored. If several usable items have the same id, the first is kept, or none of them
    if the same content has different labels. If the manifest has no ids, an item is named after its images. Raises
    ManifestError when the manifest or the image folder as a whole is unusable. A bad item raises no error; it is in
    `dropped`.
    """
    if not os.path.isdir(images):
        raise ManifestError(f"{images}: no such image folder (for {manifest}); correct the path in `images`")
    known, unpacked, frames = (cache and cache / name for name in (KNOWN, UNPACKED, FRAMES))
    items = read_manifests(manifest, pack.columns, unpacked)
    reader = _Reader(pack, split, ImageFolder(images, unpacked))
    drafts = [reader.draft(item, source) for source, item in items]
    good = [draft for draft in drafts if isinstance(draft, _Draft)]
    paths = (path for draft in good for path in draft.images)
    files = [path for draft in good for path in draft.recordings if isinstance(path, Path)]
    if frames is None and any(draft.recordings for draft in good):
        raise ValueError(f"{manifest}: contains recordings; say in `cache` where their frames are stored")
    results: list[Sample | Dropped] = []
    with (
        check_images(paths, max_image_pixels, known) as check,
        check_videos(files, video, frames or Path(), known) as recordings,
    ):
        for done, draft in enumerate(drafts, 1):
            results.append(draft if isinstance(draft, Dropped) else _finish(draft, check, recordings))
            if progress is not None:
                progress(done, len(items))
    settled = settle_ids(results, [item.where for _, item in items])
    return Intake(
        kept=tuple(result for result in settled if isinstance(result, Sample)),
        dropped=tuple(result for result in settled if isinstance(result, Dropped)),
        read=len(items),
        unread=count_unread((item for _, item in items), pack.columns),
        respelled=dict(reader.respelled.most_common()),
    )


def _finish(draft: _Draft, check: Callable[[Path], ImageRef], recordings: Recordings) -> Sample | Dropped:
    try:
        images = [check(path) for path in draft.paths]
        videos: list[VideoRef] = []
        for files in draft.recordings:
            if isinstance(files, tuple):
                videos.append(recordings.join([check(path) for path in files], draft.fps))
            else:
                videos.append(recordings.check(files))
        boxes = place_boxes(draft.boxes, images)
    except Unusable as why:
        return drop_item(draft.sample.id, draft.sample.source, draft.where, why)
    return draft.sample.model_copy(update={"parts": draft.content.parts(images, videos), "boxes": boxes})


# --- one item ------------------------------------------------------------------------------------------------


class _Reader:
    """Checks items one by one, except for their image files and for whether their ids are unique."""

    def __init__(self, pack: Pack, split: Split, images: ImageFolder) -> None:
        self._pack = pack
        self._columns = pack.columns
        self._split = split
        self._images = images
        self.respelled: Counter[tuple[str, str]] = Counter()

    def draft(self, item: RawItem, source: str) -> _Draft | Dropped:
        sample_id = find_own_id(item, self._columns) or item.fallback_id
        try:
            return self._check(item, sample_id, source)
        except Unusable as why:
            return drop_item(sample_id, source, item.where, why)

    def _check(self, item: RawItem, sample_id: str, source: str) -> _Draft:
        if item.flaw is not None:
            raise item.flaw
        fields = item.fields
        if fields is None:
            raise Unusable(Reason.NOT_AN_OBJECT, f"is a {describe_type(item.value)}, expected an object")
        check_digits(fields.get(self._columns.id or ""))
        bad = [key for key in self._columns.read if not _all_utf8(fields.get(key))]
        if bad:
            raise Unusable(Reason.NOT_UTF8, f"`{'`, `'.join(bad)}` contains bytes that are not UTF-8")
        names = read_image_names(fields.get(self._columns.image or ""))
        videos = read_video_names(fields.get(self._columns.video or ""))
        if find_own_id(item, self._columns) is None:
            missing = self._columns.id or self._columns.image or self._columns.video
            hint = suggest_columns(self._columns, fields)
            raise Unusable(Reason.MISSING_FIELD, f"has no `{missing}`{hint}")
        instruction = self._instruction(fields, len(names), len(videos))
        task = self._recognise(instruction)
        content = cut_instruction(instruction, task)
        labels = () if task.free_text else content.offered or tuple(task.labels)
        given = None if self._split is Split.UNLABELLED else self._given(fields, task, labels)
        self._check_placeholders(content, len(names), PLACEHOLDER, self._columns.image, fields)
        self._check_placeholders(content, len(videos), VIDEO_PLACEHOLDER, self._columns.video, fields)
        if not content.pieces:
            raise Unusable(Reason.EMPTY_ITEM, "the instruction contains nothing but role sentence and labels")
        _check_media(content)
        boxes = read_boxes(fields.get(self._columns.boxes or ""))
        paths = tuple(self._images.find(name) for name in names)
        recordings = tuple(
            tuple(self._images.find(frame) for frame in name)
            if isinstance(name, tuple)
            else self._images.find(name, is_video=True)
            for name in videos
        )
        sample = Sample(
            id=sample_id, task=task.name, parts=(), labels=labels, given=given, split=self._split, source=source,
            user_turn=content.find_latest_user_turn(task),
        )  # fmt: skip
        fps = _read_fps(fields.get(self._columns.fps or ""))
        return _Draft(sample, item.where, content, paths, recordings, fps, boxes)

    def _check_placeholders(
        self, content: Cut, named: int, placeholder: str, column: str | None, fields: dict[str, object]
    ) -> None:
        if (slots := content.count_slots(placeholder)) != named:
            where = f"{named} in `{column}`" if column else "but the pack names no column for what belongs there"
            hint = "" if named else suggest_columns(self._columns, fields)
            raise Unusable(Reason.PLACEHOLDER_MISMATCH, f"{slots} `{placeholder}` in the text, {where}{hint}")

    def _instruction(self, fields: dict[str, object], images: int, videos: int) -> str:
        """Return the item's instruction; only placeholders if the manifest has no instructions."""
        column = self._columns.instruction
        media = PLACEHOLDER * images + VIDEO_PLACEHOLDER * videos
        if column is None:
            return media
        if self._pack.images_first and media and is_empty(fields.get(column)):
            return media
        if column not in fields:
            raise Unusable(Reason.MISSING_FIELD, f"has no `{column}`{suggest_columns(self._columns, fields)}")
        instruction = fields[column]
        if not isinstance(instruction, str):
            raise Unusable(Reason.INSTRUCTION_NOT_TEXT, f"`{column}` is a {describe_type(instruction)}, expected text")
        if self._pack.images_first and VIDEO_PLACEHOLDER not in instruction:
            instruction = VIDEO_PLACEHOLDER * videos + instruction
        if self._pack.images_first and PLACEHOLDER not in instruction:
            instruction = PLACEHOLDER * images + instruction
        return instruction

    def _recognise(self, instruction: str) -> TaskPack:
        for task in self._pack.tasks.values():
            if task.recognise is None or task.recognise.search(instruction):
                return task
        raise Unusable(Reason.UNRECOGNISED, f"no task of pack {self._pack.name} recognises `{instruction[:40]!r}`")

    def _given(self, fields: dict[str, object], task: TaskPack, labels: tuple[str, ...]) -> str | None:
        column = self._columns.output
        value = fields.get(column or "")
        label = read_label(value)
        if label is None:
            if self._split is Split.LABELLED:
                raise Unusable(Reason.MISSING_LABEL, f"has no `{column}`{suggest_columns(self._columns, fields)}")
            return None
        if not isinstance(label, str) or (task.free_text and not isinstance(value, str)):
            what = f"`{column}` is a {describe_type(value)}, expected {'text' if task.free_text else 'a label'}"
            raise Unusable(Reason.OUTPUT_NOT_TEXT if task.free_text else Reason.UNKNOWN_LABEL, what)
        if task.free_text:
            return label
        equal = find_equal_label(label, labels)
        if equal is not None:
            if equal != label:
                self.respelled[label, equal] += 1
            return equal
        if label in task.labels:
            raise Unusable(Reason.LABEL_NOT_OFFERED, f"label `{label}` is not in the item's own list")
        near = match_label(label, labels)
        meant = f"; did you mean `{near[0]}`? Correct the manifest" if near else ""
        raise Unusable(Reason.UNKNOWN_LABEL, f"label `{label}` is not in task {task.name}{meant}")


def read_label(value: object) -> object:
    """Return a label field's text without spaces around it, a number or boolean as text; None if it is empty."""
    if isinstance(value, str):
        return value.strip() or None
    if value is None or value != value:  # an empty cell of a table may be NaN
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(int(value) if isinstance(value, float) and value.is_integer() else value)
    return value


def _read_fps(value: object) -> float:
    """Return the frames per second of recordings that are given as image files."""
    try:
        fps = float(value) if isinstance(value, str | int | float) else 0.0
    except ValueError:
        return LISTED_FPS
    return fps if 0 < fps < float("inf") else LISTED_FPS


def _check_media(content: Cut) -> None:
    texts = (piece.text for piece in content.pieces if isinstance(piece, TextPart))
    found = next(filter(None, map(_OTHER_MEDIA.search, texts)), None)
    if found:
        detail = f"`{found[0]}` in the text stands for media that no model is shown; remove it, or add it to `strip`"
        raise Unusable(Reason.UNSUPPORTED_MEDIA, f"{detail} in pack.yaml if it is only text")


def _all_utf8(value: object) -> bool:
    if isinstance(value, str):
        return is_utf8(value)
    if isinstance(value, list):
        return all(_all_utf8(entry) for entry in cast(list[object], value))
    if isinstance(value, dict):
        return all(_all_utf8(entry) for entry in cast(dict[str, object], value).values())
    return True
