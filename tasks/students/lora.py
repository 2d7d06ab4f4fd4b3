"""Train LoRA students: low-rank adapters of Qwen2-VL, trained by trl's SFTTrainer, stored as peft folders.

During training, a hidden folder beside the student's folder contains checkpoints in transformers' format. Their
optimizer and random states are torch files, which are read with weights_only. After the training, only safetensors are
kept.
"""

import logging
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
from tasks.records import Sample, digest_of
from tasks.students.asking import choose_base_engine
from tasks.students.lora_checkpoints import KEPT, Watch, find_newest_checkpoint
from tasks.students.lora_dataset import choose_taught_items, make_dataset
from tasks.students.loss_curves import Progress, draw_curve, read_curve
from tasks.students.settings import StudentSpec
from tasks.students.student_folder import describe_training, identify_item, is_trained, keep_student, work_folder

log = logging.getLogger(__name__)

# Adapters are trained for the language model only: vLLM serves no adapters of the vision tower.
_TARGETS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"

_NOT_OF_A_STUDENT = {
    "scoring_engine", "scoring_batch_size", "folds", "repeats", "checkpoint_seconds", "parallel", "report_to",
}  # fmt: skip
"""Settings that do not change the weights."""


@dataclass(frozen=True)
class LoraRecipe:
    """Trains LoRA students."""

    spec: StudentSpec
    prompter: Prompter
    repeat: int = 0
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    """Maps item id to the reason for the item's label."""
    start: Path | None = None
    """Folder of a finished student whose adapter is trained further."""
    revision: str | None = None
    """Revision at which to load the base; `spec.revision` if None."""

    def digest(self, train: Sequence[Sample], fold: int) -> str:
        """Return a digest that identifies a student, made from its items, texts, settings, base, fold and repeat.

        Raises ConfigError as `train` does.
        """
        ingredients = self.spec.model_dump(mode="json", exclude=_NOT_OF_A_STUDENT)
        taught = choose_taught_items(self.spec, train, self.reasons)
        pack = self.prompter.pack
        items = [[*identify_item(s, self.prompter.texts, pack.task(s.task).labels), reason] for s, reason in taught]
        base = identify_model(choose_base_engine(self.spec))
        origin = [self.start.name] if self.start else []
        return digest_of([ingredients, base, pack.digest, items, fold, self.repeat, *origin])[:16]

    def train(self, train: Sequence[Sample], fold: int, folder: Path, progress: Progress) -> Path:
        """Train one student on `train`, each item with its given label, and return its adapter's folder.

        The student learns the format in which it is later asked: the answer to the classify prompt, without a
        reason or, depending on `spec.reasons`, after the item's reason. Items that are left out because they have no
        reason are listed in student.json. Images are resized as in the local engine. `progress` is
        called after each update.

        A finished folder (one with student.json) is returned unchanged. A training that was killed resumes from its
        newest complete checkpoint (`spec.checkpoint_seconds`) when this is called again with the same arguments. Two
        processes that need the same folder train it once. Raises ConfigError when no item has a reason or a reporter's
        package is missing, and what trl raises.
        """
        if is_trained(folder):
            shutil.rmtree(work_folder(folder), ignore_errors=True)  # its process was killed just after finishing
            return folder
        _check_reporters(self.spec.report_to)
        taught = choose_taught_items(self.spec, train, self.reasons)
        without = sorted({s.id for s in train} - {s.id for s, _ in taught})
        if without:
            log.warning("fold %d: %d of %d items have no reason and are left out", fold, len(without), len(train))
        facts = {
            "repeat": self.repeat,
            "start": self.start.name if self.start else None,
            "without_reason": without,
            **describe_training(self.spec, fold, [s for s, _ in taught]),
        }
        recipe = self.digest(train, fold)
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.with_name(f".{folder.name}.lock")
        with FileLock(lock):
            if not is_trained(folder):
                checkpoint = find_newest_checkpoint(work_folder(folder), recipe)
                watch = Watch(progress, self.spec.seconds_a_fold, self.spec.checkpoint_seconds)
                self._train(taught, fold, folder, checkpoint, watch, facts)
            lock.unlink(missing_ok=True)  # a process that still waits for it finds a finished folder
        return folder

    def _train(
        self,
        taught: Sequence[tuple[Sample, str]],
        fold: int,
        folder: Path,
        checkpoint: Path | None,
        watch: Watch,
        facts: dict[str, object],
    ) -> None:
        """Train, resuming from `checkpoint` if there is one, and move the result to `folder` in one step."""
        name = f"fold {fold}, repeat {self.repeat}"
        seed = (self.spec.seed * 1000 + self.repeat * 1_000_000 + fold) % 2**32
        set_seed(seed)
        transformers_logging.disable_progress_bar()
        work = work_folder(folder)
        trainer = self._make_trainer(taught, seed, work / "trainer", name, watch)
        if checkpoint is not None:
            log.info("%s: training resumes from %s", name, checkpoint.name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # trl and torch advise on padding and pinned memory
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
        keep_student(done, folder, facts)
        shutil.rmtree(work)

    def _make_trainer(
        self, taught: Sequence[tuple[Sample, str]], seed: int, output: Path, name: str, watch: Watch
    ) -> SFTTrainer:
        spec = self.spec
        revision = self.revision or spec.revision
        processor = AutoProcessor.from_pretrained(
            spec.base, revision=revision, trust_remote_code=spec.trust_remote_code
        )
        processor.image_processor.do_resize = False  # open_images has done it
        model = AutoModelForImageTextToText.from_pretrained(
            spec.base,
            revision=revision,
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
            dataloader_num_workers=0,
            log_level="error",
        )
        adapter = LoraConfig(
            r=spec.lora_rank, lora_alpha=spec.lora_alpha, target_modules=_TARGETS, task_type="CAUSAL_LM"
        )
        trainer = SFTTrainer(
            model=PeftModel.from_pretrained(model, self.start, is_trainable=True) if self.start else model,
            args=arguments,
            train_dataset=make_dataset(self.prompter, taught, processor.image_processor.patch_size),
            processing_class=processor,
            peft_config=None if self.start else adapter,
            callbacks=[watch],
        )
        trainer.remove_callback(PrinterCallback)  # `watch` reports progress instead
        return trainer


def _check_reporters(names: Sequence[str]) -> None:
    """Raise ConfigError unless transformers supports each reporter and its package is installed."""
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise ConfigError(f"student.report_to: `{name}` is not one of {known}")
        try:
            INTEGRATION_TO_CALLBACK[name]()
        except (ImportError, RuntimeError) as error:
            raise ConfigError(f"student.report_to: install the package of `{name}` or remove it: {error}") from error
