# pyright: reportMissingTypeStubs=false
"""The text on images, by RapidOCR, read once per image digest. Run as a program, this file is one of its readers.

A phone screenshot takes 2 to 4 s of one core, so readers are processes of one thread each: several threads on one
image gain little, and an image that brings a reader down is then the only one lost. They read their questions from a
pipe, and so end by themselves when whoever started them is killed.
"""

import hashlib
import io
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import orjson
from PIL import Image, ImageOps

from tasks.errors import EngineError
from tasks.records import ImageRef

MOST_PROCESSES = 8
"""Each holds 0.4 GB."""
_MODELS = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
}
"""The files in rapidocr's wheel. Named, because it would try to download one that it can't find."""


class Fault(StrEnum):
    """Why an image has no text where it may well show some."""

    UNREADABLE = "unreadable"
    """The file can't be read or decoded, or has changed."""
    CRASHED = "crashed"
    """The process that read it died."""


@dataclass(frozen=True)
class Unread:
    """An image whose text could not be read: tried again the next time."""

    path: str
    fault: Fault
    detail: str


class OcrReader:
    """Text on images, remembered in `folder`/ocr.sqlite by the images' digests; several runs may share the folder."""

    def __init__(self, folder: Path, processes: int | None = None) -> None:
        """`processes`: readers at work at once; by default one a core, at most MOST_PROCESSES."""
        self.file = folder / "ocr.sqlite"
        self.processes = processes or min(MOST_PROCESSES, os.cpu_count() or 1)
        self.unread: dict[str, Unread] = {}
        """What could not be read since this reader was made, by digest."""
        # another version may read other text
        self._recipe = f"rapidocr-{version('rapidocr')}/{_MODELS['Rec']}"

    def read(self, images: Sequence[ImageRef], progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """The text on each image by its digest: a line a row of text, in reading order, spaces between its pieces.

        An image that can't be read has "", and its reason in `unread`. `progress` gets the number of images done and
        the number in all, in the caller's thread. What was read is kept even if the call is broken off. Raises
        EngineError when RapidOCR does not start or the file of texts can't be used.
        """
        wanted = {image.sha256: image for image in images}
        try:
            with closing(self._store()) as store:
                texts = self._known(store, list(wanted))
                missing = [image for digest, image in wanted.items() if digest not in texts]
                self.unread = {digest: why for digest, why in self.unread.items() if digest not in wanted}
                if progress:
                    progress(len(texts), len(wanted))
                for image, found in _read_all(missing, self.processes):
                    if isinstance(found, str):
                        store.execute(
                            "INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (image.sha256, self._recipe, found)
                        )
                    else:
                        self.unread[image.sha256] = found
                    texts[image.sha256] = found if isinstance(found, str) else ""
                    if progress:
                        progress(len(texts), len(wanted))
        except sqlite3.Error as error:
            raise EngineError(f"the texts in {self.file} can't be used: {error}; move the file away") from error
        return texts

    def _store(self) -> sqlite3.Connection:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        store = sqlite3.connect(self.file, timeout=60, isolation_level=None)
        store.execute("PRAGMA journal_mode=WAL")
        store.execute("PRAGMA synchronous=NORMAL")
        store.execute(
            "CREATE TABLE IF NOT EXISTS texts (digest TEXT, recipe TEXT, text TEXT, PRIMARY KEY (digest, recipe))"
        )
        return store

    def _known(self, store: sqlite3.Connection, digests: list[str]) -> dict[str, str]:
        known: dict[str, str] = {}
        for start in range(0, len(digests), 500):  # an old SQLite takes 999 parameters
            some = digests[start : start + 500]
            query = f"SELECT digest, text FROM texts WHERE recipe = ? AND digest IN ({','.join('?' * len(some))})"
            known.update(store.execute(query, (self._recipe, *some)).fetchall())
        return known


def _read_all(images: Sequence[ImageRef], processes: int) -> Iterator[tuple[ImageRef, str | Unread]]:
    """Each image with its text or why it has none, as they get done."""
    if not images:
        return
    readers = [_Reader() for _ in range(min(processes, len(images)))]
    idle: SimpleQueue[_Reader] = SimpleQueue()
    for reader in readers:
        idle.put(reader)

    def read(image: ImageRef) -> tuple[ImageRef, str | Unread]:
        reader = idle.get()
        try:
            return image, reader.read(image)
        finally:
            idle.put(reader)

    pool = ThreadPoolExecutor(len(readers))
    try:
        for future in as_completed([pool.submit(read, image) for image in images]):
            yield future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for reader in readers:
            reader.close()
        pool.shutdown()


class _Reader:
    """This file as a child process, started at its first image, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def read(self, image: ImageRef) -> str | Unread:
        process = self._process or self._started()
        answer = self._asked(process, orjson.dumps([image.path, image.sha256]))
        if answer is None:
            _end(process)
            self._process = None
            return Unread(image.path, Fault.CRASHED, f"the process that read it ended with {process.returncode}")
        return Unread(image.path, Fault.UNREADABLE, answer["fault"]) if answer["fault"] else answer["text"]

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            _end(self._process)

    def _started(self) -> subprocess.Popen[bytes]:
        with tempfile.TemporaryFile() as errors:
            # -P: a folder `tasks` where the user happens to stand is not ours
            path = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.ocr"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
            if self._asked(process, b"[]") is None and not self._closed:
                errors.seek(0)
                why = (errors.read().decode(errors="replace").strip() or "no message").splitlines()[-1]
                raise EngineError(f"RapidOCR, which reads the text on images, does not start: {why}")
        return process

    def _asked(self, process: subprocess.Popen[bytes], question: bytes) -> dict[str, str] | None:
        """The child's answer; None when it has died."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(question + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):  # the pipe is broken, or closed by `_end`
            return None
        return orjson.loads(line) if line.endswith(b"\n") else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with suppress(BrokenPipeError), process:  # closes the pipes and waits
        pass


def main() -> None:
    """Answer each line of standard input, ``[path, digest]``, with a line ``{"text": …, "fault": …}``."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not stand between the answers
    recognise = _recogniser()
    for line in sys.stdin.buffer:
        question = orjson.loads(line)
        answer = {"text": "", "fault": ""}
        try:
            if question:
                answer["text"] = _text(recognise, *question)
        except Exception as error:  # one image's fault must not end the reader
            answer["fault"] = f"{type(error).__name__}: {error}"[:500]
        answers.write(orjson.dumps(answer) + b"\n")
        answers.flush()


def _recogniser() -> Any:
    import cv2
    import rapidocr

    cv2.setNumThreads(1)
    models = Path(rapidocr.__file__).parent / "models"
    if lacking := [name for name in _MODELS.values() if not (models / name).is_file()]:
        raise FileNotFoundError(
            f"{models} lacks {', '.join(lacking)}: install the version of rapidocr in requirements/"
        )
    threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    paths = {f"{stage}.model_path": str(models / name) for stage, name in _MODELS.items()}
    return rapidocr.RapidOCR(params={"Global.log_level": "error", **threads, **paths})


def _text(recognise: Any, path: str, sha256: str) -> str:
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise OSError("changed since it was read")
    with Image.open(io.BytesIO(data)) as file:
        upright = ImageOps.exif_transpose(file).convert("RGBA" if file.has_transparency_data else "RGB")
    found = recognise(upright)
    if not getattr(found, "txts", None):
        return ""
    # its Markdown puts pieces of one height into one line, with spaces for the gaps
    lines = (" ".join(line.split()) for line in found.to_markdown().splitlines())
    return "\n".join(filter(None, lines))


if __name__ == "__main__":
    main()
