"""Is the student better? The same student trained on each variant of the set, several seeds, on held-out items."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from pathlib import Path

import orjson
import torch
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.asking import Asking
from flows.config import EvaluateConfig
from flows.one_run import one_run
from flows.processes import worker_pool
from flows.progress import Progress
from flows.running import Stage, intake, most_images, read_texts, reused, run_as_task, show_table
from tasks.decisions import Reason
from tasks.engines.identity import model_identity
from tasks.engines.spec import EngineSpec
from tasks.errors import ConfigError
from tasks.export.labels import write_predictions
from tasks.ledger import Ledger
from tasks.packs import Pack, load_pack
from tasks.prompts import Prompter
from tasks.records import Correction, Dropped, Example, Prediction, Sample, Sampling, Split
from tasks.report.card import settings_of, write_card
from tasks.report.evaluation import describe, report_of
from tasks.scores import Scored
from tasks.stages import StageRecord, code_version, read_record, read_rows, recipe_hash, write_bytes
from tasks.students import base_spec
from tasks.trials import Trial, is_trained, student_folder, train_trial
from tasks.truth import read_truth
from tasks.variants import Phase, Results, Variant, phases

STAGE = "evaluate"
_INPUTS = ("rationales", "pseudo_labels", "correction", "emit")
_REASON_TOKENS = 96


@flow(name="evaluate", flow_run_name="evaluate: {config.pack}", timeout_seconds=168 * 3600)
@one_run
def evaluate(config: EvaluateConfig) -> StageRecord:
    """Train students on each variant of what the run under `output` left, and measure them: `output`/evaluate.

    Kept: one row an answer (`Scored`); beside it scores.json, and predictions.csv of the test set. Raises ConfigError
    when `emit` has left nothing, or no held-out item has a label.
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
    for stage in _INPUTS:
        if (record := read_record(config.output / stage)) is not None:
            inputs[stage] = record.digest
    if "emit" not in inputs:
        raise ConfigError(f"{config.output / 'emit'}: no finished stage; run `labelstill run` with this output first")
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

    results = _results(config, pack)
    texts = read_texts(config, pack, [*held_out, *tested, *results.labelled.values(), *results.pool.values()])
    trials = list(_trials(config, results, truth, texts, folder / "students"))
    _train(trials, settings.parallel)
    measured = [s for s in held_out if s.id in labels]
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images([*measured, *tested])) as asking:
        rows = [row for t in trials for row in _score(t, trials, pack, asking, measured, labels, settings.ask_reasons)]
        if tested:
            write_predictions(folder / "predictions.csv", _predict(trials, pack, asking, tested).items())
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


def _results(config: EvaluateConfig, pack: Pack) -> Results:
    """What the run's stages left."""
    output = config.output
    sets: dict[Split, dict[str, Sample]] = {Split.LABELLED: {}, Split.UNLABELLED: {}}
    for split, source in ((Split.LABELLED, config.labelled), (Split.UNLABELLED, config.unlabelled)):
        if source is not None:
            sets[split] = {s.id: s for s in intake(source, pack, split, output, config.images)[0]}
    kept = {stage: output / stage / "kept.parquet" for stage in _INPUTS}
    there = {stage for stage, file in kept.items() if file.exists()}
    drops = read_rows(output / "emit" / "dropped.parquet", Dropped)
    emitted = read_rows(kept["emit"], Example)
    taught = {e.sample_id for e in emitted if e.reason}
    return Results(
        labelled=sets[Split.LABELLED],
        pool=sets[Split.UNLABELLED],
        reasons={p.sample_id: p.reason for p in _rows(kept["rationales"], there, Prediction) if p.sample_id in taught},
        pseudo={p.sample_id: p for p in _rows(kept["pseudo_labels"], there, Prediction)},
        corrections={c.sample_id: c for c in _rows(kept["correction"], there, Correction)},
        emitted=emitted,
        barred=frozenset(d.sample_id for d in drops if d.reason == Reason.CONTAMINATES),
    )


def _rows(file: Path, there: set[str], kind: type) -> Iterable:  # pyright: ignore
    return read_rows(file, kind) if file.parent.name in there else ()


def _trials(
    config: EvaluateConfig, results: Results, truth: Mapping[str, str], texts: Mapping[str, str], folder: Path
) -> Iterator[Trial]:
    """The students to be trained: those of all variants with one seed, then with the next."""
    log = get_run_logger()
    settings = config.evaluate
    plans: dict[Variant, tuple[Phase, ...]] = {}
    for variant in settings.variants:
        known = truth if {e.sample_id for e in results.emitted if e.label} <= truth.keys() else None
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


def _predict(trials: Sequence[Trial], pack: Pack, asking: Asking, items: Sequence[Sample]) -> dict[str, str]:
    """The label of each test item by the students of the best set that the run made: probabilities averaged."""
    there = {t.variant for t in trials}
    made = [v for v in (Variant.ALL, Variant.CORRECTED, Variant.PSEUDO, Variant.RAW) if v in there]
    if not made:
        return {}
    sums: dict[str, dict[str, float]] = {s.id: dict.fromkeys(s.labels, 0.0) for s in items}
    for trial in (t for t in trials if t.variant is made[0]):
        for sample_id, answer in _ask(trial, trials, pack, asking, items, with_reason=False).items():
            said = answer.probabilities or ({answer.label: 1.0} if answer.label else {})
            for label, p in said.items():
                sums[sample_id][label] += p
    return {sample_id: max(p, key=lambda label, p=p: p[label]) for sample_id, p in sums.items()}


def _show(rows: Sequence[Scored]) -> None:
    report = report_of(rows)
    text = describe(report)
    create_markdown_artifact(text, key="evaluation", description="Students by what they were taught")
    get_run_logger().info("held-out accuracy\n%s", text)
    classes = [{"variant": s.variant, **c.model_dump()} for s in report.scores for c in s.classes]
    show_table("evaluation-classes", classes, "Held-out precision, recall and F1 by class")
