"""Plan and train trials: one student per variant and seed, trained in one or more steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.evaluation.results import Results
from tasks.evaluation.settings import EvaluateSettings
from tasks.evaluation.variants import Phase, Variant, plan_variants
from tasks.models.engines.identity import make_prompter
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.students.asking import choose_base_engine
from tasks.students.lora import LoraRecipe
from tasks.students.lora_memory import Memory
from tasks.students.loss_curves import Progress
from tasks.students.settings import StudentSpec


@dataclass(frozen=True)
class Step:
    """One training of a trial; it continues from the student of the previous step."""

    phase: Phase
    spec: StudentSpec
    folder: Path
    """The student's folder, named by a digest of everything that determines the student."""


@dataclass(frozen=True)
class Trial:
    """Everything that a separate process needs to train one student."""

    variant: Variant
    seed: int
    pack: str
    """Name or folder of the pack."""
    texts: Mapping[str, str]
    """Maps image digest to the text recognised on the image, for packs that show it."""
    steps: tuple[Step, ...]
    revision: str | None = None
    """Revision at which to load the base; that of the steps' settings if None."""
    images: ImageCache | None = None
    """Cache of resized images."""

    @property
    def folder(self) -> Path:
        """Return the folder of the finished student."""
        return self.steps[-1].folder

    @property
    def is_trained(self) -> bool:
        """Return whether the student is already trained to the end."""
        return (self.folder / "student.json").exists()

    @property
    def has_reasons(self) -> bool:
        """Return whether the student is taught any reasons."""
        return any(step.phase.reasons for step in self.steps)


def plan_trials(
    settings: EvaluateSettings,
    student: StudentSpec,
    results: Results,
    truth: Mapping[str, str],
    pack: str,
    texts: Mapping[str, str],
    folder: Path,
) -> list[Trial]:
    """Return one trial per variant and seed: all variants with the first seed, then all variants with the next.

    The seeds count from the run's `seed`. Variants without items are left out. All students are trained for the same
    number of steps. Their folders are under `folder`. `truth` maps item id to true label.
    """
    wanted = [variant for variant in settings.variants if variant is not Variant.SOFT or student.loss == "soft"]
    phases = plan_variants(wanted, results, truth)
    emitted = sum(bool(e.label) for e in results.emitted)
    passes = student.epochs * emitted / (student.batch_size * student.gradient_accumulation)
    total = student.steps or max(1, round(passes))
    prompter = make_prompter(load_pack(pack), choose_base_engine(student), texts)
    return [
        Trial(variant, s, pack, texts, _plan_steps(plan, student, total, s, prompter, folder))
        for s in range(student.seed, student.seed + settings.seeds)
        for variant, plan in phases.items()
    ]


def train_trial(trial: Trial, progress: Progress) -> None:
    """Train the steps that are not trained yet; raises what `LoraRecipe.train` raises.

    `progress` is called for each step as if it were the only one.
    """
    start: Path | None = None
    for step in trial.steps:
        _make_recipe(trial, step, start).train(step.phase.items, 0, step.folder, progress)
        start = step.folder


def estimate_trials(trials: Sequence[Trial]) -> Memory | None:
    """Return what the training of any of these trials needs on a GPU; None if that is not known."""
    items = {item.id: item for trial in trials for step in trial.steps for item in step.phase.items}
    return _make_recipe(trials[0], trials[0].steps[0], None).estimate_memory(items.values())


def _plan_steps(
    phases: Sequence[Phase], student: StudentSpec, total: int, seed: int, prompter: Prompter, folder: Path
) -> tuple[Step, ...]:
    steps: list[Step] = []
    for phase in phases:
        changes = {
            "loss": "soft" if phase.soft else "hard",
            "steps": max(1, round(total * phase.share)),
            "seed": seed,
            "reasons": "where_given" if phase.reasons else "never",
        }
        spec = student.model_copy(update=changes)
        start = steps[-1].folder if steps else None
        recipe = LoraRecipe(spec, prompter, reasons=phase.reasons, soft=phase.soft, start=start)
        steps.append(Step(phase, spec, folder / recipe.digest(phase.items, 0)))
    return tuple(steps)


def _make_recipe(trial: Trial, step: Step, start: Path | None) -> LoraRecipe:
    prompter = make_prompter(load_pack(trial.pack), choose_base_engine(step.spec), trial.texts)
    phase = step.phase
    return LoraRecipe(
        step.spec,
        prompter,
        reasons=phase.reasons,
        soft=phase.soft,
        start=start,
        revision=trial.revision,
        images=trial.images,
    )
