"""Alerts: Prefect automations for runs that fail, crash, are late or hold a version back, and for empty results.

They are told to one notification or webhook block. One automation more needs none: it marks a run Crashed that no
longer sends heartbeats, which Prefect's own server leaves Running for ever. Deployed runs alert, and their subflows do
not; a run that was started in a terminal has somebody who watches it.
"""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument, StateType
from prefect.events import emit_event
from prefect.events.actions import ActionTypes, CallWebhook, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tasks.errors import LabelstillError

FLOWS = ["distill", "rationales", "pseudo-labels", "correction", "emit", "evaluate", "relabel", "demo"]
"""Whose runs are looked after: a server may have others, with other heartbeats."""

HELD_BACK = "labelstill.version.held-back"
EMPTY = "labelstill.result.empty"

_ONCE_IN = timedelta(minutes=1)
"""Of one run or folder. A server whose SQLite is locked for a moment hands an event out again, to the alerts that have
told it already too: 3 of 6 test runs on a busy machine got a message twice."""
_MISSED_HEARTBEATS = 3
"""Prefect's own advice; two are missed by a process that the system swaps out, or a server that starts again."""
_ALIVE_OR_ENDED = ["heartbeat", "Completed", "Failed", "TimedOut", "Crashed", "Cancelled", "Paused", "Suspended"]
_ALIVE_OR_ENDED += ["BudgetSpent", "Published", "Unchanged", "HeldBack"]
"""A final state by a name that is not here would be refused the mark, and the web UI would show that as a failure."""


class AlertError(LabelstillError):
    """The block cannot be used for alerts; the text says what to do."""


class Registered(StrEnum):
    """What became of an automation."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class _Alert:
    """Something that somebody should be told."""

    name: str
    events: tuple[str, ...]
    subject: str
    """This and `body` are Prefect's templates (https://docs.prefect.io/v3/concepts/automations)."""
    body: str
    match: ResourceSpecification


_RUN = ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"})
_OUTPUT = ResourceSpecification({"prefect.resource.id": "labelstill.output.*"})
_OURS = ResourceSpecification({"prefect.resource.role": "flow", "prefect.resource.name": FLOWS})
_DEPLOYED = ResourceSpecification({"prefect.resource.role": "deployment", "prefect.resource.id": "prefect.*"})
_OF_RUN = "{{ flow_run.state.message | default('', true) | truncate(500) }}\n{{ flow_run | ui_url }}"
ALERTS = (
    _Alert(
        "failed", ("prefect.flow-run.Failed", "prefect.flow-run.TimedOut"),
        "labelstill: {{ flow_run.name }} failed", _OF_RUN, _RUN,
    ),
    _Alert("crashed", ("prefect.flow-run.Crashed",), "labelstill: {{ flow_run.name }} crashed", _OF_RUN, _RUN),
    _Alert(
        "late", ("prefect.flow-run.Late",), "labelstill: {{ flow_run.name }} is late",
        "No worker has started it. {{ flow_run | ui_url }}", _RUN,
    ),
    _Alert(
        "held back", (HELD_BACK,), "labelstill: a version of {{ event.payload.output }} is held back",
        "{{ event.payload.why }}\n{{ event.payload.run }}", _OUTPUT,
    ),
    _Alert(
        "empty result", (EMPTY,), "labelstill: {{ event.payload.stage }} kept nothing",
        "{{ event.payload.why }}\n{{ event.payload.run }}", _OUTPUT,
    ),
)  # fmt: skip


def tell_held_back(output: Path, why: str) -> None:
    """Alert that the version made in `output` waits for approval; `why` is for people. Never raises."""
    _tell(HELD_BACK, output, output, {"why": why})


def tell_empty(output: Path, stage: str) -> None:
    """Alert that a stage of the run in `output` kept nothing. Never raises."""
    folder = output / stage
    _tell(EMPTY, output, folder, {"stage": stage, "why": f"{folder}/dropped.parquet says why of each item"})


def _tell(event: str, output: Path, about: Path, words: dict[str, str]) -> None:
    from prefect.context import FlowRunContext
    from prefect.utilities.urls import url_for

    context = FlowRunContext.get()
    run = url_for(context.flow_run) if context is not None and context.flow_run is not None else None
    resource = {"prefect.resource.id": f"labelstill.output.{about}", "prefect.resource.name": str(about)}
    # it only puts the event into a queue, and logs what goes wrong there
    emit_event(event, resource, payload={"output": str(output), "run": run or "", **words})


def find_block(client: SyncPrefectClient, name: str) -> BlockDocument:
    """The saved block `type/name`, for instance `slack-webhook/team`; raises AlertError where it can't send."""
    slug, _, block_name = name.partition("/")
    try:
        block = client.read_block_document_by_name(block_name, slug)
    except ObjectNotFound:
        raise AlertError(
            f"There is no block {name!r}. Save one in the web UI under Blocks, for instance Slack Webhook, Sendgrid "
            "Email or Custom Webhook, and name it as type/name: slack-webhook/team"
        ) from None
    if not _can_notify(block) and slug != "webhook":
        raise AlertError(f"The block {name!r} can't send. Take a notification block (Slack Webhook, …) or a Webhook.")
    return block


def _can_notify(block: BlockDocument) -> bool:
    return block.block_schema is not None and "notify" in block.block_schema.capabilities


def register_automations(
    client: SyncPrefectClient, block: BlockDocument | None = None, *, heartbeat_seconds: float | None = None
) -> dict[str, Registered]:
    """Bring all automations onto the server, each once however often this is called; what became of each, by name.

    Alerts go to `block`. Without one they keep what they have, which at first is nothing. What somebody has switched
    off in the web UI stays off. `heartbeat_seconds` is how often runs send one (default: Prefect's own setting).
    """
    seconds = heartbeat_seconds or get_current_settings().flows.heartbeat_frequency or 180
    wanted = [(_crash_marker(seconds), True)]
    wanted += [(_automation(alert, block), block is not None) for alert in ALERTS]
    return {one.name: _register(client, one, with_actions=actions) for one, actions in wanted}


def _register(client: SyncPrefectClient, wanted: AutomationCore, *, with_actions: bool) -> Registered:
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return Registered.CREATED
    first, *more = found
    for double in more:  # two that registered at once
        client.delete_automation(double.id)
    there = AutomationCore.model_validate(first.model_dump())
    kept = {"enabled": there.enabled} if with_actions else {"enabled": there.enabled, "actions": there.actions}
    wanted = wanted.model_copy(update=kept)
    if _plain(there) == _plain(wanted):
        # an update would forget which runs it waits for
        return Registered.UNCHANGED
    client.update_automation(first.id, wanted)
    return Registered.UPDATED


def _plain(automation: AutomationCore) -> dict[str, object]:
    """What decides what it does; the server fills in the rest."""
    return automation.model_dump(include={"name", "description", "enabled", "trigger", "actions"})


def _crash_marker(heartbeat_seconds: float) -> AutomationCore:
    """Marks a run Crashed after three missing heartbeats, unless it has ended or waits for a person."""
    return AutomationCore(
        name="labelstill: heartbeats",
        description="Marks a run Crashed that no longer sends heartbeats: its process is gone.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{name}" for name in _ALIVE_OR_ENDED},
            match=_RUN,
            match_related=_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=_MISSED_HEARTBEATS * heartbeat_seconds),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED, name="Crashed", message="Its heartbeats are missing.", force=False
            )
        ],
    )


def _automation(alert: _Alert, block: BlockDocument | None) -> AutomationCore:
    return AutomationCore(
        name=f"labelstill: {alert.name}",
        description="Tells it to the block given to: labelstill alerts --block TYPE/NAME",
        trigger=EventTrigger(
            expect=set(alert.events),
            match=alert.match,
            # a run tells of itself once; of its state the server tells for each of its subflows too
            match_related=[_OURS, _DEPLOYED] if alert.match is _RUN else [],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=_ONCE_IN,
        ),
        actions=[_action(alert, block)],
    )


def _action(alert: _Alert, block: BlockDocument | None) -> ActionTypes:
    if block is None:
        return DoNothing()
    if _can_notify(block):
        return SendNotification(block_document_id=block.id, subject=alert.subject, body=alert.body)
    return CallWebhook(block_document_id=block.id, payload=f"{alert.subject}\n{alert.body}")
