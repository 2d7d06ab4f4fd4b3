"""Plan, train and ask trials of probes: one probe per variant and seed, trained in seconds on a CPU.

A probe learns no reasons, and its training cannot continue from another probe. Variants that differ from another one
only in that are left out.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.evaluation.results import Results
from tasks.evaluation.scores import Scored, make_rows
from tasks.evaluation.settings import EvaluateSettings
from tasks.evaluation.variants import Variant, plan_variants
from tasks.records import Prediction, Sample
from tasks.storage.stage_record import Costs
from tasks.students.probe import ProbeRecipe, predict_probe
from tasks.students.probe_features import Vector
from tasks.students.settings import ProbeSpec
from tasks.students.student_folder import is_trained

_FOR_GENERATORS = frozenset({Variant.RATIONALES, Variant.PHASED, Variant.SOFT})


@dataclass(frozen=True)
class ProbeTrial:
    """The training of one probe."""

    variant: Variant
    recipe: ProbeRecipe
    items: tuple[Sample, ...]
    """The training items, each with the label to teach as its `given`."""
    folder: Path
    """The probe's folder, named by a digest of everything that determines the probe."""

    @property
    def seed(self) -> int:
        """Return the seed of the probe."""
        return self.recipe.seed

    @property
    def is_trained(self) -> bool:
        """Return whether the probe is already trained."""
        return is_trained(self.folder)

    def train(self) -> None:
        """Train the probe unless it is already trained; raises what `ProbeRecipe.train` raises."""
        self.recipe.train(self.items, 0, self.folder, lambda *_: None)

    def predict(self, items: Sequence[Sample]) -> Iterator[Prediction]:
        """Yield the trained probe's prediction for each item."""
        return predict_probe(self.folder, items, self.recipe.texts, self.recipe.images)


@dataclass(frozen=True)
class Probes:
    """The trained probes of an evaluation."""

    trials: Sequence[ProbeTrial]

    @property
    def variants(self) -> set[Variant]:
        """Return the variants that were trained."""
        return {trial.variant for trial in self.trials}

    @property
    def count(self) -> int:
        """Return how many answers each item gets."""
        return len(self.trials)

    def score(self, items: Sequence[Sample], labels: Mapping[str, str]) -> list[Scored]:
        """Return all probes' answers about `items`, whose true labels are `labels`."""
        rows: list[Scored] = []
        for trial in self.trials:
            answers = {p.sample_id: p for p in trial.predict(items)}
            rows += make_rows(trial.variant, trial.seed, items, labels, answers)
        return rows

    def predict(self, variant: Variant, items: Sequence[Sample]) -> list[Prediction]:
        """Return the predictions of each probe of `variant`."""
        return [p for trial in self.trials if trial.variant is variant for p in trial.predict(items)]

    def costs(self) -> Costs:
        """Return the costs, which are none: a probe asks no model."""
        return Costs()


def plan_probe_trials(
    settings: EvaluateSettings,
    student: ProbeSpec,
    results: Results,
    truth: Mapping[str, str],
    texts: Mapping[str, str],
    images: Mapping[str, Vector],
    folder: Path,
) -> list[ProbeTrial]:
    """Return one trial per variant and seed: all variants with the first seed, then all variants with the next.

    The seeds count from `student.seed`. Variants without items are left out. `truth` maps item id to true label,
    `texts` and `images` are as in `ProbeRecipe`, and the probes' folders are under `folder`.
    """
    wanted = [variant for variant in settings.variants if variant not in _FOR_GENERATORS]
    trials: list[ProbeTrial] = []
    for seed in range(student.seed, student.seed + settings.seeds):
        recipe = ProbeRecipe(student, seed, texts, images)
        for variant, (phase,) in plan_variants(wanted, results, truth).items():
            items = _distinguish(phase.items)
            trials.append(ProbeTrial(variant, recipe, items, folder / recipe.digest(items, 0)))
    return trials


def _distinguish(items: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return the items with distinct ids: one of the pool may have the id of a labelled one."""
    found: dict[str, Sample] = {}
    for item in items:
        name = f"{item.id} ({item.split})" if item.id in found else item.id
        found[name] = item.model_copy(update={"id": name})
    return tuple(found.values())
