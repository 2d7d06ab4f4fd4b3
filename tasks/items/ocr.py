# pyright: reportMissingTypeStubs=false
"""The text on images, by RapidOCR, read once per image digest.

A phone screenshot takes 2 to 4 s of one core, so readers are processes of one thread each: several threads on one
image gain little, and an image that brings a reader down is then the only one lost. They read their questions from a
pipe, and so end by themselves when whoever started them is killed.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue

import orjson

from tasks.errors import EngineError
from tasks.items.ocr_child import MODELS
from tasks.records import ImageRef
from tasks.storage.digest_cache import DigestCache

MOST_PROCESSES = 8
"""Each holds 0.4 GB."""


@dataclass(frozen=True)
class Unread:
    """An image whose text could not be read: tried again the next time."""

    path: str
    detail: str


Found = tuple[ImageRef, str | Unread]
"""An image with its text, or why it has none."""
Reading = Callable[[Sequence[ImageRef], int], Iterator[Found]]
"""Images and the number of processes → each image's text, in any order."""


def reader_identity() -> str:
    """What reads the text: another version or model may read other text."""
    return f"rapidocr-{version('rapidocr')}/{MODELS['Rec']}"


class OcrReader:
    """Text on images, remembered in `folder`/ocr.sqlite by the images' digests; several runs may share the folder."""

    def __init__(self, folder: Path, processes: int | None = None, reading: Reading | None = None) -> None:
        """`processes`: readers at work at once; by default one a core, at most MOST_PROCESSES. `reading`: how images
        are read, by default `read_images`. Raises StorageError when the folder can't be written."""
        self._reading = reading or read_images
        self._texts = DigestCache(folder / "ocr.sqlite", reader_identity())
        self.processes = processes or min(MOST_PROCESSES, os.cpu_count() or 1)
        self.unread: dict[str, Unread] = {}
        """What could not be read since this reader was made, by digest."""

    def read(self, images: Sequence[ImageRef], progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """The text on each image by its digest: a line a row of text, in reading order, spaces between its pieces.

        An image that can't be read has "", and its reason in `unread`. `progress` gets the number of images done and
        the number in all, in the caller's thread. What was read is kept even if the call is broken off. Raises
        EngineError when RapidOCR does not start.
        """
        wanted = {image.sha256: image for image in images}
        texts: dict[str, str] = self._texts.get(wanted)
        missing = [image for digest, image in wanted.items() if digest not in texts]
        self.unread = {digest: why for digest, why in self.unread.items() if digest not in wanted}
        if progress:
            progress(len(texts), len(wanted))
        for image, found in self._reading(missing, self.processes):
            if isinstance(found, str):
                self._texts.put({image.sha256: found})
            else:
                self.unread[image.sha256] = found
            texts[image.sha256] = found if isinstance(found, str) else ""
            if progress:
                progress(len(texts), len(wanted))
        return texts


def read_images(images: Sequence[ImageRef], processes: int) -> Iterator[Found]:
    """Each image with its text or why it has none, as they get done by so many processes of this machine.

    Raises EngineError when RapidOCR does not start.
    """
    if not images:
        return
    readers = [_Reader() for _ in range(min(processes, len(images)))]
    idle: SimpleQueue[_Reader] = SimpleQueue()
    for reader in readers:
        idle.put(reader)

    def read(image: ImageRef) -> Found:
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
    """tasks/items/ocr_child.py as a child process, started at its first image, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def read(self, image: ImageRef) -> str | Unread:
        process = self._process or self._started()
        answer = self._asked(process, orjson.dumps([image.path, image.sha256]))
        if answer is None:
            _end(process)
            self._process = None
            return Unread(image.path, f"the process that read it ended with {process.returncode}")
        return Unread(image.path, answer["fault"]) if answer["fault"] else answer["text"]

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            _end(self._process)

    def _started(self) -> subprocess.Popen[bytes]:
        with tempfile.TemporaryFile() as errors:
            # -P: a folder `tasks` where the user happens to stand is not ours
            path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.items.ocr_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
            if self._asked(process, b"[]") is None and not self._closed:
                errors.seek(0)
                why = (errors.read().decode(errors="replace").strip() or "no message").splitlines()[-1]
                raise EngineError(
                    f"RapidOCR, which reads the text on images, does not start: {why}; install the environment "
                    "again with `make clean` and `make env-gpu` (or another env-…)"
                )
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
