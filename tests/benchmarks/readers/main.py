"""200 demo items written by every export, for a base of every generation, and read back through its reader."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoProcessor

from tasks.dataset.export.exports import write_exports
from tasks.dataset.settings import ExportSpec, Format, ImagePaths
from tasks.media import Box, ImageRef
from tasks.models.qwen_vl import read_qwen_vl
from tasks.prompts.box_forms import BoxForm, find_box_form, find_boxes, remove_boxes
from tasks.prompts.boxes import check_box, compute_overlap
from tasks.records import Subset
from tests.benchmarks.clients.peers import QUIET, python_of
from tests.benchmarks.readers.items import MAX_PIXELS, MIN_PIXELS, SHAPES, Case, draw_cases, expected
from tests.benchmarks.readers.read import Read, load_read, look_alike, unpack
from tests.checkpoints import GENERATIONS, make_small_tokenizer, write_random_checkpoint
from tests.stub_server import ROOT

COUNT = 200
NAME = "demo"
_BEGIN, _END = "<|im_start|>assistant\n", "<|im_end|>"
LEAST_OVERLAP = 0.9
"""Shared by covered area of a box and the drawn button, from which on it counts as on it."""


SHAPES_OF = {
    **dict.fromkeys(GENERATIONS, SHAPES),
    # LLaMA-Factory opens the answers of the history with empty thoughts too, and Qwen's template drops what comes
    # before a `</think>` in an answer
    "qwen3_vl_thinking": tuple(s for s in SHAPES if s not in ("two exchanges", "traps in the reason")),
}


@dataclass(frozen=True)
class Reader:
    """Who reads which format, and what its child needs beside the folders."""

    title: str
    format: Format
    client: str
    peer: str | None = None
    last_answer_only: bool = False
    every_generation: bool = False
    """Whether the reader has a template of its own for each generation."""
    frames_as_images: bool = True
    """Whether it gets recordings' frames as images."""
    boxes_in_pixels: bool = False
    """Whether it writes boxes in pixels for Qwen2.5-VL; the other exports have thousandths for every generation."""


READERS = (
    Reader(
        "LLaMA-Factory",
        Format.LLAMAFACTORY,
        "by_llamafactory",
        peer="llamafactory",
        every_generation=True,
        frames_as_images=False,
    ),
    Reader(
        "ms-swift",
        Format.SWIFT,
        "by_swift",
        peer="swift",
        every_generation=True,
        frames_as_images=False,
        boxes_in_pixels=True,
    ),
    Reader("ms-swift, lines for version 2", Format.SWIFT2, "by_swift", peer="swift"),
    Reader("trl", Format.TRL, "by_trl", last_answer_only=True),
    Reader("datasets, transformers", Format.TRL, "by_datasets"),
)


@dataclass(frozen=True)
class Result:
    """What a reader made of the set."""

    version: str
    rows: int
    images: int
    """Rows with the same images in the same places."""
    texts: int
    """Rows with the same final text."""
    trained: int | None
    """Rows of which the answers, and nothing else, are trained on; None where the reader does not decide that."""
    frames: tuple[int, int]
    """Rows with recordings that have the same frames in the same places, and of these those with the same size."""
    boxes: int
    """Rows with a box that lies on the drawn button in the picture that the reader shows."""


class Set:
    """The drawn items, a checkpoint that fits them, and their exports."""

    def __init__(
        self,
        folder: Path,
        count: int = COUNT,
        *,
        shapes: Sequence[str] = SHAPES,
        image_paths: ImagePaths = "absolute",
        generation: str = "qwen2_vl",
    ) -> None:
        cases = list(draw_cases(folder, count, shapes))
        self.cases = [c for s in Subset for c in cases if c.example.subset is s]
        texts = [message.content for case in cases for message in case.example.messages]
        self.base = write_random_checkpoint(folder / "base", make_small_tokenizer(texts), generation)
        self.exports = folder / "exports"
        bounds = {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS, "max_tokens": 8192}
        spec = ExportSpec(formats=tuple(Format), base=str(self.base), image_paths=image_paths, **bounds)
        self.written = write_exports(self.exports, NAME, (case.example for case in cases), spec)
        processor = AutoProcessor.from_pretrained(self.base)
        self.expected = {
            as_images: [expected(case, processor, frames_as_images=as_images) for case in self.cases]
            for as_images in (False, True)
        }
        self.form = find_box_form(read_qwen_vl(str(self.base)).model_type)
        self.recordings = sum(bool(case.example.videos) for case in self.cases)
        self.boxes = sum(bool(case.example.boxes) for case in self.cases)


def read_back(drawn: Set, reader: Reader, folder: Path) -> Result:
    """Have `reader` read its export in a child process; raises RuntimeError with the end of what it said."""
    scratch = folder / reader.client
    scratch.mkdir(parents=True)
    out = scratch / "read.jsonl"
    export = drawn.exports / reader.format
    if reader.format is Format.SWIFT2:
        export = _as_swift4(drawn.exports, scratch)
    python = python_of(reader.peer) if reader.peer else Path(sys.executable)
    base = [] if reader.peer else [str(drawn.base)]
    command = [str(python), "-m", f"tests.benchmarks.readers.{reader.client}", str(export), *base, str(scratch)]
    ended = subprocess.run(
        [*command, str(out)], cwd=ROOT, env=_environment(scratch), capture_output=True, text=True, timeout=900
    )
    if ended.returncode != 0:
        raise RuntimeError(f"{reader.title} failed:\n{ended.stdout[-3000:]}\n{ended.stderr[-5000:]}")
    version, rows = load_read(out)
    return _compared(version, rows, drawn, reader)


def _as_swift4(exports: Path, scratch: Path) -> Path:
    """Version 4's configuration with version 2's lines in the place of its own."""
    text = (exports / Format.SWIFT / "train_lora.yaml").read_text("utf-8")
    folder = scratch / "configuration"
    folder.mkdir()
    (folder / "train_lora.yaml").write_text(text.replace(f"/{Format.SWIFT}/{NAME}", f"/{Format.SWIFT2}/{NAME}"))
    return folder


def _environment(home: Path) -> dict[str, str]:
    folders = {"HOME": str(home), "HF_HOME": str(home / "hf"), "MODELSCOPE_CACHE": str(home / "modelscope")}
    return {**os.environ, **QUIET, **folders, "DISABLE_VERSION_CHECK": "1", "USE_HF": "1"}


def _compared(version: str, rows: Sequence[Read], drawn: Set, reader: Reader) -> Result:
    """Row by row against what our own prompt says; a lost row makes all after it differ."""
    pairs = list(zip(rows, drawn.expected[reader.frames_as_images], drawn.cases, strict=False))
    images = sum(
        look_alike(read.images, wanted.images) and _places(read) == _places(wanted) for read, wanted, _ in pairs
    )
    texts = sum(_same_text(read.text, wanted.text, case) for read, wanted, case in pairs)
    judged = [pair for pair in pairs if pair[0].trained is not None]
    trained = sum(
        _same_text(_unended(read.trained or ""), _answers(case, reader.last_answer_only), case)
        for read, _, case in judged
    )
    return Result(
        version,
        len(rows),
        images,
        texts,
        trained if judged else None,
        _count_recordings(pairs, reader),
        sum(_is_on_button(read, drawn.form, reader) for read, _, case in pairs if case.example.boxes),
    )


def _count_recordings(pairs: Sequence[tuple[Read, Read, Case]], reader: Reader) -> tuple[int, int]:
    """Rows whose frames are right, at any size and at that of our own models."""
    having = [
        (read, wanted) for read, wanted, case in pairs if case.example.videos and _places(read) == _places(wanted)
    ]
    if reader.frames_as_images:  # they are among the images
        return (sum(look_alike(read.images, wanted.images) for read, wanted in having),) * 2
    right = [
        (
            _all_alike(read.videos, wanted.videos, at_any_size=True),
            _all_alike(read.videos, wanted.videos, at_any_size=False),
        )
        for read, wanted in having
    ]
    return sum(any_size for any_size, _ in right), sum(same for _, same in right)


def _all_alike(read: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]], *, at_any_size: bool) -> bool:
    return len(read) == len(wanted) and all(
        look_alike(a, b, at_any_size=at_any_size) for a, b in zip(read, wanted, strict=True)
    )


def _is_on_button(read: Read, form: BoxForm, reader: Reader) -> bool:
    """Whether the row's box overlaps by .9 with what is red in the last picture, of the size that the reader shows."""
    picture = unpack(read.images[-1])
    red = picture.split()[1].point(lambda green: 255 * (green < 128)).getbbox()
    answer = json.loads(_split_answer(read.text)[1])
    in_pixels = form.in_pixels and reader.boxes_in_pixels
    grids = [unpack(image).size for image in read.images] if in_pixels else None
    _, boxes = find_boxes(answer["理由"], form, grids)
    shown = [ImageRef(path="/", sha256="", width=i.width, height=i.height) for i in map(unpack, read.images)]
    drawn = Box(image=len(shown) - 1, corners=red)
    return [compute_overlap(check_box(box, shown), drawn) >= LEAST_OVERLAP for box in boxes] == [True]


def _same_text(read: str, wanted: str, case: Case) -> bool:
    """Whether two texts are equal, but for the boxes in the last answer, which each reader writes in its own way."""
    if not case.example.boxes:
        return read == wanted
    (before, answer), (head, wanted_answer) = _split_answer(read), _split_answer(wanted)
    fields, wanted_fields = json.loads(answer), json.loads(wanted_answer)
    reasons = [remove_boxes(one.pop("理由")).replace("<bbox>", "") for one in (fields, wanted_fields)]
    return (before, fields, reasons[0]) == (head, wanted_fields, reasons[1])


def _split_answer(text: str) -> tuple[str, str]:
    """The text before the last answer's JSON, with the empty thoughts of a thinking model, and the JSON."""
    before, begin, answer = text.rpartition(_BEGIN)
    start = answer.index("{") if begin else text.index("{")
    return before + begin + answer[:start], _unended(answer[start:])


def _places(read: Read) -> list[str]:
    """The text before each image and each pair of frames."""
    return re.split(r"<\|(?:image|video)_pad\|>", read.text)[:-1]


def _unended(text: str) -> str:
    return text.replace(f"{_END}\n", "").replace(_END, "")


def _answers(case: Case, last_only: bool) -> str:
    said = [turn["content"][0]["text"] for turn in case.turns if turn["role"] == "assistant"]
    return said[-1] if last_only else "".join(said)


def main() -> int:
    """Print the table; 0 if every reader read every row as it is meant."""
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        columns = (
            "base", "reader", "version", "rows", "images in place", "text equal", "answers trained",
            "frames in place", "of these at our size", "boxes on the button",
        )  # fmt: skip
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for generation, shapes in SHAPES_OF.items():
            home = Path(scratch) / generation
            drawn = Set(home, COUNT, shapes=shapes, generation=generation)
            for reader in READERS if generation == "qwen2_vl" else [r for r in READERS if r.every_generation]:
                result = read_back(drawn, reader, home / reader.format)
                trained = "–" if result.trained is None else result.trained
                frames, at_our_size = result.frames
                counts = f"{result.rows} of {COUNT} | {result.images} | {result.texts} | {trained}"
                counts += f" | {frames} of {drawn.recordings} | {at_our_size} | {result.boxes} of {drawn.boxes}"
                print(f"| {generation} | {reader.title} | {result.version} | {counts} |", flush=True)
                right = {result.rows, result.images, result.texts, COUNT if result.trained is None else result.trained}
                media = (frames, result.boxes) == (drawn.recordings, drawn.boxes)
                good = good and right == {COUNT} and media
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
