"""Read the text on images with RapidOCR, once per image digest.

A phone screenshot takes 1 to 3 s of one core. Each reader is a process with one thread, because several threads per
image gain little, and because a crash then loses only the image that caused it. Readers receive requests through a
pipe, so they end by themselves when the process that started them is killed.
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
import psutil

from tasks.errors import EngineError
from tasks.items.ocr_settings import MODELS, OcrSettings
from tasks.media import ImageRef
from tasks.storage.digest_cache import DigestCache

READER_MEMORY = 0.5e9
"""Bytes of memory that one reader needs."""


@dataclass(frozen=True)
class Unread:
    """An image whose text could not be read; the next call tries again."""

    path: str
    detail: str


Found = tuple[ImageRef, str | Unread]
"""An image with its text, or the reason why it could not be read."""
Reading = Callable[[Sequence[ImageRef], int], Iterator[Found]]
"""A function that takes images and a number of processes, and yields each image with its text, in any order."""


def get_reader_identity() -> str:
    """Return the version, the models and the settings of the reader; another reader may read a different text."""
    return "/".join([f"rapidocr-{version('rapidocr')}", *MODELS.values(), OcrSettings().describe()])


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

    def read(self, image: ImageRef) -> str | Unread:
        process = self._process or self._start()
        answer = self._ask(process, orjson.dumps([image.path, image.sha256]))
        if answer is None:
            _end(process)
            self._process = None
            return Unread(image.path, f"the process that read it ended with {process.returncode}")
        return Unread(image.path, answer["fault"]) if answer["fault"] else answer["text"]

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

    def _ask(self, process: subprocess.Popen[bytes], request: bytes) -> dict[str, str] | None:
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
