"""Measure whether the new set is better: train the same student on each variant of it and score held-out items."""

import os
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.asking import open_asker, read_texts
from flows.config import EvaluateConfig
from flows.run_lock import BULK_FAILURES, hold_output
from flows.stage import Stage, read_manifests, run_as_task, show_table
from flows.students import FoldStudents, identify_training_inputs
from flows.ui import Progress
from tasks.dataset.export.labels import write_predictions
from tasks.errors import ConfigError
from tasks.evaluation.fold_team import FoldTeam
from tasks.evaluation.lora_students import LoraStudents
from tasks.evaluation.probe_trials import Probes, plan_probe_trials
from tasks.evaluation.results import STAGES, Results, check_held_out, is_transductive, read_results
from tasks.evaluation.served_student import write_served_student
from tasks.evaluation.table import TRANSDUCTIVE, Report, describe, make_report
from tasks.evaluation.test_set import choose_test_labels, count_usual_labels, keep_own_ids, read_truth
from tasks.evaluation.trials import Trial, estimate_trials, plan_trials, train_trial
from tasks.evaluation.variants import BEST_FIRST, FROM_FOLDS, Variant
from tasks.items.settings import SourceConfig
from tasks.models.engines.engine import Workplace
from tasks.models.image_cache import ImageCache
from tasks.models.pins import choose_revision
from tasks.packs.pack import Pack
from tasks.records import Dropped, Sample, Split, digest_of
from tasks.report.card.card import read_settings, write_card
from tasks.storage.failure import write_failure
from tasks.storage.json_lines import write_json
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import StageRecord, read_record
from tasks.students.asking import choose_base_engine
from tasks.students.probe_features import describe_images
from tasks.students.settings import ProbeSpec, StudentSpec
from tasks.students.student_folder import is_trained
from tasks.students.worker_pool import TrainingPool

STAGE = "evaluate"


@flow(name="labelstill-evaluate", flow_run_name="evaluate: {config.pack}", timeout_seconds=168 * 3600)
@hold_output
def evaluate(config: EvaluateConfig) -> StageRecord:
    """Train students on each variant of the set made by the run under `output`, and measure them.

    Writes `output`/evaluate: kept.parquet with one row per answer (`Scored`), scores.json, and predictions.csv for the
    test set. Raises ConfigError if `emit` has not finished, if it did not keep the held-out items out of the training
    set, or if no held-out item has a label.
    """
    settings = config.evaluate
    base = None if isinstance(config.student, ProbeSpec) else choose_base_engine(config.student)
    stage = Stage(STAGE, config, {"base": base})
    pack, folder = stage.pack, stage.folder
    held_out = stage.read("evaluation", config.evaluation, Split.TEST)
    tested = stage.read("test", config.test, Split.TEST, folder) if config.test is not None else []
    for earlier in STAGES:
        if (record := read_record(config.output / earlier)) is not None:
            stage.inputs[earlier] = record.digest
    if "emit" not in stage.inputs:
        raise ConfigError(f"{config.output / 'emit'}: no finished training set; run `labelstill run` with it first")
    if isinstance(config.student, ProbeSpec):
        stage.inputs |= identify_training_inputs(config, config.student)
    check_held_out(config.output, config.evaluation.manifest, stage.inputs["evaluation"])
    if is_transductive(config.output):
        get_run_logger().warning("%s", TRANSDUCTIVE)
    if config.test is not None and not {*settings.variants} & {*BEST_FIRST}:
        raise ConfigError(
            f"evaluate.variants: labels for `test` come from one of {', '.join(BEST_FIRST)}: add one, or remove `test`"
        )
    truth = read_truth(settings.truth) if settings.truth else {}
    if (record := stage.find_finished(settings=settings, student=config.student, truth=truth)) is not None:
        return record
    labels = {s.id: label for s in held_out if (label := s.given or truth.get(s.id))}
    if not labels:
        raise ConfigError(
            f"{config.evaluation.manifest}: no held-out item has a label; add the labels there as `output`, or in the "
            "file that `evaluate.truth` names"
        )

    sets = {
        split: read_manifests(source, pack, split, config.output, config)[0] if source else []
        for split, source in ((Split.LABELLED, config.labelled), (Split.UNLABELLED, config.unlabelled))
    }
    results = read_results(config.output, sets[Split.LABELLED], sets[Split.UNLABELLED])
    measured = [s for s in held_out if s.id in labels]
    open_students = _open_probes if isinstance(config.student, ProbeSpec) else _open_lora_students
    with open_students(config, pack, results, truth, [*measured, *tested]) as students:
        for variant in settings.variants:
            if variant not in students.variants:
                hard = variant is Variant.SOFT and getattr(config.student, "loss", "soft") == "hard"
                why = "`student.loss` is not `soft`" if hard else "the run has no data for it"
                get_run_logger().info("variant `%s` is skipped: %s", variant, why)
        rows = students.score(measured, labels)
        if config.test is not None and tested:
            _predict(config.test, folder, results, students, pack, tested)
        costs = students.costs()
    report = make_report(rows, transductive=is_transductive(config.output))
    write_json(folder / "scores.json", report)
    dropped = [
        Dropped(sample_id=s.id, stage=STAGE, reason="no_true_label", detail="neither `output` nor `evaluate.truth`")
        for s in held_out
        if s.id not in labels
    ]
    if isinstance(students, LoraStudents) and Variant.FUSED in students.variants:
        most_images = max(len(s.images) for s in measured)
        place = Workplace(ImageCache(config.images), config.output / "logs", most_images)
        folder = write_served_student(config.output, students.teams[0], students.spec, place, report.scores)
        get_run_logger().info("the fused student is in %s; its README says how to serve it", folder)
    _show(report)
    ids = [s.id for s in measured for _ in range(students.count)] + [d.sample_id for d in dropped]
    record = stage.finish(rows, dropped, ids, report.figures(), costs)
    _update_card(config.output)
    return record


@contextmanager
def _show_bulk_failure(output: Path) -> Generator[None]:
    """Context manager: if the block fails because of the models, rewrite the card, which then says why."""
    try:
        yield
    except BULK_FAILURES as error:
        write_failure(output, error)
        _update_card(output)
        raise


def _update_card(output: Path) -> None:
    if (card := read_settings(output)) is not None:
        run_as_task("card", "put the students on the run's card", lambda: write_card(output, card))


def _train(trials: Sequence[Trial], parallel: int) -> None:
    """Train the students that are not trained yet: one at a time per GPU, or `parallel` on a machine without."""
    waiting = [t for t in trials if not t.is_trained]
    if len(waiting) < len(trials):
        get_run_logger().info("%d of %d students are already trained", len(trials) - len(waiting), len(trials))
    if not waiting:
        return

    def work() -> None:
        cores = max(1, (os.cpu_count() or 1) // parallel)
        pool = TrainingPool(parallel, len(waiting), partial(estimate_trials, waiting), cores)
        with (
            Progress(STAGE, f"training {len(waiting)} students", len(waiting)) as progress,
            # in this order, because an error ends the processes first and the threads that wait for them next
            ThreadPoolExecutor(pool.size) as threads,
            pool,
        ):
            runs = [threads.submit(pool.train, partial(train_trial, t), lambda *_: None) for t in waiting]
            for done in as_completed(runs):
                done.result()
                progress.advance()

    sets = len({t.variant for t in waiting})
    run_as_task("train students", f"train {len(waiting)} students on {sets} variants", work)


@contextmanager
def _open_lora_students(
    config: EvaluateConfig, pack: Pack, results: Results, truth: Mapping[str, str], items: Sequence[Sample]
) -> Generator[LoraStudents]:
    """Context manager: train the LoRA students, and yield them for questions about `items`."""
    texts = read_texts(config, pack, [*items, *results.labelled.values(), *results.pool.values()])
    student = cast(StudentSpec, config.student)
    home = config.output / STAGE / "students"
    trials = plan_trials(config.evaluate, student, results, truth, config.pack, texts, home)
    revision = choose_revision(student.base, student.revision, config.ledger)
    trials = [replace(trial, revision=revision, images=ImageCache(config.images)) for trial in trials]
    _train(trials, student.parallel)
    with _show_bulk_failure(config.output), open_asker(config, STAGE, items) as asker:
        folds = FoldStudents(config, student, pack, asker)
        teams = _gather_teams(folds, config.evaluate.variants, results, home, revision)
        yield LoraStudents(pack, student, trials, teams, config.evaluate.variants, texts, asker)


def _gather_teams(
    folds: FoldStudents, variants: Sequence[Variant], results: Results, home: Path, revision: str | None
) -> list[FoldTeam]:
    """Return the fold students of each repeat of `correction`, with their fused adapter if that is to be measured.

    Students that are missing are trained. There are none if `correction` has not run, or if it trained them on items
    that equal or nearly equal an evaluation item.
    """
    if not FROM_FOLDS & set(variants):
        return []
    labelled = list(results.labelled.values())
    if near := sum((s.source, s.id) in results.barred for s in labelled):
        get_run_logger().warning(
            "the fold students are not measured: they were trained on %d labelled items that equal or nearly equal an "
            "item of `evaluation`; remove these from the labelled set and run again", near,
        )  # fmt: skip
        return []
    teams: list[FoldTeam] = []
    for repeat, students in folds.list_trained(labelled):
        folders = tuple(student.folder for student in students)
        fused = home / digest_of(["fused", *(folder.name for folder in folders)])[:16]
        teams.append(FoldTeam(folds.spec.seed + repeat, folders, fused))
        if Variant.FUSED in variants and not is_trained(fused):
            from tasks.students.fusion import fuse_students  # it imports torch

            fuse = partial(fuse_students, cast(StudentSpec, folds.spec), revision, folders, fused)
            run_as_task("fuse students", f"fuse the {len(folders)} fold students of repeat {repeat + 1}", fuse)
    return teams


@contextmanager
def _open_probes(
    config: EvaluateConfig, pack: Pack, results: Results, truth: Mapping[str, str], items: Sequence[Sample]
) -> Generator[Probes]:
    """Context manager: train the probes, and yield them."""
    every = [*items, *results.labelled.values(), *results.pool.values()]
    texts = read_texts(config, pack, every)
    student = cast(ProbeSpec, config.student)
    what = f"compute the image features of {len(every)} items"
    images = run_as_task("image features", what, lambda: describe_images(student, every, config.images))
    home = config.output / STAGE / "students"
    trials = plan_probe_trials(config.evaluate, student, results, truth, texts, images, home)
    waiting = [trial for trial in trials if not trial.is_trained]

    def train() -> None:
        with Progress(STAGE, f"training {len(waiting)} probes", len(waiting)) as progress:
            for trial in waiting:
                trial.train()
                progress.advance()

    if waiting:
        run_as_task("train students", f"train {len(waiting)} of {len(trials)} probes", train)
    yield Probes(trials)


def _predict(
    test: SourceConfig, folder: Path, results: Results, students: LoraStudents | Probes, pack: Pack,
    items: Sequence[Sample],
) -> None:  # fmt: skip
    """Write predictions.csv: for each test item the label that the students of the best variant predict."""
    best = next((v for v in BEST_FIRST if v in students.variants), None)
    if best is None:
        get_run_logger().warning("predictions.csv is empty: none of these variants has data: %s", ", ".join(BEST_FIRST))
        write_predictions(folder / "predictions.csv", ())
        return
    answers = students.predict(best, items)
    refused = [d.sample_id for d in read_rows(folder / "samples" / Split.TEST / "dropped.parquet", Dropped)]
    named = keep_own_ids(refused, test.manifest, pack.columns) if refused else []
    usual = count_usual_labels(results.emitted, results.labelled.values())
    found = choose_test_labels(items, answers, named, usual)
    write_predictions(folder / "predictions.csv", found.labels.items())
    log = get_run_logger()
    for ids, why in ((found.unread, "could not be read"), (found.unanswered, "got no answer from any student")):
        if ids:
            few = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
            log.warning("predictions.csv: %d items %s and get the most common label: %s", len(ids), why, few)
    if nameless := len(refused) - len(named):
        log.warning("predictions.csv: %d unreadable items have no id and therefore no row", nameless)


def _show(report: Report) -> None:
    text = describe(report)
    create_markdown_artifact(text, key="evaluation", description="Held-out accuracy by variant of the set")
    get_run_logger().info("held-out accuracy\n%s", text)
    classes = [{"variant": s.variant, **c.model_dump()} for s in report.scores for c in s.classes]
    show_table("evaluation-classes", classes, "Held-out precision, recall and F1 per class")
