"""Stage 3: K students, each trained without one fold, predict that fold; departures are adjudicated and audited."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import flow, get_run_logger

from flows.asking import Asking
from flows.config import CorrectionConfig
from flows.one_run import one_run
from flows.stage import Stage, intake, most_images, prompter_for, reused, run_as_task, show_table
from flows.students import STAGE, predict_out_of_fold
from flows.teacher import teacher_labels
from tasks.correction.decide import AskTeacher, Decisions, LookUp, Policy, correct
from tasks.correction.judgements import Floats, Ints, from_predictions, predicted
from tasks.correction.outcome import all_labels, corrections, judged_samples, known_verdicts, review_queue
from tasks.correction.patches import changes, write_patch
from tasks.items.file_states import file_state
from tasks.models.engines.identity import model_identity
from tasks.models.ledger.ledger import Ledger
from tasks.packs.pack import Pack, load_pack
from tasks.records import NEITHER, Action, Correction, Prediction, Sample, Split, content_digest
from tasks.report.correction.report import write_report
from tasks.review.queue import write_queue
from tasks.review.reviewers import read_verdicts
from tasks.review.verdicts import read_store, usable
from tasks.storage.stages import StageRecord, code_version, recipe_hash
from tasks.students.asking import choose_base_engine
from tasks.students.settings import ProbeSpec


@flow(name="correction", flow_run_name="correction: {config.pack}", timeout_seconds=168 * 3600)
@one_run
def correction(config: CorrectionConfig) -> StageRecord:
    """Judge every given label, under `output`/correction.

    Kept: one `Correction` an item, whatever was decided. Beside it: folds.json, students/, report.html and
    corrections.jsonl (the changes, reversible); the queue and page for a person are in `output`/review.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    pack.require_labels(STAGE)
    samples, read = intake(config.labelled, pack, Split.LABELLED, config.output, config.images)
    folder, review = config.output / STAGE, config.output / "review"
    models = {"teacher": model_identity(config.teacher), "base": _base(config)}
    recipe = recipe_hash(
        settings=config.correction, pack=pack.digest, models=models, student=config.student,
        input=read.digest, code=code_version(), seed=config.seed,
        verdicts=[file_state(p) for p in (config.correction.reviewer.path, review / "verdicts.jsonl") if p],
        pixels=[config.teacher.min_pixels, config.teacher.max_pixels], context=config.teacher.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    said = _people(review / "verdicts.jsonl", samples)
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images(samples)) as asking:
        found = predict_out_of_fold(config, pack, samples, asking)
        judged, unjudged = judged_samples(samples, found.runs, found.folds[0].always_train)
        answers: dict[str, Prediction] = {}
        judgements = from_predictions(judged, found.runs, all_labels(samples))
        decisions = correct(
            judgements,
            policy_of(config),
            _teacher(config, pack, judged, asking, answers),
            _reviewer(config, judged, judgements.labels),
            known_verdicts(judgements, said),
        )
        costs = asking.costs()
    fold_of = found.folds[0].fold_of
    model_of = {s.id: found.models(s.id) for s in judged}
    decided = corrections(samples, decisions, fold_of, model_of, answers, unjudged, said)

    def report() -> None:
        queue = review_queue({s.id: s for s in samples}, decided, decisions, config.correction.review_budget)
        write_queue(queue, review, said)
        write_patch(changes(decided), folder / "corrections.jsonl")
        title = f"Corrections: {config.labelled.manifest.name}"
        write_report(
            decisions, folder, title=title, costs=dict(costs.rows()), excluded=unjudged, repeats=len(found.runs)
        )

    run_as_task("report", "write report, review page and patch", report)
    inputs = {"samples": read.digest, "folds": found.folds[0].digest}
    stage = Stage(STAGE, folder, recipe, inputs, models, began)
    record = stage.finish(decided, [], (s.id for s in samples), _figures(decided, decisions), costs)
    _show(decided, decisions, review)
    return record


def policy_of(config: CorrectionConfig) -> Policy:
    """What the configuration allows to be asked and believed."""
    settings = config.correction
    return Policy(
        reviews=settings.review_budget,
        audit=settings.audit,
        teacher_share=settings.teacher_share,
        gate_level=settings.gate_level,
        target_precision=settings.target_precision,
        seed=config.seed,
    )


def _base(config: CorrectionConfig) -> str:
    student = config.student
    return "probe" if isinstance(student, ProbeSpec) else model_identity(choose_base_engine(student))


def _people(store: Path, samples: Sequence[Sample]) -> dict[str, str]:
    """What people have said so far, by sample id; of items that have changed since, nothing."""
    held = read_store(store)
    good, stale = usable(held, {s.id: s.labels for s in samples}, {s.id: content_digest(s) for s in samples})
    if stale:
        get_run_logger().warning(
            "%d verdicts are of items that have changed since; not used: %s", len(stale), stale[:10]
        )
    return good


def _teacher(
    config: CorrectionConfig, pack: Pack, samples: Sequence[Sample], asking: Asking, answers: dict[str, Prediction]
) -> AskTeacher:
    """The teacher about some of `samples`, asked blind; what it says is left in `answers` too."""

    def ask(items: Ints) -> Floats:
        doubtful = [pack.with_neither(samples[i]) for i in items.tolist()]
        identity = model_identity(config.teacher)
        prompter = prompter_for(config, pack, identity, config.teacher, doubtful)
        what = "teacher adjudicates suspicious labels"
        told = teacher_labels(asking, prompter, doubtful, config.teacher, config.correction, config.seed, what)
        answers.update({p.sample_id: p for p in told})
        return predicted(answers, doubtful, [*all_labels(samples), pack.neither or NEITHER])

    return ask


def _reviewer(config: CorrectionConfig, samples: Sequence[Sample], labels: Sequence[str]) -> LookUp:
    """Verdicts of the configured reviewer, for the items asked about and no others."""
    reviewer = config.correction.reviewer
    places = {label: i for i, label in enumerate(labels)} | {NEITHER: -1}

    def look_up(items: Ints) -> dict[int, int]:
        if reviewer.path is None:
            return {}
        if reviewer.kind == "demo_stand_in":
            get_run_logger().warning(
                "the reviewer is the demo's stand-in, which knows the truth: it answers for %d items", len(items)
            )
        asked = {samples[i].id: i for i in items.tolist()}
        told = read_verdicts(reviewer.kind, reviewer.path, {s: samples[i].labels for s, i in asked.items()})
        return {asked[identity]: places[verdict] for identity, verdict in told.items()}

    return look_up


def _figures(decided: Sequence[Correction], decisions: Decisions) -> dict[str, float]:
    actions = Counter(c.action for c in decided)
    changed = [c for c in decided if c.action is Action.RELABEL]
    unreviewed = [c for c in changed if not c.reviewed]
    estimates = {f"estimated {name}": e.value for name, e in decisions.estimates.items()}
    return {
        "disagreements": sum(c.predicted is not None and c.predicted != c.given for c in decided),
        "asked of the teacher": len(decisions.teacher_asked),
        "asked of the reviewer": len(decisions.person_asked),
        "reviewed": sum(c.reviewed for c in decided),
        "audited wins": decisions.gate.wins,
        "audited losses": decisions.gate.losses,
        "gate lower bound": decisions.gate.lower,
        "flagged": sum(c.flagged for c in decided),
        "relabelled": len(changed),
        "relabelled without a person": len(unreviewed),
        "expected right to wrong": sum(c.p_given or 0.0 for c in unreviewed),
        "expected wrong to right": sum(c.p_candidate or 0.0 for c in unreviewed),
        "dropped by the reviewer": actions[Action.DROP],
        "waiting for review": actions[Action.REVIEW],
        **estimates,
    }


def _show(decided: Sequence[Correction], decisions: Decisions, review: Path) -> None:
    log = get_run_logger()
    changed = [c for c in decided if c.action in (Action.RELABEL, Action.DROP)]
    rows = [
        {"item": c.sample_id, "given": c.given, "now": c.label or "(dropped)", "reviewed": c.reviewed, "why": c.why}
        for c in changed
    ]
    show_table("labels-changed", rows, f"{len(changed)} labels changed or dropped; {decisions.gate.summary}")
    waiting = sum(c.action is Action.REVIEW for c in decided)
    log.info("%d labels changed or dropped, %d wait for review; %s", len(changed), waiting, decisions.gate.summary)
    if waiting:
        log.info("judge them in %s, then: labelstill review import %s FILE", review / "review.html", review.parent)
    shown: Mapping[str, float] = {name: round(e.value, 4) for name, e in decisions.estimates.items()}
    if shown:
        log.info("estimated: %s", shown)
