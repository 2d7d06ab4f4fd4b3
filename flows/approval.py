"""A new version put before a person: a run pauses and shows a form in the web UI."""

from pathlib import Path

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.states import Running
from pydantic import Field

from flows.folders import CANDIDATE
from flows.pages import PAGES, link_to
from tasks.drift import Drift
from tasks.stages import read_record

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
    try:
        answer = pause_flow_run(wait_for_input=form, timeout=round(hours * 3600), poll_interval=_POLL_SECONDS)
    except FlowPauseTimeout:
        _take_up()
        return None
    get_run_logger().info("answered: publish %s; %s", answer.publish, answer.note or "no note")
    return answer


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
