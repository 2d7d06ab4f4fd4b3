"""Stage 3: K students, each trained without one fold, predict that fold; departures are adjudicated and audited."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
from prefect import flow, get_run_logger

from flows.asking import Asking
from flows.config import CorrectionConfig
from flows.running import Progress, Stage, intake, most_images, prompter_for, reused, run_as_task, show_table
from flows.teacher import teacher_labels
from tasks.audit import Gate, choose_cases, gate_from
from tasks.correction import check_out_of_fold, decide, propose, suspicious
from tasks.engines.identity import model_identity
from tasks.folds import Folds, make_folds
from tasks.ledger import Ledger
from tasks.packs import Pack, load_pack
from tasks.records import Action, Correction, Prediction, Sample, Sampling, Split
from tasks.reviewers import read_verdicts
from tasks.stages import StageRecord, code_version, recipe_hash, write_bytes
from tasks.students.lora import base_spec, student_digest, train_student

STAGE = "correction"


@dataclass(frozen=True)
class _Student:
    fold: int
    folder: Path
    seen: set[str]
    """Content digests of the items it was trained on, by its own record."""


@flow(name="correction", flow_run_name="correction: {config.pack}")
def correction(config: CorrectionConfig) -> StageRecord:
    """Judge every given label, under `output`/correction.

    Kept: one `Correction` an item, whatever was decided. Beside it: folds.json, students/ and cases.jsonl (what the
    reviewer was asked, and the verdicts).
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    samples, read = intake(config.labelled, pack, Split.LABELLED, config.output)
    teacher, base = model_identity(config.teacher), model_identity(base_spec(config.student))
    folder = config.output / STAGE
    reviewer = config.correction.reviewer
    recipe = recipe_hash(
        settings=config.correction, pack=pack.digest, teacher=teacher, base=base, student=config.student,
        input=read.digest, code=code_version(), seed=config.seed,
        verdicts=read_verdicts_state(reviewer.path),
        pixels=[config.teacher.min_pixels, config.teacher.max_pixels], context=config.teacher.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    folds = make_folds(samples, config.student.folds, config.seed)
    _report_folds(folds, folder)
    inputs = {"samples": read.digest, "folds": folds.digest}
    stage = Stage(STAGE, folder, recipe, inputs, {"teacher": teacher, "base": base}, began)
    students = _train(config, pack, base, samples, folds, folder / "students")
    with Ledger(config.ledger) as ledger, Asking(config, STAGE, ledger, most_images(samples)) as asking:
        predictions = _out_of_fold(config, pack, samples, folds, students, asking)
        judged = _adjudicate(config, pack, teacher, samples, predictions, asking)
        costs = asking.costs()
    cases = [propose(s, predictions[s.id], judged.get(s.id), folds.fold_of[s.id]) for s in samples]
    decided, gate, asked = _audit(config, cases, {s.id: s.labels for s in samples}, folder)
    record = stage.finish(decided, [], (s.id for s in samples), _figures(cases, decided, gate, asked), costs)
    _show_changes(decided, gate)
    return record


def read_verdicts_state(path: Path | None) -> str:
    """Size and time of a verdict file: new verdicts make the stage decide again (its answers are in the ledger)."""
    if path is None or not path.exists():
        return ""
    return f"{path.stat().st_size}:{path.stat().st_mtime_ns}"


def _train(
    config: CorrectionConfig, pack: Pack, base: str, samples: Sequence[Sample], folds: Folds, folder: Path
) -> list[_Student]:
    """A student for each fold, one task run each; finished ones are reused."""
    log = get_run_logger()
    spec = config.student
    prompter = prompter_for(config, pack, base, base_spec(spec), samples)
    students: list[_Student] = []
    for fold in range(folds.k):
        train = [s for s in samples if folds.fold_of[s.id] != fold]
        home = folder / student_digest(spec, prompter, train, fold)
        if (home / "student.json").exists():
            log.info("fold %d of %d: finished student reused (%s)", fold + 1, folds.k, home.name)
        else:
            what = f"train student {fold + 1} of {folds.k} on {len(train)} items"
            progress = Progress(STAGE, what, 1)

            def moved(done: int, total: int, loss: float, progress: Progress = progress) -> None:
                progress.total = max(total, 1)
                progress.to(done)

            def work(train: list[Sample] = train, fold: int = fold, home: Path = home, moved=moved) -> Path:
                return train_student(spec, prompter, train, fold, home, moved)

            run_as_task("train student", what, work)
        facts = orjson.loads((home / "student.json").read_bytes())
        students.append(_Student(fold, home, set(facts["trained_on_content"])))
    return students


def _out_of_fold(
    config: CorrectionConfig,
    pack: Pack,
    samples: Sequence[Sample],
    folds: Folds,
    students: Sequence[_Student],
    asking: Asking,
) -> dict[str, Prediction]:
    """Each item's prediction by the student that did not see it."""
    check_out_of_fold(samples, folds.fold_of, {s.fold: s.seen for s in students})
    predictions: dict[str, Prediction] = {}
    for student in students:
        spec = base_spec(config.student).model_copy(update={"adapter": str(student.folder)})
        model = model_identity(spec)
        prompter = prompter_for(config, pack, model, spec, samples)
        held_out = [s for s in samples if folds.fold_of[s.id] == student.fold]
        sampling = Sampling(label_probabilities=True, max_tokens=8)
        requests = [prompter.classify(s, sampling, with_reason=False) for s in held_out]
        what = f"student {student.fold + 1} of {len(students)} predicts its fold"
        answered = asking.labels(requests, spec, what, source=f"student/fold={student.fold}", model=model)
        predictions |= {p.sample_id: p for p in answered}
    return predictions


def _adjudicate(
    config: CorrectionConfig,
    pack: Pack,
    teacher: str,
    samples: Sequence[Sample],
    predictions: Mapping[str, Prediction],
    asking: Asking,
) -> dict[str, Prediction]:
    """The teacher's answer about each suspicious item; its prompt does not hold the given label."""
    prompter = prompter_for(config, pack, teacher, config.teacher, samples)
    doubtful = [s for s in samples if suspicious(s, predictions[s.id])]
    settings = config.correction
    what = "teacher adjudicates disagreements"
    answered = teacher_labels(asking, prompter, doubtful, config.teacher, settings, config.seed, what)
    return {p.sample_id: p for p in answered}


def _audit(
    config: CorrectionConfig, cases: Sequence[Correction], labels: Mapping[str, Sequence[str]], folder: Path
) -> tuple[list[Correction], Gate, list[Correction]]:
    """Ask the reviewer about a sample of the open cases, and close what verdicts and gate allow."""
    settings = config.correction
    asked = choose_cases(cases, settings.review_budget, config.seed)
    reviewer = settings.reviewer
    verdicts: dict[str, str] = {}
    if reviewer.path is not None:
        if reviewer.kind == "demo_stand_in":
            get_run_logger().warning(
                "the reviewer is the demo's stand-in, which knows the truth: it answers for %d cases", len(asked)
            )
        verdicts = read_verdicts(reviewer.kind, reviewer.path, {c.sample_id: labels[c.sample_id] for c in asked})
    gate = gate_from(asked, verdicts, settings.gate_level)
    lines = [{"id": c.sample_id} | c.model_dump(mode="json") | {"verdict": verdicts.get(c.sample_id)} for c in asked]
    write_bytes(folder / "cases.jsonl", b"".join(orjson.dumps(line) + b"\n" for line in lines))
    get_run_logger().info("%d open cases, %d asked; %s", _open(cases), len(asked), gate.summary)
    return [decide(c, verdicts.get(c.sample_id), gate) if c.action is Action.REVIEW else c for c in cases], gate, asked


def _figures(
    cases: Sequence[Correction], decided: Sequence[Correction], gate: Gate, asked: Sequence[Correction]
) -> dict[str, float]:
    actions = Counter(c.action for c in decided)
    return {
        "disagreements": sum(c.predicted is not None and c.predicted != c.given for c in cases),
        "proposed": sum(c.candidate is not None for c in cases),
        "queued": sum(c.action is Action.REVIEW and c.candidate is None for c in cases),
        "asked of the reviewer": len(asked),
        "audited wins": gate.wins,
        "audited losses": gate.losses,
        "gate lower bound": gate.lower,
        "relabelled": actions[Action.RELABEL],
        "dropped by the reviewer": actions[Action.DROP],
        "waiting for review": actions[Action.REVIEW],
    }


def _report_folds(folds: Folds, folder: Path) -> None:
    if folds.rare:
        get_run_logger().warning("labels with fewer items than folds, poorly judged out of fold: %s", folds.rare)
    facts = {"k": folds.k, "groups": folds.groups, "rare": folds.rare, "fold_of": folds.fold_of}
    write_bytes(folder / "folds.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))


def _show_changes(decided: Sequence[Correction], gate: Gate) -> None:
    changed = [c for c in decided if c.action in (Action.RELABEL, Action.DROP)]
    rows = [
        {"item": c.sample_id, "given": c.given, "now": c.label or "(dropped)", "reviewed": c.reviewed, "why": c.why}
        for c in changed
    ]
    show_table("labels-changed", rows, f"{len(changed)} labels changed or dropped; {gate.summary}")


def _open(cases: Sequence[Correction]) -> int:
    return sum(c.action is Action.REVIEW for c in cases)
