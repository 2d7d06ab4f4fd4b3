"""The scheduled re-labelling: asks only for what is new or stale, and publishes a new version or holds it back."""

import time
from pathlib import Path
from uuid import uuid4

import httpx
from prefect import flow, get_run_logger
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout, PrefectHTTPStatusError
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput, keyset_from_paused_state
from prefect.states import Completed, Paused, Running
from pydantic import Field, ValidationError

from flows.api import is_outage, wait_for_api
from flows.config import EmitConfig, RelabelConfig
from flows.run_lock import hold_output
from flows.service.alerts import tell_empty, tell_held_back
from flows.service.pages import PAGES, link_to
from tasks.dataset.drift import (
    Drift,
    RelabelOutcome,
    RelabelState,
    Release,
    judge_release,
    measure_drift,
    read_state,
    write_state,
)
from tasks.dataset.versions import CANDIDATE, open_snapshot, read_versions
from tasks.errors import BudgetSpent
from tasks.items.file_states import file_state, folder_state
from tasks.items.ocr import reader_identity
from tasks.models.engines.identity import checkpoint_identity, model_identity
from tasks.packs.pack import load_pack
from tasks.records import digest_of
from tasks.review.queue import CONFLICTS, REVIEW_POOL, STORE
from tasks.storage.stage_record import read_record
from tasks.storage.stages import code_version

_POLL_SECONDS = 5
_CHANGE: tuple[str, ...] = ("item", "was", "is", "why")
"""Columns of the relabelled items that a person is shown."""
_NOTHING_AGAINST = ("every version is put before a person",)


@flow(name="relabel", flow_run_name="relabel: {config.pack}", timeout_seconds=336 * 3600)
@hold_output
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
    there = last.version is None or read_record(config.output / "emit") is not None
    if last.watched == watched and there and not (waits and config.publish):
        return _ended(last.model_copy(update={"outcome": RelabelOutcome.UNCHANGED, "why": last.why if waits else ()}))
    return _ended(write_state(config.output, _bring_up_to_date(config, watched, last)))


def watched_digest(config: RelabelConfig) -> str:
    """Digest of all that decides the set: configuration, pack, code, models, and the state of every file that is read.

    Files by size and time of change, so that a million known items take seconds.
    """
    sources = [s for s in (config.labelled, config.unlabelled, config.evaluation) if s is not None]
    stores = [config.output / folder / STORE for folder in (Path("review"), REVIEW_POOL, CONFLICTS)]
    given = [config.emit.mix.file if config.emit.mix else None, config.correction.reviewer.path]
    specs = (config.generator, config.teacher, config.pseudo_labels.second_teacher)
    pack, student = load_pack(config.pack), config.student
    unimportant = {"budget", "approval", "drift", "publish", "evaluate", "test", "runner", "shard_size"}
    return digest_of(
        [
            config.model_dump(mode="json", exclude=unimportant),
            pack.digest,
            code_version(),
            [model_identity(spec) for spec in specs if spec is not None],
            "" if student is None or student.kind == "probe" else checkpoint_identity(student.base, student.revision),
            reader_identity() if pack.ocr else "",
            [[file_state(source.manifest), folder_state(source.images)] for source in sources],
            [file_state(path) for path in (*stores, *given) if path is not None],
        ]
    )


def _ended(state: RelabelState) -> State[RelabelState]:
    """The final state of the flow run: always completed, since nothing broke; its name says what was done."""
    name = "".join(word.capitalize() for word in state.outcome.split())
    message = "; ".join(state.why) or state.outcome.value
    get_run_logger().info("%s: %s", state.outcome, message)
    return Completed(name=name, message=message, data=state)


def _bring_up_to_date(config: RelabelConfig, watched: str, last: RelabelState) -> RelabelState:
    """Run the stages, compare what they make with the published version, and publish it or not; the state to be kept.

    `watched` is the digest of what the set is made from, `last` the state that the last re-labelling left.
    """
    # Only now: the stages bring torch and the trainers, 30 s on a busy machine for nothing on most nights.
    from flows.asking import spending
    from flows.distill import run_stages, write_up
    from flows.stage import one_reading

    *asking, emission = config.stage_configs()
    assert isinstance(emission, EmitConfig)
    with one_reading():  # what arrives while a person is asked is not in what they look at: the next run takes it
        try:
            with spending(config.budget):
                records = run_stages([*asking, emission.model_copy(update={"candidate": True})])
        except BudgetSpent as spent:
            change = {"watched": "", "outcome": RelabelOutcome.BUDGET_SPENT, "why": (str(spent),)}
            return last.model_copy(update=change)
        # What no server answered is asked again by the next run, though nothing changes until then.
        seen = "" if any(record.costs.failed for record in records.values()) else watched
        confidence = _read_confidence(config.output)
        publish, why = _decide(config, last, approved=last.approved == watched, confidence=confidence)
        if not publish:
            change = {"watched": seen, "outcome": RelabelOutcome.HELD_BACK, "why": why, "approved": ""}
            return last.model_copy(update=change)
        write_state(config.output, last.model_copy(update={"watched": "", "approved": watched}))
        run_stages([emission])
        write_up(config)
    return RelabelState(
        watched=seen,
        outcome=RelabelOutcome.PUBLISHED,
        why=why,
        version=read_versions(config.output)[-1].version,
        confidence=confidence,
    )


def _read_confidence(output: Path) -> float | None:
    """Return the mean expected precision of the pool's labels, as the stage left it; None where none is labelled."""
    record = read_record(output / "pseudo_labels")
    return record.figures.get("expected precision of all") if record else None


def _decide(
    config: RelabelConfig, last: RelabelState, *, approved: bool, confidence: float | None
) -> tuple[bool, tuple[str, ...]]:
    """Return whether the candidate is published, and what stands against it; a person is asked where the rules say."""
    output = config.output
    published = open_snapshot(str(output)) if read_versions(output) else None
    drift = measure_drift(published, open_snapshot(str(output / CANDIDATE)), (last.confidence, confidence))
    _show(drift)
    release, against = judge_release(drift, config.drift, config.approval, publish=config.publish, approved=approved)
    if release is Release.PUBLISH:
        return True, against
    if not drift.after:
        tell_empty(output, CANDIDATE)
    tell_held_back(output, "; ".join(against or _NOTHING_AGAINST))
    if release is Release.HOLD_BACK:
        return False, against
    answer = ask_person(output, drift, against, config.approval.hours)
    if answer is None:
        return False, (*against, f"nobody answered within {config.approval.hours:g} hours")
    if not answer.publish:
        return False, (*against, f"a person said no: {answer.note or 'no note'}")
    return True, against


def _show(drift: Drift) -> None:
    from flows.stage import show_table

    show_table(
        "relabel-drift", [{"what": a, "figure": b} for a, b in drift.tabulate()], "Against the published version"
    )
    if rows := [dict(zip(_CHANGE, row, strict=True)) for row in drift.list_relabelled()]:
        show_table("relabel-changes", rows, "Relabelled items (the first of them)")


# --- asking a person ------------------------------------------------------------------------------------------


class Approval(RunInput):
    """What a person answers in the web UI while the run is paused."""

    publish: bool = Field(description="Write this version for trainers? No: it is held back, nothing is lost")
    note: str = Field(default="", description="Why, for those who come later", max_length=500)


def ask_person(output: Path, drift: Drift, against: tuple[str, ...], hours: float) -> Approval | None:
    """Pause the running flow until the form is answered; None after `hours` without an answer.

    The process stays, with the folder's lock: nothing may change what the person looks at.
    """
    get_run_logger().info("waiting up to %g hours for an answer in the web UI", hours)
    form = Approval.with_initial_data(description=_question(output, drift, against))
    key = uuid4().hex  # by default a number, under which a run that is tried again has asked before
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
        _take_up()
        return None
    get_run_logger().info("answered: publish %s; %s", answer.publish, answer.note or "no note")
    return answer


def _answer_after_outage(key: str, until: float) -> Approval | None:
    """What is answered by `until` to the form of that key, which waits on the server whatever becomes of the API."""
    keyset = keyset_from_paused_state(Paused(pause_key=key))
    while time.monotonic() < until:
        wait_for_api()
        try:
            if _goes_on():
                return Approval.load(keyset)  # pyright: ignore[reportReturnType]  a coroutine only where one runs
        except ValidationError:  # the API went before the form was there
            return None
        except (httpx.TransportError, PrefectHTTPStatusError) as error:
            if not is_outage(error):
                raise
        time.sleep(_POLL_SECONDS)
    return None


def _goes_on() -> bool:
    run = FlowRunContext.get()
    assert run is not None and run.flow_run is not None
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run.flow_run.id).state
    return state is not None and state.is_running()


def _take_up() -> None:
    """Put the run back to work: the server fails one that would end from a pause whose time is over."""
    run = FlowRunContext.get()
    assert run is not None and run.flow_run is not None
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run.flow_run.id, Running(), force=True)


def _question(output: Path, drift: Drift, against: tuple[str, ...]) -> str:
    """What the form says above its fields, as Markdown."""
    rows = [*drift.tabulate(), *_gate(output)]
    facts = "\n".join(f"| {name} | {value} |" for name, value in rows)
    changes = [f"| {' | '.join(map(_cell, row))} |" for row in drift.list_relabelled()]
    head = [f"| {' | '.join(_CHANGE)} |", "|---|---|---|---|"]
    changed = "\n".join([*head, *changes]) if changes else "No label has changed."
    return "\n\n".join(
        [
            "## A new version waits",
            "**" + "; ".join(against or _NOTHING_AGAINST) + "**",
            "| what | figure |\n|---|---|\n" + facts,
            changed,
            f"Items to be judged: {_address(output / PAGES['review'])}. All changes: "
            f"`labelstill diff {output} {output / CANDIDATE}`.",
        ]
    )


_GATE = {
    "correction": ("audited wins", "audited losses", "gate lower bound", "waiting for review"),
    "pseudo_labels": ("expected precision", "lower", "upper"),
}
"""Figures that a person is shown: what opened the gate, and how far the pool's labels are to be trusted."""


def _gate(output: Path) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for stage, names in _GATE.items():
        record = read_record(output / stage)
        figures = record.figures if record else {}
        rows += [(f"{stage}: {name}", f"{figures[name]:.4g}") for name in names if name in figures]
    return rows


def _address(page: Path) -> str:
    """A link where the page is served, else where it lies."""
    link = link_to(page)
    return f"[{page.name}]({link})" if link else f"`{page}`"


_MARKS = str.maketrans({"|": "¦", "`": "'", "<": "‹", ">": "›", "[": "(", "]": ")", "*": "∗", "&": "＆"})
"""What Markdown or HTML would take for its own; the web UI shows entities as they are written."""


def _cell(text: str) -> str:
    """Text of users as a cell of a Markdown table: it stays text."""
    return " ".join(text.split())[:80].translate(_MARKS)
