"""Reads an export through LLaMA-Factory, as its ready configuration for LoRA says. Runs in the peer's environment."""

import sys
from importlib.metadata import version
from pathlib import Path

import yaml
from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
from llamafactory.hparams import get_train_args
from llamafactory.model import load_tokenizer
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

from tests.benchmarks.readers.read import Read, counted, one_pad, pixels, unfold, write_read

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
    reader = processor.image_processor
    bounds = {"image_max_pixels": processor.image_max_pixels, "image_min_pixels": processor.image_min_pixels}
    rows = []
    for row in [*found["train_dataset"], *found.get("eval_dataset", [])]:
        images = template.mm_plugin._regularize_images(row["images"] or [], **bounds)["images"]
        ids = counted(row["input_ids"], row["labels"])
        rows.append(
            Read(
                one_pad(tokenizer.decode(row["input_ids"])),
                tokenizer.decode(ids),
                tuple(pixels(_as_seen(image, reader)) for image in images),
                _frames(template.mm_plugin, row["videos"] or [], processor),
            )
        )
    write_read(out, version("llamafactory"), rows)


def _frames(plugin, videos, processor):
    """The frames of each recording as the model would get them."""
    if not videos:
        return ()
    inputs = plugin._get_mm_inputs([], videos, [], processor)
    return unfold(inputs["pixel_values_videos"], inputs["video_grid_thw"], processor.video_processor)


def _as_seen(image, reader):
    """The image at the size that the image processor gives it after LLaMA-Factory."""
    size = {"min_pixels": reader.size["shortest_edge"], "max_pixels": reader.size["longest_edge"]}
    height, width = smart_resize(image.height, image.width, factor=reader.patch_size * reader.merge_size, **size)
    return image.resize((width, height))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
