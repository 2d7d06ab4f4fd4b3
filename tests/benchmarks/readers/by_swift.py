"""Reads an export through ms-swift 4, as its ready configuration for LoRA says. Runs in the peer's environment."""

import sys
from importlib.metadata import version
from pathlib import Path

import yaml
from swift.cli.main import parse_yaml_args
from swift.pipelines import SwiftSft

from tests.benchmarks.readers.read import Read, counted, one_pad, pixels, unfold, write_read

# what a machine without a GPU needs otherwise than the configuration says; and rows in the order they are written
CPU = {
    "torch_dtype": "float32",
    "use_cpu": True,
    "dataset_num_proc": 1,
    "dataloader_num_workers": 0,
    "dataset_shuffle": False,
}


def main(export: Path, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    config = yaml.safe_load((export / "train_lora.yaml").read_text("utf-8"))
    own = scratch / "train.yaml"
    own.write_text(yaml.safe_dump(config | CPU | {"output_dir": str(scratch / "output")}), "utf-8")
    arguments = [str(own)]
    parse_yaml_args(arguments)
    pipeline = SwiftSft(arguments)
    for kind in ("image", "video"):
        # it knows their numbers in Qwen's own vocabulary by heart, and would not expand those of a small tokenizer
        number = pipeline.template.tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>")
        setattr(pipeline.template, f"{kind}_token_id", number)
    train, validation = pipeline._prepare_dataset()
    rows = []
    for row in [*train.dataset, *(validation.dataset if validation else [])]:
        encoded = pipeline.template.encode(row, return_template_inputs=True)
        ids = encoded["input_ids"]
        rows.append(
            Read(
                one_pad(pipeline.template.tokenizer.decode(ids)),
                pipeline.template.tokenizer.decode(counted(ids, encoded["labels"])),
                tuple(map(pixels, encoded["template_inputs"].images)),
                _frames(encoded, pipeline.template.processor.video_processor),
            )
        )
    write_read(out, version("ms-swift"), rows)


def _frames(encoded, processor):
    """The frames of each recording as the model would get them."""
    if "video_grid_thw" not in encoded:
        return ()
    return unfold(encoded["pixel_values_videos"], encoded["video_grid_thw"], processor)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
