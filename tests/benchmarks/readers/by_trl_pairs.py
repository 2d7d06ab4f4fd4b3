"""Reads pairs through datasets and trl's DPOTrainer, and trains a tiny student on them."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoProcessor
from trl import DPOConfig, DPOTrainer

from tests.benchmarks.readers.read import Read, one_pad, pixels, write_read

STEPS = 8


def main(export: Path, base: str, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    processor = AutoProcessor.from_pretrained(base)
    files = {"train": str(export / "demo.parquet"), "validation": str(export / "demo_validation.parquet")}
    sets = load_dataset("parquet", data_files=files, cache_dir=str(scratch / "cache"))
    arguments = DPOConfig(
        str(scratch / "output"), max_length=None, use_cpu=True, bf16=False, report_to="none", max_steps=STEPS,
        per_device_train_batch_size=4, learning_rate=5e-3, logging_steps=1, save_strategy="no", disable_tqdm=True,
        lr_scheduler_type="constant", dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        base, args=arguments, train_dataset=sets["train"], eval_dataset=sets["validation"],
        processing_class=processor, peft_config=LoraConfig(target_modules=["q_proj", "v_proj"]),
    )  # fmt: skip
    rows = []
    for row in [*sets["train"], *sets["validation"]]:
        images = tuple(map(pixels, row["images"]))
        batch = trainer.data_collator([dict(row)])
        for ids, mask, answered in zip(
            batch["input_ids"], batch["attention_mask"], batch["completion_mask"], strict=True
        ):
            text = processor.decode(ids[mask.bool()])
            rows.append(Read(one_pad(text), processor.decode(ids[answered.bool()]), images))
    write_read(out, version("trl"), rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    (scratch / "losses.json").write_text(json.dumps(losses), "utf-8")


if __name__ == "__main__":
    export, base, scratch, out = sys.argv[1:]
    main(Path(export), base, Path(scratch), Path(out))
