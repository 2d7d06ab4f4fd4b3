"""What a re-labelling does once something has changed: the stages, the comparison, and the decision to publish."""

from pathlib import Path

from flows.approval import ask_person
from flows.asking import spending
from flows.config import EmitConfig, RelabelConfig
from flows.distill import run_stages, write_up
from flows.folders import CANDIDATE
from flows.service.alerts import tell_empty, tell_held_back
from flows.stage import one_reading, show_table
from tasks.dataset.drift import Drift, drift_between
from tasks.dataset.relabel_state import RelabelOutcome, RelabelState, write_state
from tasks.dataset.snapshots import Snapshot, open_snapshot
from tasks.dataset.versions import read_versions
from tasks.errors import BudgetSpent
from tasks.storage.stage_record import read_record


def bring_up_to_date(config: RelabelConfig, watched: str, last: RelabelState) -> RelabelState:
    """Run the stages, compare what they make with the published version, and publish it or not; the state to be kept.

    `watched` is the digest of what the set is made from, `last` the state that the last re-labelling left.
    """
    with one_reading():  # what arrives while a person is asked is not in what they look at: the next run takes it
        return _brought_up_to_date(config, watched, last)


def _brought_up_to_date(config: RelabelConfig, watched: str, last: RelabelState) -> RelabelState:
    try:
        with spending(config.budget):
            *asking, emission = config.stage_configs()
            assert isinstance(emission, EmitConfig)
            records = run_stages([*asking, emission.model_copy(update={"candidate": True})])
    except BudgetSpent as spent:
        change = {"watched": "", "outcome": RelabelOutcome.BUDGET_SPENT, "why": (str(spent),)}
        return last.model_copy(update=change)
    # What no server answered is asked again by the next run, though nothing changes until then.
    seen = "" if any(record.costs.failed for record in records.values()) else watched
    candidate, confidence = open_snapshot(str(config.output / CANDIDATE)), _confidence(config.output)
    drift = drift_between(_published(config.output), candidate, (last.confidence, confidence))
    against = ("nothing is left to train on",) if not candidate.rows else drift.beyond(config.drift.limits())
    _show(drift)
    if not candidate.rows:
        tell_empty(config.output, CANDIDATE)
        tell_held_back(config.output, "; ".join(against))
        refused = against
    else:
        refused = () if last.approved == watched else _refused(config, drift, against)
    if refused:
        change = {"watched": seen, "outcome": RelabelOutcome.HELD_BACK, "why": refused, "approved": ""}
        return last.model_copy(update=change)
    write_state(config.output, last.model_copy(update={"watched": "", "approved": watched}))
    run_stages([emission])
    write_up(config)
    return RelabelState(
        watched=seen,
        outcome=RelabelOutcome.PUBLISHED,
        why=against,
        version=read_versions(config.output)[-1].version,
        confidence=confidence,
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
