"""The students of a split: what each is trained on, the folder that is named by it, and the training that fills it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from tasks.models.image_cache import ImageCache
from tasks.prompts.prompter import Prompter
from tasks.records import Sample
from tasks.students.external import external_digest, train_external
from tasks.students.lora import student_digest, train_student
from tasks.students.loss_curves import Progress
from tasks.students.probe import probe_digest, train_probe
from tasks.students.probe_features import Vector
from tasks.students.settings import ExternalSpec, FoldSettings, ProbeSpec, StudentSpec

_SEEDS_PER_REPEAT = 1000


@dataclass(frozen=True)
class Student:
    """The student of a fold, trained or still to be trained."""

    fold: int
    folder: Path

    @property
    def is_trained(self) -> bool:
        """Whether the folder holds the whole student."""
        return (self.folder / "student.json").exists()

    def read_facts(self) -> dict[str, Any]:
        """Return what the student's own record says of its training."""
        return orjson.loads((self.folder / "student.json").read_bytes())


@dataclass(frozen=True)
class Training:
    """How one student is made."""

    student: Student
    items: int
    run: Callable[[Progress], object]


def split_training_parts(samples: Sequence[Sample], fold_of: Mapping[str, int], k: int) -> list[list[Sample]]:
    """Return what the student of each fold is trained on: all items but its own."""
    return [[s for s in samples if fold_of.get(s.id) != fold] for fold in range(k)]


def plan_lora(
    spec: StudentSpec,
    parts: Sequence[Sequence[Sample]],
    repeat: int,
    folder: Path,
    prompter: Prompter,
    reasons: Mapping[str, str],
) -> list[Training]:
    """Return the training of a LoRA student on each of `parts`, under `folder`."""
    trainings: list[Training] = []
    for fold, items in enumerate(parts):
        home = folder / student_digest(spec, prompter, items, fold, repeat=repeat, reasons=reasons)
        work = partial(train_student, spec, prompter, items, fold, home, repeat=repeat, reasons=reasons)
        trainings.append(Training(Student(fold, home), len(items), work))
    return trainings


def plan_external(
    spec: ExternalSpec,
    parts: Sequence[Sequence[Sample]],
    repeat: int,
    folder: Path,
    prompter: Prompter,
    images: ImageCache,
) -> list[Training]:
    """Return the training of a foreign trainer's student on each of `parts`, under `folder`."""
    seed = _seed_of(spec, repeat)
    trainings: list[Training] = []
    for fold, items in enumerate(parts):
        home = folder / external_digest(spec, prompter, items, fold, seed)
        work = partial(train_external, spec, prompter, items, fold, seed, home, images=images)
        trainings.append(Training(Student(fold, home), len(items), work))
    return trainings


def plan_probes(
    spec: ProbeSpec,
    parts: Sequence[Sequence[Sample]],
    repeat: int,
    folder: Path,
    texts: Mapping[str, str],
    images: Mapping[str, Vector],
) -> list[Training]:
    """Return the training of a probe on each of `parts`, under `folder`."""
    seed = _seed_of(spec, repeat)
    trainings: list[Training] = []
    for fold, items in enumerate(parts):
        home = folder / probe_digest(spec, items, texts, fold, seed)
        work = partial(train_probe, spec, items, texts, fold, seed, home, images)
        trainings.append(Training(Student(fold, home), len(items), lambda _, work=work: work()))
    return trainings


def read_seen_content(students: Sequence[Student]) -> dict[int, set[str]]:
    """Return, by fold, the content digests of the items that each student's own record says it was trained on."""
    return {student.fold: set(student.read_facts()["trained_on_content"]) for student in students}


def _seed_of(spec: FoldSettings, repeat: int) -> int:
    return spec.seed + _SEEDS_PER_REPEAT * repeat
