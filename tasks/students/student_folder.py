"""Read and write a student's folder, which is complete once it contains student.json."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tasks.records import Sample, content_digest
from tasks.storage.json_lines import write_json
from tasks.students.settings import FoldSettings


def is_trained(folder: Path) -> bool:
    """Return whether the folder contains a finished student."""
    return (folder / "student.json").exists()


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the content of student.json."""
    return orjson.loads((folder / "student.json").read_bytes())


def work_folder(folder: Path) -> Path:
    """Return the hidden folder, beside `folder`, in which the student is trained."""
    return folder.with_name(f".{folder.name}.part")


def identify_item(sample: Sample, texts: Mapping[str, str], usual: Iterable[str] = ()) -> list[object]:
    """Return what a student learns from an item, for the student's digest.

    The text on the item's images and recordings, from `texts` by their digests, is included if there is any, the item's
    labels if they are not the `usual` ones, and the frames of recordings. So digests of students that were taught none
    of these stay as they are.
    """
    facts: list[object] = [sample.id, content_digest(sample), sample.given]
    shown = [texts.get(media.sha256, "") for media in (*sample.images, *sample.videos)]
    if any(shown):
        facts.append(shown)
    if sample.videos:
        frames = [frame.sha256 for video in sample.videos for frame in video.frames]
        facts.append({"frames": frames, "times": [video.times for video in sample.videos]})
    if sample.labels != tuple(usual):
        facts.append({"labels": sample.labels})
    return facts


def describe_training(spec: FoldSettings, fold: int, train: Sequence[Sample]) -> dict[str, object]:
    """Return the facts in every student's record: its fold, settings and training items."""
    return {
        "fold": fold,
        "items": len(train),
        "spec": spec.model_dump(mode="json"),
        "trained_on": sorted(s.id for s in train),
        "trained_on_content": sorted({content_digest(s) for s in train}),
    }


def keep_student(work: Path, folder: Path, facts: Mapping[str, object]) -> None:
    """Write student.json and move the finished student from `work` to `folder`."""
    write_json(work / "student.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
