"""Train the demo's three Qwen2-VL models from scratch on newly generated items.

`base` can describe images and dialogues, but knows no labels. `generator` stands for the 7B model and gives reasons for
given labels. `teacher` stands for the 72B model and answers the pack's classify prompt.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging as transformers_logging

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.lessons import School
from tasks.demo.training import learn_to_see, train
from tasks.packs.pack import load_pack
from tasks.records import digest_of

Progress = Callable[[str, int, int, float], None]
"""A function that is called with (model's name, steps done, total steps, loss)."""


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
    "teacher": Recipe("base", 240, 2e-3),
    "generator": Recipe("teacher", 60, 2e-3),
}
SEEING_STEPS = 160
"""Number of batches on which the vision tower is trained alone, before the base model is trained as a whole."""

_RECIPE_VERSION = 1
"""Increase this number with each change to checkpoint.py, lessons.py or training.py that changes the models."""

_RECORD = "recipe.json"
"""Name of the file that is written last. A folder without it does not contain a complete model."""


def make_models(
    folder: Path, *, seed: int = 11, progress: Progress = lambda *_: None, scale: float = 1.0
) -> TinyModels:
    """Train the three models in `folder`, or reuse the ones that are there, and return their folders.

    A model is trained again only if one of these has changed: its lessons, the demo pack, the number of steps, the
    learning rate, `_RECIPE_VERSION`, `seed` or `scale`. `scale` multiplies the number of steps; tests use a value far
    below 1. `progress` is called after every step. Raises PackError if the demo pack is invalid.
    """
    folder.mkdir(parents=True, exist_ok=True)
    school = School(load_pack("demo"), seed)
    shaped_by = [school.fingerprint(), seed, SEEING_STEPS, _RECIPE_VERSION]
    made: dict[str, Path] = {}
    # two processes that start at the same time must not train the same model twice
    with FileLock(folder / ".lock"):
        for name, recipe in RECIPES.items():
            steps = max(1, round(recipe.steps * scale))
            start = made[recipe.start] if recipe.start else None
            origin = start.name if start else "scratch"
            target = folder / f"{name}-{digest_of([shaped_by, name, asdict(recipe), steps, origin])[:12]}"
            if not (target / _RECORD).is_file():
                _train_model(name, recipe, target, start, school, steps, progress)
            made[name] = target
    return TinyModels(**made)


def _train_model(
    name: str, recipe: Recipe, target: Path, start: Path | None, school: School, steps: int, progress: Progress
) -> None:
    """Train one model in a temporary folder and rename that to `target`, so that `target` is always complete."""
    for leftover in [target, *target.parent.glob(f".{name}-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    work.chmod(0o755)
    transformers_logging.disable_progress_bar()
    if start is None:
        write_checkpoint(work, school.corpus(), school.seed)
    else:
        shutil.copytree(start, work, dirs_exist_ok=True)
        (work / _RECORD).unlink()
    processor = AutoProcessor.from_pretrained(work, local_files_only=True)
    # at these lengths, eager attention is 25 % faster on a CPU than sdpa
    model = AutoModelForImageTextToText.from_pretrained(work, local_files_only=True, attn_implementation="eager")
    if start is None:
        # scaled like the steps of the language model
        seeing = max(1, round(SEEING_STEPS * steps / recipe.steps))
        report = partial(progress, f"{name}'s eyes")
        pictures, captions = school.pictures(), school.screen_captions()
        learn_to_see(model, processor, pictures, captions, steps=seeing, seed=school.seed, report=report)
    lessons, report = school.lessons(name, processor), partial(progress, name)
    train(model, processor, lessons, steps=steps, rate=recipe.rate, seed=school.seed, report=report)
    model.save_pretrained(work)
    record = {"name": name, "seed": school.seed, **asdict(recipe), "steps": steps}
    (work / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(work, target)
