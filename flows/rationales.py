"""Stage 1: show a generator each labelled item with its label and ask for the reason, which it writes first."""

from pathlib import Path

from prefect import flow, get_run_logger

from flows.asking import find_line_finder, open_asker, prepare_prompter
from flows.config import RationalesConfig
from flows.run_lock import hold_output
from flows.runners import run_as_task
from flows.stage import Stage, log_where_to_judge, show_table
from flows.teacher_reasons import make_judge
from tasks.items.file_states import read_file_state
from tasks.rationales.judge import Judge
from tasks.rationales.reasoner import STAGE, find_reasons
from tasks.rationales.words import has_words
from tasks.records import Split
from tasks.review.queue import REASONS, STORE, write_queue
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
    emit uses their label alone or leaves them out. With a judge, people are asked about a sample of what it judged, on
    the page in `output`/review_reasons.
    """
    settings, review = config.rationales, config.output / REASONS
    stage = Stage(STAGE, config, {"generator": config.generator, "judge": settings.judge})
    samples = stage.read("samples", config.labelled, Split.LABELLED)
    record = stage.find_finished(
        settings=settings.model_copy(update={"judge": None, "teach_thinking": False}),  # a model, and for teachers
        ask=config.ask,
        verdicts=settings.judge and read_file_state(review / STORE),
    )
    if record is not None:
        return record
    pack = stage.pack
    if not has_words(pack.language):
        get_run_logger().warning(
            "pack %s: templates/words has no word list for language `%s`, so reasons are not checked for leaked "
            "labels, empty praise and their language; add one there", pack.name, pack.language,
        )  # fmt: skip
    prompter = prepare_prompter(config, pack, config.generator, samples)
    judge = make_judge(config, pack, samples, review)
    with open_asker(config, STAGE, samples) as asker:
        lines = find_line_finder(config, pack)
        found = find_reasons(
            asker, prompter, samples, config.generator, settings, config.ask, config.seed, lines, judge=judge
        )
        costs = asker.costs()
    kept = [found.kept[s.id] for s in samples if s.id in found.kept]
    dropped = [found.dropped[s.id] for s in samples if s.id in found.dropped]
    show_table("reasons-by-class", found.figures_by_class(samples, settings.alike), "Reasons per class")
    figures = found.figures(settings.alike)
    if judge is not None:
        figures |= judge.figures()
        _ask_people(judge, review)
    return stage.finish(kept, dropped, (s.id for s in samples), figures, costs)


def _ask_people(judge: Judge, folder: Path) -> None:
    """Write the page on which people judge a sample of the reasons, and log how often they agree with the judge."""
    cases = judge.cases
    run_as_task(
        "reasons to review", "write the review page of reasons",
        lambda: write_queue(cases, folder, title="Is the reason good?"),
    )  # fmt: skip
    if judge.agreement is not None:
        get_run_logger().info("the judge agrees with %s of people's %d verdicts", judge.agreement, judge.verdicts)
    log_where_to_judge(folder, f"{len(cases)} reasons scored by the judge, {judge.verdicts} of them already reviewed")
