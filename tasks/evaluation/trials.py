"""A trial: one student trained on one variant of the set with one seed, phase after phase."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.evaluation.variants import Phase, Variant
from tasks.models.engines.identity import model_identity
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.students.lora import student_digest, train_student
from tasks.students.settings import StudentSpec, base_spec


@dataclass(frozen=True)
class Trial:
    """Everything a process of its own needs to train one student."""

    variant: Variant
    seed: int
    phases: tuple[Phase, ...]
    spec: StudentSpec
    """Its `steps` are those of all phases together."""
    pack: str
    """Name or folder."""
    texts: Mapping[str, str]
    """Text on images by digest, for packs that show it."""
    folder: Path
    """Students' folders go in here, named by all that makes them."""


def student_folder(trial: Trial) -> Path:
    """Where the trial's finished student is, or will be."""
    return _plan(trial)[-1][1]


def is_trained(trial: Trial) -> bool:
    """Whether the student is there already, whole."""
    return (student_folder(trial) / "student.json").exists()


def train_trial(trial: Trial) -> Path:
    """Train what is not trained yet; returns the last student's folder. Raises what `train_student` raises."""
    prompter = _prompter(trial)
    start: Path | None = None
    for (spec, folder), phase in zip(_plan(trial), trial.phases, strict=True):
        train_student(spec, prompter, phase.items, 0, folder, _unheard, reasons=phase.reasons, start=start)
        start = folder
    assert start is not None
    return start


def _plan(trial: Trial) -> list[tuple[StudentSpec, Path]]:
    """Each phase's specification and folder."""
    prompter = _prompter(trial)
    plan: list[tuple[StudentSpec, Path]] = []
    for phase in trial.phases:
        steps = max(1, round((trial.spec.steps or 1) * phase.share))
        reasons = "where_given" if phase.reasons else "never"
        spec = trial.spec.model_copy(update={"steps": steps, "seed": trial.seed, "reasons": reasons})
        start = plan[-1][1] if plan else None
        digest = student_digest(spec, prompter, phase.items, 0, reasons=phase.reasons, start=start)
        plan.append((spec, trial.folder / digest))
    return plan


def _prompter(trial: Trial) -> Prompter:
    asked = base_spec(trial.spec)
    return Prompter(
        load_pack(trial.pack),
        model_identity(asked),
        max_pixels=asked.max_pixels,
        min_pixels=asked.min_pixels,
        context_length=asked.context_length,
        texts=trial.texts,
    )


def _unheard(done: int, total: int, loss: float) -> None:
    """Steps of a child process are not followed; finished students are."""
