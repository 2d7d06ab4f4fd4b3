# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# (trl, peft, datasets and transformers publish few types)
"""Fold students: Qwen2-VL with low-rank adapters, trained by trl's SFTTrainer, kept as peft folders (safetensors).

While a fold is trained, a hidden folder beside the student's holds checkpoints in transformers' own form (its optimizer
and random states are torch files, read back with weights_only); nothing but safetensors outlives the training.
"""

import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from filelock import FileLock
from peft import LoraConfig, PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor, PrinterCallback, set_seed
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from tasks.errors import ConfigError
from tasks.models.engines.identity import identify_model
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, content_digest, digest_of
from tasks.storage.json_lines import write_json
from tasks.students.asking import choose_base_engine
from tasks.students.lora_checkpoints import KEPT, Watch, newest_checkpoint
from tasks.students.lora_dataset import choose_taught_items, make_dataset
from tasks.students.loss_curves import Progress, draw_curve, read_curve
from tasks.students.settings import StudentSpec

log = logging.getLogger(__name__)

# Adapters sit in the language model only: vLLM serves no adapters of the vision tower.
_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

_NOT_OF_A_STUDENT = {"scoring_engine", "scoring_batch_size", "folds", "repeats", "checkpoint_seconds", "report_to"}
"""Fields of the specification that change no weight."""

_PACKAGES = {"azure_ml": "azureml-sdk", "comet_ml": "comet-ml", "flyte": "flytekit", "kubeflow": "kubeflow-training"}
"""Of transformers' reporters, where their package has another name."""


def student_digest(
    spec: StudentSpec,
    prompter: Prompter,
    train: Sequence[Sample],
    fold: int,
    *,
    repeat: int = 0,
    reasons: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> str:
    """Identity of a student: what it is made from, by which recipe, with which seed. Arguments as in `train_student`.

    Raises ConfigError as `train_student` does.
    """
    ingredients = spec.model_dump(mode="json", exclude=_NOT_OF_A_STUDENT)
    taught = choose_taught_items(spec, train, reasons or {})
    items = [[s.id, content_digest(s), s.given, reason] for s, reason in taught]
    base = identify_model(choose_base_engine(spec))
    origin = [start.name] if start else []
    return digest_of([ingredients, base, prompter.pack.digest, items, fold, repeat, *origin])[:16]


def train_student(
    spec: StudentSpec,
    prompter: Prompter,
    train: Sequence[Sample],
    fold: int,
    folder: Path,
    progress: Progress,
    *,
    repeat: int = 0,
    reasons: Mapping[str, str] | None = None,
    start: Path | None = None,
) -> Path:
    """Train one student on `train` (each with its given label) and return its adapter's folder.

    The student learns the very form in which it is then scored: the classify prompt's answer, without a reason or,
    if `spec.reasons` says so, behind the one that `reasons` has for the item's id; items that are left out for having
    none are named in student.json. `start` is the folder of a finished student whose adapter is trained further.
    Images go through qwen_vl_utils' resizing, as in the local engine. `progress` is called after each update.

    A finished folder (one with student.json) is returned as it is, and a half-trained folder is never taken for one: a
    training that was killed goes on from its newest whole checkpoint (`spec.checkpoint_seconds`) when this is called
    again with the same arguments. Two processes that want the same folder train it once. Raises ConfigError when no
    item has a reason or a reporter's package is missing, and what trl raises.
    """
    if _is_finished(folder):
        shutil.rmtree(_work_of(folder), ignore_errors=True)  # killed just after it was finished
        return folder
    _check_reporters(spec.report_to)
    taught = choose_taught_items(spec, train, reasons or {})
    without = sorted({s.id for s in train} - {s.id for s, _ in taught})
    if without:
        log.warning("fold %d: %d of %d items have no reason and are not taught", fold, len(without), len(train))
    facts: dict[str, object] = {
        "fold": fold,
        "repeat": repeat,
        "start": start.name if start else None,
        "items": len(taught),
        "without_reason": without,
        "spec": spec.model_dump(mode="json"),
        "trained_on": [s.id for s, _ in taught],
        "trained_on_content": sorted({content_digest(s) for s, _ in taught}),
    }
    recipe = student_digest(spec, prompter, train, fold, repeat=repeat, reasons=reasons, start=start)
    seed = (spec.seed * 1000 + repeat * 1_000_000 + fold) % 2**32
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = folder.with_name(f".{folder.name}.lock")
    with FileLock(lock):
        if not _is_finished(folder):
            checkpoint = newest_checkpoint(_work_of(folder), recipe)
            watch = Watch(progress, spec.seconds_a_fold, spec.checkpoint_seconds)
            _train(spec, prompter, taught, seed, folder, start, checkpoint, watch, facts)
        lock.unlink(missing_ok=True)  # whoever still waits for it finds a finished folder
    return folder


def _train(
    spec: StudentSpec,
    prompter: Prompter,
    taught: Sequence[tuple[Sample, str]],
    seed: int,
    folder: Path,
    start: Path | None,
    checkpoint: Path | None,
    watch: Watch,
    facts: dict[str, object],
) -> None:
    """Train, from `checkpoint` on if there is one, and move what is to stay to `folder`, in one step."""
    name = f"fold {facts['fold']}, repeat {facts['repeat']}"
    set_seed(seed)
    transformers_logging.disable_progress_bar()
    work = _work_of(folder)
    trainer = _trainer(spec, prompter, taught, seed, start, work / "trainer", name, watch)
    if checkpoint is not None:
        log.info("%s: training goes on from %s", name, checkpoint.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl's and torch's advice about padding and pinned memory is not the user's
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    done = work / "done"
    shutil.rmtree(done, ignore_errors=True)
    trainer.model.save_pretrained(done, safe_serialization=True)  # pyright: ignore
    curve = read_curve(trainer.state.log_history)
    draw_curve(curve, name, done / "loss.png")
    if (reported := work / "trainer" / "runs").exists():
        reported.rename(done / "runs")  # tensorboard's
    facts |= {
        "seed": seed,
        "resumed_from": int(checkpoint.name.rpartition("-")[2]) if checkpoint else None,
        "steps": trainer.state.global_step,
        "seconds": round(watch.spent, 1),
        **asdict(curve),
    }
    write_json(done / "student.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    done.rename(folder)
    shutil.rmtree(work)


def _check_reporters(names: Sequence[str]) -> None:
    """Raise ConfigError unless transformers knows each name and its package is installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"student.report_to: `{name}` is not one of {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            package = _PACKAGES.get(name, name)
            raise ConfigError(
                f"student.report_to: `{name}` needs its package: run `pip install {package}`, or leave it out ({error})"
            ) from error


def _is_finished(folder: Path) -> bool:
    return (folder / "student.json").exists()


def _work_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _trainer(
    spec: StudentSpec,
    prompter: Prompter,
    taught: Sequence[tuple[Sample, str]],
    seed: int,
    start: Path | None,
    output: Path,
    name: str,
    watch: Watch,
) -> SFTTrainer:
    processor = AutoProcessor.from_pretrained(
        spec.base, revision=spec.revision, trust_remote_code=spec.trust_remote_code
    )
    processor.image_processor.do_resize = False  # open_images has done it
    model = AutoModelForImageTextToText.from_pretrained(
        spec.base,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        use_safetensors=True,
        dtype=spec.dtype,
    )
    cuda = torch.cuda.is_available()
    arguments = SFTConfig(
        output_dir=str(output),
        run_name=name,
        num_train_epochs=spec.epochs,
        max_steps=spec.steps or -1,
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        gradient_checkpointing=spec.gradient_checkpointing,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        seed=seed,
        max_length=None,  # a cut would split an image's tokens
        completion_only_loss=True,
        use_cpu=not cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        fp16=False,
        save_strategy="no",  # `watch` asks for checkpoints
        save_total_limit=KEPT,
        logging_steps=1,
        remove_unused_columns=False,  # rows are made on the fly, from an index column
        report_to=list(spec.report_to) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
        dataloader_num_workers=0,
        log_level="error",
    )
    adapter = LoraConfig(r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules=_TARGETS, task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=PeftModel.from_pretrained(model, start, is_trainable=True) if start else model,
        args=arguments,
        train_dataset=make_dataset(prompter, taught, processor.image_processor.patch_size),
        processing_class=processor,
        peft_config=None if start else adapter,
        callbacks=[watch],
    )
    trainer.remove_callback(PrinterCallback)  # `watch` speaks for it
    return trainer
