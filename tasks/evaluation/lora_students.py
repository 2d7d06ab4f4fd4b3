"""Ask the trained LoRA students of an evaluation: one per variant and seed, and the fold students as one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.correction.judgements import join_predictions
from tasks.evaluation.fold_team import FoldTeam
from tasks.evaluation.pointing import measure_pointing
from tasks.evaluation.scores import Scored, make_rows
from tasks.evaluation.trials import Trial
from tasks.evaluation.variants import FROM_FOLDS, Variant
from tasks.models.ask import Asker
from tasks.models.engines.identity import make_prompter
from tasks.packs.pack import Pack
from tasks.records import Prediction, Sample
from tasks.storage.stage_record import Costs
from tasks.students.asking import choose_student_engine, make_label_requests
from tasks.students.settings import StudentSpec
from tasks.students.student_folder import is_trained


@dataclass(frozen=True)
class LoraStudents:
    """The trained LoRA students of an evaluation, and the asker that sends them questions."""

    pack: Pack
    spec: StudentSpec
    trials: Sequence[Trial]
    teams: Sequence[FoldTeam]
    """The fold students of each repeat; none if no variant of FROM_FOLDS is measured."""
    wanted: Sequence[Variant]
    """The variants to measure."""
    texts: Mapping[str, str]
    """Maps image digest to the text on the image."""
    asker: Asker

    @property
    def variants(self) -> set[Variant]:
        """Return the variants that were trained."""
        return {trial.variant for trial in self.trials} | (FROM_FOLDS & set(self.wanted) if self.teams else set())

    @property
    def count(self) -> int:
        """Return how many answers each item gets."""
        return len(self.trials) + len(self.teams) * len(FROM_FOLDS & set(self.wanted))

    def score(self, items: Sequence[Sample], labels: Mapping[str, str]) -> list[Scored]:
        """Return all students' answers about `items`, whose true labels are `labels`."""
        rows: list[Scored] = []
        for trial in self.trials:
            answers = self._ask_trial(trial, items, with_reason=False)
            reasoned = self._ask_trial(trial, items, with_reason=True) if trial.has_reasons else {}
            pointed = measure_pointing(self.pack, items, reasoned)
            rows += make_rows(trial.variant, trial.seed, items, labels, answers, reasoned, pointed)
        for variant in (v for v in self.wanted if v in FROM_FOLDS):
            for team in self.teams:
                rows += make_rows(variant, team.seed, items, labels, self._ask_team(variant, team, items))
        return rows

    def predict(self, variant: Variant, items: Sequence[Sample]) -> list[Prediction]:
        """Return the predictions of each student of `variant`."""
        trials = [trial for trial in self.trials if trial.variant is variant]
        return [p for trial in trials for p in self._ask_trial(trial, items, with_reason=False).values()]

    def costs(self) -> Costs:
        """Return what the answers cost."""
        return self.asker.costs()

    def _ask_trial(self, trial: Trial, items: Sequence[Sample], *, with_reason: bool) -> dict[str, Prediction]:
        source = f"{trial.variant}/seed={trial.seed}"
        return self._ask(trial.folder, trial.steps[-1].spec, source, items, with_reason=with_reason)

    def _ask_team(self, variant: Variant, team: FoldTeam, items: Sequence[Sample]) -> dict[str, Prediction]:
        source = f"{variant}/seed={team.seed}"
        with_reason = self.spec.reasons == "always"
        if variant is Variant.FUSED:
            return self._ask(team.fused, self.spec, source, items, with_reason=with_reason)
        answers = [
            self._ask(folder, self.spec, f"{source}/fold={fold}", items, with_reason=with_reason)
            for fold, folder in enumerate(team.folders)
        ]
        return join_predictions(answers)

    def _ask(
        self, folder: Path, spec: StudentSpec, source: str, items: Sequence[Sample], *, with_reason: bool
    ) -> dict[str, Prediction]:
        """Return a dict that maps item id to the prediction of the student in `folder`."""
        teams = [folder for team in self.teams for folder in (*team.folders, team.fused) if is_trained(folder)]
        engine = choose_student_engine(spec, folder, [*(t.folder for t in self.trials), *teams])
        prompter = make_prompter(self.pack, engine, self.texts)
        requests = make_label_requests(prompter, items, with_reason=with_reason)
        how = "predicts labels after reasons" if with_reason else "predicts labels"
        what = f"student {source} {how}"
        found = self.asker.ask_for_labels(requests, engine, what, source=source, model=prompter.model)
        return {p.sample_id: p for p in found}
