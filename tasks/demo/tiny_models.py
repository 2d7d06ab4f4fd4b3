"""Train the demo's three Qwen2-VL models from scratch on newly generated items.

`base` can describe images and dialogues, but knows no labels. `generator` stands for the 7B model and gives reasons for
given labels. `teacher` stands for the 72B model and answers the pack's classify prompt.
"""

import json
import os
import shutil
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.lessons import School
from tasks.demo.side_by_side import Progress, is_first_process, train_together, wait_for_others
from tasks.demo.training import Collator, group_by_length, learn_to_see, train
from tasks.packs.pack import load_pack
from tasks.records import digest_of


@dataclass(frozen=True)
class TinyModels:
    """The folders of the three checkpoints."""

    base: Path
    generator: Path
    teacher: Path


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: the model it starts from, the number of batches of 32, and the peak learning rate."""

    start: str | None
    steps: int
    rate: float


RECIPES = {
    "base": Recipe(None, 230, 3e-3),
    "teacher": Recipe("base", 210, 2e-3),
    "generator": Recipe("teacher", 60, 2e-3),
}
SEEING_STEPS = 160
"""Number of batches on which the vision tower is trained alone, before the base model is trained as a whole."""

_RECIPE_VERSION = 2
"""Increase this number with each change to checkpoint.py, lessons.py or training.py that changes the models."""

_RECORD = "recipe.json"
"""Name of the file that is written last. A folder without it does not contain a complete model."""


def make_models(
    folder: Path, *, seed: int = 11, progress: Progress = lambda *_: None, scale: float = 1.0, processes: int = 2
) -> TinyModels:
    """Train the three models in `folder`, or reuse the ones that are there, and return their folders.

    A model is trained again only if one of these has changed: its lessons, the demo pack, the number of steps, the
    learning rate, `_RECIPE_VERSION`, `seed` or `scale`. `scale` multiplies the number of steps; tests use a value far
    below 1. `progress` is called after every step. Raises PackError if the demo pack is invalid.

    Each batch is shared between `processes` processes with one thread each: on two cores, a step takes half as long
    as in one process, while two threads in one process are slower than one thread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    school = School(load_pack("demo"), seed)
    shaped_by = [school.fingerprint(), seed, SEEING_STEPS, _RECIPE_VERSION]
    plans: list[_Plan] = []
    made: dict[str, Path] = {}
    for name, recipe in RECIPES.items():
        steps = max(1, round(recipe.steps * scale))
        start = made[recipe.start] if recipe.start else None
        origin = start.name if start else "scratch"
        made[name] = folder / f"{name}-{digest_of([shaped_by, name, asdict(recipe), steps, origin])[:12]}"
        plans.append(_Plan(name, recipe, made[name], start, steps))
    # two runs that start at the same time must not train the same model twice
    with FileLock(folder / ".lock"):
        missing = [plan for plan in plans if not (plan.target / _RECORD).is_file()]
        if missing:
            train_together(partial(_train_models, missing, seed), processes, progress)
    return TinyModels(**made)


@dataclass(frozen=True)
class _Plan:
    """A model that is missing: where it goes, which model it starts from, and for how many steps it is trained."""

    name: str
    recipe: Recipe
    target: Path
    start: Path | None
    steps: int


def _train_models(plans: list[_Plan], seed: int, progress: Progress) -> None:
    """Train the models one after the other, in each of the processes that share their batches."""
    school = School(load_pack("demo"), seed)
    transformers_logging.disable_progress_bar()
    for plan in plans:
        _train_model(plan, school, progress)


def _train_model(plan: _Plan, school: School, progress: Progress) -> None:
    """Train one model in a temporary folder and rename that to the plan's target, which is always complete."""
    work = plan.target.with_name(f".{plan.target.name}")
    if is_first_process():
        shutil.rmtree(work, ignore_errors=True)
        shutil.rmtree(plan.target, ignore_errors=True)
        if plan.start is None:
            write_checkpoint(work, school.corpus(), school.seed)
        else:
            shutil.copytree(plan.start, work)
            (work / _RECORD).unlink()
    wait_for_others()
    processor = AutoProcessor.from_pretrained(work, local_files_only=True)
    # at these lengths, eager attention is 25 % faster on a CPU than sdpa
    model = AutoModelForImageTextToText.from_pretrained(work, local_files_only=True, attn_implementation="eager")
    if plan.start is None:
        # scaled like the steps of the language model
        seeing = max(1, round(SEEING_STEPS * plan.steps / plan.recipe.steps))
        report = partial(progress, f"{plan.name}'s eyes")
        pictures, captions = school.pictures(), school.screen_captions()
        learn_to_see(model, processor, pictures, captions, steps=seeing, seed=school.seed, report=report)
    lessons, report = group_by_length(school.lessons(plan.name, processor)), partial(progress, plan.name)
    collate = Collator(processor)
    train(model, lessons, collate, steps=plan.steps, rate=plan.recipe.rate, seed=school.seed, report=report)
    if is_first_process():
        model.save_pretrained(work)
        record = {"name": plan.name, "seed": school.seed, **asdict(plan.recipe), "steps": plan.steps}
        (work / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        os.replace(work, plan.target)
    wait_for_others()
