"""Read Parquet files a few thousand rows at a time, and draw some of the rows."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

T = TypeVar("T")
Row = dict[str, Any]
"""A row of one of the run's Parquet files (see artifacts/README.md)."""

_ROWS_PER_BATCH = 2000


def read_columns(path: Path, *columns: str) -> Iterator[Row]:
    """Yield the file's rows with these columns. A column that the file lacks is None in every row.

    If the file cannot be read, yield nothing, because a card is also written if a stage was skipped or killed.
    """
    try:
        with pq.ParquetFile(path) as file:
            present = [name for name in columns if name in file.schema_arrow.names]
            empty_row = dict.fromkeys(columns)
            for batch in file.iter_batches(_ROWS_PER_BATCH, columns=present):
                for row in batch.to_pylist():
                    yield empty_row | row
    except (FileNotFoundError, pa.ArrowInvalid):
        return


class Draw(Generic[T]):
    """A random sample of at most `size` of the things that are added. All things have the same probability.

    It uses reservoir sampling (Vitter's algorithm R), so the number of things need not be known in advance.
    """

    def __init__(self, size: int, seed: int = 0) -> None:
        self.drawn: list[T] = []
        self.seen = 0
        self._size = size
        self._random = random.Random(seed)

    def add(self, thing: T) -> None:
        """Offer one thing to the sample. It may replace a thing that is already in the sample."""
        self.seen += 1
        if len(self.drawn) < self._size:
            self.drawn.append(thing)
        elif (place := self._random.randrange(self.seen)) < self._size:
            self.drawn[place] = thing
