"""The scheduled re-labelling: asks only for what is new or stale, and publishes a new version or holds it back."""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed

from flows.alerts import tell_empty, tell_held_back
from flows.approval import ask_person
from flows.asking import spending
from flows.config import EmitConfig, RelabelConfig
from flows.distill import run_stages, write_up
from flows.emit import CANDIDATE, CONFLICTS
from flows.one_run import one_run
from flows.pseudo_labels import REVIEW
from flows.running import file_state, folder_state, show_table
from tasks.drift import Drift, drift_between
from tasks.engines.identity import model_identity
from tasks.errors import BudgetSpent
from tasks.packs import load_pack
from tasks.records import digest_of
from tasks.relabel_state import RelabelOutcome, RelabelState, read_state, write_state
from tasks.snapshots import Snapshot, open_snapshot
from tasks.stages import code_version, read_record
from tasks.versions import read_versions


@flow(name="relabel", flow_run_name="relabel: {config.pack}", timeout_seconds=336 * 3600)
@one_run
def relabel(config: RelabelConfig) -> State[RelabelState]:
    """Bring `output` up to date: new items, changed templates, teacher or label set, and what review has decided.

    All that is unchanged is reused, so only what is new or stale is asked. The set is merged beside the published one
    and compared with it; unless it moved beyond `drift`, or a person says no, it is published: written for trainers and
    logged as a version. The final state's name says how it ended (`RelabelOutcome`), its result is what stands in
    `output`/relabel.json.
    """
    watched = watched_digest(config)
    last = read_state(config.output) or RelabelState(watched="", outcome=RelabelOutcome.UNCHANGED)
    waits = last.outcome is RelabelOutcome.HELD_BACK
    if last.watched == watched and not (waits and config.publish):
        return _ended(last.model_copy(update={"outcome": RelabelOutcome.UNCHANGED, "why": last.why if waits else ()}))
    try:
        with spending(config.budget.budget()):
            *asking, emission = config.stage_configs()
            assert isinstance(emission, EmitConfig)
            run_stages([*asking, emission.model_copy(update={"candidate": True})])
    except BudgetSpent as spent:
        change = {"watched": "", "outcome": RelabelOutcome.BUDGET_SPENT, "why": (str(spent),)}
        return _ended(write_state(config.output, last.model_copy(update=change)))
    candidate, confidence = open_snapshot(str(config.output / CANDIDATE)), _confidence(config.output)
    drift = drift_between(_published(config.output), candidate, (last.confidence, confidence))
    against = ("nothing is left to train on",) if not candidate.rows else drift.beyond(config.drift.limits())
    _show(drift)
    if not candidate.rows:
        tell_empty(config.output, CANDIDATE)
    if refused := _refused(config, drift, against):
        change = {"watched": watched, "outcome": RelabelOutcome.HELD_BACK, "why": refused}
        return _ended(write_state(config.output, last.model_copy(update=change)))
    run_stages([emission])
    write_up(config)
    published = RelabelState(
        watched=watched,
        outcome=RelabelOutcome.PUBLISHED,
        why=against,
        version=read_versions(config.output)[-1].version,
        confidence=confidence,
    )
    return _ended(write_state(config.output, published))


def watched_digest(config: RelabelConfig) -> str:
    """Digest of all that decides the set: configuration, pack, code, models, and the state of every file that is read.

    Files by size and time of change, so that a million known items take seconds.
    """
    sources = [s for s in (config.labelled, config.unlabelled, config.evaluation) if s is not None]
    stores = [config.output / folder / "verdicts.jsonl" for folder in (Path("review"), REVIEW, CONFLICTS)]
    given = [config.emit.mix.file if config.emit.mix else None, config.correction.reviewer.path]
    specs = (config.generator, config.teacher, config.pseudo_labels.second_teacher)
    unimportant = {"budget", "approval", "drift", "publish", "evaluate", "test", "runner", "shard_size"}
    return digest_of(
        [
            config.model_dump(mode="json", exclude=unimportant),
            load_pack(config.pack).digest,
            code_version(),
            [model_identity(spec) for spec in specs if spec is not None],
            [[file_state(source.manifest), folder_state(source.images)] for source in sources],
            [file_state(path) for path in (*stores, *given) if path is not None],
        ]
    )


def _published(output: Path) -> Snapshot | None:
    return open_snapshot(str(output)) if read_versions(output) else None


def _confidence(output: Path) -> float | None:
    """Mean expected precision of the pool's labels, as the stage left it; None where no pool is labelled."""
    record = read_record(output / "pseudo_labels")
    return record.figures.get("expected precision of all") if record else None


def _refused(config: RelabelConfig, drift: Drift, against: tuple[str, ...]) -> tuple[str, ...]:
    """Why the set is not published; empty if it is."""
    asks = config.approval.ask == "always" or (against and config.approval.ask == "drift")
    if config.publish or not (against or asks):
        return ()
    tell_held_back(config.output, "; ".join(against or ("every version is put before a person",)))
    if not asks:
        return against
    answer = ask_person(config.output, drift, against, config.approval.hours)
    if answer is None:
        return (*against, f"nobody answered within {config.approval.hours:g} hours")
    return () if answer.publish else (*against, f"a person said no: {answer.note or 'no note'}")


def _show(drift: Drift) -> None:
    show_table("relabel-drift", [{"what": a, "figure": b} for a, b in drift.rows()], "Against the published version")
    rows = [
        {"item": c.id, "was": c.before.label, "is": c.after.label, "why": c.after.why}
        for c in drift.changed
        if c.before and c.after
    ]
    if rows:
        show_table("relabel-changes", rows, "Relabelled items (the first of them)")


def _ended(state: RelabelState) -> State[RelabelState]:
    """The final state of the flow run: always completed, since nothing broke; its name says what was done."""
    name = "".join(word.capitalize() for word in state.outcome.split())
    message = "; ".join(state.why) or state.outcome.value
    get_run_logger().info("%s: %s", state.outcome, message)
    return Completed(name=name, message=message, data=state)
