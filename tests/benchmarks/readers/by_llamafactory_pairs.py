"""Reads pairs through LLaMA-Factory, as their ready configuration says, and trains. Runs in the peer's environment."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from llamafactory.train.tuner import run_exp

from tests.benchmarks.readers.by_llamafactory import CPU, _as_seen
from tests.benchmarks.readers.read import Read, counted, one_pad, pixels, write_read

QUICK = {
    "max_steps": 8,
    "logging_steps": 1,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "eval_strategy": "no",
}


def main(export: Path, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    config = yaml.safe_load((export / "train_lora.yaml").read_text("utf-8"))
    config |= CPU | {"output_dir": str(scratch / "output"), "cache_dir": str(scratch / "cache")}
    model_args, data_args, training_args, *_ = get_train_args(dict(config))
    module = load_tokenizer(model_args)
    tokenizer, processor = module["tokenizer"], module["processor"]
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    found = get_dataset(template, model_args, data_args, training_args, stage="rm", **module)
    reader = processor.image_processor
    bounds = {"image_max_pixels": processor.image_max_pixels, "image_min_pixels": processor.image_min_pixels}
    rows = []
    for row in [*found["train_dataset"], *found.get("eval_dataset", [])]:
        images = template.mm_plugin._regularize_images(row["images"] or [], **bounds)["images"]
        shown = tuple(pixels(_as_seen(image, reader)) for image in images)
        for side in ("chosen", "rejected"):
            ids = row[f"{side}_input_ids"]
            mine = tokenizer.decode(counted(ids, row[f"{side}_labels"]))
            rows.append(Read(one_pad(tokenizer.decode(ids)), mine, shown))
    write_read(out, version("llamafactory"), rows)
    run_exp(config | QUICK)
    entries = map(json.loads, (scratch / "output" / "trainer_log.jsonl").read_text("utf-8").splitlines())
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    (scratch / "losses.json").write_text(json.dumps(losses), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
