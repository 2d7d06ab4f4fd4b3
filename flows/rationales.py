"""Stage 1: a generator is shown each labelled item with its label and says why (reason first, label second)."""

from prefect import flow, get_run_logger

from flows.asking import open_asker, prepare_prompter
from flows.config import RationalesConfig
from flows.run_lock import hold_output
from flows.stage import Stage, show_table
from tasks.rationales.reasoner import STAGE, find_reasons
from tasks.rationales.words import has_words
from tasks.records import Split
from tasks.storage.stage_record import StageRecord


@flow(name="rationales", flow_run_name="rationales: {config.pack}", validate_parameters=True, timeout_seconds=48 * 3600)
@hold_output
def rationales(config: RationalesConfig) -> StageRecord:
    """Write a reason for each labelled item under `output`/rationales.

    Kept: predictions whose label is the given one and whose reason passed the gate; `probabilities` are the labels'
    after that reason, where they were asked for. Dropped: items without a reason; emit teaches them with the label
    alone, or leaves them out, as `without_reason` says.
    """
    settings = config.rationales
    stage = Stage(STAGE, config, {"generator": config.generator})
    samples = stage.read("samples", config.labelled, Split.LABELLED)
    if (record := stage.find_finished(settings=settings)) is not None:
        return record
    pack = stage.pack
    if not has_words(pack.language):
        get_run_logger().warning(
            "pack %s: no lists of words for language `%s` (templates/words): leaks, empty praise and the language of "
            "reasons are not checked", pack.name, pack.language,
        )  # fmt: skip
    prompter = prepare_prompter(config, pack, config.generator, samples)
    with open_asker(config, STAGE, samples) as asker:
        found = find_reasons(asker, prompter, samples, config.generator, settings, config.seed)
        costs = asker.costs()
    kept = [found.kept[s.id] for s in samples if s.id in found.kept]
    dropped = [found.dropped[s.id] for s in samples if s.id in found.dropped]
    show_table("reasons-by-class", found.figures_by_class(samples, settings.alike), "Reasons by class")
    return stage.finish(kept, dropped, (s.id for s in samples), found.figures(settings.alike), costs)
