"""The demo's three Qwen2-VL models, trained from scratch on this machine on freshly drawn items.

`base` can describe what it is shown but was never told the label of an item; `generator` (standing for the 7B) words a
reason for a given label; `teacher` (standing for the 72B) answers the pack's classify prompt.
"""
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

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

from tasks.demo.checkpoint import new_checkpoint
from tasks.demo.lessons import School
from tasks.demo.training import learn_to_see, train
from tasks.packs.pack import load_pack
from tasks.records import digest_of

Progress = Callable[[str, int, int, float], None]
"""Called with (a model's name, steps done, steps in all, loss)."""


@dataclass(frozen=True)
class TinyModels:
    """Folders of the three checkpoints."""

    base: Path
    generator: Path
    teacher: Path


@dataclass(frozen=True)
class Recipe:
    """How a model is trained: from which other one, for how many batches of 32, at which peak learning rate."""

    start: str | None
    steps: int
    rate: float


RECIPES = {
    "base": Recipe(None, 230, 3e-3),
    "teacher": Recipe("base", 240, 2e-3),
    "generator": Recipe("teacher", 60, 2e-3),
}
SEEING_STEPS = 160
"""Batches for the vision tower alone, before the base's own."""

_RECIPE_VERSION = 1
"""Raise it with each change to checkpoint.py, lessons.py or training.py that makes other models of the same lessons."""

_RECORD = "recipe.json"
"""Written last: a folder without it is not a model."""


def make_models(
    folder: Path, *, seed: int = 11, progress: Progress = lambda *_: None, scale: float = 1.0
) -> TinyModels:
    """Train the three models into `folder`, or find them there, and return their folders.

    A model is trained again only when its recipe changed: what its lessons show, the demo pack, steps, learning rates,
    `_RECIPE_VERSION`, `seed`, or `scale`, a factor on the steps (far below 1 for tests). `progress` is called after
    every step. Raises PackError when the demo pack is broken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    school = School(load_pack("demo"), seed)
    shaped_by = [school.fingerprint(), seed, SEEING_STEPS, _RECIPE_VERSION]
    made: dict[str, Path] = {}
    # two processes that start at once must not train the same model twice
    with FileLock(folder / ".lock"):
        for name, recipe in RECIPES.items():
            steps = max(1, round(recipe.steps * scale))
            start = made[recipe.start] if recipe.start else None
            origin = start.name if start else "scratch"
            target = folder / f"{name}-{digest_of([shaped_by, name, asdict(recipe), steps, origin])[:12]}"
            if not (target / _RECORD).is_file():
                _make(name, recipe, target, start, school, steps, progress)
            made[name] = target
    return TinyModels(**made)


def _make(
    name: str, recipe: Recipe, target: Path, start: Path | None, school: School, steps: int, progress: Progress
) -> None:
    """Train one model in a temporary folder beside `target`, then rename: what has the name is whole."""
    for leftover in [target, *target.parent.glob(f".{name}-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    work.chmod(0o755)
    transformers_logging.disable_progress_bar()
    if start is None:
        new_checkpoint(work, school.corpus(), school.seed)
    else:
        shutil.copytree(start, work, dirs_exist_ok=True)
        (work / _RECORD).unlink()
    processor = AutoProcessor.from_pretrained(work, local_files_only=True)
    # eager: at these lengths a quarter faster on the CPU than sdpa
    model = AutoModelForImageTextToText.from_pretrained(work, local_files_only=True, attn_implementation="eager")
    if start is None:
        # the same share of the usual steps as the language model gets
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
