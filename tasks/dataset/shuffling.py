"""A seeded shuffle of examples too many to hold: through files of some thousands, each shuffled in memory."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from tasks.records import Example

_A_FILE = 20_000
"""Examples a file: a million make 50 open files, and about 40 MB of one are in memory."""


def shuffled(examples: Iterable[Example], count: int, seed: int, folder: Path) -> Iterator[Example]:
    """The `count` examples in an order that count and seed alone decide, every order being as likely as any other.

    Temporary files go to `folder`/.shuffle, which is removed at the end; one that a killed run has left is, too. Raises
    ValueError unless there are `count` examples.
    """
    places = np.random.default_rng(seed).permutation(count)
    scratch = folder / ".shuffle"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        files = [scratch / str(i) for i in range(-(-count // _A_FILE))]
        with ExitStack() as stack:
            opened = [stack.enter_context(file.open("wb")) for file in files]
            for place, example in zip(map(int, places), examples, strict=True):
                line = f"{place % _A_FILE:08d}{example.model_dump_json()}\n"
                opened[place // _A_FILE].write(line.encode())
        for file in files:
            yield from (Example.model_validate_json(line[8:]) for line in sorted(file.read_bytes().splitlines()))
            file.unlink()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
