"""A run's counters for Prometheus: `<output>/metrics.prom`, as the node exporter's textfile collector reads it.

Names and units follow https://prometheus.io/docs/practices/naming/. Counters are those of each stage's last run: where
one begins anew they fall, which Prometheus takes for the restart that it is.
"""

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from prefect import get_run_logger
from prometheus_client import CollectorRegistry, Metric, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from tasks.errors import BudgetSpent
from tasks.models.costs import Costs
from tasks.storage.stages import StageRecord, read_record

FILE = "metrics.prom"
_SECONDS = 10.0
"""Between two writings while a run is under way."""
_STARTED = "labelstill_started_timestamp_seconds"
_SUCCEEDED = "labelstill_last_success_timestamp_seconds"


@dataclass
class _Bill:
    """What a stage under way has spent, asked for anew at each writing."""

    costs: Callable[[], Costs]
    since: float


@dataclass
class _Meter:
    """A run under way in one output folder."""

    output: Path
    warn: Callable[..., None]
    started: float
    succeeded: float | None = None
    bills: dict[str, _Bill] = field(default_factory=dict[str, _Bill])
    ended: threading.Event = field(default_factory=threading.Event)
    _failed: bool = False

    def write(self, *, running: bool) -> None:
        """Write the file; where that can't be done, it is said once."""
        try:
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Found(self, running))
            write_to_textfile(str(self.output / FILE), registry)
        except Exception as error:  # a full disk, say: the run itself must meet that, not its counters
            if not self._failed:
                self.warn("%s can't be written: %s: %s", self.output / FILE, type(error).__name__, error)
            self._failed = True

    def keep_writing(self) -> None:
        """Write now and every ten seconds until the run has ended."""
        self.write(running=True)
        while not self.ended.wait(_SECONDS):
            self.write(running=True)


_METERS: dict[Path, _Meter] = {}
"""Of the runs of this process, by their output folder."""


@contextmanager
def watched(output: Path) -> Generator[None]:
    """Keep `output`/metrics.prom up to date while the block, the work of one flow run, goes on, and say how it ended.

    Within a block for the same folder, as in a stage of a larger run, nothing is done. Needs a flow run around it.
    """
    place = output.resolve()
    if place in _METERS:
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    meter = _Meter(output, get_run_logger().warning, time.time(), _last_success(output / FILE))
    _METERS[place] = meter
    thread = threading.Thread(target=meter.keep_writing, name="metrics", daemon=True)
    thread.start()
    try:
        yield
        meter.succeeded = time.time()
    except BudgetSpent:  # it stopped as it was told to
        meter.succeeded = time.time()
        raise
    finally:
        del _METERS[place]
        meter.ended.set()
        thread.join()
        meter.write(running=False)


def account(output: Path, stage: str, costs: Callable[[], Costs]) -> None:
    """Show what a stage under way has spent, until it leaves its record; `costs` is called from another thread."""
    if (meter := _METERS.get(output.resolve())) is not None:
        meter.bills[stage] = _Bill(costs, time.time())


def _last_success(file: Path) -> float | None:
    """When a run last went well, as the file says that the next run is about to write over."""
    try:
        families = text_string_to_metric_families(file.read_text(encoding="utf-8"))
        return next((s.value for f in families for s in f.samples if s.name == _SUCCEEDED), None)
    except (OSError, ValueError):
        return None


class _Found(Collector):
    """What the run's folder and its stages under way say now."""

    def __init__(self, meter: _Meter, running: bool) -> None:
        self._meter, self._running = meter, running
        self._name = str(meter.output)

    def collect(self) -> Iterator[Metric]:
        """All metrics of the run."""
        meter = self._meter
        yield self._one("labelstill_running", "1 while a run is under way", float(self._running))
        yield self._one(_STARTED, "When the last run began", meter.started)
        yield self._one("labelstill_written_timestamp_seconds", "When this file was written", time.time())
        if meter.succeeded is not None:
            yield self._one(_SUCCEEDED, "When a run last ended without an error", meter.succeeded)
        folders = [*meter.output.glob("*/record.json"), *meter.output.glob("samples/*/record.json")]
        found = {f.parent.relative_to(meter.output).as_posix(): read_record(f.parent) for f in sorted(folders)}
        records = {stage: record for stage, record in found.items() if record is not None}
        yield from self._items(records)
        yield from self._costs({stage: record.costs for stage, record in records.items()} | self._bills(records))

    def _bills(self, records: dict[str, StageRecord]) -> dict[str, Costs]:
        """Of the stages that have not left a record since they began."""
        bills = dict(self._meter.bills)
        done = {stage for stage in bills if stage in records and records[stage].finished_at >= bills[stage].since}
        return {stage: bill.costs() for stage, bill in bills.items() if stage not in done}

    def _items(self, records: dict[str, StageRecord]) -> Iterator[Metric]:
        labels = ["output", "stage", "outcome", "reason"]
        items = GaugeMetricFamily("labelstill_items", "Items of a finished stage by outcome", labels=labels)
        seconds = GaugeMetricFamily("labelstill_stage_seconds", "How long a stage took", labels=labels[:2])
        for stage, record in records.items():
            items.add_metric([self._name, stage, "kept", ""], record.kept)
            for reason, count in record.drops.items():
                items.add_metric([self._name, stage, "dropped", reason], count)
            seconds.add_metric([self._name, stage], record.seconds)
        yield from (items, seconds)

    def _costs(self, found: dict[str, Costs]) -> Iterator[Metric]:
        labels = ["output", "stage"]
        answers = CounterMetricFamily("labelstill_answers", "Answers of models", labels=[*labels, "outcome"])
        tokens = CounterMetricFamily(
            "labelstill_tokens", "Tokens; cached ones are part of in", labels=[*labels, "kind"]
        )
        money = CounterMetricFamily("labelstill_cost", "In the currency of the configured prices", labels=labels)
        gpus = CounterMetricFamily("labelstill_gpu_seconds", "Seconds for which devices were held", labels=labels)
        full = GaugeMetricFamily("labelstill_engine_utilisation_ratio", "How full engines were kept", labels=labels)
        for stage, costs in found.items():
            place = [self._name, stage]
            if not costs.asked + costs.reused:
                continue
            for outcome in ("asked", "reused", "failed"):
                answers.add_metric([*place, outcome], getattr(costs, outcome))
            for kind in ("in", "cached", "out"):
                tokens.add_metric([*place, kind], getattr(costs, f"tokens_{kind}"))
            if costs.cost is not None:
                money.add_metric(place, costs.cost)
            gpus.add_metric(place, costs.gpu_seconds)
            full.add_metric(place, costs.utilisation)
        yield from (answers, tokens, money, gpus, full)

    def _one(self, name: str, what: str, value: float) -> Metric:
        metric = GaugeMetricFamily(name, what, labels=["output"])
        metric.add_metric([self._name], value)
        return metric
