"""Stage 4: one decision a sample, merged into one training set and written as trainers read it."""

import time
from collections import Counter

from prefect import flow, get_run_logger

from flows.config import EmitConfig
from flows.running import Stage, intake, read_texts, reused, run_as_task, show_table
from tasks.errors import ConfigError
from tasks.export.llamafactory import write_llamafactory
from tasks.merge import merge
from tasks.packs import load_pack
from tasks.prompts import Prompter
from tasks.records import Correction, Dropped, Example, Prediction, Sample, Split
from tasks.stages import StageRecord, code_version, read_record, read_rows, recipe_hash

STAGE = "emit"


@flow(name="emit", flow_run_name="emit: {config.pack}")
def emit(config: EmitConfig) -> StageRecord:
    """Merge what the earlier stages left under `output` and write `output`/emit.

    Kept: the examples with their provenance (kept.parquet); beside them the same set for LLaMA-Factory. Raises
    ConfigError if a stage that should count has left no record.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    labelled: list[Sample] = []
    pool: list[Sample] = []
    inputs: dict[str, str] = {}
    if config.labelled:
        labelled, read = intake(config.labelled, pack, Split.LABELLED, config.output)
        inputs["labelled"] = read.digest
    if config.unlabelled:
        pool, read = intake(config.unlabelled, pack, Split.UNLABELLED, config.output)
        inputs["unlabelled"] = read.digest
    for stage in config.stages:
        record = read_record(config.output / stage)
        if record is None:
            raise ConfigError(
                f"{config.output / stage}: no finished stage; run `{stage}` first or take it out of `stages`"
            )
        inputs[stage] = record.digest
    folder = config.output / STAGE
    recipe = recipe_hash(settings=config.emit, pack=pack.digest, inputs=inputs, code=code_version())
    if (record := reused(folder, recipe)) is not None:
        return record

    stage = Stage(STAGE, folder, recipe, inputs, {}, began)
    # No model is asked here, so neither its identity nor pixel bounds matter to the text.
    prompter = Prompter(pack, "", max_pixels=1, min_pixels=1, texts=read_texts(config, pack, [*labelled, *pool]))

    def work() -> tuple[list[Example], list[Dropped]]:
        reasons = {p.sample_id: p.reason for p in _kept(config, "rationales", Prediction)}
        kept, dropped = merge(
            labelled,
            pool,
            {c.sample_id: c for c in _kept(config, "correction", Correction)},
            {p.sample_id: p for p in _kept(config, "pseudo_labels", Prediction)},
            reasons,
            prompter,
            waiting=config.emit.waiting,
        )
        files = write_llamafactory(folder / "llamafactory", config.emit.name, kept)
        get_run_logger().info("wrote %s", ", ".join(str(f) for f in files))
        return kept, dropped

    kept, dropped = run_as_task("merge and export", f"merge {len(labelled)} labelled and {len(pool)} pool items", work)
    origins = Counter(e.origin for e in kept)
    figures = {f"from {origin}": float(n) for origin, n in sorted(origins.items())}
    figures["with a reason"] = sum(bool(e.reason) for e in kept)
    record = stage.finish(kept, dropped, [s.id for s in labelled] + [s.id for s in pool], figures)
    balance = Counter(e.label for e in kept)
    show_table("class-balance", [{"label": k, "examples": n} for k, n in balance.most_common()], "Emitted by label")
    return record


def _kept(config: EmitConfig, stage: str, kind: type[Prediction] | type[Correction]) -> list:  # pyright: ignore
    return read_rows(config.output / stage / "kept.parquet", kind) if stage in config.stages else []
