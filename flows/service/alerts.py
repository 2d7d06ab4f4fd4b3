"""Apply automations.yaml to the server, and emit the events that trigger some of its alerts."""

from enum import StrEnum
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import BlockDocument
from prefect.events import emit_event
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from tasks.errors import LabelstillError

AUTOMATIONS = Path(__file__).with_name("automations.yaml")
HELD_BACK = "labelstill.version.held-back"
EMPTY = "labelstill.result.empty"


class AlertError(LabelstillError):
    """Raised if a block cannot be used for alerts. The message says what to do."""


class Applied(StrEnum):
    """What happened to an automation when automations.yaml was applied."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


def alert_held_back(output: Path, why: str) -> None:
    """Alert that the version in `output` is held back, with the reason `why`. Never raises."""
    _emit_alert(HELD_BACK, output, output, {"why": why})


def alert_empty(output: Path, stage: str) -> None:
    """Alert that a stage of the run in `output` kept nothing. Never raises."""
    folder = output / stage
    _emit_alert(EMPTY, output, folder, {"stage": stage, "why": f"{folder}/dropped.parquet has the reason per item"})


def _emit_alert(event: str, output: Path, about: Path, words: dict[str, str]) -> None:
    resource = {"prefect.resource.id": f"labelstill.output.{about}", "prefect.resource.name": str(about)}
    # This only queues the event; faults are logged.
    emit_event(event, resource, payload={"output": str(output), "run": flow_run.ui_url or "", **words})


def find_block(client: SyncPrefectClient, name: str) -> BlockDocument:
    """Return the saved block `type/name`, e.g. `slack-webhook/team`. Raises AlertError if it cannot send messages."""
    slug, _, block_name = name.partition("/")
    try:
        block = client.read_block_document_by_name(block_name, slug)
    except ObjectNotFound:
        raise AlertError(
            f"There is no block {name!r}. Save one in the web UI under Blocks, e.g. a Slack Webhook, Sendgrid Email or "
            "Custom Webhook, and give its type and name, e.g. slack-webhook/team"
        ) from None
    if not _can_notify(block) and slug != "webhook":
        raise AlertError(
            f"The block {name!r} cannot send messages. Use a notification block, e.g. a Slack Webhook, or a Webhook."
        )
    return block


def _can_notify(block: BlockDocument) -> bool:
    return block.block_schema is not None and "notify" in block.block_schema.capabilities


def apply_automations(
    client: SyncPrefectClient, block: BlockDocument | None = None, file: Path = AUTOMATIONS
) -> dict[str, Applied]:
    """Create or update the automations in `file` on the server. Return a dict that maps name to what happened.

    Alerts are sent through `block`. If `block` is None, they keep the block that they have, if any. Automations that
    were switched off in the web UI stay off. Applying the file again changes nothing.
    """
    declared = yaml.safe_load(file.read_text(encoding="utf-8"))["automations"]
    return {one["name"]: _apply(client, one, block) for one in declared}


def _apply(client: SyncPrefectClient, declared: dict[str, Any], block: BlockDocument | None) -> Applied:
    actions = [_add_block(action, block) for action in declared["actions"]]
    wanted = AutomationCore.model_validate({**declared, "actions": actions})
    found = client.read_automations_by_name(wanted.name)
    if not found:
        client.create_automation(wanted)
        return Applied.CREATED
    first, *more = found
    for double in more:  # two commands applied the file at the same time
        client.delete_automation(double.id)
    there = AutomationCore.model_validate(first.model_dump())
    kept: dict[str, Any] = {"enabled": there.enabled}
    if block is None and declared["actions"] != actions:
        kept["actions"] = there.actions
    wanted = wanted.model_copy(update=kept)
    if _select_content(there) == _select_content(wanted):
        # An update would make the server forget the runs that it is watching.
        return Applied.UNCHANGED
    client.update_automation(first.id, wanted)
    return Applied.UPDATED


def _add_block(action: dict[str, Any], block: BlockDocument | None) -> dict[str, Any]:
    """Return an alert's action in the form that `block` needs; without a block, it does nothing. Keep other actions."""
    if action["type"] != "send-notification":
        return action
    if block is None:
        return {"type": "do-nothing"}
    if _can_notify(block):
        return {**action, "block_document_id": block.id}
    payload = f"{action['subject']}\n{action['body']}"
    return {"type": "call-webhook", "block_document_id": block.id, "payload": payload}


def _select_content(automation: AutomationCore) -> dict[str, object]:
    """Return the fields that automations.yaml sets. The server fills in the others."""
    return automation.model_dump(include={"name", "description", "enabled", "trigger", "actions"})
