"""Stage 4: merge the decisions of the earlier stages into one training set, in the formats that trainers read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger

from flows.asking import read_texts
from flows.config import EmitConfig
from flows.run_lock import hold_output
from flows.stage import Stage, log_where_to_judge, run_as_task, show_table
from tasks.dataset.conflicts import find_conflicts
from tasks.dataset.merge import STAGE, Emitted, check_mix, write_merged
from tasks.dataset.merge_plan import Plan, plan_merge
from tasks.dataset.publication import CANDIDATE, PUBLISHED, make_candidate, make_version_folder, publish
from tasks.dataset.sources import Sources, check_stages, read_sources
from tasks.items.file_states import read_file_state
from tasks.items.image_hashes import ImageHashes
from tasks.items.settings import SourceConfig
from tasks.prompts.prompter import Prompter
from tasks.records import Split
from tasks.review.queue import CONFLICTS, STORE, write_queue
from tasks.storage.stage_record import StageRecord
from tasks.storage.stages import close_stage

_MAX_CONFLICTS = 200
"""Maximum number of conflicts on a review page, which embeds images. More follow when these are settled."""
_INPUTS = {Split.LABELLED: "labelled", Split.UNLABELLED: "unlabelled", Split.TEST: "evaluation"}
"""The names of the sets among the record's inputs."""
_ROWS_SHOWN = 200
"""Maximum number of rows in the table of labels. With captions, every item may have a different label."""


@flow(name="labelstill-emit", flow_run_name="emit: {config.pack}", timeout_seconds=12 * 3600)
@hold_output
def emit(config: EmitConfig) -> StageRecord:
    """Merge the results of the earlier stages under `output` into a new version, and let `output`/emit point to it.

    kept.parquet has the shuffled examples with their provenance. The folder also gets the set in each trainer's format.
    Items with the same content and different labels are written to `output`/review_conflicts for a person to review.
    Raises ConfigError if a stage to be merged has no finished result.
    """
    stage = Stage(STAGE, config, needs_labels=False)
    given = {Split.LABELLED: config.labelled, Split.UNLABELLED: config.unlabelled, Split.TEST: config.evaluation}
    sets = {split: source for split, source in given.items() if source is not None}
    for split, source in sets.items():
        stage.read(_INPUTS[split], source, split)
    digests = {split: stage.inputs[_INPUTS[split]] for split in sets}
    stage.inputs |= check_stages(config.output, config.stages, sets, digests)
    if (record := _find_finished(config, stage)) is None:
        record = _make_version(config, stage, sets)
    _publish(config, stage.folder.resolve())
    return record


def _find_finished(config: EmitConfig, stage: Stage) -> StageRecord | None:
    """Return the record of an unchanged version, the candidate or the published one, and set `stage.folder` to it."""
    mix = config.emit.mix
    decisive: dict[str, Any] = {
        "settings": config.emit.model_dump(mode="json"),
        "reasons": config.rationales.model_dump(mode="json", exclude={"support", "judge", "teach_thinking"}),
        "files": [read_file_state(p) for p in (config.output / CONFLICTS / STORE, *([mix.file] if mix else []))],
    }
    for link in (PUBLISHED, CANDIDATE):
        stage.folder = config.output / link
        if (record := stage.find_finished(**decisive)) is not None:
            return record
    return None


def _publish(config: EmitConfig, folder: Path) -> None:
    """Make the finished version in `folder` the candidate and, unless only a candidate is wanted, publish it."""
    make_candidate(config.output, folder)
    if not config.candidate and folder != (config.output / PUBLISHED).resolve():
        version = publish(config.output, folder)
        get_run_logger().info("published version %s of the set in %s", version.short, folder)


def _make_version(config: EmitConfig, stage: Stage, sets: Mapping[Split, SourceConfig]) -> StageRecord:
    """Merge the sets and the stages' results into a new version, set `stage.folder` to it, and return its record."""
    sources = read_sources(
        config.output,
        sets,
        config.stages,
        config.emit,
        config.rationales,
        config.seed,
        labelled_digest=stage.inputs.get(_INPUTS[Split.LABELLED]),
    )
    get_run_logger().info("%d reasons are left out because they are too similar to others", sources.alike_reasons)
    samples = (sample for part in (sources.labelled, sources.pool) for sample in part)
    # No model is asked here, so its identity and pixel bounds do not matter.
    prompter = Prompter(stage.pack, "", max_pixels=1, min_pixels=1, texts=read_texts(config, stage.pack, samples))
    what = f"merge {len(sources.labelled)} labelled and {len(sources.pool)} pool items"
    record = run_as_task("merge and export", what, lambda: _merge(config, sources, prompter, stage))
    stage.show(record, alert=not config.candidate)  # for an empty candidate `relabel` sends the alert
    return record


def _merge(config: EmitConfig, sources: Sources, prompter: Prompter, stage: Stage) -> StageRecord:
    """Merge `sources` into the stage's folder and return the finished record."""
    plan = plan_merge(sources, ImageHashes(config.images / "hashes.sqlite"), config.seed)
    check_mix(plan, sources)
    stage.folder = make_version_folder(config.output)
    emitted = write_merged(stage.folder, plan, sources, prompter, config.seed)
    _ask(config, sources, plan)
    _show(emitted)
    return close_stage(stage.folder, stage.make_record(emitted.figures(plan, sources)), emitted.kept, emitted.dropped)


def _ask(config: EmitConfig, sources: Sources, plan: Plan) -> None:
    """Write the review queue of conflicts if there are conflicts, or if an earlier queue must be replaced."""
    folder = config.output / CONFLICTS
    cases = find_conflicts(plan, sources, _MAX_CONFLICTS)
    if cases or folder.exists():
        write_queue(cases, folder, title="Duplicates with different labels")
    if cases:
        log_where_to_judge(folder, f"{len(cases)} items have other labels than items with the same content")


def _show(emitted: Emitted) -> None:
    log = get_run_logger()
    log.info("wrote %s", ", ".join(str(f) for f in emitted.exported.files[:20]))
    for left in emitted.exported.left_out[:5]:
        log.warning("item %s is left out of %s: %s", left.id, left.format, left.detail)
    balance = [{"label": label, "examples": n} for label, n in emitted.labels.most_common(_ROWS_SHOWN)]
    show_table("class-balance", balance, "Examples per label")
