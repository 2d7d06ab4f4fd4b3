"""Run all stages as one flow with four subflows: first rationales, then correction, pseudo-labels and emit."""

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from flows.api import load_api_key, retry_after_outages
from flows.asking import charge_budget, make_budget_error
from flows.config import AnyStage, CorrectionConfig, DistillConfig, EmitConfig, PseudoLabelsConfig, RationalesConfig
from flows.correction import correction
from flows.emit import emit
from flows.pseudo_labels import pseudo_labels
from flows.rationales import rationales
from flows.run_lock import BULK_FAILURES, hold_output
from flows.runners import run_as_task
from flows.service.pages import show_links
from flows.stage import read_manifests, share_readings
from flows.ui import show_in_ui
from tasks.dataset.general_mix import check_share
from tasks.dataset.publication import PUBLISHED
from tasks.errors import AnswersPending
from tasks.models.pending import join_pending
from tasks.packs.pack import load_pack
from tasks.records import Split
from tasks.report.card.card import CardSettings, write_card
from tasks.report.summary import summarize_run
from tasks.storage.stage_record import StageRecord


@flow(name="labelstill-distill", flow_run_name="distill: {config.pack}", timeout_seconds=336 * 3600)
@hold_output
def distill(config: DistillConfig) -> dict[str, StageRecord]:
    """Turn a labelled set and an unlabelled pool into one training set under `config.output`.

    Stages whose keys are missing from the configuration are skipped. If a stage's settings and inputs are unchanged,
    its earlier result is reused. Returns a dict that maps stage name to record, None if the budget was spent, or the
    AnswersPending error if a batch API has not answered yet.
    """
    for spec in config.engines:
        load_api_key(spec)
    config.check_engines()
    with charge_budget(config.budget), share_readings(), show_bulk_failure(config):
        _check_mix(config)
        records = run_stages(config.list_stage_configs())
    log = get_run_logger()
    for stage in ("rationales", "pseudo_labels", "correction"):
        if stage not in records:
            log.info("%s: skipped, because its keys are not in the configuration", stage)
    write_card_and_summary(config)
    return records


def _check_mix(config: DistillConfig) -> None:
    """Raise an error if the mix cannot reach its share, before any model is asked; emit checks it again."""
    mix = config.emit.mix
    if mix is None or not config.engines or (config.output / PUBLISHED).exists():
        return
    pack = load_pack(config.pack)
    sets = ((config.labelled, Split.LABELLED), (config.unlabelled, Split.UNLABELLED))
    sizes = [
        len(read_manifests(source, pack, split, config.output, config)[0])
        for source, split in sets
        if source is not None
    ]
    # How much of the pool will be trusted is not known yet.
    least = sizes[0] if config.labelled else sizes[0] // 2
    run_as_task("check the mix", f"check {mix.file.name}", lambda: check_share(mix, least, config.seed))


_FLOWS: dict[type[AnyStage], Any] = {
    RationalesConfig: rationales, CorrectionConfig: correction, PseudoLabelsConfig: pseudo_labels, EmitConfig: emit
}  # fmt: skip


def run_stages(stages: Iterable[AnyStage]) -> dict[str, StageRecord]:
    """Run each stage as a subflow, one after another, and return a dict that maps stage name to record.

    A stage that fails because Prefect's API is unavailable is run again when the API answers (flows/api.py). Raises
    BudgetSpent if a stage stopped because the budget was spent. If a stage waits for a batch API, the later stages
    still run as far as they do not need its result, and then AnswersPending is raised.
    """
    records: dict[str, StageRecord] = {}
    pending: list[AnswersPending] = []
    for stage in stages:
        if pending and (isinstance(stage, EmitConfig) or _learns_reasons(stage)):
            continue
        if pending and isinstance(stage, PseudoLabelsConfig):
            stage = stage.model_copy(update={"ask_only": True})  # what it asks first needs no correction
        record = retry_after_outages(partial(_FLOWS[type(stage)], stage), type(stage).__name__.removesuffix("Config"))
        if isinstance(record, AnswersPending):
            pending.append(record)
            continue
        if record is None:  # hold_output turned BudgetSpent into a completed run without a result
            raise make_budget_error()
        records[record.stage] = record
        get_run_logger().info("%s: %d in, %d kept, %d dropped", record.stage, record.read, record.kept, record.dropped)
    if pending:
        raise join_pending(pending)
    return records


def _learns_reasons(stage: AnyStage) -> bool:
    """Return whether the stage trains students on the reasons of the stage `rationales`."""
    return isinstance(stage, CorrectionConfig) and getattr(stage.student, "reasons", "never") != "never"


@contextmanager
def show_bulk_failure(config: DistillConfig) -> Generator[None]:
    """Context manager: if the block fails because of the models, write card and summary, which then say why."""
    try:
        yield
    except BULK_FAILURES:
        write_card_and_summary(config)
        raise


def write_card_and_summary(config: DistillConfig) -> None:
    """Write the run's card, and show its summary and links to its pages in the web UI."""
    settings = CardSettings(title=config.emit.name, licence=config.emit.licence, pack=config.pack)
    page = run_as_task("card", "write the run's card", lambda: write_card(config.output, settings))
    get_run_logger().info("card: %s", page)
    summary = summarize_run(config.output, config.emit.licence).to_markdown()
    show_in_ui("summary", lambda: create_markdown_artifact(summary, key="summary", description="What this run did"))
    show_links(config.output, logs=True)
