"""What the stage flows share, in the order in which a stage uses it: its items and its record.

A stage reads its sets (`intake`), returns the record of an unchanged one (`reused`), asks models (flows/asking.py),
and ends with `Stage.finish`, which writes its folder and shows its counts in the web UI.
"""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from flows.api import wait_for_api
from flows.runners import run_as_task
from flows.service.alerts import tell_empty
from flows.service.pages import show_links
from flows.ui import show_in_ui
from tasks.items.file_states import read_file_state, read_folder_state
from tasks.items.ocr import get_reader_identity
from tasks.items.samples import read_samples
from tasks.items.settings import SourceConfig
from tasks.packs.pack import Pack
from tasks.records import Dropped, Record, Sample, Split
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import Costs, StageRecord, read_record
from tasks.storage.stages import code_version, find_finished_record, hash_recipe, write_stage

T = TypeVar("T")

_READINGS: ContextVar[dict[Path, StageRecord] | None] = ContextVar("readings", default=None)


@contextmanager
def one_reading() -> Generator[None]:
    """Read each set once within the block, subflows included.

    The stages of a run then decide about, and merge, the same items, whatever is written to its manifest and images
    meanwhile. The next run sees that.
    """
    before = _READINGS.set({})
    try:
        yield
    finally:
        _READINGS.reset(before)


def intake(
    source: SourceConfig, pack: Pack, split: Split, output: Path, images: Path | None = None
) -> tuple[list[Sample], StageRecord]:
    """Read and check a manifest as a task run, or reuse the reading when neither it nor an image has changed.

    `images` is `CommonConfig.images`, where files that were checked are remembered; None: all are opened. Within
    `one_reading` the first reading of a set stands.
    """
    folder = output / "samples" / split
    readings = _READINGS.get()

    def work() -> tuple[list[Sample], StageRecord]:
        if readings is not None and folder in readings and read_record(folder) == readings[folder]:
            return read_rows(folder / "kept.parquet", Sample), readings[folder]
        samples, record = _read_set(source, pack, split, folder, images)
        if readings is not None:
            readings[folder] = record
        return samples, record

    return run_as_task("read items", f"read {split} items from {source.manifest.name}", work)


def _read_set(
    source: SourceConfig, pack: Pack, split: Split, folder: Path, images: Path | None
) -> tuple[list[Sample], StageRecord]:
    log = get_run_logger()
    inputs = {"manifest": read_file_state(source.manifest), "images": read_folder_state(source.images)}
    # every stage's recipe has this record's digest: with another reader of images, all of them decide again
    ocr = get_reader_identity() if pack.ocr else ""
    recipe = hash_recipe(source=source, pack=pack.digest, split=split, inputs=inputs, ocr=ocr, code=code_version())
    record = find_finished_record(folder, recipe)
    if record is not None:
        log.info("%s items: unchanged, reading reused (%d kept, %d dropped)", split, record.kept, record.dropped)
        return read_rows(folder / "kept.parquet", Sample), record
    began = time.monotonic()
    known = None if images is None else known_files(images)
    result = read_samples(source.manifest, source.images, pack, split, known=known)
    seconds = time.monotonic() - began
    record = StageRecord(
        stage=f"samples/{split}", recipe=recipe, read=0, kept=0, dropped=0, inputs=inputs, seconds=seconds
    )
    ids = [s.id for s in result.kept] + [d.sample_id for d in result.dropped]
    record = write_stage(folder, record, result.kept, result.dropped, ids)
    log.info("%s items: %d read, %d kept, dropped %s", split, record.read, record.kept, record.drops or "none")
    return list(result.kept), record


def known_files(images: Path) -> Path:
    """Return the file under `CommonConfig.images` that remembers checked image files (tasks/items/known_files.py)."""
    return images / "known.sqlite"


def reused(folder: Path, recipe: str) -> StageRecord | None:
    """Return the record of a stage that need not be done again, and say so in the log and the web UI; else None."""
    record = find_finished_record(folder, recipe)
    if record is not None:
        get_run_logger().info(
            "%s: recipe and inputs unchanged; reused %s (%d kept, %d dropped)",
            record.stage,
            folder,
            record.kept,
            record.dropped,
        )
        show_counts(record)
    return record


_PAGES_OF = {"correction": ("review", "corrections"), "pseudo_labels": ("review-pool",)}
"""What each stage writes for people to read."""


@dataclass
class Stage:
    """A stage flow under way: what decides its outcome, and its record at the end."""

    name: str
    folder: Path
    recipe: str
    inputs: dict[str, str]
    models: dict[str, str] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def finish(
        self,
        kept: Sequence[Record],
        dropped: Sequence[Dropped],
        ids: Iterable[str],
        figures: Mapping[str, float],
        costs: Costs | None = None,
    ) -> StageRecord:
        """Write the stage's folder (see tasks/storage/stages.py; raises ItemCountError like it) and show its counts."""
        record = StageRecord(
            stage=self.name,
            recipe=self.recipe,
            read=0,
            kept=0,
            dropped=0,
            inputs=self.inputs,
            models=self.models,
            seconds=time.monotonic() - self.began,
            costs=costs or Costs(),
            figures=dict(figures),
        )
        record = write_stage(self.folder, record, kept, dropped, ids)
        wait_for_api()  # the stage's end must be told to it in any case
        show_counts(record)
        if not record.kept:
            tell_empty(self.folder.parent, self.name)
        show_links(self.folder.parent, _PAGES_OF.get(self.name, ()))
        return record


def show_counts(record: StageRecord) -> None:
    """Show the stage's counts as a table artifact."""
    rows: list[list[str | int | float]] = [["read", record.read], ["kept", record.kept], ["dropped", record.dropped]]
    rows += [[f"dropped: {reason}", n] for reason, n in record.drops.items()]
    rows += [["seconds", round(record.seconds, 1)], *([name, value] for name, value in record.costs.rows())]
    rows += [[name, round(value, 4)] for name, value in record.figures.items()]
    show_table(f"{record.stage}-counts", [{"what": a, "value": b} for a, b in rows], f"Counts of stage {record.stage}")


def show_table(key: str, rows: Iterable[Mapping[str, object]], description: str) -> None:
    """Show a table artifact; `key` may hold underscores and slashes, which Prefect's keys may not."""
    clean = key.replace("_", "-").replace("/", "-")
    table = [dict(row) for row in rows]
    show_in_ui(clean, lambda: create_table_artifact(table=table, key=clean, description=description))
