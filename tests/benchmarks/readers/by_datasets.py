"""Reads an export through datasets and transformers' own chat template."""

import sys
from importlib.metadata import version
from pathlib import Path

from datasets import load_dataset
from transformers import AutoProcessor

from tests.benchmarks.readers.read import Read, one_pad, pixels, write_read


def main(export: Path, base: str, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    processor = AutoProcessor.from_pretrained(base)
    rows = []
    for name in ("demo", "demo_validation"):
        file = str(export / f"{name}.parquet")
        for row in load_dataset("parquet", data_files=file, cache_dir=str(scratch / "cache"), split="train"):
            images = iter(row["images"])
            turns = [
                {"role": turn["role"], "content": [_shown(element, images) for element in turn["content"]]}
                for turn in row["prompt"] + row["completion"]
            ]
            batch = processor.apply_chat_template(turns, tokenize=True, return_dict=True)
            rows.append(Read(one_pad(processor.decode(batch["input_ids"][0])), None, tuple(map(pixels, row["images"]))))
    write_read(out, f"{version('datasets')}, {version('transformers')}", rows)


def _shown(element, images):
    return {"type": "image", "image": next(images)} if element["type"] == "image" else element


if __name__ == "__main__":
    export, base, scratch, out = sys.argv[1:]
    main(Path(export), base, Path(scratch), Path(out))
