"""Stage 2: the teacher labels the unlabelled pool; what can be trusted is kept.

The teacher labels the labelled set too, blind: how it does there, by corrected labels, says how far to trust it here.
"""

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from prefect import flow, get_run_logger

from flows.asking import open_asker, prepare_prompter
from flows.config import PseudoLabelsConfig
from flows.run_lock import hold_output
from flows.stage import Stage, intake, reused, run_as_task, show_table
from flows.students import predict_pool
from tasks.items.file_states import read_file_state
from tasks.models.ask import Asker
from tasks.models.engines.engine import EngineSpec
from tasks.models.engines.identity import model_identity
from tasks.models.teacher import label_with_teacher
from tasks.packs.pack import Pack, load_pack
from tasks.pseudo_labels.decide import (
    PoolDecision,
    Trust,
    Trusted,
    build_review_cases,
    decide,
    list_alike,
    list_untrusted,
    split,
)
from tasks.pseudo_labels.evidence import Opinions
from tasks.pseudo_labels.targets import ENOUGH, build_targets, find_checked, match_corrections
from tasks.pseudo_labels.trust import TrustModel, fit_trust
from tasks.rationales.gate import remove_bad_reasons
from tasks.records import Correction, Prediction, Sample, Sampling, Split, content_digest
from tasks.review.queue import REVIEW_POOL, write_queue
from tasks.review.verdicts import read_store, usable
from tasks.storage.rows import read_rows, write_rows
from tasks.storage.stage_record import StageRecord, read_record
from tasks.storage.stages import code_version, hash_recipe

STAGE = "pseudo_labels"


@dataclass(frozen=True)
class _Given:
    """What the stage reads."""

    pool: list[Sample]
    labelled: list[Sample]
    corrections: dict[str, Correction]
    verdicts: dict[str, str]
    """A person's, on items of the pool."""
    digests: dict[str, str]


@flow(name="pseudo-labels", flow_run_name="pseudo-labels: {config.pack}", timeout_seconds=168 * 3600)
@hold_output
def pseudo_labels(config: PseudoLabelsConfig) -> StageRecord:
    """Label the pool under `output`/pseudo_labels.

    Kept: the trusted predictions. Beside them: predictions.parquet and labelled.parquet, the teacher's answers about
    the pool and about the labelled set; trust.parquet, the evidence and the decision on each item of the pool. What is
    uncertain is put before a person in `output`/review_pool/review, as far as `review_budget` allows.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    pack.require_labels(STAGE)
    given = _read_inputs(config, pack)
    settings, folder = config.pseudo_labels, config.output / STAGE
    models = {"teacher": model_identity(config.teacher)}
    if settings.second_teacher is not None:
        models["second teacher"] = model_identity(settings.second_teacher)
    recipe = hash_recipe(
        settings=settings, pack=pack.digest, models=models, inputs=given.digests, student=config.student,
        students=sorted({c.model for c in given.corrections.values()}), code=code_version(), seed=config.seed,
        pixels=[config.teacher.min_pixels, config.teacher.max_pixels], context=config.teacher.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    with open_asker(config, STAGE, [*given.labelled, *given.pool]) as asker:
        there, here = _ask_models(config, pack, given, asker)
        trust, model = _decide(config, given, there, here)
        if settings.second_teacher is not None:
            spec, untrusted = settings.second_teacher, list_untrusted(trust)
            alike = list_alike(trust, model, there.teacher, there.collect_evidence())
            here = _ask_second_teacher(config, pack, spec, given.pool, untrusted, asker, here)
            there = _ask_second_teacher(config, pack, spec, given.labelled, alike, asker, there)
            trust, _ = _decide(config, given, there, here)
        costs = asker.costs()
    predictions = [here.teacher[s.id] for s in given.pool]
    kept, dropped = split(trust, predictions, STAGE)
    kept, faults = remove_bad_reasons(kept, {s.id: s for s in given.pool}, pack)
    if faults:
        get_run_logger().info("reasons that go, their labels stay: %s", dict(faults))
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / "predictions.parquet", predictions)
    write_rows(folder / "labelled.parquet", [there.teacher[s.id] for s in given.labelled])
    write_rows(folder / "trust.parquet", trust.items)
    _ask_people(config, given, trust, here)
    stage = Stage(STAGE, folder, recipe, given.digests, models, began)
    record = stage.finish(kept, dropped, (s.id for s in given.pool), trust.summarise(), costs)
    _show(config, trust)
    return record


def _read_inputs(config: PseudoLabelsConfig, pack: Pack) -> _Given:
    """Read everything that decides about the pool but the models, and the digest of each part."""
    log = get_run_logger()
    pool, read = intake(config.unlabelled, pack, Split.UNLABELLED, config.output, config.images)
    store = config.output / REVIEW_POOL / "verdicts.jsonl"
    digests = {"samples": read.digest, "verdicts": read_file_state(store)}
    labels, contents = {s.id: s.labels for s in pool}, {s.id: content_digest(s) for s in pool}
    verdicts, stale = usable(read_store(store), labels, contents)
    if stale:
        log.warning("%d verdicts are of pool items that have changed since; not used: %s", len(stale), stale[:10])
    if config.labelled is None:
        return _Given(pool, [], {}, verdicts, digests)
    labelled, read = intake(config.labelled, pack, Split.LABELLED, config.output, config.images)
    digests["labelled"] = read.digest
    record = read_record(config.output / "correction")
    corrections: dict[str, Correction] = {}
    if record is not None:
        digests["correction"] = record.digest
        rows = read_rows(config.output / "correction" / "kept.parquet", Correction)
        corrections = match_corrections(labelled, rows)
    if len(corrections) < len(labelled):
        log.warning(
            "%d of %d labelled items have no correction: a wrong given label counts as the teacher's error there, so "
            "its precision is underestimated and fewer pseudo-labels are kept; run `correction` first (set `student`)",
            len(labelled) - len(corrections), len(labelled),
        )  # fmt: skip
    return _Given(pool, labelled, corrections, verdicts, digests)


def _ask_models(config: PseudoLabelsConfig, pack: Pack, given: _Given, asker: Asker) -> tuple[Opinions, Opinions]:
    """Ask the teacher, and correction's students, about the labelled set and about the pool, both in the same way."""
    settings, spec = config.pseudo_labels, config.teacher
    prompter = prepare_prompter(config, pack, spec, [*given.labelled, *given.pool])
    found: list[Opinions] = []
    for items, what in ((given.labelled, "the labelled set, blind"), (given.pool, "the pool")):
        told = label_with_teacher(asker, prompter, items, spec, settings, config.seed, f"teacher labels {what}")
        direct: list[Prediction] = []
        if pack.describe_first:
            sampling = Sampling(label_probabilities=True, max_tokens=8, seed=config.seed)
            requests = [prompter.classify(s, sampling, with_reason=False) for s in items]
            direct = asker.ask_for_labels(
                requests, spec, f"teacher labels {what}, undescribed", source="teacher/direct", model=prompter.model
            )
        found.append(Opinions(_by_sample(told), _by_sample(direct)))
    there, here = found
    if given.corrections and settings.ask_students and config.student is not None and config.labelled is not None:
        of_labelled, of_pool = predict_pool(config, config.student, pack, given.labelled, given.pool, asker)
        there, here = replace(there, students=of_labelled), replace(here, students=of_pool)
    return there, here


def _ask_second_teacher(
    config: PseudoLabelsConfig,
    pack: Pack,
    spec: EngineSpec,
    samples: Sequence[Sample],
    wanted: Collection[str],
    asker: Asker,
    said: Opinions,
) -> Opinions:
    """Return `said` with what the second teacher says about the `wanted` ones of `samples`, asked as the first was."""
    items = [s for s in samples if s.id in wanted]
    prompter = prepare_prompter(config, pack, spec, items)
    what = "second teacher labels what is uncertain"
    told = label_with_teacher(asker, prompter, items, spec, config.pseudo_labels, config.seed, what)
    return replace(said, second=_by_sample(told))


def _by_sample(predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    return {p.sample_id: p for p in predictions}


def _decide(
    config: PseudoLabelsConfig, given: _Given, there: Opinions, here: Opinions
) -> tuple[Trust, TrustModel | None]:
    """Calibrate on what can be checked, and decide."""
    found = here.collect_evidence()
    items = find_checked(given.labelled, there.teacher, there.collect_evidence(), given.corrections, {})
    items += find_checked(given.pool, here.teacher, found, {}, given.verdicts)
    model = None
    if len(items) >= ENOUGH:
        model = run_as_task("calibrate", f"calibrate trust on {len(items)} items", lambda: (
            fit_trust(build_targets(items), config.seed)
        ))  # fmt: skip
    else:
        get_run_logger().warning(
            "%d items to check the teacher on: the expected precision is the teacher's own word; add a labelled set",
            len(items),
        )
    predictions = [here.teacher[s.id] for s in given.pool]
    return decide(predictions, found, model, config.pseudo_labels, given.verdicts, config.seed), model


def _ask_people(config: PseudoLabelsConfig, given: _Given, trust: Trust, here: Opinions) -> None:
    """Write the queue of uncertain items, and say where; nothing when nobody is to be asked."""
    budget = config.pseudo_labels.review_budget
    if not budget and not given.verdicts:
        return
    cases = build_review_cases(given.pool, trust.items, here.teacher, here.students, budget)
    folder = config.output / REVIEW_POOL
    run_as_task("review page", "write the review page of the pool", lambda: (
        write_queue(cases, folder, given.verdicts, title="Review: pool")
    ))  # fmt: skip
    get_run_logger().info(
        "%d uncertain items of the pool: judge them in %s, then: labelstill review import %s FILE",
        len(cases) - len(given.verdicts), folder / "review.html", folder.parent,
    )  # fmt: skip


def _show(config: PseudoLabelsConfig, trust: Trust) -> None:
    log, settings, p = get_run_logger(), config.pseudo_labels, trust.precision
    kept = [i for i in trust.items if i.decision is PoolDecision.KEPT]
    log.info(
        "kept %d of %d pseudo-labels: expected precision %.3f, between %.3f and %.3f",
        len(kept), len(trust.items), p.value, p.low, p.high,
    )  # fmt: skip
    if not kept:
        log.warning(
            "no pseudo-label is kept: no set of them surely reaches %.2f; review some, or lower `target_precision`",
            settings.target_precision,
        )
    if not trust.floors_kept:
        log.warning("`floor` %d is not kept: with it the target would not be reached", settings.floor)
    show_table(
        "pseudo-label-trust",
        _tabulate_by_class(trust.items),
        "Pseudo-labels by class: answered, kept, expected precision",
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
