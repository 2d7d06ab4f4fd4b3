"""Reads pairs through ms-swift 4, as their ready configuration says, and trains. Runs in the peer's environment."""

import sys
from importlib.metadata import version
from pathlib import Path

from swift.pipelines.train import SwiftRLHF

from tests.benchmarks.readers.by_swift_soft import open_pipeline, train
from tests.benchmarks.readers.read import Read, counted, one_pad, pixels, write_read


def main(export: Path, scratch: Path, out: Path) -> None:
    """Read the set in `export`, training rows before validation rows, and write what was read to `out`."""
    pipeline = open_pipeline(SwiftRLHF, export, scratch)
    training, validation = pipeline._prepare_dataset()
    template = pipeline.template
    rows = []
    for row in [*training.dataset, *(validation.dataset if validation else [])]:
        encoded = template.encode(row, return_template_inputs=True)
        images = tuple(map(pixels, encoded["template_inputs"].images))
        for side in ("chosen", "rejected"):
            ids = encoded[f"{side}_input_ids"]
            mine = template.tokenizer.decode(counted(ids, encoded[f"{side}_labels"]))
            rows.append(Read(one_pad(template.tokenizer.decode(ids)), mine, images))
    write_read(out, version("ms-swift"), rows)
    train(SwiftRLHF, export, scratch)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
