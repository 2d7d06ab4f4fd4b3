"""Stage 3: have the teacher label the unlabelled pool, and keep the labels that can be trusted.

The teacher also labels the labelled set without seeing its labels. Its precision on these items shows how far its
labels for the pool can be trusted.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial

from prefect import flow, get_run_logger

from flows.asking import find_line_finder, open_asker, prepare_prompter
from flows.config import PseudoLabelsConfig
from flows.run_lock import hold_output
from flows.stage import Stage, log_where_to_judge, read_valid_verdicts, run_as_task, show_table
from flows.students import FoldStudents
from tasks.errors import AnswersPending
from tasks.items.file_states import read_file_state
from tasks.models.ask import Asker
from tasks.models.engines.spec import EngineSpec
from tasks.models.pending import ask_each
from tasks.models.teacher import label_with_teacher
from tasks.packs.pack import Pack
from tasks.prompts.prompter import Prompter
from tasks.pseudo_labels.calibration_targets import ENOUGH, build_targets, find_checked, match_corrections
from tasks.pseudo_labels.decide import (
    PoolDecision,
    Trust,
    Trusted,
    decide,
    list_alike,
    list_untrusted,
    split,
)
from tasks.pseudo_labels.evidence import Opinions
from tasks.pseudo_labels.review_cases import build_review_cases
from tasks.pseudo_labels.trust import TrustModel, fit_trust
from tasks.rationales.gate import remove_bad_reasons
from tasks.records import Correction, Prediction, Sample, Sampling, Split
from tasks.review.queue import REVIEW_POOL, STORE, write_queue
from tasks.storage.rows import read_rows, write_rows
from tasks.storage.stage_record import StageRecord, read_record

STAGE = "pseudo_labels"


@dataclass(frozen=True)
class _Given:
    """The inputs of the stage."""

    pool: list[Sample]
    labelled: list[Sample]
    corrections: dict[str, Correction]
    verdicts: dict[str, str]
    """People's verdicts on items of the pool, keyed by item id."""
    disagreed: tuple[str, ...] = ()
    """Ids of pool items on which people disagree."""


@flow(name="labelstill-pseudo-labels", flow_run_name="pseudo-labels: {config.pack}", timeout_seconds=168 * 3600)
@hold_output
def pseudo_labels(config: PseudoLabelsConfig) -> StageRecord:
    """Label the pool and write `output`/pseudo_labels.

    kept.parquet has the trusted predictions. The folder also gets predictions.parquet (the teacher's answers about the
    pool), labelled.parquet (its answers about the labelled set) and trust.parquet (the evidence and decision for each
    item of the pool). Up to `review_budget` uncertain items are written to `output`/review_pool for a person to review.
    """
    settings = config.pseudo_labels
    stage = Stage(STAGE, config, {"teacher": config.teacher, "second teacher": settings.second_teacher})
    pack, folder = stage.pack, stage.folder
    given = _read_inputs(config, stage)
    students = sorted({c.model for c in given.corrections.values()})
    record = stage.find_finished(settings=settings, ask=config.ask, student=config.student, students=students)
    if record is not None:
        return record
    with open_asker(config, STAGE, [*given.labelled, *given.pool]) as asker:
        models = _Models(config, pack, asker)
        there, here = models.ask_all(given)
        trust, model = _decide(config, given, there, here)
        if settings.second_teacher is not None and not settings.second_teacher.is_rule:
            alike = list_alike(trust, model, there.teacher, there.collect_evidence())
            untrusted = list_untrusted(trust)
            here = replace(here, second=models.ask_second(settings.second_teacher, given.pool, untrusted))
            there = replace(there, second=models.ask_second(settings.second_teacher, given.labelled, alike))
            trust, _ = _decide(config, given, there, here)
        costs = asker.costs()
    predictions = [here.teacher[s.id] for s in given.pool]
    kept, dropped = split(trust, predictions, STAGE)
    lines = find_line_finder(config, pack)
    kept, faults = remove_bad_reasons(kept, {s.id: s for s in given.pool}, pack, lines)
    if faults:
        get_run_logger().info("bad reasons removed, their labels kept: %s", dict(faults))
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "predictions.parquet", predictions)
    write_rows(folder / "labelled.parquet", [there.teacher[s.id] for s in given.labelled])
    write_rows(folder / "trust.parquet", trust.items)
    _ask_people(config, given, trust, here)
    record = stage.finish(kept, dropped, (s.id for s in given.pool), trust.summarise(), costs)
    _show(config, trust)
    return record


def _read_inputs(config: PseudoLabelsConfig, stage: Stage) -> _Given:
    """Read the stage's inputs and note the digest of each."""
    store = config.output / REVIEW_POOL / STORE
    pool = stage.read("samples", config.unlabelled, Split.UNLABELLED)
    settled = read_valid_verdicts(store, pool)
    stage.inputs["verdicts"] = read_file_state(store)
    if config.labelled is None:
        return _Given(pool, [], {}, settled.verdicts, settled.disagreed)
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
    return _Given(pool, labelled, corrections, settled.verdicts, settled.disagreed)


@dataclass(frozen=True)
class _Models:
    """The models of the stage, and the asker that sends them questions."""

    config: PseudoLabelsConfig
    pack: Pack
    asker: Asker

    def ask_all(self, given: _Given) -> tuple[Opinions, Opinions]:
        """Ask the teacher and the fold students; return their opinions on the labelled set, then those on the pool."""
        config = self.config
        prompter = prepare_prompter(config, self.pack, config.teacher, [*given.labelled, *given.pool])
        there, here = ask_each(
            partial(self._ask_teacher, prompter, given.labelled, "the labelled set without seeing its labels"),
            partial(self._ask_teacher, prompter, given.pool, "the pool"),
        )
        if config.ask_only:
            raise AnswersPending(f"{STAGE}: the teacher has answered; decisions follow when `correction` is finished")
        if given.corrections and config.student is not None:
            students = FoldStudents(config, config.student, self.pack, self.asker)
            of_labelled, of_pool = students.predict_pool(given.labelled, given.pool)
            there, here = replace(there, students=of_labelled), replace(here, students=of_pool)
        return there, here

    def _ask_teacher(self, prompter: Prompter, items: Sequence[Sample], what: str) -> Opinions:
        spec, ask, seed = self.config.teacher, self.config.ask, self.config.seed
        what = f"teacher labels {what}"
        labelled = label_with_teacher(self.asker, prompter, items, spec, ask, seed, what)
        direct: list[Prediction] = []
        if self.pack.describe_first:
            sampling = Sampling(label_probabilities=True, max_tokens=8, seed=seed)
            requests = [prompter.classify(s, sampling, with_reason=False) for s in items]
            direct = self.asker.ask_for_labels(
                requests, spec, f"{what}, without descriptions", source="teacher/direct", model=prompter.model
            )
        return Opinions(_index_by_sample(labelled), _index_by_sample(direct))

    def ask_second(self, spec: EngineSpec, samples: Sequence[Sample], wanted: Collection[str]) -> dict[str, Prediction]:
        """Ask the second teacher about the `samples` whose ids are in `wanted`; return predictions keyed by id."""
        items = [s for s in samples if s.id in wanted]
        ask, seed = self.config.ask, self.config.seed
        prompter = prepare_prompter(self.config, self.pack, spec, items)
        what = "second teacher labels uncertain items"
        return _index_by_sample(label_with_teacher(self.asker, prompter, items, spec, ask, seed, what))


def _index_by_sample(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    return {p.sample_id: p for p in predictions}


def _decide(
    config: PseudoLabelsConfig, given: _Given, there: Opinions, here: Opinions
) -> tuple[Trust, TrustModel | None]:
    """Fit the trust model on the items with checked labels and decide about the pool.

    Without enough such items, the model is None and the teacher's own estimates are used. A teacher that is a rule is
    not trusted at all.
    """
    predictions = [here.teacher[s.id] for s in given.pool]
    found = here.collect_evidence()
    if config.teacher.is_rule:
        return decide(predictions, found, None, config.pseudo_labels, given.verdicts, config.seed, by_rule=True), None
    items = find_checked(given.labelled, there.teacher, there.collect_evidence(), given.corrections, {})
    items += find_checked(given.pool, here.teacher, found, {}, given.verdicts)
    model = None
    if len(items) >= ENOUGH:
        model = run_as_task("calibrate", f"calibrate trust on {len(items)} items", lambda: (
            fit_trust(build_targets(items), config.seed)
        ))  # fmt: skip
    else:
        get_run_logger().warning(
            "only %d items have checked labels, so the expected precision is the teacher's own estimate; add a "
            "labelled set", len(items),
        )  # fmt: skip
    return decide(predictions, found, model, config.pseudo_labels, given.verdicts, config.seed), model


def _ask_people(config: PseudoLabelsConfig, given: _Given, trust: Trust, here: Opinions) -> None:
    """Write the review queue of uncertain items if there is a review budget or a verdict, and log where it is."""
    budget = config.pseudo_labels.review_budget
    if not budget and not given.verdicts and not given.disagreed:
        return
    cases = build_review_cases(given.pool, trust.items, here.teacher, here.students, budget, given.disagreed)
    folder = config.output / REVIEW_POOL
    run_as_task("review page", "write the review page of the pool", lambda: (
        write_queue(cases, folder, title="Review: pool")
    ))  # fmt: skip
    log_where_to_judge(folder, f"{len(cases) - len(given.verdicts)} uncertain items of the pool")


def _show(config: PseudoLabelsConfig, trust: Trust) -> None:
    log, settings, p = get_run_logger(), config.pseudo_labels, trust.precision
    kept = [i for i in trust.items if i.decision is PoolDecision.KEPT]
    log.info(
        "kept %d of %d pseudo-labels: expected precision %.3f, between %.3f and %.3f",
        len(kept), len(trust.items), p.value, p.low, p.high,
    )  # fmt: skip
    if not kept and not config.teacher.is_rule:
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
