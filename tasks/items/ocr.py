"""Read the text on images with RapidOCR, once per image digest.

A phone screenshot takes 1 to 3 s of one core. Each reader is a process with one thread, because several threads per
image gain little, and because a crash then loses only the image that caused it. Readers receive requests through a
pipe, so they end by themselves when the process that started them is killed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import orjson
import psutil

from tasks.errors import EngineError
from tasks.items.ocr_settings import MODELS, OcrSettings
from tasks.media import ImageRef
from tasks.storage.digest_cache import DigestCache

_FORM = "text and lines"
"""What the cache keeps per image; another form has another name, so that old entries are not used."""
_LOOK_UP = 1000
"""Images looked up in the cache at a time: lines take three times the memory of the text, and are not kept."""
READER_MEMORY = 0.5e9
"""Bytes of memory that one reader needs."""


@dataclass(frozen=True)
class Unread:
    """An image whose text could not be read; the next call tries again."""

    path: str
    detail: str


class TextLine(NamedTuple):
    """A line of text on an image, as it was detected, and where it is."""

    text: str
    corners: tuple[int, int, int, int]
    """Left, top, right, bottom, in pixels of the upright image."""


class PageText(NamedTuple):
    """What was read on an image."""

    text: str
    """One line per row of text, in reading order."""
    lines: tuple[TextLine, ...] = ()


Found = tuple[ImageRef, PageText | Unread]
"""An image with its text, or the reason why it could not be read."""
Reading = Callable[[Sequence[ImageRef], int], Iterator[Found]]
"""A function that takes images and a number of processes, and yields each image with its text, in any order."""


def get_reader_identity() -> str:
    """Return the version, the models and the settings of the reader; another reader may read a different text."""
    return "/".join([f"rapidocr-{version('rapidocr')}", *MODELS.values(), OcrSettings().describe(), _FORM])


def count_readers() -> int:
    """Return how many readers may run at a time: one per core that this process may use, if memory suffices.

    CPU affinity and cgroup quotas are respected; the environment variable LOKY_MAX_CPU_COUNT sets a lower limit.
    """
    from joblib import cpu_count  # takes 0.2 s to import

    return max(1, min(cpu_count(), int(psutil.virtual_memory().available / READER_MEMORY)))


class OcrReader:
    """Reads the text on images and stores it by digest in `folder`/ocr.sqlite; several runs may share the folder."""

    def __init__(self, folder: Path, processes: int | None = None, reading: Reading | None = None) -> None:
        """Open the cache; raises StorageError when the folder cannot be written.

        `processes` is the number of readers at a time, by default `count_readers()`. `reading` reads the images, by
        default `read_images`.
        """
        self._reading = reading or read_images
        self._texts = DigestCache(folder / "ocr.sqlite", get_reader_identity())
        self.processes = processes or count_readers()
        self.unread: dict[str, Unread] = {}
        """Maps the digest of each image that could not be read to the reason."""

    def read(self, images: Sequence[ImageRef], progress: Callable[[int, int], None] | None = None) -> dict[str, str]:
        """Map each image's digest to the text on the image: one line per row of text, in reading order.

        An image that cannot be read has an empty text, and the reason is in `unread`. `progress` is called with the
        number of images done and the total, in the caller's thread. Texts are stored even if the call is interrupted.
        Raises EngineError when RapidOCR does not start.
        """
        wanted = {image.sha256: image for image in images}
        texts = {digest: page.text for digest, page in self._look_up(list(wanted))}
        missing = [image for digest, image in wanted.items() if digest not in texts]
        self.unread = {digest: why for digest, why in self.unread.items() if digest not in wanted}
        if progress:
            progress(len(texts), len(wanted))
        for image, found in self._reading(missing, self.processes):
            if isinstance(found, PageText):
                self._texts.put({image.sha256: json.dumps(found, ensure_ascii=False)})
            else:
                self.unread[image.sha256] = found
            texts[image.sha256] = found.text if isinstance(found, PageText) else ""
            if progress:
                progress(len(texts), len(wanted))
        return texts

    def find_lines(self, images: Sequence[ImageRef]) -> list[tuple[TextLine, ...]]:
        """Return the lines of text on each image, as they were read before; none on an image that was not read."""
        pages = dict(self._look_up([image.sha256 for image in images]))
        return [pages[image.sha256].lines if image.sha256 in pages else () for image in images]

    def _look_up(self, digests: Sequence[str]) -> Iterator[tuple[str, PageText]]:
        for start in range(0, len(digests), _LOOK_UP):
            for digest, stored in self._texts.get(digests[start : start + _LOOK_UP]).items():
                text, lines = orjson.loads(stored)
                yield digest, make_page(text, lines)


def make_page(text: str, lines: Iterable[tuple[str, Sequence[int]]]) -> PageText:
    """Return what was read on an image from its parts as JSON has them."""
    return PageText(text, tuple(TextLine(line, (c[0], c[1], c[2], c[3])) for line, c in lines))


def read_images(images: Sequence[ImageRef], processes: int) -> Iterator[Found]:
    """Read images with `processes` readers on this machine; yield each with its text as soon as it is done.

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
    """Runs tasks/items/ocr_child.py as a child process, from its first image, and again after a crash."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def read(self, image: ImageRef) -> PageText | Unread:
        process = self._process or self._start()
        answer = self._ask(process, orjson.dumps([image.path, image.sha256]))
        if answer is None:
            _end(process)
            self._process = None
            return Unread(image.path, f"the process that read it ended with {process.returncode}")
        return Unread(image.path, answer["fault"]) if answer["fault"] else make_page(answer["text"], answer["lines"])

    def close(self) -> None:
        self._closed = True
        if self._process is not None:
            _end(self._process)

    def _start(self) -> subprocess.Popen[bytes]:
        with tempfile.TemporaryFile() as errors:
            # -P: a folder `tasks` in the current directory must not hide ours
            path = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
            process = self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tasks.items.ocr_child"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            )
            if self._ask(process, b"[]") is None and not self._closed:
                errors.seek(0)
                why = (errors.read().decode(errors="replace").strip() or "no message").splitlines()[-1]
                raise EngineError(
                    f"RapidOCR, which reads the text on images, does not start: {why}; install the environment "
                    "again with `make clean` and `make env-gpu` (or another env-…)"
                )
        return process

    def _ask(self, process: subprocess.Popen[bytes], request: bytes) -> dict[str, Any] | None:
        """Return the child's answer; None when it has died."""
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(request + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError):  # the pipe is broken, or closed by `_end`
            return None
        return orjson.loads(line) if line.endswith(b"\n") else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with suppress(BrokenPipeError), process:  # closes the pipes and waits
        pass
