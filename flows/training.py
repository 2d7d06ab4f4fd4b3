"""Training fold students, a fold a task run: one after another on this machine, all at once on a cluster."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from prefect import get_run_logger

from flows.asking import Asking
from flows.config import CorrectionConfig
from flows.runners import Shard, run_shards
from flows.stage import show_table
from flows.ui import Progress
from tasks.records import Sample
from tasks.students.folds import Folds
from tasks.students.settings import StudentSpec

STAGE = "correction"


@dataclass(frozen=True)
class Student:
    """A trained student."""

    fold: int
    folder: Path


Work = Callable[[Path, Callable[..., None]], object]
"""Trains one student into a folder and reports its steps."""
Plan = Callable[[Sequence[Sample], int], tuple[Path, Work]]
"""Training items and fold → the student's folder, named by all that goes into it, and the work that fills it."""


def train_students(
    config: CorrectionConfig,
    asking: Asking,
    samples: Sequence[Sample],
    split: Folds,
    repeat: int,
    plan: Plan,
    *,
    gpus: int = 0,
    before: Callable[[], object] | None = None,
) -> list[Student]:
    """A student for each fold, one task run each, which holds `gpus` GPUs on a cluster; finished ones are reused.

    `before` is called once if any is to be trained: what all of them need.
    """
    log = get_run_logger()
    students: list[Student] = []
    shards: list[Shard[None]] = []
    for fold in range(split.k):
        train = [s for s in samples if split.fold_of.get(s.id) != fold]
        home, work = plan(train, fold)
        if (home / "student.json").exists():
            log.info("fold %d of %d: finished student reused (%s)", fold + 1, split.k, home.name)
        else:
            which = f"{fold + 1} of {split.k}" + (f", repeat {repeat + 1}" if repeat else "")
            what = f"train student {which} on {len(train)} items"
            shards.append(Shard(what, _training(what, home, work)))
        students.append(Student(fold, home))
    if shards:
        asking.rest()
        if before is not None:
            before()
    for _ in run_shards(config, "train student", shards, gpus=gpus):
        pass
    show_losses(students)
    return students


def gpus_a_fold(config: CorrectionConfig) -> int:
    """GPUs that a fold's training holds on a cluster: a LoRA student's uses one, a foreign trainer what it gets."""
    if config.runner == "threads":
        return 0
    most = config.runner.gpus_per_replica
    return min(1, most) if isinstance(config.student, StudentSpec) else most


def _training(what: str, home: Path, work: Work) -> Callable[[], None]:
    def train() -> None:
        with Progress(STAGE, what, 1) as progress:

            def moved(done: int, total: int, loss: float = 0.0) -> None:
                progress.total = max(total, 1)
                progress.to(done)

            work(home, moved)

    return train


def show_losses(students: Sequence[Student]) -> None:
    """The students' loss curves as one table artifact, some thirty points each."""
    rows: list[dict[str, object]] = []
    for student in students:
        facts = student_facts(student)
        curve = list(zip(facts.get("steps_logged", []), facts.get("losses", []), strict=False))
        rows += [{"fold": student.fold, "step": s, "loss": loss} for s, loss in curve[:: max(1, len(curve) // 30)]]
    if rows:
        show_table("student-losses", rows, "Loss of the fold students by step")


def student_facts(student: Student) -> dict[str, Any]:
    """What the student's own record says of its training."""
    return orjson.loads((student.folder / "student.json").read_bytes())
