"""Pairs of reasons and soft labels: written by their exports, read back by their readers, and a tiny student of each.

`python -m tests.benchmarks.readers.lessons` prints the table; exit code 0 if every row was read as it is meant and the
loss of every trainer fell, from the first of eight steps to the mean of the last four. `--count 20` reads fewer rows.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from transformers import AutoProcessor

from tasks.dataset.export.exports import write_exports
from tasks.dataset.settings import ExportSpec, Format
from tasks.models.qwen_vl import read_qwen_vl
from tasks.prompts.box_forms import find_box_form
from tasks.prompts.turns import escape_placeholder
from tasks.records import Origin, Pair, Subset
from tests.benchmarks.readers.items import MAX_PIXELS, MIN_PIXELS, SHAPES, TRAPS, Case, draw_cases, expected
from tests.benchmarks.readers.main import COUNT, NAME, Reader, read_back
from tests.checkpoints import make_small_tokenizer, write_random_checkpoint

SOFT_SHAPES = tuple(shape for shape in SHAPES if shape != "two exchanges")
PAIR_SHAPES = tuple(shape for shape in SOFT_SHAPES if "box" not in shape)
"""The answers of a pair are votes, and point at nothing."""
SHARES = (0.6, 0.3, 0.1)
PAIR_READERS = (
    Reader("trl, DPO", Format.TRL_PAIRS, "by_trl_pairs"),
    Reader("ms-swift, DPO", Format.SWIFT_PAIRS, "by_swift_pairs", peer="swift", frames_as_images=False),
    Reader(
        "LLaMA-Factory, DPO",
        Format.LLAMAFACTORY_PAIRS,
        "by_llamafactory_pairs",
        peer="llamafactory",
        frames_as_images=False,
    ),
)
SOFT_READERS = (
    Reader("ms-swift, soft labels", Format.SWIFT_SOFT, "by_swift_soft", peer="swift", frames_as_images=False),
    Reader("trl, soft labels", Format.TRL, "by_trl_soft"),
)


class LessonSet:
    """The drawn items with their pairs or probabilities, a checkpoint that fits them, and their exports.

    `cases` are the conversations that a reader should find, in its order: of a pair first the right one, and for
    ms-swift one per label of an item with soft labels.
    """

    def __init__(self, folder: Path, count: int, reader: Reader) -> None:
        add, shapes = (_add_pair, PAIR_SHAPES) if reader in PAIR_READERS else (_add_probabilities, SOFT_SHAPES)
        drawn = [add(i, case) for i, case in enumerate(draw_cases(folder, count, shapes))]
        ordered = [c for s in Subset for c in drawn if c.example.subset is s]
        self.cases = [shown for case in ordered for shown in _list_shown(case, reader.format)]
        texts = [
            turn["content"][0]["text"] for case in self.cases for turn in case.turns if "text" in turn["content"][0]
        ]
        self.base = write_random_checkpoint(folder / "base", make_small_tokenizer(texts), "qwen2_vl")
        self.exports = folder / "exports"
        bounds = {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS, "max_tokens": 8192}
        spec = ExportSpec(formats=(reader.format,), base=str(self.base), **bounds)
        self.written = write_exports(self.exports, NAME, (case.example for case in drawn), spec)
        processor = AutoProcessor.from_pretrained(self.base)
        as_images = reader.frames_as_images
        self.expected = {as_images: [expected(case, processor, frames_as_images=as_images) for case in self.cases]}
        self.form = find_box_form(read_qwen_vl(str(self.base)).model_type)


def _add_pair(number: int, case: Case) -> Case:
    """Add another answer to reject, in every third case with texts that a reader may take for something else."""
    rejected = json.dumps({"理由": f"看错了{TRAPS if number % 3 == 0 else ''}", "所属类别": "别的"}, ensure_ascii=False)
    pair = Pair(messages=case.example.messages, rejected=rejected)
    return replace(case, example=case.example.model_copy(update={"pairs": (pair,)}))


def _list_shown(case: Case, format: Format) -> Iterator[Case]:
    """Yield what a reader of the format should find of the case."""
    if format is Format.SWIFT_SOFT:
        yield from _show_labels(case)
        return
    yield case
    if format is not Format.TRL:
        yield _replace_answer(case, escape_placeholder(case.example.pairs[0].rejected))


def _add_probabilities(number: int, case: Case) -> Case:
    """Make every second item without a reason a pseudo-labelled one, about which the teacher is not sure."""
    labels = [case.example.label, "别的", "另外的"]
    if number % 2 or case.turns[-1]["content"][0]["text"].count(":") > 1:
        return case
    changes = {"origin": Origin.PSEUDO, "probabilities": dict(zip(labels, SHARES, strict=True))}
    return replace(case, example=case.example.model_copy(update=changes))


def _show_labels(case: Case) -> Iterator[Case]:
    if not case.example.probabilities:
        yield case
    for label in case.example.probabilities:
        answer = case.turns[-1]["content"][0]["text"].replace(case.example.label, label)
        yield _replace_answer(case, answer)


def _replace_answer(case: Case, text: str) -> Case:
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    return replace(case, turns=[*case.turns[:-1], answer], frames_as_images=[*case.frames_as_images[:-1], answer])


def measure(readers: Sequence[Reader], count: int, folder: Path) -> bool:
    """Print a line per reader; return whether all rows were read as they are meant, and the losses fell."""
    good = True
    for reader in readers:
        home = folder / reader.format
        drawn = LessonSet(home, count, reader)
        result = read_back(drawn, reader, home)  # pyright: ignore[reportArgumentType]
        losses = json.loads((home / reader.client / "losses.json").read_text("utf-8"))
        first, last = losses[0], sum(losses[-4:]) / 4  # of batches of four examples, which differ
        wanted = len(drawn.cases)
        counts = f"{result.rows} of {wanted} | {result.images} | {result.texts} | {result.trained}"
        print(
            f"| {reader.title} | {result.version} | {count} | {counts} | {first:.3f} → {last:.3f} |",
            flush=True,
        )
        good = good and {result.rows, result.images, result.texts, result.trained} == {wanted} and last < first
    return good


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--only", default="", help="the name of one format")
    options = parser.parse_args()
    readers = [r for r in (*PAIR_READERS, *SOFT_READERS) if options.only in ("", r.format)]
    columns = (
        "reader",
        "version",
        "examples",
        "answers read",
        "images in place",
        "text equal",
        "answers trained",
        "loss",
    )
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    with tempfile.TemporaryDirectory() as scratch:
        return 0 if measure(readers, options.count, Path(scratch)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
