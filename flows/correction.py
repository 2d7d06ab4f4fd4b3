"""Stage 2: find and fix wrong labels.

Each fold is predicted by a student that was trained on the other folds. Where the student contradicts the given label,
the teachers give second opinions. A person judges a sample of the doubtful items.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from prefect import flow, get_run_logger

from flows.asking import open_asker, prepare_prompter
from flows.config import CorrectionConfig
from flows.run_lock import hold_output
from flows.stage import Stage, log_where_to_judge, read_valid_verdicts, run_as_task, show_table
from flows.students import STAGE, FoldStudents, identify_training_inputs
from flows.teacher_reasons import choose_reasons, identify_reason_settings, list_reason_models
from tasks.correction.corrected_manifest import check_not_own_copy, write_corrected
from tasks.correction.decide import Adjudicator, Decisions, LookUp, correct
from tasks.correction.judgements import (
    Floats,
    Ints,
    index_verdicts,
    join_predictions,
    judge_by_predictions,
    list_labels,
    split_judged,
    tabulate,
)
from tasks.correction.outcome import (
    SUSPICIOUS,
    choose_cases,
    count_figures,
    describe_agreement,
    record_corrections,
    replace_reasons,
    write_suspicious,
)
from tasks.demo.stand_in import answer_from_truth
from tasks.items.file_states import read_file_state
from tasks.models.engines.spec import RULE, TeacherSpec
from tasks.models.teacher import TeacherCosts, estimate_price, label_with_teacher, name_teachers
from tasks.packs.pack import Pack
from tasks.records import NEITHER, Action, Correction, Prediction, Sample, Split
from tasks.report.correction.report import write_report
from tasks.review.queue import STORE, mark_disagreed, read_queue, write_queue
from tasks.storage.stage_record import StageRecord
from tasks.students.asking import choose_base_engine
from tasks.students.settings import ProbeSpec


@flow(name="labelstill-correction", flow_run_name="correction: {config.pack}", timeout_seconds=168 * 3600)
@hold_output
def correction(config: CorrectionConfig) -> StageRecord:
    """Decide about every given label and write `output`/correction.

    kept.parquet has one `Correction` per item, whatever was decided. The folder also gets folds.json, students/,
    report.html, corrected/ (the manifests with the corrected labels), corrections.jsonl (one line per changed item) and
    suspicious.csv (the labels that look wrong, the likeliest first).
    The review queue and its page are in `output`/review.
    """
    check_not_own_copy(config.labelled.manifest, config.output / STAGE)
    base = None if isinstance(config.student, ProbeSpec) else choose_base_engine(config.student)
    teachers = name_teachers(config.panel)
    stage = Stage(STAGE, config, {**teachers, "base": base, **list_reason_models(config)})
    samples = stage.read("samples", config.labelled, Split.LABELLED)
    stage.inputs |= identify_training_inputs(config, config.student)
    pack, folder, review = stage.pack, stage.folder, config.output / "review"
    judged_by_people = [read_file_state(p) for p in (config.correction.stand_in, review / STORE) if p]
    record = stage.find_finished(
        settings=config.correction,
        student=config.student,
        verdicts=judged_by_people,
        ask=config.ask if config.panel else None,
        asked=[[spec.ask, estimate_price(spec)] for spec in config.panel[1:]],
        reasons=identify_reason_settings(config, pack),
    )
    if record is not None:
        return record
    imported = read_valid_verdicts(review / STORE, samples)
    verdicts = imported.verdicts
    with open_asker(config, STAGE, samples) as asker:
        found = FoldStudents(config, config.student, pack, asker).predict_out_of_fold(samples)
        judged, unjudged = split_judged(samples, found.runs, found.folds[0].always_train)
        opinions: dict[str, dict[str, Prediction]] = {role: {} for role in teachers}
        spent = TeacherCosts(asker)
        judgements = judge_by_predictions(judged, found.runs, list_labels(samples))
        decisions = correct(
            judgements,
            config.correction,
            _make_adjudicators(config, pack, judged, spent, opinions),
            _make_stand_in(config.correction.stand_in, judged, judgements.labels),
            index_verdicts(judgements, verdicts),
            config.seed,
        )
        fold_of = found.folds[0].fold_of
        model_of = {s.id: found.name_models(s.id) for s in judged}
        answers = join_predictions(list(opinions.values()))
        corrections = record_corrections(samples, decisions, fold_of, model_of, answers, unjudged, verdicts)
        new = [answers[c.sample_id] for c in corrections if c.has_label_of_teacher]
        chosen, of_reasons = choose_reasons(config, pack, asker, new, samples)
        costs = asker.costs()

    reviewed = {c.sample_id: c.verdict for c in corrections if c.verdict is not None}
    given = {s.id: s.given or "" for s in samples}
    teacher_figures = spent.count_figures({role: [found] for role, found in opinions.items()}, given, reviewed)

    def write_for_people() -> None:
        judged_before = {*verdicts, *imported.disagreed}
        cases = choose_cases(samples, corrections, decisions, config.correction.review_budget, judged_before)
        write_queue(mark_disagreed(cases, imported), review)
        write_suspicious(samples, corrections, folder / SUSPICIOUS)
        _write_manifests(config, pack, samples, corrections, folder)
        title = f"Corrections: {config.labelled.manifest.name}"
        write_report(
            decisions, folder, title=title, costs=dict(costs.rows()) | teacher_figures, excluded=unjudged,
            repeats=len(found.runs), samples=samples, note=f"The teacher is {RULE}." if config.has_rule else "",
        )  # fmt: skip

    run_as_task("report", "write report, review page and corrected manifests", write_for_people)
    stage.inputs["folds"] = found.folds[0].digest
    figures = count_figures(corrections, decisions) | teacher_figures | of_reasons
    taught = replace_reasons(corrections, chosen)
    record = stage.finish(taught, [], (s.id for s in samples), figures, costs)
    _show_changes(corrections, decisions, review)
    return record


def _make_adjudicators(
    config: CorrectionConfig,
    pack: Pack,
    samples: Sequence[Sample],
    spent: TeacherCosts,
    opinions: Mapping[str, dict[str, Prediction]],
) -> list[Adjudicator]:
    """Return the teachers that may be asked about some of `samples`, without seeing their given labels.

    Each time one is asked, its answers are also added to `opinions`, keyed by its role. Teachers that are rules are
    left out. Those that are asked about every suspicious item come first, the others follow by their prices.
    """
    labels = [*list_labels(samples), pack.neither or NEITHER]

    def make(role: str, spec: TeacherSpec) -> Adjudicator:
        def ask(items: Ints) -> Floats:
            doubtful = [pack.with_neither(samples[i]) for i in items.tolist()]
            prompter = prepare_prompter(config, pack, spec, doubtful)
            what = f"{role} adjudicates suspicious labels"
            with spent.charge(role):
                new = label_with_teacher(spent.asker, prompter, doubtful, spec, config.ask, config.seed, what)
            opinions[role].update({p.sample_id: p for p in new})
            return tabulate(opinions[role], doubtful, labels)

        return Adjudicator(ask, spec.share)

    panel = [(role, spec) for role, spec in name_teachers(config.panel).items() if not spec.is_rule]
    panel.sort(key=lambda entry: (entry[1].share is not None, estimate_price(entry[1])))
    return [make(role, spec) for role, spec in panel]


def _make_stand_in(truth: Path | None, samples: Sequence[Sample], labels: Sequence[str]) -> LookUp:
    """Return a function that takes item indices and returns the demo's simulated verdicts, keyed by item index.

    Without the file `truth` there are none: items wait for a person.
    """
    places = {label: i for i, label in enumerate(labels)} | {NEITHER: -1}

    def look_up(items: Ints) -> dict[int, int]:
        if truth is None:
            return {}
        get_run_logger().warning(
            "the reviewer is simulated from the demo's true labels: it answers for %d items", len(items)
        )
        item_of = {samples[i].id: i for i in items.tolist()}
        found = answer_from_truth(truth, item_of)
        return {i: places[found[identity]] for identity, i in item_of.items() if identity in found}

    return look_up


def _write_manifests(
    config: CorrectionConfig, pack: Pack, samples: Sequence[Sample], corrections: Sequence[Correction], folder: Path
) -> None:
    manifest = config.labelled.manifest
    left_alone = write_corrected(manifest, pack.columns, samples, corrections, folder)
    if left_alone:
        get_run_logger().warning(
            "%d items were removed from %s or relabelled there during the run; the corrected copy keeps their present "
            "state, and the next run decides about them: %s", len(left_alone), manifest, left_alone[:10],
        )  # fmt: skip


def _show_changes(corrections: Sequence[Correction], decisions: Decisions, review: Path) -> None:
    log = get_run_logger()
    changed = [c for c in corrections if c.action in (Action.RELABEL, Action.DROP)]
    rows = [
        {"item": c.sample_id, "given": c.given, "now": c.label or "(dropped)", "reviewed": c.reviewed, "why": c.why}
        for c in changed
    ]
    show_table("labels-changed", rows, f"{len(changed)} labels changed or dropped; {decisions.gate.summary}")
    judged = decisions.judgements
    agreement, advice = describe_agreement(int((judged.students.argmax(1) == judged.given).sum()), len(judged.ids))
    log.info(agreement)
    if advice:
        log.warning(advice)
    waiting = sum(c.action is Action.REVIEW for c in corrections)
    log.info("%d labels changed or dropped, %d awaiting review", len(changed), waiting)
    log.info(decisions.gate.summary)
    if waiting:
        log_where_to_judge(review, f"{len(read_queue(review))} items on the review page, {waiting} of them suspicious")
    estimates = decisions.estimates
    if {"wrong", "precision", "recall"} <= estimates.keys():
        wrong, precision, recall = (100 * estimates[name].value for name in ("wrong", "precision", "recall"))
        log.info(
            "estimated: %.0f %% of the labels are wrong; %.0f %% of the suspicious ones are wrong, and these are "
            "%.0f %% of all wrong ones", wrong, precision, recall,
        )  # fmt: skip
