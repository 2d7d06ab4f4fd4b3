"""The folder that holds a student; student.json is written last and makes it whole."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from tasks.records import Sample, content_digest
from tasks.storage.json_lines import write_json
from tasks.students.settings import FoldSettings


def is_trained(folder: Path) -> bool:
    """Return whether the folder holds the whole student."""
    return (folder / "student.json").exists()


def read_facts(folder: Path) -> dict[str, Any]:
    """Return what the student's own record says of its training."""
    return orjson.loads((folder / "student.json").read_bytes())


def work_folder(folder: Path) -> Path:
    """Return the hidden folder beside it in which the student is made."""
    return folder.with_name(f".{folder.name}.part")


def describe_training(spec: FoldSettings, fold: int, train: Sequence[Sample]) -> dict[str, object]:
    """Return what every student's record says: the fold left out, the settings, and the items that it is trained on."""
    return {
        "fold": fold,
        "items": len(train),
        "spec": spec.model_dump(mode="json"),
        "trained_on": sorted(s.id for s in train),
        "trained_on_content": sorted({content_digest(s) for s in train}),
    }


def keep_student(work: Path, folder: Path, facts: Mapping[str, object]) -> None:
    """Write student.json and move the whole student from `work` to its own folder."""
    write_json(work / "student.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
