"""Stage 1: a generator is shown each labelled item with its label and says why (reason first, label second)."""

import time

from prefect import flow, get_run_logger

from flows.asking import open_asker, prepare_prompter
from flows.config import RationalesConfig
from flows.run_lock import hold_output
from flows.stage import Stage, intake, reused, show_table
from tasks.models.engines.identity import model_identity
from tasks.packs.pack import load_pack
from tasks.rationales.reasoner import STAGE, find_reasons
from tasks.rationales.words import has_words
from tasks.records import Split
from tasks.storage.stage_record import StageRecord
from tasks.storage.stages import code_version, hash_recipe


@flow(name="rationales", flow_run_name="rationales: {config.pack}", validate_parameters=True, timeout_seconds=48 * 3600)
@hold_output
def rationales(config: RationalesConfig) -> StageRecord:
    """Write a reason for each labelled item under `output`/rationales.

    Kept: predictions whose label is the given one and whose reason passed the gate; `probabilities` are the labels'
    after that reason, where they were asked for. Dropped: items without a reason; emit teaches them with the label
    alone, or leaves them out, as `without_reason` says.
    """
    began = time.monotonic()
    pack = load_pack(config.pack)
    pack.require_labels(STAGE)
    samples, read = intake(config.labelled, pack, Split.LABELLED, config.output, config.images)
    model = model_identity(config.generator)
    folder = config.output / STAGE
    settings = config.rationales
    recipe = hash_recipe(
        settings=settings, pack=pack.digest, model=model, input=read.digest, code=code_version(), seed=config.seed,
        pixels=[config.generator.min_pixels, config.generator.max_pixels], context=config.generator.context_length,
    )  # fmt: skip
    if (record := reused(folder, recipe)) is not None:
        return record
    if not has_words(pack.language):
        get_run_logger().warning(
            "pack %s: no lists of words for language `%s` (templates/words): leaks, empty praise and the language of "
            "reasons are not checked", pack.name, pack.language,
        )  # fmt: skip
    stage = Stage(STAGE, folder, recipe, {"samples": read.digest}, {"generator": model}, began)
    prompter = prepare_prompter(config, pack, config.generator, samples)
    with open_asker(config, STAGE, samples) as asker:
        found = find_reasons(asker, prompter, samples, config.generator, settings, config.seed)
        costs = asker.costs()
    kept = [found.kept[s.id] for s in samples if s.id in found.kept]
    dropped = [found.dropped[s.id] for s in samples if s.id in found.dropped]
    show_table("reasons-by-class", found.figures_by_class(samples, settings.alike), "Reasons by class")
    return stage.finish(kept, dropped, (s.id for s in samples), found.figures(settings.alike), costs)
