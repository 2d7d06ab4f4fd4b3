"""Update a set, on a schedule or by hand: ask about new and changed items, then publish the result or hold it back."""

import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from uuid import UUID, uuid4

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import FlowPauseTimeout, PrefectHTTPStatusError
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput, keyset_from_paused_state
from prefect.runtime import flow_run
from prefect.states import Completed, Paused, Running
from pydantic import Field, ValidationError

from flows.api import is_outage, wait_for_api
from flows.config import EmitConfig, RelabelConfig
from flows.run_lock import hold_output
from flows.service.alerts import alert_empty, alert_held_back
from flows.service.pages import PAGES, make_link
from tasks.dataset.drift import (
    NOTHING_LEFT,
    Drift,
    HeldBack,
    RelabelOutcome,
    RelabelState,
    Release,
    judge_release,
    measure_drift,
    read_state,
    write_state,
)
from tasks.dataset.publication import CANDIDATE, PUBLISHED, find_earlier, make_candidate, publish
from tasks.dataset.versions import Snapshot, open_snapshot, read_versions
from tasks.errors import BudgetSpent, ConfigError
from tasks.items.file_states import read_file_state, read_folder_state
from tasks.items.ocr import get_reader_identity
from tasks.models.engines.identity import identify_checkpoint, identify_model
from tasks.models.ledger.tools import find_last_prune
from tasks.packs.pack import load_pack
from tasks.records import digest_of
from tasks.review.queue import CONFLICTS, REASONS, REVIEW_POOL, STORE
from tasks.storage.stage_record import read_record
from tasks.storage.stages import code_version

_POLL_SECONDS = 5
_CHANGE_COLUMNS: tuple[str, ...] = ("item", "was", "is", "why")
"""Columns of the table of relabelled items that the approval form shows."""
_NO_OBJECTION = ("every version needs a person's approval",)


@flow(name="labelstill-relabel", flow_run_name="relabel: {config.pack}", timeout_seconds=336 * 3600)
@hold_output
def relabel(config: RelabelConfig) -> State[RelabelState]:
    """Update the set under `output` for new items, changed templates, models and labels, and people's verdicts.

    Unchanged work is reused, so models are asked only about what is new or changed. The result is a candidate, which is
    compared with the published set. It is published (written for trainers and logged as a version) unless it differs by
    more than `drift` allows or a person rejects it. The flow run's final state is named after the `RelabelOutcome`, and
    its result is the content of `output`/relabel.json.
    """
    last = read_state(config.output) or RelabelState(watched="", outcome=RelabelOutcome.UNCHANGED)
    if config.publish or config.undo:
        change = _publish_held_back if config.publish else _go_back
        return _make_final_state(write_state(config.output, change(config, last)))
    watched = digest_watched_inputs(config)
    waits = last.outcome is RelabelOutcome.HELD_BACK
    there = last.version is None or read_record(config.output / PUBLISHED) is not None
    if last.watched == watched and there:
        return _make_final_state(
            last.model_copy(update={"outcome": RelabelOutcome.UNCHANGED, "why": last.why if waits else ()})
        )
    return _make_final_state(write_state(config.output, _bring_up_to_date(config, watched, last)))


def digest_watched_inputs(config: RelabelConfig) -> str:
    """Return one digest of everything that the set depends on: configuration, pack, code, models and input files.

    Files are compared by size and modification time, not by content, so a million items take seconds.
    """
    sources = [s for s in (config.labelled, config.unlabelled, config.evaluation) if s is not None]
    stores = [config.output / folder / STORE for folder in (Path("review"), REVIEW_POOL, CONFLICTS, REASONS)]
    given = [config.emit.mix.file if config.emit.mix else None]
    pack, student = load_pack(config.pack), config.student
    unimportant = {"budget", "approval", "drift", "publish", "undo", "evaluate", "test", "runner", "shard_size"}
    unimportant |= {"max_failed_share"}
    return digest_of(
        [
            config.model_dump(mode="json", exclude=unimportant),
            pack.digest,
            code_version(),
            [identify_model(spec) for spec in config.engines],
            "" if student is None or student.kind == "probe" else identify_checkpoint(student.base, student.revision),
            get_reader_identity() if pack.ocr else "",
            find_last_prune(config.ledger, map(identify_model, config.engines)),
            [[read_file_state(source.manifest), read_folder_state(source.images)] for source in sources],
            [read_file_state(path) for path in (*stores, *given) if path is not None],
        ]
    )


def _make_final_state(state: RelabelState) -> State[RelabelState]:
    """Return the flow run's final state. Its type is Completed, and its name is that of the outcome."""
    name = "".join(word.capitalize() for word in state.outcome.split())
    message = "; ".join(state.why) or state.outcome.value
    get_run_logger().info("%s: %s", state.outcome, message)
    return Completed(name=name, message=message, data=state)


def _bring_up_to_date(config: RelabelConfig, watched: str, last: RelabelState) -> RelabelState:
    """Run the stages, compare the result with the published version, publish it or not, and return the new state.

    `watched` is the digest of the present inputs, and `last` is the state that the last re-labelling left.
    """
    # Imported late: the stages import torch and the trainers (30 s on a busy machine), needlessly on most nights.
    from flows.asking import charge_budget
    from flows.distill import run_stages, show_bulk_failure
    from flows.stage import share_readings

    *asking, emission = config.list_stage_configs()
    assert isinstance(emission, EmitConfig)
    with share_readings():  # items that arrive while a person decides are left to the next run
        try:
            with charge_budget(config.budget), show_bulk_failure(config):
                records = run_stages([*asking, emission.model_copy(update={"candidate": True})])
        except BudgetSpent as spent:
            change = {"watched": "", "outcome": RelabelOutcome.BUDGET_SPENT, "why": (str(spent),)}
            return last.model_copy(update=change)
        # Questions that no server answered are asked again by the next run, even if nothing else has changed.
        seen = "" if any(record.costs.failed for record in records.values()) else watched
    candidate = open_snapshot(str(config.output / CANDIDATE))
    held = HeldBack(version=candidate.version, confidence=_read_confidence(config.output))
    if last.held is not None and last.held.taken_back and last.held.version == candidate.version:
        return last.model_copy(update={"watched": seen})
    may_publish, why = _decide(config, last, candidate, held.confidence, approved=last.approved == watched)
    if may_publish:
        return _publish_candidate(config, last, held, approved=watched).model_copy(update={"watched": seen, "why": why})
    change = {"watched": seen, "outcome": RelabelOutcome.HELD_BACK, "why": why, "held": held, "approved": ""}
    return last.model_copy(update=change)


def _publish_held_back(config: RelabelConfig, last: RelabelState) -> RelabelState:
    """Publish the version that was held back, and return the new state.

    Raises ConfigError if no version is held back or if it is no longer what a person could look at.
    """
    output = config.output
    if last.held is None:
        raise ConfigError(f"{output}: no version is held back; run `labelstill relabel` without --publish")
    found = open_snapshot(str(output / CANDIDATE))
    if found.version != last.held.version:
        raise ConfigError(
            f"{output / CANDIDATE}: version {found.version[:12]} is not the one that was held back, "
            f"{last.held.version[:12]}; run `labelstill relabel` without --publish and look at the result"
        )
    if not found.rows:
        return last.model_copy(update={"outcome": RelabelOutcome.HELD_BACK, "why": (NOTHING_LEFT,)})
    return _publish_candidate(config, last, last.held, approved=last.watched)


def _publish_candidate(config: RelabelConfig, last: RelabelState, held: HeldBack, *, approved: str) -> RelabelState:
    """Publish the candidate as it is, and return the new state."""
    from flows.distill import write_card_and_summary

    write_state(config.output, last.model_copy(update={"watched": "", "approved": approved}))
    publish(config.output, (config.output / CANDIDATE).resolve())
    write_card_and_summary(config)
    return RelabelState(
        watched=last.watched, outcome=RelabelOutcome.PUBLISHED, version=held.version, confidence=held.confidence
    )


def _go_back(config: RelabelConfig, last: RelabelState) -> RelabelState:
    """Publish the version before the present one again, hold the present one back, and return the new state."""
    from flows.distill import write_card_and_summary

    output = config.output
    earlier = find_earlier(output)
    if earlier is None:
        raise ConfigError(f"{output}: no earlier version is kept, so none is published")
    present = (output / PUBLISHED).resolve()
    taken_back = open_snapshot(str(present))
    make_candidate(output, present)
    version = publish(output, earlier)
    write_card_and_summary(config)
    return RelabelState(
        watched=last.watched,
        outcome=RelabelOutcome.HELD_BACK,
        why=(f"a person went back to version {version.short}",),
        version=version.version,
        held=HeldBack(version=taken_back.version, confidence=last.confidence, taken_back=True),
    )


def _read_confidence(output: Path) -> float | None:
    """Return the mean expected precision of all pseudo-labels, or None if the pool was not labelled."""
    record = read_record(output / "pseudo_labels")
    return record.figures.get("expected precision of all") if record else None


def _decide(
    config: RelabelConfig, last: RelabelState, candidate: Snapshot, confidence: float | None, *, approved: bool
) -> tuple[bool, tuple[str, ...]]:
    """Return whether to publish the candidate, and the objections to it. Ask a person if the settings require it."""
    output = config.output
    published = open_snapshot(str(output)) if read_versions(output) else None
    drift = measure_drift(published, candidate, (last.confidence, confidence))
    _show(drift)
    release, against = judge_release(drift, config.drift, config.approval, approved=approved)
    if release is Release.PUBLISH:
        return True, against
    if not drift.after:
        alert_empty(output, CANDIDATE)
    alert_held_back(output, "; ".join(against or _NO_OBJECTION))
    if release is Release.HOLD_BACK:
        return False, against
    answer = ask_person(output, drift, against, config.approval.hours)
    if answer is None:
        return False, (*against, f"nobody answered within {config.approval.hours:g} hours")
    if not answer.publish:
        return False, (*against, f"a person rejected it: {answer.note or 'no note'}")
    return True, against


def _show(drift: Drift) -> None:
    from flows.stage import show_table

    drifts = [{"what": name, "figure": value} for name, value in drift.tabulate()]
    show_table("relabel-drift", drifts, "Difference from the published version")
    if rows := [dict(zip(_CHANGE_COLUMNS, row, strict=True)) for row in drift.list_relabelled()]:
        show_table("relabel-changes", rows, "The first relabelled items")


# --- asking a person ------------------------------------------------------------------------------------------


class Approval(RunInput):
    """A person's answer in the web UI while the run is paused."""

    publish: bool = Field(description="Publish this version for trainers? If not, it is held back and nothing is lost.")
    note: str = Field(default="", description="The reason for your decision, for the log.", max_length=500)


def ask_person(output: Path, drift: Drift, against: tuple[str, ...], hours: float) -> Approval | None:
    """Pause the running flow until a person answers the form. Return the answer, or None if there is none in `hours`.

    The process keeps running and keeps the folder locked, so that no other run changes what the person looks at.
    """
    get_run_logger().info("waiting up to %g hours for an answer in the web UI", hours)
    form = Approval.with_initial_data(description=_describe_candidate(output, drift, against))
    key = uuid4().hex  # Prefect's default is a number that a retried run would reuse
    until = time.monotonic() + hours * 3600
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=round(hours * 3600), poll_interval=_POLL_SECONDS, key=key)
    except FlowPauseTimeout:
        answer = None
    except (httpx.TransportError, PrefectHTTPStatusError) as error:
        if not is_outage(error):
            raise
        answer = _answer_after_outage(key, until)
    if answer is None:
        _resume_run()
        return None
    get_run_logger().info("answered: publish %s; %s", answer.publish, answer.note or "no note")
    return answer


def _answer_after_outage(key: str, until: float) -> Approval | None:
    """Return the answer to the form `key`, or None if there is none by `until`. Wait while the API is unavailable."""
    keyset = keyset_from_paused_state(Paused(pause_key=key))
    while time.monotonic() < until:
        wait_for_api()
        try:
            if _is_resumed():
                return Approval.load(keyset)  # pyright: ignore[reportReturnType]  a coroutine only where one runs
        except ValidationError:  # the API became unavailable before the form was stored
            return None
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if not is_outage(error):
                raise
        time.sleep(_POLL_SECONDS)
    return None


def _is_resumed() -> bool:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(UUID(flow_run.id)).state
    return state is not None and state.is_running()


def _resume_run() -> None:
    """Set the run to Running. If it ended while its pause had timed out, the server would mark it as failed."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(UUID(flow_run.id), Running(), force=True)


def _describe_candidate(output: Path, drift: Drift, against: tuple[str, ...]) -> str:
    """Return the Markdown text that the form shows above its fields."""
    changes = drift.list_relabelled()
    page = output / PAGES["review"]
    link = make_link(page)
    return "\n\n".join(
        [
            "## A new version awaits approval",
            f"**{'; '.join(against or _NO_OBJECTION)}**",
            _format_table(("what", "figure"), [*drift.tabulate(), *_list_gate_figures(output)]),
            _format_table(_CHANGE_COLUMNS, changes) if changes else "No label has changed.",
            f"Review page: {f'[{page.name}]({link})' if link else f'`{page}`'}. All changes: "
            f"`labelstill diff {output} {output / CANDIDATE}`.",
        ]
    )


_GATE_FIGURES = {
    "correction": ("audited wins", "audited losses", "gate lower bound", "waiting for review"),
    "pseudo_labels": ("expected precision", "lower", "upper"),
}
"""Figures that the approval form shows: the audit's result and the expected precision of the pool's labels."""


def _list_gate_figures(output: Path) -> Iterator[tuple[str, str]]:
    for stage, names in _GATE_FIGURES.items():
        record = read_record(output / stage)
        for name in names:
            if record is not None and name in record.figures:
                yield f"{stage}: {name}", f"{record.figures[name]:.4g}"


_ESCAPES = str.maketrans({"|": "¦", "`": "'", "<": "‹", ">": "›", "[": "(", "]": ")", "*": "∗", "&": "＆"})
"""Replacements for characters with a meaning in Markdown or HTML; the web UI does not decode entities."""


def _format_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table in which markup in the cells has no effect."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(
        f"| {' | '.join(' '.join(cell.split())[:80].translate(_ESCAPES) for cell in line)} |" for line in lines
    )
