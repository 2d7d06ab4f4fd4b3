"""Say what a LoRA student is trained on, and name it; lora_training.py trains it.

This module imports no torch: where there is a GPU, only child processes of a run do.
"""

import logging
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from tasks.errors import ConfigError
from tasks.models.engines.identity import identify_model
from tasks.models.image_cache import ImageCache
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, digest_of
from tasks.students.asking import choose_base_engine
from tasks.students.lora_memory import Memory, estimate_memory
from tasks.students.loss_curves import Progress
from tasks.students.settings import CheckpointSettings, StudentSpec
from tasks.students.student_folder import describe_training, identify_item, is_trained, work_folder

log = logging.getLogger("labelstill")

_NOT_OF_A_STUDENT = {
    "scoring", "folds", "repeats", "parallel", "report_to", "loss",
}  # fmt: skip
"""Settings that do not change the weights; `loss` does so only through `LoraRecipe.soft`."""


@dataclass(frozen=True)
class LoraRecipe:
    """Trains LoRA students."""

    spec: StudentSpec
    prompter: Prompter
    repeat: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    """Maps item id to the reason for the item's label."""
    soft: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    """Maps item id to the probabilities of labels to learn, if the item is taught without a reason."""
    start: Path | None = None
    """Folder of a finished student whose adapter is trained further."""
    revision: str | None = None
    """Revision at which to load the base; `spec.revision` if None."""
    images: ImageCache | None = None
    """Cache of resized images; without it, each image is resized each time that it is used."""

    def digest(self, train: Sequence[Sample], fold: int) -> str:
        """Return a digest that identifies a student, made from its items, texts, settings, base, fold and repeat.

        Raises ConfigError as `train` does.
        """
        ingredients = self.spec.model_dump(mode="json", exclude=_NOT_OF_A_STUDENT)
        taught = choose_taught_items(self.spec, train, self.reasons)
        pack = self.prompter.pack
        items = [[*identify_item(s, self.prompter.texts, pack.task(s.task).labels), reason] for s, reason in taught]
        if pack.boxes:
            items = [
                [*i, [b.model_dump() for b in s.boxes] if r else []] for i, (s, r) in zip(items, taught, strict=True)
            ]
        base = identify_model(choose_base_engine(self.spec))
        origin: list[object] = [self.start.name] if self.start else []
        if self.soft:
            origin.append({s.id: self.soft[s.id] for s, _ in taught if s.id in self.soft})
        return digest_of([ingredients, base, pack.digest, items, fold, self.repeat, *origin])[:16]

    def estimate_memory(self, train: Iterable[Sample]) -> Memory | None:
        """Return the GPU memory that training on these items needs; None if that is not known."""
        return estimate_memory(self.spec, self.revision or self.spec.revision, self.prompter, train)

    def train(self, train: Sequence[Sample], fold: int, folder: Path, progress: Progress) -> Path:
        """Train one student on `train`, each item with its given label, and return its adapter's folder.

        The student learns the format in which it is later asked: the answer to the classify prompt, without a
        reason or, depending on `spec.reasons`, after the item's reason. Items that are left out because they have no
        reason are listed in student.json. Images are resized as in the local engine. `progress` is
        called after each update.

        A finished folder (one with student.json) is returned unchanged. A training that was killed resumes from its
        newest complete checkpoint when this is called again with the same arguments. Two
        processes that need the same folder train it once. Raises ConfigError when no item has a reason or a reporter's
        package is missing, EngineError when the GPU has too little memory, and what trl raises.
        """
        if is_trained(folder):
            shutil.rmtree(work_folder(folder), ignore_errors=True)  # its process was killed just after finishing
            return folder
        from tasks.students.lora_training import check_reporters, train_adapter  # they import torch

        check_reporters(self.spec.report_to)
        taught = choose_taught_items(self.spec, train, self.reasons)
        without = sorted({s.id for s in train} - {s.id for s, _ in taught})
        if without:
            log.warning("fold %d: %d of %d items have no reason and are left out", fold, len(without), len(train))
        facts = {
            "repeat": self.repeat,
            "start": self.start.name if self.start else None,
            "without_reason": without,
            **describe_training(self.spec, fold, [s for s, _ in taught]),
        }
        recipe = self.digest(train, fold)
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with FileLock(lock):
            if not is_trained(folder):
                train_adapter(self, recipe, taught, fold, folder, progress, facts)
            lock.unlink(missing_ok=True)  # a process that still waits for it finds a finished folder
        return folder


def choose_taught_items(
    spec: CheckpointSettings, train: Sequence[Sample], reasons: Mapping[str, str]
) -> list[tuple[Sample, str]]:
    """Return the items to train on, sorted by id, each with its reason, or with "" to train an answer without one.

    With `reasons: always`, items without a reason are left out; raises ConfigError when none is left.
    """
    items = sorted(train, key=lambda s: s.id)
    if spec.reasons == "never":
        return [(s, "") for s in items]
    given = [(s, reasons.get(s.id, "").strip()) for s in items]
    if spec.reasons == "where_given":
        return given
    taught = [(s, reason) for s, reason in given if reason]
    if not taught:
        raise ConfigError(
            f"student.reasons: none of the {len(items)} items of a training part has a reason; "
            "run `rationales` on the labelled set first, or set `reasons: never`"
        )
    return taught
