"""Choose the review cases of items that are known only from a file of probabilities, without a manifest or a pack."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from tasks.correction.decide import Decisions
from tasks.correction.judgements import Floats
from tasks.correction.outcome import choose_cases, record_corrections
from tasks.errors import JudgementError
from tasks.items.image_names import ImageFolder, VideoName, read_image_names, read_video_names
from tasks.items.images import MAX_PIXELS, check_image
from tasks.items.raw_items import describe_type
from tasks.items.refusals import Reason, Unusable
from tasks.items.settings import VideoSettings
from tasks.items.videos import LISTED_FPS, check_videos
from tasks.media import ImagePart, Part, TextPart, VideoPart, VideoRef
from tasks.records import NEITHER, Outcome, Prediction, ReviewCase, Sample, Split
from tasks.storage.json_lines import read_objects


def choose_listed_cases(
    file: Path, images: Path | None, frames: Path, decisions: Decisions, teacher: Floats | None
) -> list[ReviewCase]:
    """Return the cases of the items in `decisions.person_asked`, ordered and described as in a run.

    A line of `file` may have "text", and "image" and "video": the names of files in the folder `images`. `frames` is
    the folder in which the frames of recordings are stored. `teacher` has the teacher's probabilities [N, C + 1], with
    `neither` last. Raises JudgementError, naming the line and the item, if a text or a file can't be shown.
    """
    ids, labels = decisions.judgements.ids, (*decisions.judgements.labels, NEITHER)
    asked = [ids[i] for i in decisions.person_asked.tolist()]
    samples = _read_samples(file, images, frames, set(asked), decisions.judgements.labels)
    answers: dict[str, Prediction] = {}
    for item in decisions.asked[0].tolist() if decisions.asked else ():
        if teacher is not None and not np.isnan(teacher[item, 0]):
            label = labels[int(teacher[item].argmax())]
            answers[ids[item]] = Prediction(sample_id=ids[item], source="teacher", outcome=Outcome.OK, label=label)
    fold_of, model_of = dict.fromkeys(asked, 0), dict.fromkeys(asked, "")  # a case does not show them
    records = record_corrections(samples, decisions, fold_of, model_of, answers, {}, {})
    return choose_cases(samples, records, decisions, len(asked))


def _read_samples(
    file: Path, images: Path | None, frames: Path, asked: Collection[str], labels: tuple[str, ...]
) -> list[Sample]:
    folder = ImageFolder(images) if images else None
    samples: list[Sample] = []
    for number, row in read_objects(file, JudgementError, "write one JSON object per item"):
        if row["id"] not in asked:
            continue
        try:
            parts = _read_parts(row, folder, frames)
        except Unusable as why:
            raise JudgementError(f"{file}, line {number}: item {row['id']!r}: {why.detail}") from why
        samples.append(
            Sample(
                id=row["id"], task="", parts=parts, labels=labels, given=row["given"], split=Split.LABELLED,
                source=str(file.resolve()),
            )
        )  # fmt: skip
    if folder and samples and not any(sample.images or sample.videos for sample in samples):
        raise JudgementError(f'{file}: no item to review has an "image" or "video"; name files, or leave out --images')
    return samples


def _read_parts(row: dict[str, Any], folder: ImageFolder | None, frames: Path) -> tuple[Part, ...]:
    """Return an item's images and recordings, if there is a folder for them, and its text.

    Raises Unusable if one can't be read.
    """
    text = "" if row.get("text") is None else row["text"]
    if not isinstance(text, str):
        raise Unusable(Reason.INSTRUCTION_NOT_TEXT, f'its "text" is a {describe_type(text)}, expected text')
    shown: list[Part] = []
    if folder:
        for name in read_image_names(row.get("image")):
            shown.append(ImagePart(image=check_image(folder.find(name), MAX_PIXELS)))
        for name in read_video_names(row.get("video")):
            shown.append(VideoPart(video=_read_video(name, folder, frames)))
    if text:
        shown.append(TextPart(text=text))
    return tuple(shown)


def _read_video(name: VideoName, folder: ImageFolder, frames: Path) -> VideoRef:
    files = [folder.find(name, is_video=True)] if isinstance(name, str) else []
    with check_videos(files, VideoSettings(), frames, None) as recordings:
        if isinstance(name, str):
            return recordings.check(files[0])
        return recordings.join([check_image(folder.find(frame), MAX_PIXELS) for frame in name], LISTED_FPS)
