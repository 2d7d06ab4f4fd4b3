"""Checking the image files of a set: each distinct one once, a few at a time, and none that is known and unchanged."""

import os
import warnings
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from pathlib import Path

from PIL import Image

from tasks.items.images import check_image
from tasks.items.known_files import Found, KnownFiles, Seen
from tasks.items.refusals import Unusable
from tasks.records import ImageRef


@contextmanager
def checking(paths: Iterable[Path], max_pixels: int, known: Path | None) -> Generator[Callable[[Path], ImageRef]]:
    """A function that says what one of `paths` is, or raises Unusable (see `check_image`); all are under way at once.

    What is found is kept in the file `known`, and what stands there is believed of files that have not changed.
    """
    # Few threads, since each may hold one decoded image of `max_pixels`.
    with (
        warnings.catch_warnings(),
        KnownFiles(known, max_pixels) if known is not None else nullcontext() as store,
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
    ):
        # Filters are the process's own, so they are set here, around all threads, and not in each of them.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        distinct = dict.fromkeys(paths)
        believed = {} if store is None else store.known(distinct)
        new = {path: pool.submit(_look, path, max_pixels) for path in distinct if path not in believed}
        try:
            yield lambda path: _result(path, believed, new, store)
        finally:
            # An interrupted read must not first finish all the files that are still waiting.
            pool.shutdown(cancel_futures=True)


def _look(path: Path, max_pixels: int) -> tuple[Found, Seen]:
    seen = Seen.of(path)
    try:
        return check_image(path, max_pixels), seen
    except Unusable as why:
        return why, seen


def _result(
    path: Path, believed: dict[Path, Found], new: dict[Path, Future[tuple[Found, Seen]]], store: KnownFiles | None
) -> ImageRef:
    found = believed.get(path)
    if found is None:
        found, seen = believed[path], _ = new.pop(path).result()
        if store is not None:
            store.keep(path, seen, found)
    if isinstance(found, Unusable):
        raise found
    return found
