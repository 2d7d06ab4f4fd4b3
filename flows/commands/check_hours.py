"""What `labelstill check` says about GPU time: a row per stage and model, a column per card."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from flows.commands.check import CheckReport, Estimate
from flows.config import DistillConfig
from tasks.models.engines.spec import EngineSpec
from tasks.models.gpu_hours import (
    CARDS,
    Card,
    Work,
    count_cards,
    describe_hours,
    estimate_asking,
    estimate_training,
    fits_training,
)
from tasks.models.model_sizes import ModelSize, find_model_size
from tasks.students.settings import StudentSpec


@dataclass(frozen=True)
class HoursRow:
    """About how long one step takes with one model; `cells` has a text per card of CARDS."""

    step: str
    model: str
    cells: tuple[str, ...]


def estimate_hours(config: DistillConfig, report: CheckReport) -> tuple[list[HoursRow], list[str]]:
    """Return a row per step and model, and the models of which the size is not known."""
    specs = {e.spec.model: e.spec for e in report.estimates if e.spec.engine != "scripted"}
    sizes = {model: find_model_size(model, spec.revision) for model, spec in specs.items()}
    rows = [*_list_asking(report.estimates, sizes)]
    student = config.student
    if isinstance(student, StudentSpec) and (size := sizes.get(student.base)) is not None:
        folds = f"training {student.folds * student.repeats} folds"
        cells = tuple(_describe_training(size, student, report.training, card) for card in CARDS)
        rows.append(HoursRow(folds, student.base, cells))
    return rows, [model for model, size in sizes.items() if size is None]


def _list_asking(estimates: tuple[Estimate, ...], sizes: dict[str, ModelSize | None]) -> Iterator[HoursRow]:
    def name_step(e: Estimate) -> tuple[str, str]:
        return e.stage.split(":")[0], e.spec.model

    for (step, model), group in groupby(sorted(estimates, key=name_step), name_step):
        if (size := sizes.get(model)) is not None:
            same = list(group)
            yield HoursRow(step, model, tuple(_describe_asking(size, same, card) for card in CARDS))


def _describe_asking(size: ModelSize, estimates: list[Estimate], card: Card) -> str:
    spec = estimates[0].spec
    needed = count_cards(size, card, spec.context_length)
    cards, copies = _count_configured_cards(spec, needed)
    if needed > cards:
        return f"needs {needed} cards"
    seconds = sum(estimate_asking(size, e.work, card, cards, copies) for e in estimates)
    return describe_hours(seconds) + (f" × {cards * copies} cards" if cards * copies > 1 else "")


def _count_configured_cards(spec: EngineSpec, needed: int) -> tuple[int, int]:
    """Return the cards per copy and the copies; of a server elsewhere, one copy on as many cards as it needs."""
    if spec.engine == "server":
        return needed, 1
    return (spec.tensor_parallel_size, spec.data_parallel_size) if spec.engine == "vllm" else (1, 1)


def _describe_training(size: ModelSize, student: StudentSpec, work: Work, card: Card) -> str:
    if not fits_training(size, card, student.batch_size * work.prompt_tokens / max(work.requests, 1)):
        return "too small"
    return describe_hours(estimate_training(size, work, card, recompute=student.gradient_checkpointing))
