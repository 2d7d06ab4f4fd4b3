"""What the four stage flows share: intake, asking in shards, progress and tables in the web UI."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE

from flows.config import CommonConfig, SourceConfig
from tasks.asking import Tally, ask, plan
from tasks.engines import Engine, EngineSpec, open_engine
from tasks.ledger import Ledger
from tasks.packs import Pack
from tasks.records import Generation, Request, Sample, Split
from tasks.samples import read_samples
from tasks.stages import StageRecord, code_version, finished, read_rows, recipe_hash, write_stage

T = TypeVar("T")

_PROGRESS_SECONDS = 2.0
"""A progress update is one request to Prefect's API; more often than this nobody can see."""


def run_as_task(name: str, title: str, work: Callable[[], T]) -> T:
    """Run `work` as one Prefect task run titled `title`; what it raises is raised here.

    The work is a closure, so that Prefect neither walks through nor hashes thousands of requests.
    """

    @task(name=name, task_run_name=title, cache_policy=NO_CACHE, persist_result=False)
    def step() -> T:
        return work()

    return step()


class Progress:
    """A progress artifact of the running flow that moves at most every two seconds, and a log line at each tenth."""

    def __init__(self, stage: str, what: str, total: int) -> None:
        self.total = max(total, 1)
        self.done = 0
        self._what = what
        self._shown = 0.0
        self._tenth = 0
        self._began = time.monotonic()
        key = f"{stage.replace('_', '-')}-progress"
        self._artifact = create_progress_artifact(progress=0.0, key=key, description=f"{stage}: {what}")
        self._log = get_run_logger()

    def advance(self, by: int = 1) -> None:
        """Count `by` more done."""
        self.to(self.done + by)

    def to(self, done: int) -> None:
        """Set the count."""
        self.done = done
        now = time.monotonic()
        if now - self._shown >= _PROGRESS_SECONDS or done >= self.total:
            self._shown = now
            update_progress_artifact(self._artifact, progress=min(100.0, 100.0 * done / self.total))  # pyright: ignore
        tenth = 10 * done // self.total
        if tenth > self._tenth:
            self._tenth = tenth
            seconds = now - self._began
            rate = done / seconds if seconds > 0 else 0.0
            left = (self.total - done) / rate if rate else 0.0
            self._log.info("%s: %d/%d, %.1f/s, %.0f s left", self._what, done, self.total, rate, left)


@dataclass
class Asking:
    """Everything a stage needs to ask models: opens an engine at its first unanswered question, one at a time."""

    config: CommonConfig
    stage: str
    ledger: Ledger
    tally: Tally = field(default_factory=Tally)
    _open: tuple[EngineSpec, Engine] | None = None

    def __enter__(self) -> "Asking":
        if self.ledger.set_aside is not None:
            get_run_logger().warning(
                "the ledger %s was corrupt; it was set aside as %s and a new one begun: its answers are asked again",
                self.ledger.path,
                self.ledger.set_aside,
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def answers(self, requests: Sequence[Request], spec: EngineSpec, what: str) -> dict[str, Generation]:
        """The answer of each request by key: from the ledger, else from the engine, a shard a task run."""
        log = get_run_logger()
        todo = plan(requests, self.ledger)
        self.tally.reused += len(todo.answers)
        if todo.answers:
            log.info("%s: %d of %d answers reused from the ledger", what, len(todo.answers), len(requests))
        found = dict(todo.answers)
        if not todo.missing:
            return found
        progress = Progress(self.stage, what, len(todo.missing))
        first = 0
        for shard in todo.shards(self.config.shard_size):
            last = first + len(shard)

            def work(shard: Sequence[Request] = shard) -> list[Generation]:
                return ask(self._engine(spec), self.ledger, shard, on_answer)

            def on_answer(generation: Generation) -> None:
                self.tally.add(generation)
                progress.advance()

            title = f"{what}: {first + 1} to {last} of {len(todo.missing)}"  # the graph's font has no dash
            for generation in run_as_task(f"ask: {self.stage}", title, work):
                found[generation.key] = generation
            first = last
        return found

    def _engine(self, spec: EngineSpec) -> Engine:
        if self._open is None or self._open[0] != spec:
            # one at a time: on one GPU there is no room for the next model beside this one
            self._close()
            get_run_logger().info("opening %s engine with %s", spec.engine, spec.adapter or spec.model)
            self._open = (spec, open_engine(spec))
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            self._open[1].close()
            self._open = None


def intake(source: SourceConfig, pack: Pack, split: Split, output: Path) -> tuple[list[Sample], StageRecord]:
    """Read and check a manifest as a task run, or reuse the reading when neither it nor an image has changed."""

    def work() -> tuple[list[Sample], StageRecord]:
        log = get_run_logger()
        folder = output / "samples" / split
        inputs = {"manifest": file_state(source.manifest), "images": folder_state(source.images)}
        recipe = recipe_hash(source=source, pack=pack.digest, split=split, inputs=inputs, code=code_version())
        record = finished(folder, recipe)
        if record is not None:
            log.info("%s items: unchanged, reading reused (%d kept, %d dropped)", split, record.kept, record.dropped)
            return read_rows(folder / "kept.parquet", Sample), record
        began = time.monotonic()
        result = read_samples(source.manifest, source.images, pack, split)
        seconds = time.monotonic() - began
        record = StageRecord(
            stage=f"samples/{split}", recipe=recipe, read=0, kept=0, dropped=0, inputs=inputs, seconds=seconds
        )
        ids = [s.id for s in result.kept] + [d.sample_id for d in result.dropped]
        record = write_stage(folder, record, result.kept, result.dropped, ids)
        log.info("%s items: %d read, %d kept, dropped %s", split, record.read, record.kept, record.drops or "none")
        return list(result.kept), record

    return run_as_task("read items", f"read {split} items from {source.manifest.name}", work)


def file_state(path: Path) -> str:
    """Size and time of change of a file: a cheap stand-in for its digest."""
    state = path.stat() if path.exists() else None
    return f"{state.st_size}:{state.st_mtime_ns}" if state else "missing"


def folder_state(folder: Path) -> str:
    """Count, total size and latest change of a folder's files (the folder itself included)."""
    files = [p.stat() for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
    latest = max((s.st_mtime_ns for s in files), default=0)
    return f"{len(files)}:{sum(s.st_size for s in files)}:{latest}"


def show_counts(record: StageRecord) -> None:
    """The stage's counts as a table artifact."""
    rows: list[list[str | int | float]] = [["read", record.read], ["kept", record.kept], ["dropped", record.dropped]]
    rows += [[f"dropped: {reason}", n] for reason, n in record.drops.items()]
    rows += [["answers asked", record.asked], ["answers reused", record.reused]]
    rows += [["tokens in", record.tokens_in], ["tokens out", record.tokens_out], ["seconds", round(record.seconds, 1)]]
    rows += [[name, round(value, 4)] for name, value in record.figures.items()]
    show_table(f"{record.stage}-counts", [{"what": a, "value": b} for a, b in rows], f"Counts of stage {record.stage}")


def show_table(key: str, rows: Iterable[Mapping[str, object]], description: str) -> None:
    """A table artifact; `key` may hold underscores and slashes, which Prefect's keys may not."""
    clean = key.replace("_", "-").replace("/", "-")
    create_table_artifact(table=[dict(row) for row in rows], key=clean, description=description)


def reused(folder: Path, recipe: str) -> StageRecord | None:
    """The record of a stage that need not be done again, said in the log and shown; else None."""
    record = finished(folder, recipe)
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
