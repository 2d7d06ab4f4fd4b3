# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# (pyarrow publishes no types)
"""How the card reads a run's Parquet files: a few thousand rows in memory, whatever columns there are."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

T = TypeVar("T")
Row = dict[str, Any]
"""A row of one of the run's Parquet files (see artifacts/README.md)."""

_BATCH = 2000


def read_columns(path: Path, *columns: str) -> Iterator[Row]:
    """The file's rows, with `columns`; None in those it hasn't. Nothing where there is no (readable) file.

    A card is made of what is there: a stage that was left out, or killed, must not stop it.
    """
    try:
        with pq.ParquetFile(path) as file:
            there = [name for name in columns if name in file.schema_arrow.names]
            nothing = dict.fromkeys(columns)
            for batch in file.iter_batches(_BATCH, columns=there):
                for row in batch.to_pylist():
                    yield nothing | row
    except (FileNotFoundError, pa.ArrowInvalid):
        return


class Draw(Generic[T]):
    """An even, seeded sample of at most `size` of the things it is shown (reservoir sampling, Vitter's algorithm R)."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.drawn: list[T] = []
        self.seen = 0
        self._size, self._random = size, random.Random(seed)

    def add(self, thing: T) -> None:
        """Show it one thing."""
        self.seen += 1
        if len(self.drawn) < self._size:
            self.drawn.append(thing)
        elif (place := self._random.randrange(self.seen)) < self._size:
            self.drawn[place] = thing
