"""Stage 1: show a generator each labelled item with its label and ask for the reason, which it writes first."""

from prefect import flow, get_run_logger

from flows.asking import find_line_finder, open_asker, prepare_prompter
from flows.config import RationalesConfig
from flows.run_lock import hold_output
from flows.stage import Stage, show_table
from tasks.rationales.reasoner import STAGE, find_reasons
from tasks.rationales.words import has_words
from tasks.records import Split
from tasks.storage.stage_record import StageRecord


@flow(
    name="labelstill-rationales",
    flow_run_name="rationales: {config.pack}",
    validate_parameters=True,
    timeout_seconds=48 * 3600,
)
@hold_output
def rationales(config: RationalesConfig) -> StageRecord:
    """Ask why each item has its given label, and write `output`/rationales.

    kept.parquet has predictions with the given label and a reason that passed the gate, and label probabilities if they
    were asked for. dropped.parquet has the items without such a reason; the setting `without_reason` decides whether
    emit uses their label alone or leaves them out.
    """
    settings = config.rationales
    stage = Stage(STAGE, config, {"generator": config.generator})
    samples = stage.read("samples", config.labelled, Split.LABELLED)
    if (record := stage.find_finished(settings=settings, ask=config.ask)) is not None:
        return record
    pack = stage.pack
    if not has_words(pack.language):
        get_run_logger().warning(
            "pack %s: templates/words has no word list for language `%s`, so reasons are not checked for leaked "
            "labels, empty praise and their language; add one there", pack.name, pack.language,
        )  # fmt: skip
    prompter = prepare_prompter(config, pack, config.generator, samples)
    with open_asker(config, STAGE, samples) as asker:
        lines = find_line_finder(config, pack)
        found = find_reasons(asker, prompter, samples, config.generator, settings, config.ask, config.seed, lines)
        costs = asker.costs()
    kept = [found.kept[s.id] for s in samples if s.id in found.kept]
    dropped = [found.dropped[s.id] for s in samples if s.id in found.dropped]
    show_table("reasons-by-class", found.figures_by_class(samples, settings.alike), "Reasons per class")
    return stage.finish(kept, dropped, (s.id for s in samples), found.figures(settings.alike), costs)
