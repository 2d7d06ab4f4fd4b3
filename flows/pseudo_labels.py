"""Stage 2: the teacher labels the unlabelled pool; what can be trusted is kept.

The teacher labels the labelled set too, blind: how it does there, by corrected labels, says how far to trust it here.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from prefect import flow, get_run_logger

from flows.asking import open_asker
from flows.config import PseudoLabelsConfig
from flows.folders import REVIEW_POOL
from flows.one_run import one_run
from flows.pool_evidence import Opinions, ask_second, opinions
from flows.stage import Stage, intake, reused, run_as_task, show_table
from tasks.items.file_states import file_state
from tasks.models.engines.identity import model_identity
from tasks.packs.pack import Pack, load_pack
from tasks.pseudo_labels.decide import Bar, Decision, Trust, Trusted, decide, split
from tasks.pseudo_labels.pool_cases import pool_cases
from tasks.pseudo_labels.quotas import Balance
from tasks.pseudo_labels.targets import checked, targets
from tasks.pseudo_labels.trust import Belief, fit
from tasks.rationales.gate import remove_bad_reasons
from tasks.records import Correction, Sample, Split, content_digest
from tasks.review.queue import write_queue
from tasks.review.verdicts import read_store, usable
from tasks.storage.stages import StageRecord, code_version, read_record, read_rows, recipe_hash, write_rows

STAGE = "pseudo_labels"
_ENOUGH = 20
"""Checked items below which the teacher is not calibrated: a handful of a person's verdicts and no labelled set."""


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
@one_run
def pseudo_labels(config: PseudoLabelsConfig) -> StageRecord:
    """Label the pool under `output`/pseudo_labels.

    Kept: the trusted predictions. Beside them: predictions.parquet and labelled.parquet, the teacher's answers about
    the pool and about the labelled set; trust.parquet, the evidence and the decision on each item of the pool. What is
    uncertain is put before a person in `output`/review_pool/review, as far as `review_budget` allows.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    pack.require_labels(STAGE)
    given = _read(config, pack)
    settings, folder = config.pseudo_labels, config.output / STAGE
    models = {"teacher": model_identity(config.teacher)}
    if settings.second_teacher is not None:
        models["second teacher"] = model_identity(settings.second_teacher)
    recipe = recipe_hash(
        settings=settings, pack=pack.digest, models=models, inputs=given.digests, student=config.student,
        students=sorted({c.model for c in given.corrections.values()}), code=code_version(), seed=config.seed,
        pixels=[config.teacher.min_pixels, config.teacher.max_pixels], context=config.teacher.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    with open_asker(config, STAGE, [*given.labelled, *given.pool]) as asker:
        there, here = opinions(config, pack, given.labelled, given.pool, asker, with_students=bool(given.corrections))
        trust, belief = _trust(config, given, there, here)
        if settings.second_teacher is not None:
            doubtful, alike = _doubtful(trust), _alike(there, trust, belief)
            here = ask_second(config, pack, given.pool, doubtful, asker, here)
            there = ask_second(config, pack, given.labelled, alike, asker, there)
            trust, _ = _trust(config, given, there, here)
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
    record = stage.finish(kept, dropped, (s.id for s in given.pool), _figures(trust), costs)
    _show(config, trust)
    return record


def _read(config: PseudoLabelsConfig, pack: Pack) -> _Given:
    """Everything that decides about the pool but the models, and the digest of each part."""
    log = get_run_logger()
    pool, read = intake(config.unlabelled, pack, Split.UNLABELLED, config.output, config.images)
    store = config.output / REVIEW_POOL / "verdicts.jsonl"
    digests = {"samples": read.digest, "verdicts": file_state(store)}
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
        label_of = {s.id: s.given for s in labelled}
        rows = read_rows(config.output / "correction" / "kept.parquet", Correction)
        corrections = {c.sample_id: c for c in rows if label_of.get(c.sample_id) == c.given}
    if len(corrections) < len(labelled):
        log.warning(
            "%d of %d labelled items have no correction: a wrong given label counts as the teacher's error there, so "
            "its precision is underestimated and fewer pseudo-labels are kept; run `correction` first (set `student`)",
            len(labelled) - len(corrections), len(labelled),
        )  # fmt: skip
    return _Given(pool, labelled, corrections, verdicts, digests)


def _trust(config: PseudoLabelsConfig, given: _Given, there: Opinions, here: Opinions) -> tuple[Trust, Belief | None]:
    """Calibrate on what can be checked, and decide."""
    settings, found = config.pseudo_labels, here.evidence()
    items = checked(given.labelled, there.teacher, there.evidence(), given.corrections, {})
    items += checked(given.pool, here.teacher, found, {}, given.verdicts)
    belief = None
    if len(items) >= _ENOUGH:
        belief = run_as_task("calibrate", f"calibrate trust on {len(items)} items", lambda: (
            fit(targets(items), config.seed)
        ))  # fmt: skip
    else:
        get_run_logger().warning(
            "%d items to check the teacher on: the expected precision is the teacher's own word; add a labelled set",
            len(items),
        )
    predictions = [here.teacher[s.id] for s in given.pool]
    bar = Bar(settings.target_precision, settings.assurance)
    balance = Balance(settings.cap, settings.quotas, settings.floor, settings.class_temperature)
    return decide(predictions, found, belief, bar, balance, given.verdicts, config.seed), belief


def _doubtful(trust: Trust) -> dict[str, float]:
    """The untrusted items of the pool, with their expected precision."""
    return {i.sample_id: i.expected or 0.0 for i in trust.items if i.decision is Decision.NOT_TRUSTED}


def _alike(there: Opinions, trust: Trust, belief: Belief | None) -> list[str]:
    """The labelled items no surer than the untrusted: on these the second teacher is checked."""
    doubtful, found = _doubtful(trust), there.evidence()
    if belief is None or not doubtful:
        return []
    ids = list(found)
    expected = belief.expected(list(found.values()), [there.teacher[i].label or "" for i in ids])
    return [i for i, p in zip(ids, expected.tolist(), strict=True) if p <= max(doubtful.values())]


def _ask_people(config: PseudoLabelsConfig, given: _Given, trust: Trust, here: Opinions) -> None:
    """Write the queue of uncertain items, and say where; nothing when nobody is to be asked."""
    budget = config.pseudo_labels.review_budget
    if not budget and not given.verdicts:
        return
    cases = pool_cases(given.pool, trust.items, here.teacher, here.students, budget)
    folder = config.output / REVIEW_POOL
    run_as_task("review page", "write the review page of the pool", lambda: (
        write_queue(cases, folder, given.verdicts, title="Review: pool")
    ))  # fmt: skip
    get_run_logger().info(
        "%d uncertain items of the pool: judge them in %s, then: labelstill review import %s FILE",
        len(cases) - len(given.verdicts), folder / "review.html", folder.parent,
    )  # fmt: skip


def _figures(trust: Trust) -> dict[str, float]:
    decisions = Counter(i.decision for i in trust.items)
    known = [i.expected for i in trust.items if i.expected is not None]
    kept = decisions[Decision.KEPT]
    return {
        "expected precision": trust.precision.expected,
        "lower": trust.precision.lower,
        "upper": trust.precision.upper,
        "kept share": kept / max(len(trust.items), 1),
        "expected precision of all": sum(known) / max(len(known), 1),
        "calibrated": float(trust.calibrated),
        "reviewed": float(decisions[Decision.REVIEWED] + decisions[Decision.REVIEWER_SAID_NEITHER]),
    }


def _show(config: PseudoLabelsConfig, trust: Trust) -> None:
    log, settings, p = get_run_logger(), config.pseudo_labels, trust.precision
    kept = [i for i in trust.items if i.decision is Decision.KEPT]
    log.info(
        "kept %d of %d pseudo-labels: expected precision %.3f, between %.3f and %.3f",
        len(kept), len(trust.items), p.expected, p.lower, p.upper,
    )  # fmt: skip
    if not kept:
        log.warning(
            "no pseudo-label is kept: no set of them surely reaches %.2f; review some, or lower `target_precision`",
            settings.target_precision,
        )
    if not trust.floors_kept:
        log.warning("`floor` %d is not kept: with it the target would not be reached", settings.floor)
    show_table(
        "pseudo-label-trust", _by_class(trust.items), "Pseudo-labels by class: answered, kept, expected precision"
    )


def _by_class(items: Sequence[Trusted]) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for label in sorted({i.label for i in items if i.label is not None}):
        mine = [i for i in items if i.label == label]
        kept = [i.expected or 0.0 for i in mine if i.decision is Decision.KEPT]
        rows.append(
            {
                "label": label,
                "answered": len(mine),
                "kept": len(kept),
                "expected precision of all": round(sum(i.expected or 0.0 for i in mine) / len(mine), 4),
                "expected precision of kept": round(sum(kept) / len(kept), 4) if kept else None,
                "over quota": sum(i.decision is Decision.OVER_QUOTA for i in mine),
            }
        )
    return rows
