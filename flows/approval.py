"""A new version put before a person: a run pauses and shows a form in the web UI."""

import time
from pathlib import Path
from uuid import uuid4

import httpx
from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout, PrefectHTTPStatusError
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput, keyset_from_paused_state
from prefect.states import Paused, Running
from pydantic import Field, ValidationError

from flows.api import is_outage, wait_for_api
from flows.folders import CANDIDATE
from flows.service.pages import PAGES, link_to
from tasks.dataset.drift import Drift
from tasks.storage.stage_record import read_record

_POLL_SECONDS = 5


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
    rows = [*drift.rows(), *_gate(output)]
    facts = "\n".join(f"| {name} | {value} |" for name, value in rows)
    relabelled = [
        f"| {_cell(c.id)} | {_cell(c.before.label)} | {_cell(c.after.label)} | {_cell(c.after.why)} |"
        for c in drift.changed
        if c.before and c.after
    ]
    changed = (
        "\n".join(["| item | was | is | why |", "|---|---|---|---|", *relabelled])
        if relabelled
        else "No label has changed."
    )
    return "\n\n".join(
        [
            "## A new version waits",
            "**" + "; ".join(against or ("every version is put before a person",)) + "**",
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
