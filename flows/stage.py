"""Code that all stage flows share: read a set, reuse a finished result, and write the stage's record.

A stage reads its sets (`Stage.read`) and returns an earlier result if nothing has changed (`Stage.find_finished`). Else
it asks models (flows/asking.py). Finally `Stage.finish` writes its folder and shows its counts in the web UI.
"""

import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_table_artifact

from flows.api import wait_for_api
from flows.config import CommonConfig
from flows.runners import run_as_task
from flows.service.alerts import alert_empty
from flows.service.pages import show_links
from flows.ui import show_in_ui
from tasks.items.file_states import read_file_state, read_folder_state
from tasks.items.ocr import get_reader_identity
from tasks.items.samples import read_samples
from tasks.items.settings import SourceConfig
from tasks.items.smoke import choose_few
from tasks.items.videos import have_frames
from tasks.models.engines.identity import identify_model
from tasks.models.engines.spec import RULE, EngineSpec
from tasks.models.ledger.tools import find_last_prune
from tasks.models.pins import name_commit
from tasks.packs.pack import Pack, load_pack
from tasks.records import Dropped, Record, Sample, Split, content_digest
from tasks.review.queue import PAGE
from tasks.review.verdicts import Settled, read_store, settle_verdicts
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import Costs, StageRecord, read_record
from tasks.storage.stages import code_version, find_finished_record, hash_recipe, hash_records, write_stage

_READINGS: ContextVar[dict[Path, StageRecord] | None] = ContextVar("readings", default=None)


@contextmanager
def share_readings() -> Generator[None]:
    """Context manager: within the block, also in subflows, read each set only once.

    All stages of a run then work on the same items, even if manifests or images change meanwhile. The next run reads
    them again.
    """
    before = _READINGS.set({})
    try:
        yield
    finally:
        _READINGS.reset(before)


def read_manifests(
    source: SourceConfig, pack: Pack, split: Split, output: Path, config: CommonConfig
) -> tuple[list[Sample], StageRecord]:
    """Read and check a manifest in a task run. Reuse the last result if neither the manifest nor an image has changed.

    Returns the usable items and the record of `output`/samples/`split`. The folder `config.images` also stores what is
    known about checked files. Within `share_readings` a set is read only once.
    """
    folder = output / "samples" / split
    readings = _READINGS.get()

    def work() -> tuple[list[Sample], StageRecord]:
        if readings is not None and folder in readings and read_record(folder) == readings[folder]:
            return read_rows(folder / "kept.parquet", Sample), readings[folder]
        samples, record = _read_or_reuse_set(source, pack, split, folder, config)
        if readings is not None:
            readings[folder] = record
        return samples, record

    return run_as_task("read items", f"read {split} items from {source.manifest.name}", work)


def _read_or_reuse_set(
    source: SourceConfig, pack: Pack, split: Split, folder: Path, config: CommonConfig
) -> tuple[list[Sample], StageRecord]:
    log = get_run_logger()
    inputs = {"manifest": read_file_state(source.manifest), "images": read_folder_state(source.images)}
    # Part of every stage's recipe: after a change of the OCR model, all stages decide again.
    ocr = get_reader_identity() if pack.ocr else ""
    recipe = hash_recipe(
        source=source, pack=pack.digest, split=split, inputs=inputs, ocr=ocr, limit=config.limit, video=config.video,
        code=code_version(),
    )  # fmt: skip
    record = find_finished_record(folder, recipe)
    if record is not None and have_frames(samples := read_rows(folder / "kept.parquet", Sample)):
        log.info("%s items: unchanged, reused (%d kept, %d dropped)", split, record.kept, record.dropped)
        return samples, record
    began = time.monotonic()
    result = read_samples(source.manifest, source.images, pack, split, video=config.video, cache=config.images)
    kept = result.kept if config.limit is None else choose_few(result.kept, config.limit)
    seconds = time.monotonic() - began
    # Without the state of the image folder, in which files that no item refers to may come and go.
    content = hash_recipe(pack=pack.digest, split=split, ocr=ocr, items=hash_records((*kept, *result.dropped)))
    record = StageRecord(
        stage=f"samples/{split}", recipe=recipe, read=0, kept=0, dropped=0, inputs=inputs, seconds=seconds,
        figures={f"items with unread key {key}": n for key, n in result.unread.items()}, content=content,
    )  # fmt: skip
    ids = [s.id for s in kept] + [d.sample_id for d in result.dropped]
    record = write_stage(folder, record, kept, result.dropped, ids)
    log.info("%s items: %d read, %d kept, dropped: %s", split, record.read, record.kept, record.drops or "none")
    for warning in result.list_warnings():
        log.warning("%s items: %s", split, warning)
    return list(kept), record


_PAGES_OF = {
    "rationales": ("review-reasons",),
    "correction": ("review", "corrections"),
    "pseudo_labels": ("review-pool",),
    "emit": ("review-conflicts",),
}
"""Maps stage to the pages that the stage writes for people."""


class Stage:
    """A running stage: its pack, its inputs and models, and the record that it writes at the end.

    `engines` maps role to the model that the stage asks. Raises PackError if the stage needs a label set and the pack
    has none.
    """

    def __init__(
        self,
        name: str,
        config: CommonConfig,
        engines: Mapping[str, EngineSpec | None] | None = None,
        *,
        needs_labels: bool = True,
    ) -> None:
        self.name = name
        self.pack = load_pack(config.pack)
        if needs_labels:
            self.pack.require_labels(name)
        self.folder = config.output / name
        self.inputs: dict[str, str] = {}
        """Digest of each input by name."""
        self._config = config
        self._engines = {role: spec for role, spec in (engines or {}).items() if spec is not None}
        for role, spec in self._engines.items():
            if spec.is_rule:
                get_run_logger().warning("`%s` is %s", role, RULE)
        self.recipe = ""
        self._pruned = 0.0
        self._began = time.monotonic()

    def read(self, name: str, source: SourceConfig, split: Split, output: Path | None = None) -> list[Sample]:
        """Read a set (see `read_manifests`), note its digest as the input `name`, and return the usable items."""
        config = self._config
        samples, record = read_manifests(source, self.pack, split, output or config.output, config)
        self.inputs[name] = record.digest
        return samples

    @cached_property
    def models(self) -> dict[str, str]:
        """Maps role to the identity of the model."""
        return {role: identify_model(spec) for role, spec in self._engines.items()}

    def find_finished(self, *, students: Sequence[str] = (), **decisive: object) -> StageRecord | None:
        """Return the record of an earlier result with the same recipe and show it, or return None if there is none.

        The recipe is a digest of inputs, pack, models, pixel and context limits, code, seed, `students` (identities of
        further models) and `decisive`. An earlier result is not reused after answers of its models were pruned.
        """
        bounds = [[spec.min_pixels, spec.max_pixels, spec.context_length] for spec in self._engines.values()]
        self.recipe = hash_recipe(
            pack=self.pack.digest, inputs=self.inputs, models=self.models, bounds=bounds, code=code_version(),
            seed=self._config.seed, students=list(students), **decisive,
        )  # fmt: skip
        self._pruned = find_last_prune(self._config.ledger, [*self.models.values(), *students])
        record = find_finished_record(self.folder, self.recipe)
        if record is not None and record.pruned < self._pruned:
            get_run_logger().info("%s: answers that it may have used were pruned, so it runs again", record.stage)
            return None
        if record is not None:
            get_run_logger().info(
                "%s: settings and inputs are unchanged, reusing %s (%d kept, %d dropped)",
                record.stage, self.folder, record.kept, record.dropped,
            )  # fmt: skip
            show_counts(record)
        return record

    def make_record(self, figures: Mapping[str, float], costs: Costs | None = None) -> StageRecord:
        """Return the stage's record, without its counts.

        It names the commits at which models were loaded, and says which engines are rules.
        """
        models = {role: identify_model(name_commit(spec, self._config.ledger)) for role, spec in self._engines.items()}
        models |= {role: f"{models[role]} ({RULE})" for role, spec in self._engines.items() if spec.is_rule}
        return StageRecord(
            stage=self.name, recipe=self.recipe, read=0, kept=0, dropped=0, inputs=self.inputs, models=models,
            pruned=self._pruned, seconds=time.monotonic() - self._began, costs=costs or Costs(), figures=dict(figures),
        )  # fmt: skip

    def finish(
        self,
        kept: Sequence[Record],
        dropped: Sequence[Dropped],
        ids: Iterable[str],
        figures: Mapping[str, float],
        costs: Costs | None = None,
    ) -> StageRecord:
        """Write the stage's folder, show its counts, and return the record.

        Raises ItemCountError unless the ids of `kept` and `dropped` together are exactly `ids`.
        """
        record = write_stage(self.folder, self.make_record(figures, costs), kept, dropped, ids)
        self.show(record)
        return record

    def show(self, record: StageRecord, *, alert: bool = True) -> None:
        """Show the counts and pages of the finished stage in the web UI. Send an alert if the stage kept nothing."""
        wait_for_api()  # the flow cannot end without it
        show_counts(record)
        if alert and not record.kept:
            alert_empty(self._config.output, self.name)
        show_links(self._config.output, _PAGES_OF.get(self.name, ()))


def read_valid_verdicts(store: Path, samples: Sequence[Sample]) -> Settled:
    """Return people's verdicts on `samples`, and log which of them are not used."""
    labels = {s.id: s.labels for s in samples}
    contents = {s.id: content_digest(s) for s in samples}
    settled = settle_verdicts(read_store(store), labels, contents)
    for ids, why in (
        (settled.outdated, "verdicts are not used because their items have changed since"),
        (settled.disagreed, "items are asked about again because people disagree"),
    ):
        if ids:
            get_run_logger().warning("%s: %d %s: %s", store, len(ids), why, ids[:10])
    return settled


def log_where_to_judge(folder: Path, what: str) -> None:
    """Log that `what` awaits review in `folder`, and with which command to import the verdicts."""
    page = folder / PAGE
    get_run_logger().info("%s: judge them in %s, then: labelstill review import %s FILE", what, page, folder.parent)


def show_counts(record: StageRecord) -> None:
    """Show the stage's counts as a table artifact."""
    rows: list[list[Any]] = [["read", record.read], ["kept", record.kept], ["dropped", record.dropped]]
    rows += [[f"dropped: {reason}", n] for reason, n in record.drops.items()]
    rows += [["seconds", round(record.seconds, 1)], *([name, value] for name, value in record.costs.rows())]
    rows += [[name, round(value, 4)] for name, value in record.figures.items()]
    show_table(f"{record.stage}-counts", [{"what": a, "value": b} for a, b in rows], f"Counts of stage {record.stage}")


def show_table(key: str, rows: Iterable[Mapping[str, object]], description: str) -> None:
    """Show a table artifact. Prefect allows no underscores or slashes in `key`, so they become hyphens."""
    clean = key.replace("_", "-").replace("/", "-")
    table = [dict(row) for row in rows]
    show_in_ui(clean, lambda: create_table_artifact(table=table, key=clean, description=description))
