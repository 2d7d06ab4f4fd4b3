"""Is the student better? The same student trained on each variant of the set, several seeds, on held-out items."""

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path

import orjson
import torch
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.asking import Asking
from flows.config import EvaluateConfig
from flows.one_run import one_run
from flows.run_left import STAGES, check_unseen, results_of
from flows.service.processes import worker_pool
from flows.stage import Stage, intake, most_images, read_texts, reused, run_as_task, show_table
from flows.ui import Progress
from tasks.dataset.export.labels import write_predictions
from tasks.errors import ConfigError
from tasks.evaluation.scores import Scored
from tasks.evaluation.table import describe, report_of
from tasks.evaluation.test_set import own_ids, predicted
from tasks.evaluation.trials import Trial, is_trained, student_folder, train_trial
from tasks.evaluation.truth import read_truth
from tasks.evaluation.variants import Phase, Results, Variant, phases
from tasks.models.engines.identity import model_identity
from tasks.models.engines.spec import EngineSpec
from tasks.models.ledger.ledger import Ledger
from tasks.packs.pack import Pack, load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Dropped, Prediction, Sample, Sampling, Split
from tasks.report.card.card import settings_of, write_card
from tasks.storage.stages import StageRecord, code_version, read_record, read_rows, recipe_hash, write_bytes
from tasks.students.settings import base_spec

STAGE = "evaluate"
_REASON_TOKENS = 96


@flow(name="evaluate", flow_run_name="evaluate: {config.pack}", timeout_seconds=168 * 3600)
@one_run
def evaluate(config: EvaluateConfig) -> StageRecord:
    """Train students on each variant of what the run under `output` left, and measure them: `output`/evaluate.

    Kept: one row an answer (`Scored`); beside it scores.json, and predictions.csv of the test set. Raises ConfigError
    when `emit` has left nothing, or has not kept these very held-out items out, or none of them has a label.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    pack.require_labels(STAGE)
    settings = config.evaluate
    folder = config.output / STAGE
    held_out, read = intake(config.evaluation, pack, Split.TEST, config.output, config.images)
    inputs = {"evaluation": read.digest}
    tested: list[Sample] = []
    if config.test is not None:
        tested, read = intake(config.test, pack, Split.TEST, folder, config.images)
        inputs["test"] = read.digest
    for stage in STAGES:
        if (record := read_record(config.output / stage)) is not None:
            inputs[stage] = record.digest
    if "emit" not in inputs:
        raise ConfigError(f"{config.output / 'emit'}: no finished stage; run `labelstill run` with this output first")
    check_unseen(config, inputs["evaluation"])
    truth = read_truth(settings.truth) if settings.truth else {}
    asked = base_spec(config.student)
    recipe = recipe_hash(
        settings=settings, student=config.student, pack=pack.digest, inputs=inputs, code=code_version(),
        base=model_identity(asked), truth=truth, seed=config.seed,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    labels = {s.id: label for s in held_out if (label := s.given or truth.get(s.id))}
    if not labels:
        raise ConfigError(
            f"{config.evaluation.manifest}: no held-out item has a label; give them as `output` there, or in "
            "`evaluate.truth`"
        )

    results = results_of(config, pack)
    texts = read_texts(config, pack, [*held_out, *tested, *results.labelled.values(), *results.pool.values()])
    trials = list(_trials(config, results, truth, texts, folder / "students"))
    _train(trials, settings.parallel)
    measured = [s for s in held_out if s.id in labels]
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images([*measured, *tested])) as asking:
        rows = [row for t in trials for row in _score(t, trials, pack, asking, measured, labels, settings.ask_reasons)]
        if tested:
            _predict(config, results, trials, pack, asking, tested)
        costs = asking.costs()
    report = report_of(rows)
    write_bytes(folder / "scores.json", orjson.dumps(report.model_dump(mode="json"), option=orjson.OPT_INDENT_2))
    dropped = [
        Dropped(sample_id=s.id, stage=STAGE, reason="no_true_label", detail="neither `output` nor `evaluate.truth`")
        for s in held_out
        if s.id not in labels
    ]
    _show(rows)
    ids = [s.id for s in measured for _ in trials] + [d.sample_id for d in dropped]
    stage = Stage(STAGE, folder, recipe, inputs, {"base": model_identity(asked)}, began)
    record = stage.finish(rows, dropped, ids, report.figures(), costs)
    if (card := settings_of(config.output)) is not None:
        run_as_task("card", "put the students on the run's card", lambda: write_card(config.output, card))
    return record


def _trials(
    config: EvaluateConfig, results: Results, truth: Mapping[str, str], texts: Mapping[str, str], folder: Path
) -> Iterator[Trial]:
    """The students to be trained: those of all variants with one seed, then with the next."""
    log = get_run_logger()
    settings = config.evaluate
    plans: dict[Variant, tuple[Phase, ...]] = {}
    ids = Counter(e.sample_id for e in results.emitted if e.label)
    # the truth goes by id, so of two items with one id it knows neither
    known = truth if ids.keys() <= truth.keys() and ids.total() == len(ids) else None
    for variant in settings.variants:
        if plan := phases(variant, results, known):
            plans[variant] = plan
        else:
            log.info("variant `%s` is left out: the run has left nothing for it", variant)
    student = config.student
    emitted = sum(bool(e.label) for e in results.emitted)
    passes = student.epochs * emitted / (student.batch_size * student.gradient_accumulation)
    steps = settings.steps or student.steps or max(1, round(passes))
    # by the clock, a busy machine would give one variant fewer steps than another
    spec = student.model_copy(update={"steps": steps, "seconds_a_fold": None})
    for seed in range(settings.seeds):
        for variant, plan in plans.items():
            yield Trial(variant, config.seed + seed, plan, spec, config.pack, texts, folder)


def _train(trials: Sequence[Trial], parallel: int) -> None:
    """Train the students that are not there yet, `parallel` at a time; finished ones are reused after a kill."""
    waiting = [t for t in trials if not is_trained(t)]
    if len(waiting) < len(trials):
        get_run_logger().info("%d of %d students are trained already", len(trials) - len(waiting), len(trials))
    if not waiting:
        return

    def work() -> None:
        threads = max(1, (os.cpu_count() or 1) // parallel)
        with (
            Progress(STAGE, f"train {len(waiting)} students", len(waiting)) as progress,
            worker_pool(parallel, torch.set_num_threads, threads) as pool,
        ):
            for done in as_completed([pool.submit(train_trial, trial) for trial in waiting]):
                done.result()
                progress.advance()

    sets = len({t.variant for t in waiting})
    run_as_task("train students", f"train {len(waiting)} students on {sets} variants", work)


def _score(
    trial: Trial,
    trials: Sequence[Trial],
    pack: Pack,
    asking: Asking,
    items: Sequence[Sample],
    labels: Mapping[str, str],
    ask_reasons: bool,
) -> list[Scored]:
    """The student's answers about the held-out items."""
    bare = _ask(trial, trials, pack, asking, items, with_reason=False)
    taught = any(phase.reasons for phase in trial.phases)
    reasoned = _ask(trial, trials, pack, asking, items, with_reason=True) if taught and ask_reasons else {}
    rows: list[Scored] = []
    for item in items:
        answer, after = bare[item.id], reasoned.get(item.id)
        rows.append(
            Scored(
                sample_id=item.id,
                variant=trial.variant,
                seed=trial.seed,
                truth=labels[item.id],
                label=answer.label,
                p=answer.probabilities.get(answer.label or ""),
                reason=after.reason if after else "",
                reasoned=after.label if after else None,
            )
        )
    return rows


def _ask(
    trial: Trial, trials: Sequence[Trial], pack: Pack, asking: Asking, items: Sequence[Sample], *, with_reason: bool
) -> dict[str, Prediction]:
    spec = _engine(trial, trials)
    model = model_identity(spec)
    prompter = Prompter(
        pack, model, max_pixels=spec.max_pixels, min_pixels=spec.min_pixels, context_length=spec.context_length,
        texts=trial.texts,
    )  # fmt: skip
    sampling = Sampling(label_probabilities=True, max_tokens=_REASON_TOKENS if with_reason else 8)
    requests = [prompter.classify(s, sampling, with_reason=with_reason) for s in items]
    what = f"student of `{trial.variant}`, seed {trial.seed}, {'says why and what' if with_reason else 'says what'}"
    source = f"{trial.variant}/seed={trial.seed}"
    return {p.sample_id: p for p in asking.labels(requests, spec, what, source=source, model=model)}


def _engine(trial: Trial, trials: Sequence[Trial]) -> EngineSpec:
    """The base with this student's adapter; where vLLM serves them, one server has all of them."""
    asked = base_spec(trial.spec)
    every = tuple(str(student_folder(t)) for t in trials) if asked.engine == "vllm" else ()
    return asked.model_copy(update={"adapter": str(student_folder(trial)), "adapters": every})


def _predict(
    config: EvaluateConfig,
    results: Results,
    trials: Sequence[Trial],
    pack: Pack,
    asking: Asking,
    items: Sequence[Sample],
) -> None:
    """Write predictions.csv: each test item's label, by the students of the best set that the run made."""
    assert config.test is not None
    folder = config.output / STAGE
    there = {t.variant for t in trials}
    made = [v for v in (Variant.ALL, Variant.CORRECTED, Variant.PSEUDO, Variant.RAW) if v in there]
    if not made:
        write_predictions(folder / "predictions.csv", ())
        return
    judges = [t for t in trials if t.variant is made[0]]
    answers = [a for t in judges for a in _ask(t, trials, pack, asking, items, with_reason=False).values()]
    refused = [d.sample_id for d in read_rows(folder / "samples" / Split.TEST / "dropped.parquet", Dropped)]
    named = own_ids(refused, config.test.manifest, pack.columns) if refused else []
    given = (s.given for s in results.labelled.values() if s.given)
    usual = Counter(e.label for e in results.emitted if e.label) or Counter(given)
    found = predicted(items, answers, named, usual)
    write_predictions(folder / "predictions.csv", found.labels.items())
    log = get_run_logger()
    for ids, why in ((found.unread, "could not be read"), (found.unanswered, "got no answer from any student")):
        if ids:
            few = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
            log.warning("predictions.csv: %d items %s and have the commonest label: %s", len(ids), why, few)
    if nameless := len(refused) - len(named):
        log.warning("predictions.csv: %d items that could not be read have no id, and so no row", nameless)


def _show(rows: Sequence[Scored]) -> None:
    report = report_of(rows)
    text = describe(report)
    create_markdown_artifact(text, key="evaluation", description="Students by what they were taught")
    get_run_logger().info("held-out accuracy\n%s", text)
    classes = [{"variant": s.variant, **c.model_dump()} for s in report.scores for c in s.classes]
    show_table("evaluation-classes", classes, "Held-out precision, recall and F1 by class")
