"""Stage 3: have teachers label the unlabelled pool, and keep the labels that can be trusted.

They also label the labelled set without seeing its labels. Their precision on these items shows how far their labels
for the pool can be trusted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from prefect import flow, get_run_logger

from flows.asking import open_asker, prepare_prompter
from flows.config import PseudoLabelsConfig
from flows.run_lock import hold_output
from flows.stage import Stage, log_where_to_judge, read_valid_verdicts, run_as_task, show_table
from flows.students import FoldStudents
from flows.teacher_reasons import choose_reasons, identify_reason_settings, list_reason_models
from tasks.errors import AnswersPending
from tasks.items.file_states import read_file_state
from tasks.models.pending import ask_each
from tasks.models.teacher import TeacherCosts, estimate_price, label_with_teacher, name_teachers
from tasks.packs.pack import Pack
from tasks.pseudo_labels.calibration_targets import ENOUGH, match_corrections
from tasks.pseudo_labels.decide import PoolDecision, Trust, Trusted, split
from tasks.pseudo_labels.evidence import Opinions
from tasks.pseudo_labels.panel import PoolInputs, Standing, ask_in_turn, judge
from tasks.pseudo_labels.review_cases import build_review_cases
from tasks.records import Correction, Prediction, Sample, Sampling, Split
from tasks.review.queue import REVIEW_POOL, STORE, write_queue
from tasks.storage.rows import read_rows, write_rows
from tasks.storage.stage_record import StageRecord, read_record

STAGE = "pseudo_labels"


@flow(name="labelstill-pseudo-labels", flow_run_name="pseudo-labels: {config.pack}", timeout_seconds=168 * 3600)
@hold_output
def pseudo_labels(config: PseudoLabelsConfig) -> StageRecord:
    """Label the pool and write `output`/pseudo_labels.

    kept.parquet has the trusted predictions. The folder also gets predictions.parquet (the teacher's answers about the
    pool), labelled.parquet (its answers about the labelled set) and trust.parquet (the evidence and decision for each
    item of the pool). Up to `review_budget` uncertain items are written to `output`/review_pool for a person to review.
    """
    settings, teachers = config.pseudo_labels, name_teachers(config.panel)
    stage = Stage(STAGE, config, {**teachers, **list_reason_models(config)})
    pack, folder = stage.pack, stage.folder
    inputs = _read_inputs(config, stage)
    students = sorted({c.model for c in inputs.corrections.values()})
    record = stage.find_finished(
        settings=settings, ask=config.ask, student=config.student, students=students,
        asked=[[spec.ask, estimate_price(spec)] for spec in config.panel[1:]],
        reasons=identify_reason_settings(config, pack),
    )  # fmt: skip
    if record is not None:
        return record
    with open_asker(config, STAGE, [*inputs.labelled, *inputs.pool]) as asker:
        models = _Models(config, pack, TeacherCosts(asker), inputs)
        standing = models.ask_all()
        trust = standing.trust
        predictions = [standing.answers_here[s.id] for s in inputs.pool]
        kept, dropped = split(trust, predictions, STAGE)
        kept, of_reasons = choose_reasons(config, pack, asker, kept, inputs.pool)
        votes = {p.sample_id: p.answers for p in kept}  # without refused reasons
        predictions = [p.model_copy(update={"answers": votes.get(p.sample_id, p.answers)}) for p in predictions]
        costs = asker.costs()
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "predictions.parquet", predictions)
    write_rows(folder / "labelled.parquet", [standing.answers_there[s.id] for s in inputs.labelled])
    write_rows(folder / "trust.parquet", trust.items)
    _ask_people(config, inputs, standing)
    figures = trust.summarise() | models.count_figures(standing) | of_reasons
    record = stage.finish(kept, dropped, (s.id for s in inputs.pool), figures, costs)
    _show(config, trust)
    return record


def _read_inputs(config: PseudoLabelsConfig, stage: Stage) -> PoolInputs:
    """Read the stage's inputs and note the digest of each."""
    store = config.output / REVIEW_POOL / STORE
    pool = stage.read("samples", config.unlabelled, Split.UNLABELLED)
    settled = read_valid_verdicts(store, pool)
    stage.inputs["verdicts"] = read_file_state(store)
    if config.labelled is None:
        return PoolInputs(pool, [], {}, settled.verdicts, settled.disagreed)
    labelled = stage.read("labelled", config.labelled, Split.LABELLED)
    corrections: dict[str, Correction] = {}
    if (record := read_record(config.output / "correction")) is not None:
        stage.inputs["correction"] = record.digest
        rows = read_rows(config.output / "correction" / "kept.parquet", Correction)
        corrections = match_corrections(labelled, rows)
    if len(corrections) < len(labelled):
        get_run_logger().warning(
            "%d of %d labelled items have not been checked by `correction`. A wrong given label counts as an error of "
            "the teacher, so fewer pseudo-labels are kept; set `student` to run `correction` first",
            len(labelled) - len(corrections), len(labelled),
        )  # fmt: skip
    return PoolInputs(pool, labelled, corrections, settled.verdicts, settled.disagreed)


@dataclass(frozen=True)
class _Models:
    """The models of the stage, what they cost, and what they are asked about."""

    config: PseudoLabelsConfig
    pack: Pack
    spent: TeacherCosts
    inputs: PoolInputs

    def ask_all(self) -> Standing:
        """Ask teachers and fold students; return what follows from their answers."""
        config, inputs = self.config, self.inputs
        sets = (
            (inputs.labelled, "the labelled set without seeing its labels"),
            (inputs.pool, "the pool"),
        )
        everybody = [p for p, spec in enumerate(config.panel) if spec.share is None and (p == 0 or not spec.is_rule)]
        answers = ask_each(*(partial(self._label, place, items, what) for place in everybody for items, what in sets))
        there, here = (_join_opinions(answers[side::2]) for side in range(2))
        if config.ask_only:
            raise AnswersPending(f"{STAGE}: the teacher has answered; decisions follow when `correction` is finished")
        if inputs.corrections and config.student is not None:
            students = FoldStudents(config, config.student, self.pack, self.spent.asker)
            of_labelled, of_pool = students.predict_pool(inputs.labelled, inputs.pool)
            there, here = replace(there, students=of_labelled), replace(here, students=of_pool)
        waiting = {
            place: spec.share
            for place, spec in enumerate(config.panel)
            if spec.share is not None and not spec.is_rule and not config.has_rule
        }
        prices = [estimate_price(spec) for spec in config.panel]
        return ask_in_turn(self._judge(there, here), waiting, self._ask_some, prices.__getitem__, self._judge)

    def count_figures(self, standing: Standing) -> dict[str, float]:
        """Return each teacher's answers, cost and agreement with given labels and people."""
        answers = {
            role: [standing.there.teachers[place], standing.here.teachers[place]]
            for place, role in enumerate(name_teachers(self.config.panel))
        }
        corrections = self.inputs.corrections.values()
        verdicts = {c.sample_id: c.verdict for c in corrections if c.verdict is not None}
        given = {s.id: s.given for s in self.inputs.labelled if s.given is not None}
        return self.spent.count_figures(answers, given, verdicts)

    def _label(self, place: int, items: Sequence[Sample], what: str) -> Opinions:
        """Return a teacher's opinions about `items`."""
        spec, ask, seed = self.config.panel[place], self.config.ask, self.config.seed
        role = list(name_teachers(self.config.panel))[place]
        found = Opinions(tuple({} for _ in self.config.panel))
        if not items:
            return found
        what = f"{role} labels {what}"
        prompter = prepare_prompter(self.config, self.pack, spec, items)
        with self.spent.charge(role):
            labelled = label_with_teacher(self.spent.asker, prompter, items, spec, ask, seed, what)
            found = found.add_answers(place, _index_by_sample(labelled))
            if self.pack.describe_first and place == 0:
                sampling = Sampling(label_probabilities=True, max_tokens=8, seed=seed)
                requests = [prompter.classify(s, sampling, with_reason=False) for s in items]
                direct = self.spent.asker.ask_for_labels(
                    requests, spec, f"{what}, without descriptions", source="teacher/direct", model=prompter.model
                )
                found = replace(found, direct=_index_by_sample(direct))
        return found

    def _ask_some(self, place: int, split: Split, wanted: Sequence[str]) -> Mapping[str, Prediction]:
        """Ask a teacher about the items of a set with these ids; return its predictions, keyed by id."""
        labelled = split is Split.LABELLED
        samples = {s.id: s for s in (self.inputs.labelled if labelled else self.inputs.pool)}
        what = f"uncertain items of the {'labelled set' if labelled else 'pool'}"
        return self._label(place, [samples[i] for i in wanted], what).teachers[place]

    def _judge(self, there: Opinions, here: Opinions) -> Standing:
        """Calibrate trust on the items with checked labels, in a task run, and decide about the pool."""
        config = self.config
        standing = run_as_task("calibrate", "calibrate trust", lambda: (
            judge(self.inputs, there, here, config.pseudo_labels, config.seed, by_rule=config.has_rule)
        ))  # fmt: skip
        if standing.model is None and not config.has_rule:
            get_run_logger().warning(
                "fewer than %d items have checked labels, so the expected precision is the teachers' own estimate; add "
                "a labelled set", ENOUGH,
            )  # fmt: skip
        return standing


def _join_opinions(parts: Sequence[Opinions]) -> Opinions:
    """Return the opinions of several teachers about one set as one."""
    joint = parts[0]
    for part in parts[1:]:
        for place, answers in enumerate(part.teachers):
            joint = joint.add_answers(place, answers)
    return joint


def _index_by_sample(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    return {p.sample_id: p for p in predictions}


def _ask_people(config: PseudoLabelsConfig, inputs: PoolInputs, standing: Standing) -> None:
    """Write the review queue of uncertain items if there is a review budget or a verdict, and log where it is."""
    budget = config.pseudo_labels.review_budget
    if not budget and not inputs.verdicts and not inputs.disagreed:
        return
    answers, students = standing.answers_here, standing.here.students
    cases = build_review_cases(inputs.pool, standing.trust.items, answers, students, budget, inputs.disagreed)
    folder = config.output / REVIEW_POOL
    run_as_task("review page", "write the review page of the pool", lambda: (
        write_queue(cases, folder, title="Review: pool")
    ))  # fmt: skip
    log_where_to_judge(folder, f"{len(cases) - len(inputs.verdicts)} uncertain items of the pool")


def _show(config: PseudoLabelsConfig, trust: Trust) -> None:
    log, settings, p = get_run_logger(), config.pseudo_labels, trust.precision
    kept = [i for i in trust.items if i.decision is PoolDecision.KEPT]
    log.info(
        "kept %d of %d pseudo-labels: expected precision %.3f, between %.3f and %.3f",
        len(kept), len(trust.items), p.value, p.low, p.high,
    )  # fmt: skip
    if not kept and not config.has_rule:
        log.warning(
            "no pseudo-label is kept, because none can be trusted to a precision of %.2f: review some items, or lower "
            "`target_precision`",
            settings.target_precision,
        )
    if not trust.floors_kept:
        log.warning("`floor` %d is not met: with it the target precision would not be reached", settings.floor)
    show_table(
        "pseudo-label-trust",
        _tabulate_by_class(trust.items),
        "Pseudo-labels per class: answered, kept, expected precision",
    )


def _tabulate_by_class(items: Sequence[Trusted]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for label in sorted({i.label for i in items if i.label is not None}):
        mine = [i for i in items if i.label == label]
        kept = [i.expected or 0.0 for i in mine if i.decision is PoolDecision.KEPT]
        rows.append(
            {
                "label": label,
                "answered": len(mine),
                "kept": len(kept),
                "expected precision of all": round(sum(i.expected or 0.0 for i in mine) / len(mine), 4),
                "expected precision of kept": round(sum(kept) / len(kept), 4) if kept else None,
                "over quota": sum(i.decision is PoolDecision.OVER_QUOTA for i in mine),
            }
        )
    return rows
