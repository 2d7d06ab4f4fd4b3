"""Reads an export through LLaMA-Factory, as its ready configuration for LoRA says. Runs in the peer's environment."""

import sys
from importlib.metadata import version
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer

from tests.benchmarks.readers.read import Read, counted, one_pad, pixels, write_read

# what a machine without a GPU needs otherwise than the configuration says
CPU = {"bf16": False, "use_cpu": True, "preprocessing_num_workers": 1, "dataloader_num_workers": 0}


def main(export: Path, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    config = yaml.safe_load((export / "train_lora.yaml").read_text("utf-8"))
    config |= CPU | {"output_dir": str(scratch / "output"), "cache_dir": str(scratch / "cache")}
    model_args, data_args, training_args, *_ = get_train_args(config)
    module = load_tokenizer(model_args)
    tokenizer, processor = module["tokenizer"], module["processor"]
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    found = get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    bounds = {"image_max_pixels": processor.image_max_pixels, "image_min_pixels": processor.image_min_pixels}
    rows = []
    for row in [*found["train_dataset"], *found.get("eval_dataset", [])]:
        images = template.mm_plugin._regularize_images(row["images"] or [], **bounds)["images"]
        ids = counted(row["input_ids"], row["labels"])
        rows.append(
            Read(one_pad(tokenizer.decode(row["input_ids"])), tokenizer.decode(ids), tuple(map(pixels, images)))
        )
    write_read(out, version("llamafactory"), rows)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
