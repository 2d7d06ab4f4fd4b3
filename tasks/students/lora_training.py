"""Train LoRA students: low-rank adapters of Qwen-VL's language model, trained by trl and stored as peft folders.

During training, a hidden folder beside the student's folder contains checkpoints in transformers' format. Their
optimizer and random states are torch files, which are read with weights_only. After the training, only safetensors are
kept. On a GPU, images are decoded by processes of their own while the model computes: in the training's process they
take 1.3 s per update of 16 screenshots, against 3 to 4 s of an H100.
"""

import logging
import multiprocessing
import os
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForImageTextToText, PrinterCallback, set_seed
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.utils import logging as transformers_logging
from trl import SFTConfig, SFTTrainer  # pyright: ignore[reportPrivateImportUsage]

from tasks.errors import ConfigError, EngineError
from tasks.models.engines.gpus import list_gpus
from tasks.models.positions import correct_positions
from tasks.models.qwen_vl import load_processor
from tasks.models.unanswered import summarise
from tasks.records import Sample
from tasks.students.asking import choose_box_form
from tasks.students.lora_checkpoints import KEPT, Watch, find_newest_checkpoint
from tasks.students.lora_collator import VideoCollator
from tasks.students.lora_dataset import make_dataset
from tasks.students.lora_memory import LESS_MEMORY
from tasks.students.loss_curves import Progress, draw_curve, read_curve
from tasks.students.soft_loss import SoftCollator, compute_soft_loss
from tasks.students.student_folder import keep_student, work_folder

if TYPE_CHECKING:
    from tasks.students.lora import LoraRecipe

log = logging.getLogger("labelstill")

# Adapters are trained for the language model only: vLLM serves no adapters of the vision tower.
_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
_LOADERS = 4
"""Processes that prepare batches for a GPU; one prepares about ten screenshots per second."""
_LONG_WAIT = 0.1
"""Share of the training time spent waiting for batches from which on a warning is logged."""


def train_adapter(
    recipe: "LoraRecipe",
    digest: str,
    taught: Sequence[tuple[Sample, str]],
    fold: int,
    folder: Path,
    progress: Progress,
    facts: dict[str, object],
) -> None:
    """Train an adapter, resuming from its newest checkpoint if there is one, and move it to `folder` in one step.

    `digest` identifies the recipe and its items; a checkpoint of another one is not used. `facts` are stored in the
    student's record, with the loss curve and the share of the time that was spent waiting for batches.
    """
    spec, work = recipe.spec, work_folder(folder)
    name = f"fold {fold}, repeat {recipe.repeat}"
    checkpoint = find_newest_checkpoint(work, digest)
    watch = Watch(progress)
    seed = (spec.seed * 1000 + recipe.repeat * 1_000_000 + fold) % 2**32
    if threads := os.environ.get("OMP_NUM_THREADS"):
        # torch reads it too, but then multiplies matrices in another order (differences of 5e-5 after 8 updates)
        torch.set_num_threads(int(threads))
    set_seed(seed)
    transformers_logging.disable_progress_bar()
    trainer = _make_trainer(recipe, taught, seed, work / "trainer", name, watch)
    if checkpoint is not None:
        log.info("%s: training resumes from %s", name, checkpoint.name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trl and torch advise on padding and pinned memory
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    except torch.OutOfMemoryError as error:
        raise EngineError(f"{name}: the GPU has too little memory; {LESS_MEMORY}: {summarise(error)}") from error
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
        "waiting_share": round(watch.waiting_share, 3),
        **asdict(curve),
    }
    if trainer.args.dataloader_num_workers and watch.waiting_share > _LONG_WAIT:
        log.warning(
            "%s: %.0f %% of the training time was spent waiting for images; put `images` on a faster disk, or give "
            "this machine more CPU cores per GPU", name, 100 * watch.waiting_share,
        )  # fmt: skip
    keep_student(done, folder, facts)
    shutil.rmtree(work)


class _Trainer(SFTTrainer):
    """A trainer that measures how long it waits for batches, and knows soft labels."""

    watch: Watch

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **more: Any) -> Any:
        """Return the loss of a batch."""
        if "targets" not in inputs:
            return super().compute_loss(model, inputs, *arguments, **more)
        targets = inputs.pop("targets")
        return compute_soft_loss(model, inputs, targets, more.get("num_items_in_batch"))

    def get_batch_samples(self, *arguments: Any, **more: Any) -> Any:
        """Return the batches of the next update."""
        # the loss of the last update has been read, so the GPU has nothing to do meanwhile
        began = time.monotonic()
        try:
            return super().get_batch_samples(*arguments, **more)
        finally:
            self.watch.add_waiting(time.monotonic() - began)


def _make_trainer(
    recipe: "LoraRecipe", taught: Sequence[tuple[Sample, str]], seed: int, output: Path, name: str, watch: Watch
) -> SFTTrainer:
    spec = recipe.spec
    shared = {"revision": recipe.revision or spec.revision, "trust_remote_code": spec.trust_remote_code}
    processor = load_processor(spec.base, **shared)
    processor.image_processor.do_resize = False  # the rows' images are resized
    model = AutoModelForImageTextToText.from_pretrained(spec.base, use_safetensors=True, dtype="auto", **shared)
    correct_positions(model)
    _freeze_vision(model)
    cuda = torch.cuda.is_available()
    loaders = min(_LOADERS, len(os.sched_getaffinity(0))) if list_gpus() else 0
    if loaders:
        # as in any process that was not spawned itself; spawned loaders would import torch first
        multiprocessing.set_start_method("fork", force=True)
    arguments = SFTConfig(
        output_dir=str(output),
        run_name=name,
        num_train_epochs=spec.epochs,
        max_steps=spec.steps or -1,
        per_device_train_batch_size=spec.batch_size,
        gradient_accumulation_steps=spec.gradient_accumulation,
        activation_checkpointing=spec.gradient_checkpointing,
        learning_rate=spec.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.05,
        seed=seed,
        max_length=None,  # truncation would split an image's tokens
        completion_only_loss=True,
        use_cpu=not cuda,
        bf16=cuda and torch.cuda.is_bf16_supported(),
        fp16=False,
        save_strategy="no",  # `watch` triggers checkpoints
        save_total_limit=KEPT,
        logging_steps=1,
        remove_unused_columns=False,  # rows are made on demand, from an index column
        report_to=list(spec.report_to) or "none",
        disable_tqdm=True,
        dataloader_pin_memory=cuda,
        dataloader_num_workers=loaders,
        dataloader_persistent_workers=loaders > 0,
        accelerator_config={"non_blocking": cuda},
        log_level="error",
    )
    adapter = LoraConfig(
        r=spec.lora_rank, lora_alpha=2 * spec.lora_rank, target_modules=_TARGETS, task_type="CAUSAL_LM"
    )
    trainer = _Trainer(
        model=PeftModel.from_pretrained(model, recipe.start, is_trainable=True) if recipe.start else model,
        args=arguments,
        train_dataset=make_dataset(
            recipe.prompter,
            taught,
            processor.image_processor.patch_size,
            recipe.images,
            choose_box_form(spec, recipe.prompter.pack),
            recipe.soft,
        ),
        processing_class=processor,
        peft_config=None if recipe.start else adapter,
        callbacks=[watch],
    )
    trainer.data_collator = VideoCollator(trainer.data_collator)
    trainer.watch = watch
    if recipe.soft:
        trainer.data_collator = SoftCollator(trainer.data_collator, processor.tokenizer)
    trainer.remove_callback(PrinterCallback)  # `watch` reports progress instead
    return trainer


def _freeze_vision(model: Any) -> None:
    """Run the vision tower without gradients.

    With gradient checkpointing, transformers and trl make the output of each embedding require gradients, also that of
    the patches, and then the frozen tower would be backpropagated through.
    """
    tower = model.get_encoder(modality="image")
    tower.forward = torch.no_grad()(tower.forward)


def check_reporters(names: Sequence[str]) -> None:
    """Raise ConfigError unless transformers supports each reporter and its package is installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"student.report_to: `{name}` is not one of {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            raise ConfigError(f"student.report_to: install the package of `{name}` or remove it: {error}") from error
