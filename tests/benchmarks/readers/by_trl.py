"""Reads an export through datasets and trl's SFTTrainer, as a script for Qwen2-VL would."""

import sys
from importlib.metadata import version
from pathlib import Path

from datasets import load_dataset
from transformers import AutoProcessor
from trl import SFTConfig, SFTTrainer

from tests.benchmarks.readers.read import Read, counted, one_pad, pixels, write_read


def main(export: Path, base: str, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    processor = AutoProcessor.from_pretrained(base)
    files = {"train": str(export / "demo.parquet"), "validation": str(export / "demo_validation.parquet")}
    sets = load_dataset("parquet", data_files=files, cache_dir=str(scratch / "cache"))
    arguments = SFTConfig(
        str(scratch / "output"), max_length=None, use_cpu=True, bf16=False, report_to="none", eval_strategy="epoch"
    )
    trainer = SFTTrainer(
        base, arguments, train_dataset=sets["train"], eval_dataset=sets["validation"], processing_class=processor
    )
    rows = []
    for row in [*trainer.train_dataset, *trainer.eval_dataset]:
        images = tuple(map(pixels, row["images"]))
        batch = trainer.data_collator([row])
        ids = batch["input_ids"][0]
        mine = counted(ids.tolist(), batch["labels"][0].tolist())
        rows.append(Read(one_pad(processor.decode(ids)), processor.decode(mine), images))
    write_read(out, version("trl"), rows)


if __name__ == "__main__":
    export, base, scratch, out = sys.argv[1:]
    main(Path(export), base, Path(scratch), Path(out))
