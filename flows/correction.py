"""Stage 3: K students, each trained without one fold, predict that fold; departures are adjudicated and audited."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import flow, get_run_logger

from flows.asking import open_asker, prepare_prompter
from flows.config import CorrectionConfig
from flows.run_lock import hold_output
from flows.stage import Stage, intake, reused, run_as_task, show_table
from flows.students import STAGE, predict_out_of_fold
from tasks.correction.corrected_manifest import check_not_own_copy, write_corrected
from tasks.correction.decide import AskTeacher, Decisions, LookUp, correct
from tasks.correction.judgements import (
    Floats,
    Ints,
    index_verdicts,
    judge_by_predictions,
    list_labels,
    split_judged,
    tabulate,
)
from tasks.correction.outcome import choose_cases, count_figures, record_corrections
from tasks.correction.settings import ReviewerConfig
from tasks.demo.stand_in import answer_from_truth
from tasks.items.file_states import read_file_state
from tasks.models.ask import Asker
from tasks.models.engines.identity import model_identity
from tasks.models.teacher import label_with_teacher
from tasks.packs.pack import Pack, load_pack
from tasks.records import NEITHER, Action, Correction, Prediction, Sample, Split, content_digest
from tasks.report.correction.report import write_report
from tasks.review.queue import PAGE, STORE, write_queue
from tasks.review.verdicts import read_store, read_verdicts, usable
from tasks.storage.stage_record import StageRecord
from tasks.storage.stages import code_version, hash_recipe
from tasks.students.asking import choose_base_engine
from tasks.students.settings import ProbeSpec


@flow(name="correction", flow_run_name="correction: {config.pack}", timeout_seconds=168 * 3600)
@hold_output
def correction(config: CorrectionConfig) -> StageRecord:
    """Judge every given label, under `output`/correction.

    Kept: one `Correction` an item, whatever was decided. Beside it: folds.json, students/, report.html and
    corrected/ (the manifests with the corrected labels) and corrections.jsonl (a line per changed item); the queue and
    page for a person are in `output`/review.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    pack.require_labels(STAGE)
    check_not_own_copy(config.labelled.manifest, config.output / STAGE)
    samples, read = intake(config.labelled, pack, Split.LABELLED, config.output, config.images)
    folder, review = config.output / STAGE, config.output / "review"
    models = {"teacher": model_identity(config.teacher), "base": _identify_base(config)}
    recipe = hash_recipe(
        settings=config.correction, pack=pack.digest, models=models, student=config.student,
        input=read.digest, code=code_version(), seed=config.seed,
        verdicts=[read_file_state(p) for p in (config.correction.reviewer.path, review / STORE) if p],
        pixels=[config.teacher.min_pixels, config.teacher.max_pixels], context=config.teacher.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    verdicts = _read_valid_verdicts(review / STORE, samples)
    with open_asker(config, STAGE, samples) as asker:
        found = predict_out_of_fold(config, pack, samples, asker)
        judged, unjudged = split_judged(samples, found.runs, found.folds[0].always_train)
        answers: dict[str, Prediction] = {}
        judgements = judge_by_predictions(judged, found.runs, list_labels(samples))
        decisions = correct(
            judgements,
            config.correction,
            _make_teacher(config, pack, judged, asker, answers),
            _make_reviewer(config.correction.reviewer, judged, judgements.labels),
            index_verdicts(judgements, verdicts),
            config.seed,
        )
        costs = asker.costs()
    fold_of = found.folds[0].fold_of
    model_of = {s.id: found.models(s.id) for s in judged}
    corrections = record_corrections(samples, decisions, fold_of, model_of, answers, unjudged, verdicts)

    def write_for_people() -> None:
        cases = choose_cases(samples, corrections, decisions, config.correction.review_budget)
        write_queue(cases, review, verdicts)
        _write_manifests(config, pack, samples, corrections, folder)
        title = f"Corrections: {config.labelled.manifest.name}"
        write_report(
            decisions, folder, title=title, costs=dict(costs.rows()), excluded=unjudged, repeats=len(found.runs)
        )

    run_as_task("report", "write report, review page and corrected manifests", write_for_people)
    inputs = {"samples": read.digest, "folds": found.folds[0].digest}
    stage = Stage(STAGE, folder, recipe, inputs, models, began)
    record = stage.finish(corrections, [], (s.id for s in samples), count_figures(corrections, decisions), costs)
    _show_changes(corrections, decisions, review)
    return record


def _identify_base(config: CorrectionConfig) -> str:
    student = config.student
    return "probe" if isinstance(student, ProbeSpec) else model_identity(choose_base_engine(student))


def _read_valid_verdicts(store: Path, samples: Sequence[Sample]) -> dict[str, str]:
    """Return what people have said so far, by sample id; of items that have changed since, nothing."""
    held = read_store(store)
    good, stale = usable(held, {s.id: s.labels for s in samples}, {s.id: content_digest(s) for s in samples})
    if stale:
        get_run_logger().warning(
            "%d verdicts are of items that have changed since; not used: %s", len(stale), stale[:10]
        )
    return good


def _make_teacher(
    config: CorrectionConfig, pack: Pack, samples: Sequence[Sample], asker: Asker, answers: dict[str, Prediction]
) -> AskTeacher:
    """Return how the teacher is asked about some of `samples`, blind; its answers are added to `answers`, too."""

    def ask(items: Ints) -> Floats:
        doubtful = [pack.with_neither(samples[i]) for i in items.tolist()]
        prompter = prepare_prompter(config, pack, config.teacher, doubtful)
        what = "teacher adjudicates suspicious labels"
        new = label_with_teacher(asker, prompter, doubtful, config.teacher, config.correction, config.seed, what)
        answers.update({p.sample_id: p for p in new})
        return tabulate(answers, doubtful, [*list_labels(samples), pack.neither or NEITHER])

    return ask


def _make_reviewer(reviewer: ReviewerConfig, samples: Sequence[Sample], labels: Sequence[str]) -> LookUp:
    """Return how the configured reviewer's verdicts are looked up, for the items asked about and no others."""
    places = {label: i for i, label in enumerate(labels)} | {NEITHER: -1}

    def look_up(items: Ints) -> dict[int, int]:
        if reviewer.path is None:
            return {}
        item_of = {samples[i].id: i for i in items.tolist()}
        if reviewer.kind == "demo_stand_in":
            get_run_logger().warning(
                "the reviewer is the demo's stand-in, which knows the truth: it answers for %d items", len(items)
            )
            verdicts = answer_from_truth(reviewer.path, item_of)
        else:
            verdicts = read_verdicts(reviewer.path, {identity: samples[i].labels for identity, i in item_of.items()})
        return {item_of[identity]: places[verdict] for identity, verdict in verdicts.items()}

    return look_up


def _write_manifests(
    config: CorrectionConfig, pack: Pack, samples: Sequence[Sample], corrections: Sequence[Correction], folder: Path
) -> None:
    manifest = config.labelled.manifest
    left_alone = write_corrected(manifest, pack.columns, samples, corrections, folder)
    if left_alone:
        get_run_logger().warning(
            "%d items have another label in %s by now, or are gone from it; left alone in the corrected copy: %s",
            len(left_alone), manifest, left_alone[:10],
        )  # fmt: skip


def _show_changes(corrections: Sequence[Correction], decisions: Decisions, review: Path) -> None:
    log = get_run_logger()
    changed = [c for c in corrections if c.action in (Action.RELABEL, Action.DROP)]
    rows = [
        {"item": c.sample_id, "given": c.given, "now": c.label or "(dropped)", "reviewed": c.reviewed, "why": c.why}
        for c in changed
    ]
    show_table("labels-changed", rows, f"{len(changed)} labels changed or dropped; {decisions.gate.summary}")
    waiting = sum(c.action is Action.REVIEW for c in corrections)
    log.info("%d labels changed or dropped, %d wait for review; %s", len(changed), waiting, decisions.gate.summary)
    if waiting:
        log.info("judge them in %s, then: labelstill review import %s FILE", review / PAGE, review.parent)
    estimates: Mapping[str, float] = {name: round(e.value, 4) for name, e in decisions.estimates.items()}
    if estimates:
        log.info("estimated: %s", estimates)
