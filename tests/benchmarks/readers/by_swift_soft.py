"""Reads soft labels through ms-swift 4, as their ready configuration says, and trains. Runs in the peer's environment.

Raises AssertionError if the weight of an answer's tokens is not its label's probability.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import yaml
from swift.cli.main import parse_yaml_args
from swift.pipelines import SwiftSft

from tests.benchmarks.readers.by_swift import CPU
from tests.benchmarks.readers.read import Read, counted, one_pad, pixels, write_read

QUICK = {
    "max_steps": 8,
    "logging_steps": 1,
    "learning_rate": 5e-3,
    "lr_scheduler_type": "constant",
    "warmup_steps": 0,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 1,
    "save_strategy": "no",
    "gradient_checkpointing": False,
}


def open_pipeline(kind, export: Path, scratch: Path, more=None):
    """A training pipeline of ms-swift with the export's configuration, on this CPU."""
    config = yaml.safe_load((export / "train_lora.yaml").read_text("utf-8"))
    own = scratch / "train.yaml"
    own.write_text(yaml.safe_dump(config | CPU | (more or {}) | {"output_dir": str(scratch / "output")}), "utf-8")
    arguments = [str(own)]
    parse_yaml_args(arguments)
    return kind(arguments)


def train(kind, export: Path, scratch: Path) -> None:
    """Train a few steps, and write the losses."""
    open_pipeline(kind, export, scratch, QUICK).main()
    (log,) = (scratch / "output").rglob("logging.jsonl")
    entries = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    losses = [entry["loss"] for entry in entries if "loss" in entry]
    (scratch / "losses.json").write_text(json.dumps(losses), "utf-8")


def main(export: Path, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    pipeline = open_pipeline(SwiftSft, export, scratch)
    training, validation = pipeline._prepare_dataset()
    template = pipeline.template
    rows = []
    for row in [*training.dataset, *(validation.dataset if validation else [])]:
        encoded = template.encode(row, return_template_inputs=True)
        ids = encoded["input_ids"]
        images = tuple(map(pixels, encoded["template_inputs"].images))
        mine = template.tokenizer.decode(counted(ids, encoded["labels"]))
        rows.append(Read(one_pad(template.tokenizer.decode(ids)), mine, images))
        weights = {
            round(w, 4) for w, label in zip(encoded["loss_scale"], encoded["labels"], strict=True) if label != -100
        }
        said = row["messages"][-1].get("loss_scale", 1.0)
        assert weights <= {round(said, 4), 1.0} and round(said, 4) in weights, (weights, said)
    write_read(out, version("ms-swift"), rows)
    train(SwiftSft, export, scratch)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
