"""Choose the reasons that students learn for labels given by teachers (flows `correction` and `pseudo_labels`).

A reason is the teacher's own, if it passes the gate and the judge, or its thinking, shortened by the generator.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from prefect import get_run_logger

from flows.asking import find_line_finder, prepare_prompter
from flows.config import CommonConfig, RationalesConfig, TeachersConfig
from tasks.models.ask import Asker
from tasks.models.engines.spec import EngineSpec
from tasks.models.teacher import find_thoughts
from tasks.packs.pack import Pack
from tasks.rationales.grounding import FindLines
from tasks.rationales.judge import THRESHOLD_FIGURE, Judge
from tasks.rationales.reasoner import STAGE, find_reasons
from tasks.rationales.teacher_reasons import remove_bad_reasons
from tasks.records import Prediction, Sample
from tasks.storage.stage_record import read_record


def list_reason_models(config: TeachersConfig) -> dict[str, EngineSpec | None]:
    """Return the models that these reasons depend on, by role."""
    settings = config.rationales
    return {"generator": config.generator if settings.teach_thinking else None, "judge": settings.judge}


def identify_reason_settings(config: TeachersConfig, pack: Pack) -> list[object]:
    """Return what else these reasons depend on, for the recipe of a stage. Raises PackError without judge.jinja."""
    settings = config.rationales
    if settings.judge is not None and config.panel:
        pack.require_template("judge.jinja", "rationales.judge")
    rules = settings.model_dump(mode="json", exclude={"judge"}) if settings.teach_thinking else None
    return [rules, settings.judge and _read_threshold(config)]


def make_judge(
    config: RationalesConfig | TeachersConfig, pack: Pack, items: Sequence[Sample], folder: Path | None = None
) -> Judge | None:
    """Return the judge of reasons about `items`, or None if none is configured. `folder` is as in `Judge`."""
    if (spec := config.rationales.judge) is None:
        return None
    prompter = prepare_prompter(config, pack, spec, items)
    judge = Judge(spec, prompter, config.ask, config.seed, folder)
    if (known := _read_threshold(config)) is not None:
        judge.threshold = known
    return judge


def choose_reasons(
    config: TeachersConfig, pack: Pack, asker: Asker, predictions: Sequence[Prediction], items: Iterable[Sample]
) -> tuple[list[Prediction], dict[str, float]]:
    """Return `predictions` of teachers about `items` with the reasons that students learn, and figures about them.

    A prediction whose reason is bad is returned without the reason.
    """
    if not predictions:
        return [], {}
    samples = {s.id: s for s in items}
    asked = [samples[p.sample_id] for p in predictions]
    lines, judge = find_line_finder(config, pack), make_judge(config, pack, asked)
    shortened = _shorten_thoughts(config, pack, asker, predictions, samples, lines, judge)
    others = [p for p in predictions if p.sample_id not in shortened]
    checked, faults = remove_bad_reasons(others, samples, pack, lines, judge, asker)
    if faults:
        get_run_logger().info("bad reasons removed, their labels kept: %s", dict(faults))
    chosen = {p.sample_id: p for p in checked} | shortened
    figures = judge.figures() if judge else {}
    figures |= {"reasons from thoughts": len(shortened)} if config.rationales.teach_thinking else {}
    return [chosen[p.sample_id] for p in predictions], figures


def _shorten_thoughts(
    config: TeachersConfig,
    pack: Pack,
    asker: Asker,
    predictions: Sequence[Prediction],
    samples: Mapping[str, Sample],
    lines: FindLines | None,
    judge: Judge | None,
) -> dict[str, Prediction]:
    """Have the generator shorten what teachers thought; return the predictions for which it found a good reason."""
    generator = config.generator
    if not config.rationales.teach_thinking or generator is None:
        return {}
    thoughts = find_thoughts(asker.ledger, predictions)
    thought = {p.sample_id: p for p in predictions if p.sample_id in thoughts}
    items = [samples[i].model_copy(update={"given": p.label}) for i, p in thought.items()]
    if not items:
        return {}
    prompter = prepare_prompter(config, pack, generator, items)
    found = find_reasons(
        asker, prompter, items, generator, config.rationales, config.ask, config.seed, lines, thoughts, judge
    )
    return {i: thought[i].model_copy(update={"reason": p.reason, "boxes": p.boxes}) for i, p in found.kept.items()}


def _read_threshold(config: CommonConfig) -> float | None:
    """Return the judge's threshold for reasons of the labelled set; None before it has judged any."""
    record = read_record(config.output / STAGE)
    return record.figures.get(THRESHOLD_FIGURE) if record else None
