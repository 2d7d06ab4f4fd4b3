"""Load a finished run's results, and check that evaluation items were kept out of its training set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tasks.dataset.decisions import LeftOutReason
from tasks.errors import ConfigError
from tasks.prompts.pointing import add_boxes
from tasks.records import Correction, Dropped, Example, Origin, Prediction, Record, Sample
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import read_record

STAGES = ("rationales", "pseudo_labels", "correction", "emit")
"""The stages whose results are used for training."""

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Results:
    """The results of a run on which students are trained; mappings are keyed by sample id.

    An item of the labelled set and one of the pool may have the same id.
    """

    labelled: Mapping[str, Sample]
    pool: Mapping[str, Sample]
    reasons: Mapping[str, str]
    """Maps labelled-item id to the reason for the given label; only items that were emitted with a reason."""
    pseudo: Mapping[str, Prediction]
    """Maps pool-item id to the trusted pseudo-label."""
    corrections: Mapping[str, Correction]
    """Maps labelled-item id to the decision about the item's label."""
    emitted: Sequence[Example]
    barred: frozenset[tuple[str, str]] = frozenset()
    """(source, id) of items that no variant may use, because they are near-duplicates of evaluation items."""


def read_results(output: Path, labelled: Sequence[Sample], pool: Sequence[Sample]) -> Results:
    """Read the results of the run in the folder `output`; `labelled` and `pool` are its two sets.

    Raises ConfigError if an emitted item is no longer in either set.
    """
    emitted = read_rows(_locate_kept(output, "emit"), Example)
    known = {(s.source, s.id) for s in (*labelled, *pool)}
    for e in emitted:
        if e.origin is not Origin.MIX and (e.source, e.sample_id) not in known:
            raise ConfigError(
                f"{_locate_kept(output, 'emit')}: item {e.sample_id} of {e.source} is no longer in the labelled set "
                "or the pool; run `labelstill run` again"
            )
    taught = {(e.source, e.sample_id) for e in emitted if e.reason}
    reasoned = {s.id for s in labelled if (s.source, s.id) in taught}
    rationales = _read_if_there(output, "rationales", Prediction)
    drops = read_rows(output / "emit" / "dropped.parquet", Dropped)
    return Results(
        labelled={s.id: s for s in add_boxes(labelled, {p.sample_id: p for p in rationales})},
        pool={s.id: s for s in pool},
        reasons={p.sample_id: p.reason for p in rationales if p.sample_id in reasoned},
        pseudo={p.sample_id: p for p in _read_if_there(output, "pseudo_labels", Prediction)},
        corrections={c.sample_id: c for c in _read_if_there(output, "correction", Correction)},
        emitted=emitted,
        barred=frozenset((d.source, d.sample_id) for d in drops if d.reason == LeftOutReason.CONTAMINATES),
    )


def is_transductive(output: Path) -> bool:
    """Return whether the training set of the run in `output` may contain evaluation items."""
    record = read_record(output / "emit")
    return record is not None and bool(record.figures.get("transductive"))


def check_held_out(output: Path, manifest: Path, digest: str) -> None:
    """Raise ConfigError unless the stage `emit` compared its items with the evaluation set that has this digest."""
    record = read_record(output / "emit")
    if record is None or record.inputs.get("evaluation") != digest:
        raise ConfigError(
            f"{output / 'emit'}: was made without the current {manifest}, so the training set may contain evaluation "
            "items; run `labelstill run` again with this `evaluation`"
        )


def _locate_kept(output: Path, stage: str) -> Path:
    return output / stage / "kept.parquet"


def _read_if_there(output: Path, stage: str, kind: type[R]) -> Sequence[R]:
    file = _locate_kept(output, stage)
    return read_rows(file, kind) if file.exists() else ()
