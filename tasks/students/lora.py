# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportUnknownParameterType=false
# (trl, peft, datasets and transformers publish few types)
"""Fold students: Qwen2-VL with low-rank adapters, trained by trl's SFTTrainer, kept as peft folders (safetensors)."""

import logging
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    set_seed,
)
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from tasks.engines import EngineSpec
from tasks.engines.identity import model_identity
from tasks.folds import content_digest
from tasks.images import open_images
from tasks.prompts import Prompter
from tasks.records import Sample, Sampling, digest_of
from tasks.stages import write_bytes
from tasks.students import StudentSpec
from tasks.user_turn import user_content

log = logging.getLogger(__name__)

# Adapters sit in the language model only: vLLM serves no adapters of the vision tower (FACTS: "Seen answering").
_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

Progress = Callable[[int, int, float], None]
"""Called with (steps done, steps in all, loss)."""


def base_spec(spec: StudentSpec) -> EngineSpec:
    """The local engine that asks `spec`'s base (an adapter is added with `model_copy`)."""
    return EngineSpec(
        engine="local",
        model=spec.base,
        revision=spec.revision,
        trust_remote_code=spec.trust_remote_code,
        dtype=spec.dtype,
        batch_size=spec.scoring_batch_size,
        min_pixels=spec.min_pixels,
        max_pixels=spec.max_pixels,
    )


def student_digest(spec: StudentSpec, prompter: Prompter, train: Sequence[Sample], fold: int) -> str:
    """Identity of the student of `fold`: what it is made from, by which recipe, with which seed."""
    ingredients = spec.model_dump(mode="json", exclude={"scoring_batch_size", "folds"})
    items = sorted([s.id, content_digest(s), s.given] for s in train)
    return digest_of([ingredients, model_identity(base_spec(spec)), prompter.pack.digest, items, fold, "label-only"])[
        :16
    ]


def train_student(
    spec: StudentSpec, prompter: Prompter, train: Sequence[Sample], fold: int, folder: Path, progress: Progress
) -> Path:
    """Train one student on `train` (each with its given label) and return its adapter's folder.

    The student learns to answer the classify prompt without a reason: the very form in which it is then scored. A
    finished folder (one with student.json) is returned as it is. Images go through qwen_vl_utils' resizing, as in the
    local engine. Raises what trl raises; a half-trained folder is never taken for a student.
    """
    if (folder / "student.json").exists():
        return folder
    started = time.monotonic()
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    set_seed(spec.seed * 1000 + fold)
    transformers_logging.disable_progress_bar()
    trainer = _trainer(spec, prompter, train, work, fold, progress)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # trl's and torch's advice about padding and pinned memory is not the user's
        trainer.train()
    trainer.model.save_pretrained(work, safe_serialization=True)  # pyright: ignore
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    facts = {
        "fold": fold,
        "items": len(train),
        "steps": trainer.state.global_step,
        "seconds": round(time.monotonic() - started, 1),
        "losses": [round(float(loss), 4) for loss in losses],
        "spec": spec.model_dump(mode="json"),
        "trained_on": sorted(s.id for s in train),
        "trained_on_content": sorted({content_digest(s) for s in train}),
    }
    write_bytes(work / "student.json", orjson.dumps(facts, option=orjson.OPT_INDENT_2))
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return folder


def _trainer(
    spec: StudentSpec, prompter: Prompter, train: Sequence[Sample], work: Path, fold: int, progress: Progress
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
        output_dir=str(work / "trainer"),
        num_train_epochs=spec.epochs,
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        gradient_checkpointing=spec.gradient_checkpointing,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        seed=spec.seed * 1000 + fold,
        max_length=None,  # a cut would split an image's tokens
        completion_only_loss=True,
        use_cpu=not cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        fp16=False,
        save_strategy="no",
        logging_steps=5,
        remove_unused_columns=False,  # rows are made on the fly, from an index column
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
        dataloader_num_workers=0,
        log_level="error",
    )
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(prompter, train, processor.image_processor.patch_size),
        processing_class=processor,
        peft_config=LoraConfig(
            r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules=_TARGETS, task_type="CAUSAL_LM"
        ),
        callbacks=[_Watch(progress, spec.seconds_a_fold)],
    )
    trainer.remove_callback(PrinterCallback)  # `progress` speaks for it
    return trainer


def _dataset(prompter: Prompter, train: Sequence[Sample], patch_size: int) -> Dataset:
    """Rows are made when they are asked for, so that no decoded image is held."""
    limits = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels}
    requests = [prompter.classify(s, Sampling(), with_reason=False) for s in train]
    answers = [prompter.answer(s.given or "") for s in train]

    def row(i: int) -> dict[str, Any]:
        request = requests[i]
        content = [{"type": "image"} if e["type"] == "image" else e for e in user_content(request)]
        return {
            "prompt": [{"role": "user", "content": content}],
            "completion": [{"role": "assistant", "content": [{"type": "text", "text": answers[i]}]}],
            "images": open_images(request.images, patch_size=patch_size, **limits) or [],
        }

    def rows(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
        made = [row(i) for i in batch["index"]]
        return {key: [r[key] for r in made] for key in ("prompt", "completion", "images")}

    return Dataset.from_dict({"index": list(range(len(train)))}).with_transform(rows)


class _Watch(TrainerCallback):
    """Reports progress and ends a fold that used up its seconds."""

    def __init__(self, progress: Progress, seconds: float | None) -> None:
        self.progress = progress
        self.deadline = time.monotonic() + seconds if seconds is not None else None
        self.loss = float("nan")

    def on_log(self, args: Any, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any) -> None:
        self.loss = float((logs or {}).get("loss", self.loss))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.progress(state.global_step, state.max_steps, self.loss)
        if self.deadline is not None and time.monotonic() > self.deadline:
            log.warning("stopped after %d of %d steps: seconds_a_fold is used up", state.global_step, state.max_steps)
            control.should_training_stop = True
