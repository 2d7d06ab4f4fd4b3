"""What `labelstill check` says about GPU time: a row per stage and model, a column per card."""

import math
from dataclasses import dataclass

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
)
from tasks.models.model_sizes import ModelSize, find_model_config, find_model_size
from tasks.students.lora_memory import compute_memory
from tasks.students.settings import StudentSpec


@dataclass(frozen=True)
class HoursRow:
    """About how long one step takes with one model; `cells` has a text per card of CARDS."""

    step: str
    model: str
    cards: str
    cells: tuple[str, ...]


def estimate_hours(config: DistillConfig, report: CheckReport) -> tuple[list[HoursRow], list[str]]:
    """Return a row per step and model, and the models of which the size is not known."""
    steps: dict[tuple[str, str], list[Estimate]] = {}
    for estimate in report.estimates:
        if estimate.spec.engine != "scripted":
            steps.setdefault((estimate.stage.split(":")[0], estimate.spec.model), []).append(estimate)
    sizes = {es[0].spec.model: find_model_size(es[0].spec.model, es[0].spec.revision) for es in steps.values()}
    rows: list[HoursRow] = []
    student = config.student
    for (step, model), estimates in steps.items():
        if (size := sizes[model]) is None:
            continue
        if isinstance(student, StudentSpec) and model == student.base and step == "correction":
            cells = tuple(_describe_training(size, student, report.training, card) for card in CARDS)
            rows.append(HoursRow(f"training {student.folds * student.repeats} folds", model, "1", cells))
        spec = estimates[0].spec
        cards = "as needed" if spec.engine == "server" else str(math.prod(_count_configured_cards(spec, 1)))
        rows.append(HoursRow(step, model, cards, tuple(_describe_asking(size, estimates, card) for card in CARDS)))
    return rows, [model for model, size in sizes.items() if size is None]


def _describe_asking(size: ModelSize, estimates: list[Estimate], card: Card) -> str:
    spec = estimates[0].spec
    needed = count_cards(size, card, spec.context_length)
    cards, copies = _count_configured_cards(spec, needed)
    if needed > cards:
        return f"needs {needed * copies}"
    hours = describe_hours(sum(estimate_asking(size, e.work, card, cards, copies) for e in estimates))
    return f"{hours} on {cards}" if spec.engine == "server" and cards > 1 else hours


def _count_configured_cards(spec: EngineSpec, needed: int) -> tuple[int, int]:
    """Return the cards per copy and the copies; of a server elsewhere, one copy on as many cards as it needs."""
    if spec.engine == "server":
        return needed, 1
    return (spec.tensor_parallel_size, spec.data_parallel_size) if spec.engine == "vllm" else (1, 1)


def _describe_training(size: ModelSize, student: StudentSpec, work: Work, card: Card) -> str:
    config = find_model_config(student.base, student.revision) or {}
    needed = compute_memory(student, config, round(work.prompt_tokens / max(work.requests, 1)))
    if needed.mib * 2**20 > card.memory:
        return "too small"
    return describe_hours(estimate_training(size, work, card, recompute=student.gradient_checkpointing))
