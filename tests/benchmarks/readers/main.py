"""200 demo items written by every export, for a base of every generation, and read back through its reader."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoProcessor

from tasks.dataset.export.exports import write_exports
from tasks.dataset.settings import ExportSpec, Format, ImagePaths
from tasks.records import Subset
from tests.benchmarks.clients.peers import QUIET, python_of
from tests.benchmarks.readers.items import MIN_PIXELS, SHAPES, SIZE, Case, draw_cases, expected
from tests.benchmarks.readers.read import Read, load_read, look_alike
from tests.checkpoints import GENERATIONS, make_small_tokenizer, write_random_checkpoint
from tests.stub_server import ROOT

COUNT = 200
NAME = "demo"
_END = "<|im_end|>"


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


READERS = (
    Reader("LLaMA-Factory", Format.LLAMAFACTORY, "by_llamafactory", peer="llamafactory", every_generation=True),
    Reader("ms-swift", Format.SWIFT, "by_swift", peer="swift", every_generation=True),
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
        bounds = {"min_pixels": MIN_PIXELS, "max_pixels": SIZE[0] * SIZE[1], "max_tokens": 8192}
        spec = ExportSpec(formats=tuple(Format), base=str(self.base), image_paths=image_paths, **bounds)
        self.written = write_exports(self.exports, NAME, (case.example for case in cases), spec)
        processor = AutoProcessor.from_pretrained(self.base)
        self.expected = [expected(case, processor) for case in self.cases]


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
    return _compared(version, rows, drawn, last_answer_only=reader.last_answer_only)


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


def _compared(version: str, rows: Sequence[Read], drawn: Set, *, last_answer_only: bool) -> Result:
    """Row by row against what our own prompt says; a lost row makes all after it differ."""
    pairs = list(zip(rows, drawn.expected, drawn.cases, strict=False))
    images = sum(
        look_alike(read.images, wanted.images) and _places(read) == _places(wanted) for read, wanted, _ in pairs
    )
    texts = sum(read.text == wanted.text for read, wanted, _ in pairs)
    judged = [pair for pair in pairs if pair[0].trained is not None]
    trained = sum(
        (read.trained or "").replace(f"{_END}\n", "").replace(_END, "") == _answers(case, last_answer_only)
        for read, _, case in judged
    )
    return Result(version, len(rows), images, texts, trained if judged else None)


def _places(read: Read) -> list[str]:
    """The text before each image."""
    return read.text.split("<|image_pad|>")[:-1]


def _answers(case: Case, last_only: bool) -> str:
    said = [turn["content"][0]["text"] for turn in case.turns if turn["role"] == "assistant"]
    return said[-1] if last_only else "".join(said)


def main() -> int:
    """Print the table; 0 if every reader read every row as it is meant."""
    good = True
    with tempfile.TemporaryDirectory() as scratch:
        columns = ("base", "reader", "version", "rows", "images in place", "text equal", "answers trained")
        print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
        for generation, shapes in SHAPES_OF.items():
            home = Path(scratch) / generation
            drawn = Set(home, COUNT, shapes=shapes, generation=generation)
            for reader in READERS if generation == "qwen2_vl" else [r for r in READERS if r.every_generation]:
                result = read_back(drawn, reader, home / reader.format)
                trained = "–" if result.trained is None else result.trained
                counts = f"{result.rows} of {COUNT} | {result.images} | {result.texts} | {trained}"
                print(f"| {generation} | {reader.title} | {result.version} | {counts} |", flush=True)
                right = {result.rows, result.images, result.texts, COUNT if result.trained is None else result.trained}
                good = good and right == {COUNT}
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
