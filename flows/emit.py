"""Stage 4: one decision a sample, merged into one training set and written as trainers read it."""

from prefect import flow, get_run_logger

from flows.asking import read_texts
from flows.config import EmitConfig
from flows.run_lock import hold_output
from flows.stage import Stage, log_where_to_judge, run_as_task, show_table
from tasks.dataset.conflicts import find_conflicts
from tasks.dataset.merge import STAGE, Emitted, write_merged
from tasks.dataset.merge_plan import Plan, plan_merge
from tasks.dataset.sources import Sources, check_stages, read_sources
from tasks.dataset.versions import CANDIDATE, record_version
from tasks.items.file_states import file_state
from tasks.items.image_hashes import ImageHashes
from tasks.prompts.prompter import Prompter
from tasks.records import Split
from tasks.review.queue import CONFLICTS, STORE, write_queue
from tasks.storage.stage_record import StageRecord
from tasks.storage.stages import close_stage, open_stage

_MAX_CONFLICTS = 200
"""Conflicts on one page, which holds their images: the next ones follow when these are settled."""
_INPUTS = {Split.LABELLED: "labelled", Split.UNLABELLED: "unlabelled", Split.TEST: "evaluation"}
"""The names of the sets among the record's inputs."""
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
    stage = Stage(STAGE, config, needs_labels=False, folder=CANDIDATE if config.candidate else STAGE)
    pack = stage.pack
    given = {Split.LABELLED: config.labelled, Split.UNLABELLED: config.unlabelled, Split.TEST: config.evaluation}
    sets = {split: source for split, source in given.items() if source is not None}
    for split, source in sets.items():
        stage.read(_INPUTS[split], source, split)
    digests = {split: stage.inputs[_INPUTS[split]] for split in sets}
    stage.inputs |= check_stages(config.output, config.stages, sets, digests)
    mix = config.emit.mix
    record = stage.find_finished(
        settings=config.emit,
        reasons=[config.rationales.without_reason, config.rationales.opening_share],
        files=[file_state(path) for path in (config.output / CONFLICTS / STORE, *([mix.file] if mix else []))],
    )
    if record is not None:
        return record
    sources = read_sources(config.output, sets, config.stages, pack, config.emit, config.rationales, config.seed)
    get_run_logger().info("%d reasons are too like another and are left out", sources.alike_reasons)
    samples = (sample for part in (sources.labelled, sources.pool) for sample in part)
    # No model is asked here, so neither its identity nor pixel bounds matter to the text.
    prompter = Prompter(pack, "", max_pixels=1, min_pixels=1, texts=read_texts(config, pack, samples))
    what = f"merge {len(sources.labelled)} labelled and {len(sources.pool)} pool items"
    record = run_as_task("merge and export", what, lambda: _merge(config, sources, prompter, stage))
    stage.show(record)
    return record


def _merge(config: EmitConfig, sources: Sources, prompter: Prompter, stage: Stage) -> StageRecord:
    """Merge `sources` into the stage's folder; returns the finished record."""
    plan = plan_merge(sources, ImageHashes(config.images / "hashes.sqlite"), config.seed)
    open_stage(stage.folder)
    emitted = write_merged(stage.folder, plan, sources, prompter, config.seed, candidate=config.candidate)
    if not config.candidate:
        version = record_version(config.output, stage.folder / "kept.parquet", stage.recipe)
        get_run_logger().info("version %s of the set", version.short)
    _ask(config, sources, plan)
    _show(emitted)
    return close_stage(stage.folder, stage.make_record(emitted.figures(plan, sources)), emitted.kept, emitted.dropped)


def _ask(config: EmitConfig, sources: Sources, plan: Plan) -> None:
    """Leave the conflicts where a person finds them, or nothing where there are none."""
    folder = config.output / CONFLICTS
    cases, verdicts = find_conflicts(plan, sources, _MAX_CONFLICTS)
    if cases or folder.exists():
        write_queue(cases, folder, verdicts, title="Duplicates with different labels")
    if cases:
        log_where_to_judge(folder, f"{len(cases)} items equal or near to others have other labels than these")


def _show(emitted: Emitted) -> None:
    log = get_run_logger()
    log.info("wrote %s", ", ".join(str(f) for f in emitted.exported.files[:20]))
    for left in emitted.exported.left_out[:5]:
        log.warning("%s can't hold item %s: %s", left.format, left.id, left.detail)
    balance = [{"label": label, "examples": n} for label, n in emitted.labels.most_common(_ROWS_SHOWN)]
    show_table("class-balance", balance, "Emitted by label")
