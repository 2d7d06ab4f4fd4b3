"""Train students with LLaMA-Factory or ms-swift, by the trainer's own command line and configuration."""

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.dataset.export.conversation import UnsupportedExample
from tasks.dataset.export.llamafactory import check_recordings
from tasks.dataset.export.recordings import (
    Recordings,
    collect_recordings,
    describe_recordings,
    make_swift_environment,
)
from tasks.dataset.export.student_set import SeenBoxes, make_student_examples, write_data
from tasks.dataset.export.trainer_files import Plain, fill_words, write_configuration
from tasks.dataset.export.trainer_names import name_for_trainer
from tasks.errors import ConfigError, EngineError
from tasks.models.engines.identity import identify_model
from tasks.models.image_cache import ImageCache
from tasks.models.qwen_vl import read_qwen_vl
from tasks.packs.pack import TEMPLATES
from tasks.prompts.box_forms import find_box_form
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, digest_of
from tasks.students.asking import choose_base_engine
from tasks.students.external_output import find_checkpoint, read_log_tail, read_training_log, take_checkpoint
from tasks.students.external_process import end_leftovers, run_child
from tasks.students.lora import choose_taught_items
from tasks.students.loss_curves import Curve, Progress, draw_curve
from tasks.students.settings import ExternalSpec
from tasks.students.student_folder import describe_training, identify_item, is_trained, keep_student, work_folder

_FOLDER = TEMPLATES / "students"
_DATASET = "labelstill"
_COMMANDS = {
    "llamafactory": ("llamafactory-cli", "train", "${config}"),
    "swift": ("swift", "sft", "${config}"),
}

_NOT_OF_A_STUDENT = {
    "folds", "repeats", "seed", "scoring", "environment", "reasons",
}  # fmt: skip
"""Settings that do not change the weights, or are part of the digest separately."""


@dataclass(frozen=True)
class ExternalRecipe:
    """Trains students with an external trainer."""

    spec: ExternalSpec
    prompter: Prompter
    seed: int
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    """Maps item id to the reason for the item's label."""
    images: ImageCache | None = None
    """Cache of resized images: with it, the trainer gets exactly the pixels with which the students are later asked."""
    revision: str | None = None
    """Revision at which to load the base; `spec.revision` if None."""

    def digest(self, train: Sequence[Sample], fold: int) -> str:
        """Return a digest that identifies the student of `fold`, made from its items, settings, base and seed."""
        recipe = read_trainer_files(self.spec)
        base = identify_model(choose_base_engine(self.spec))
        pack, texts = self.prompter.pack, self.prompter.texts
        taught = choose_taught_items(self.spec, train, self.reasons)
        items = [identify_item(s, texts, pack.task(s.task).labels) for s, _ in taught]
        if self.spec.reasons != "never":
            items = [
                [*i, r, [b.model_dump() for b in s.boxes] if r else []] for i, (s, r) in zip(items, taught, strict=True)
            ]
        ingredients = [self.spec.model_dump(mode="json", exclude=_NOT_OF_A_STUDENT), recipe, base]
        pixels = [self.prompter.min_pixels, self.prompter.max_pixels]
        return digest_of([*ingredients, pack.digest, items, *pixels, fold, self.seed])[:16]

    def train(self, train: Sequence[Sample], fold: int, folder: Path, progress: Progress) -> Path:
        """Train one student on `train`, each item with its given label, and return its folder.

        The student learns to answer the classify prompt as it is later asked: without a reason or, depending on
        `spec.reasons`, after the item's reason, with its boxes if the pack has them. The folder
        contains the data set, train.yaml, train.log, loss.png, student.json and `checkpoint` (see external_output.py);
        the trainer's other files, such as optimizer states, are deleted. A finished folder is returned unchanged; a new
        one appears atomically. Raises ConfigError for an unusable template or command, and EngineError with the end of
        the log when the trainer fails, exceeds its time, or saves no safetensors; the unfinished folder is then kept
        for its log.
        """
        if is_trained(folder):
            return folder
        started = time.monotonic()
        work = work_folder(folder).resolve()
        end_leftovers(work)
        shutil.rmtree(work, ignore_errors=True)
        recordings = collect_recordings(train)
        environment = self._make_environment(recordings)
        command = self._prepare(train, fold, work, recordings, environment)
        try:
            lines = self._run(command, work, progress, environment)
            take_checkpoint(find_checkpoint(work / "output", adapter=self.spec.adapter), work / "checkpoint")
        except EngineError as error:
            log = work / "train.log"
            message = f"fold {fold}: {self.spec.trainer}: {error} (log: {log})\n{read_log_tail(log)}"
            raise EngineError(message.rstrip()) from error
        shutil.rmtree(work / "output")
        shutil.rmtree(work / "process")
        curve = Curve(tuple(step for step, _, _ in lines), tuple(loss for _, _, loss in lines))
        draw_curve(curve, f"fold {fold}, {self.spec.trainer}", work / "loss.png")
        facts = {
            "seed": self.seed,
            "steps": lines[-1][0] if lines else None,
            "seconds": round(time.monotonic() - started, 1),
            "steps_logged": curve.steps_logged,
            "losses": [round(loss, 4) for loss in curve.losses],
        }
        keep_student(work, folder, facts | describe_training(self.spec, fold, train))
        return folder

    def _prepare(
        self, train: Sequence[Sample], fold: int, work: Path, recordings: Recordings, environment: Mapping[str, str]
    ) -> list[str]:
        """Write data set and configuration under `work`, and return the command line."""
        spec, prompter = self.spec, self.prompter
        model = read_qwen_vl(spec.base, self.revision or spec.revision)
        places = {sample.id: place for place, sample in enumerate(train)}
        taught = sorted(choose_taught_items(spec, train, self.reasons), key=lambda pair: places[pair[0].id])
        examples = make_student_examples(prompter, taught, self.images, model.patch_size)
        if spec.trainer == "llamafactory":
            for example in examples:
                try:
                    check_recordings(example, model)
                except UnsupportedExample as error:
                    raise ConfigError(f"student.trainer: {error}; set `trainer: swift`") from error
        bounds = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels, "patch_size": model.patch_size}
        boxes = SeenBoxes(find_box_form(model.model_type), bounds)
        data = write_data(work / "data", _DATASET, spec.trainer, examples, thinks=model.thinks, boxes=boxes)
        config = work / "train.yaml"
        deepspeed = _find_deepspeed(spec)
        words: dict[str, Plain] = {
            **name_for_trainer(spec.trainer, spec.base, model),
            "base": str(Path(spec.base).resolve()) if Path(spec.base).is_dir() else spec.base,
            "revision": self.revision or spec.revision,
            "trust_remote_code": spec.trust_remote_code,
            "data": str(data.parent),
            "dataset": _DATASET,
            "file": str(data),
            "output": str(work / "output"),
            "seed": self.seed,
            "fold": fold,
            "min_pixels": prompter.min_pixels,
            "max_pixels": prompter.max_pixels,
            "max_tokens": spec.max_tokens,
            **describe_recordings(prompter.min_pixels, prompter.max_pixels, recordings),
            "deepspeed": str(deepspeed) if deepspeed else None,
        }
        write_configuration(config, _find_configuration(spec), spec.settings, words)
        words["config"] = str(config)
        command = [str(fill_words(word, words, "student.command")) for word in spec.command or _COMMANDS[spec.trainer]]
        if shutil.which(command[0], path=environment.get("PATH")) is None:
            raise ConfigError(
                f"student.command: `{command[0]}` is not on PATH; install the trainer in its own environment and give "
                "its path, e.g. [/opt/trainer/bin/llamafactory-cli, train, ${config}]"
            )
        return command

    def _run(
        self, command: Sequence[str], work: Path, progress: Progress, environment: Mapping[str, str]
    ) -> list[tuple[int, int, float]]:
        """Run the trainer and report its steps; return (step, total steps, loss) of each line of its log."""
        reported = 0

        def look() -> None:
            nonlocal reported
            with contextlib.suppress(OSError):  # the trainer may be replacing the file
                lines = read_training_log(work / "output")
                if lines and lines[-1][0] != reported:
                    reported = lines[-1][0]
                    progress(*lines[-1])

        code = run_child(command, work, environment, look)
        if code != 0:
            raise EngineError(f"was killed by signal {256 - code}" if code > 191 else f"ended with exit code {code}")
        look()
        return read_training_log(work / "output")

    def _make_environment(self, recordings: Recordings) -> Mapping[str, str]:
        own: dict[str, str] = {}
        if self.spec.trainer == "swift":
            bounds = self.prompter.min_pixels, self.prompter.max_pixels
            own = {name: str(value) for name, value in make_swift_environment(*bounds, recordings).items()}
        elif self.spec.deepspeed is not None:
            own = {"FORCE_TORCHRUN": "1"}  # LLaMA-Factory refuses DeepSpeed on one GPU without it
        return {**os.environ, **own, **self.spec.environment}


def read_trainer_files(spec: ExternalSpec) -> list[str]:
    """Return the text of the trainer's template, and that of its DeepSpeed configuration or an empty text."""
    deepspeed = _find_deepspeed(spec)
    return [_find_configuration(spec).read_text("utf-8"), deepspeed.read_text("utf-8") if deepspeed else ""]


def _find_configuration(spec: ExternalSpec) -> Path:
    name = spec.template or f"{spec.trainer}_{'lora' if spec.adapter else 'full'}.yaml"
    return _find_template(name, name, "student.template")


def _find_deepspeed(spec: ExternalSpec) -> Path | None:
    if spec.deepspeed is None:
        return None
    return _find_template(f"deepspeed_{spec.deepspeed}.json", spec.deepspeed, "student.deepspeed")


def _find_template(name: str, path: str, key: str) -> Path:
    """Return the file of that name in templates/students/, or else the one at `path`."""
    for file in (_FOLDER / name, Path(path).resolve()):
        if file.is_file():
            return file
    known = ", ".join(sorted(f.name for f in _FOLDER.iterdir() if f.suffix in (".yaml", ".json")))
    raise ConfigError(f"{key}: no file {path}; give a path, or one of templates/students/: {known}")
