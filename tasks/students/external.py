"""Students that a foreign trainer makes: LLaMA-Factory or ms-swift, by its own command line and configuration."""

import contextlib
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.dataset.export.student_set import make_label_examples, write_data
from tasks.dataset.export.trainer_files import Plain, fill_words, write_configuration
from tasks.errors import ConfigError, EngineError
from tasks.models.engines.identity import identify_model
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import TEMPLATES
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, content_digest, digest_of
from tasks.storage.json_lines import write_json
from tasks.students.asking import choose_base_engine
from tasks.students.external_output import find_checkpoint, read_log_tail, read_training_log, take_checkpoint
from tasks.students.external_process import TimedOut, describe_exit, end_leftovers, run_child
from tasks.students.loss_curves import Curve, Progress, draw_curve
from tasks.students.settings import ExternalSpec

_FOLDER = TEMPLATES / "students"
_DATASET = "labelstill"
_COMMANDS = {
    "llamafactory": ("llamafactory-cli", "train", "${config}"),
    "swift": ("swift", "sft", "${config}"),
}


def external_digest(spec: ExternalSpec, prompter: Prompter, train: Sequence[Sample], fold: int, seed: int) -> str:
    """Identity of the student of `fold`: what it is made from, by which recipe, with which seed."""
    left_out = {
        "folds",
        "repeats",
        "seed",
        "dtype",
        "scoring_batch_size",
        "scoring_engine",
        "timeout_seconds",
        "environment",
    }
    deepspeed = _deepspeed(spec)
    recipe = [_template(spec).read_text("utf-8"), deepspeed.read_text("utf-8") if deepspeed else ""]
    base = identify_model(choose_base_engine(spec))
    items = sorted([s.id, content_digest(s), s.given] for s in train)
    ingredients = [spec.model_dump(mode="json", exclude=left_out), recipe, base, prompter.pack.digest, items]
    return digest_of([*ingredients, prompter.min_pixels, prompter.max_pixels, fold, seed])[:16]


def train_external(
    spec: ExternalSpec,
    prompter: Prompter,
    train: Sequence[Sample],
    fold: int,
    seed: int,
    folder: Path,
    progress: Progress,
    *,
    images: ImageCache | None = None,
) -> Path:
    """Have the trainer make one student from `train` (each item with its given label); returns its folder.

    The student learns to answer the classify prompt without a reason: the form in which it is then scored. The folder
    holds the data set, train.yaml, train.log, loss.png, student.json and `checkpoint` (see external_output.py); what
    else the trainer wrote, optimizer states above all, is not kept. A finished folder is returned as it is; a new one
    appears whole. With `images`, the trainer is given the very pixels that the student is later asked with. Raises
    ConfigError for a template or command that can't be used, and EngineError with the end of the log when the trainer
    fails, takes too long, or leaves no safetensors; the half-made folder then stays, for its log.
    """
    if (folder / "student.json").exists():
        return folder
    started = time.monotonic()
    work = folder.with_name(f".{folder.name}.part").resolve()
    end_leftovers(work)
    shutil.rmtree(work, ignore_errors=True)
    command = _prepare(spec, prompter, train, fold, seed, work, images)
    try:
        lines = _run(spec, prompter, command, work, progress)
        take_checkpoint(find_checkpoint(work / "output", adapter=spec.adapter), work / "checkpoint")
    except EngineError as error:
        log = work / "train.log"
        message = f"fold {fold}: {spec.trainer}: {error} (log: {log})\n{read_log_tail(log)}"
        raise EngineError(message.rstrip()) from error
    shutil.rmtree(work / "output")
    shutil.rmtree(work / "process")
    facts = {
        "fold": fold,
        "seed": seed,
        "items": len(train),
        "steps": lines[-1][0] if lines else None,
        "seconds": round(time.monotonic() - started, 1),
        "steps_logged": [step for step, _, _ in lines],
        "losses": [round(loss, 4) for _, _, loss in lines],
        "spec": spec.model_dump(mode="json"),
        "trained_on": sorted(s.id for s in train),
        "trained_on_content": sorted({content_digest(s) for s in train}),
    }
    curve = Curve(tuple(step for step, _, _ in lines), tuple(loss for _, _, loss in lines), (), ())
    draw_curve(curve, f"fold {fold}, {spec.trainer}", work / "loss.png")
    write_json(work / "student.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return folder


def _prepare(
    spec: ExternalSpec,
    prompter: Prompter,
    train: Sequence[Sample],
    fold: int,
    seed: int,
    work: Path,
    images: ImageCache | None,
) -> list[str]:
    """Write data set and configuration under `work`; returns the command line."""
    data = write_data(work / "data", _DATASET, spec.trainer, make_label_examples(prompter, train, images))
    deepspeed = _deepspeed(spec)
    config = work / "train.yaml"
    words: dict[str, Plain] = {
        "base": str(Path(spec.base).resolve()) if Path(spec.base).is_dir() else spec.base,
        "revision": spec.revision,
        "trust_remote_code": spec.trust_remote_code,
        "data": str(data.parent),
        "dataset": _DATASET,
        "file": str(data),
        "output": str(work / "output"),
        "seed": seed,
        "fold": fold,
        "min_pixels": prompter.min_pixels,
        "max_pixels": prompter.max_pixels,
        "max_tokens": spec.max_tokens,
        "deepspeed": str(deepspeed) if deepspeed else None,
    }
    write_configuration(config, _template(spec), spec.settings, words)
    words["config"] = str(config)
    command = [str(fill_words(word, words, "student.command")) for word in spec.command or _COMMANDS[spec.trainer]]
    if shutil.which(command[0], path=_environment(spec, prompter).get("PATH")) is None:
        raise ConfigError(
            f"student.command: `{command[0]}` is not on PATH; install the trainer, in an environment of its own, and "
            "give its path, e.g. [/opt/trainer/bin/llamafactory-cli, train, ${config}]"
        )
    return command


def _run(
    spec: ExternalSpec, prompter: Prompter, command: Sequence[str], work: Path, progress: Progress
) -> list[tuple[int, int, float]]:
    """Run the trainer and report its steps; returns (step, steps in all, loss) of each line of its log."""
    told = 0

    def look() -> None:
        nonlocal told
        with contextlib.suppress(OSError):  # the trainer is just replacing the file
            lines = read_training_log(work / "output")
            if lines and lines[-1][0] != told:
                told = lines[-1][0]
                progress(*lines[-1])

    try:
        code = run_child(command, work, _environment(spec, prompter), spec.timeout_seconds, look)
    except TimedOut as error:
        raise EngineError(f"was ended after `timeout_seconds: {spec.timeout_seconds:g}`") from error
    if code != 0:
        raise EngineError(describe_exit(code))
    look()
    return read_training_log(work / "output")


def _environment(spec: ExternalSpec, prompter: Prompter) -> Mapping[str, str]:
    own: dict[str, str] = {}
    if spec.trainer == "swift":
        own = {"MIN_PIXELS": str(prompter.min_pixels), "MAX_PIXELS": str(prompter.max_pixels)}
    elif spec.deepspeed is not None:
        own = {"FORCE_TORCHRUN": "1"}  # LLaMA-Factory refuses DeepSpeed on one GPU without it
    return {**os.environ, **own, **spec.environment}


def _template(spec: ExternalSpec) -> Path:
    name = spec.template or f"{spec.trainer}_{'lora' if spec.adapter else 'full'}.yaml"
    return _known_or_path(name, name, "student.template")


def _deepspeed(spec: ExternalSpec) -> Path | None:
    if spec.deepspeed is None:
        return None
    return _known_or_path(f"deepspeed_{spec.deepspeed}.json", spec.deepspeed, "student.deepspeed")


def _known_or_path(name: str, path: str, key: str) -> Path:
    """A file of templates/students/, else the one at `path`."""
    for file in (_FOLDER / name, Path(path).resolve()):
        if file.is_file():
            return file
    known = ", ".join(sorted(f.name for f in _FOLDER.iterdir() if f.suffix in (".yaml", ".json")))
    raise ConfigError(f"{key}: no file {path}; in templates/students/ there are {known}")
