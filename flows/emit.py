"""Stage 4: one decision a sample, merged into one training set and written as trainers read it."""

import time
from contextlib import nullcontext

from prefect import flow, get_run_logger

from flows.asking import read_texts
from flows.config import EmitConfig
from flows.run_lock import hold_output
from flows.service.alerts import tell_empty
from flows.service.pages import show_links
from flows.stage import intake, reused, run_as_task, show_counts, show_table
from tasks.dataset.conflicts import find_conflicts
from tasks.dataset.merge import STAGE, Emitted, write_merged
from tasks.dataset.merge_plan import Plan, plan_merge
from tasks.dataset.sources import Sources, check_stages, read_sources
from tasks.dataset.versions import CANDIDATE, VersionWriter
from tasks.items.file_states import read_file_state
from tasks.items.image_hashes import ImageHashes
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Split
from tasks.review.queue import CONFLICTS, PAGE, STORE, write_queue
from tasks.storage.stage_record import StageRecord
from tasks.storage.stages import close_stage, code_version, hash_recipe, open_stage

_ASKED = 200
"""Conflicts on one page, which holds their images: the next ones follow when these are settled."""
_ROWS_SHOWN = 200
"""Of the table of labels: captions are all different."""


@flow(name="emit", flow_run_name="emit: {config.pack}", timeout_seconds=12 * 3600)
@hold_output
def emit(config: EmitConfig) -> StageRecord:
    """Merge what the earlier stages left under `output` and write `output`/emit.

    Kept: the examples with their provenance (kept.parquet), shuffled; beside them the same set for each trainer. Items
    in conflict with others like them are asked about in `output`/review_conflicts. Raises ConfigError if a stage that
    should count has left no record.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    given = {Split.LABELLED: config.labelled, Split.UNLABELLED: config.unlabelled, Split.TEST: config.evaluation}
    sets = {split: source for split, source in given.items() if source is not None}
    digests = {
        split: intake(source, pack, split, config.output, config.images)[1].digest for split, source in sets.items()
    }
    inputs = {"evaluation" if split is Split.TEST else split.value: digest for split, digest in digests.items()}
    inputs |= check_stages(config.output, config.stages, sets, digests)
    mix = config.emit.mix
    recipe = hash_recipe(
        settings=config.emit,
        pack=pack.digest,
        inputs=inputs,
        seed=config.seed,
        code=code_version(),
        reasons=[config.rationales.without_reason, config.rationales.opening_share],
        files=[read_file_state(path) for path in (config.output / CONFLICTS / STORE, *([mix.file] if mix else []))],
    )
    if (record := reused(config.output / (CANDIDATE if config.candidate else STAGE), recipe)) is not None:
        return record
    sources = read_sources(config.output, sets, config.stages, pack, config.emit, config.rationales, config.seed)
    get_run_logger().info("%d reasons are too like another and are left out", sources.alike_reasons)
    samples = (sample for part in (sources.labelled, sources.pool) for sample in part)
    # No model is asked here, so neither its identity nor pixel bounds matter to the text.
    prompter = Prompter(pack, "", max_pixels=1, min_pixels=1, texts=read_texts(config, pack, samples))
    what = f"merge {len(sources.labelled)} labelled and {len(sources.pool)} pool items"
    begun = StageRecord(stage=STAGE, recipe=recipe, read=0, kept=0, dropped=0, inputs=inputs)
    record = run_as_task("merge and export", what, lambda: _merge(config, sources, prompter, begun, began))
    show_counts(record)
    if not record.kept and not config.candidate:
        tell_empty(config.output, STAGE)
    show_links(config.output, ["review-conflicts"])
    return record


def _merge(config: EmitConfig, sources: Sources, prompter: Prompter, record: StageRecord, began: float) -> StageRecord:
    """Merge `sources` into the stage's folder; returns the finished record."""
    folder = config.output / (CANDIDATE if config.candidate else STAGE)
    plan = plan_merge(sources, ImageHashes(config.images / "hashes.sqlite"), config.seed)
    open_stage(folder)
    with nullcontext() if config.candidate else VersionWriter(config.output, record.recipe) as versions:
        emitted = write_merged(folder, plan, sources, prompter, config.seed, versions)
    if versions is not None:
        get_run_logger().info("version %s of the set", versions.version.short)
    _ask(config, sources, plan)
    _show(emitted)
    seconds = time.monotonic() - began
    record = record.model_copy(update={"seconds": seconds, "figures": emitted.figures(plan, sources)})
    return close_stage(folder, record, emitted.kept, emitted.dropped)


def _ask(config: EmitConfig, sources: Sources, plan: Plan) -> None:
    """Leave the conflicts where a person finds them, or nothing where there are none."""
    folder = config.output / CONFLICTS
    cases, verdicts = find_conflicts(plan, sources, _ASKED)
    if cases or folder.exists():
        write_queue(cases, folder, verdicts, title="Duplicates with different labels")
    if cases:
        get_run_logger().info(
            "%d items equal or near to others have other labels than these: judge them in %s, then: "
            "labelstill review import %s FILE", len(cases), folder / PAGE, folder.parent,
        )  # fmt: skip


def _show(emitted: Emitted) -> None:
    log = get_run_logger()
    log.info("wrote %s", ", ".join(str(f) for f in emitted.exported.files[:20]))
    for left in emitted.exported.left_out[:5]:
        log.warning("%s can't hold item %s: %s", left.format, left.sample_id, left.detail)
    balance = [{"label": label, "examples": n} for label, n in emitted.labels.most_common(_ROWS_SHOWN)]
    show_table("class-balance", balance, "Emitted by label")
