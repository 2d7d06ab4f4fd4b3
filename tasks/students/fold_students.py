"""Plan the training of one student per fold, each in a folder named by its digest."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tasks.records import Sample
from tasks.students.external import ExternalRecipe
from tasks.students.lora import LoraRecipe
from tasks.students.loss_curves import Progress
from tasks.students.probe import ProbeRecipe
from tasks.students.student_folder import read_facts


@dataclass(frozen=True)
class Student:
    """The student of a fold, trained or not."""

    fold: int
    folder: Path


@dataclass(frozen=True)
class Training:
    """The training of one student."""

    student: Student
    items: int
    run: Callable[[Progress], object]


def plan_trainings(
    recipe: LoraRecipe | ProbeRecipe | ExternalRecipe,
    samples: Sequence[Sample],
    fold_of: Mapping[str, int],
    k: int,
    folder: Path,
) -> list[Training]:
    """Return one training per fold, on all items except the fold's own; each student gets a folder under `folder`."""
    trainings: list[Training] = []
    for fold in range(k):
        items = [s for s in samples if fold_of.get(s.id) != fold]
        student = Student(fold, folder / recipe.digest(items, fold))
        trainings.append(Training(student, len(items), partial(recipe.train, items, fold, student.folder)))
    return trainings


def read_seen_content(students: Sequence[Student]) -> dict[int, set[str]]:
    """Map each fold to the content digests of the items on which its student was trained, as its record says."""
    return {student.fold: set(read_facts(student.folder)["trained_on_content"]) for student in students}
