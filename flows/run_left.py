"""What a run has left under its `output` for students to be taught, and whether it kept the held-out items out."""

from collections.abc import Iterable
from pathlib import Path

from flows.config import EvaluateConfig
from flows.stage import intake
from tasks.dataset.decisions import Reason
from tasks.errors import ConfigError
from tasks.evaluation.variants import Results
from tasks.packs.pack import Pack
from tasks.records import Correction, Dropped, Example, Origin, Prediction, Sample, Split
from tasks.storage.rows import read_rows
from tasks.storage.stage_record import read_record

STAGES = ("rationales", "pseudo_labels", "correction", "emit")
"""Those whose results are taught."""


def check_unseen(config: EvaluateConfig, held_out: str) -> None:
    """Raise ConfigError unless emit has compared its items with the evaluation set of this digest."""
    record = read_record(config.output / "emit")
    if record is None or record.inputs.get("evaluation") != held_out:
        raise ConfigError(
            f"{config.output / 'emit'}: has not seen {config.evaluation.manifest} as it is now, so its items may be "
            "taught; run `labelstill run` again with this `evaluation`"
        )


def results_of(config: EvaluateConfig, pack: Pack) -> Results:
    """What the run's stages left; raises ConfigError for an emitted item that is in neither set any more."""
    output = config.output
    sets: dict[Split, dict[str, Sample]] = {Split.LABELLED: {}, Split.UNLABELLED: {}}
    for split, source in ((Split.LABELLED, config.labelled), (Split.UNLABELLED, config.unlabelled)):
        if source is not None:
            sets[split] = {s.id: s for s in intake(source, pack, split, output, config.images)[0]}
    kept = {stage: output / stage / "kept.parquet" for stage in STAGES}
    there = {stage for stage, file in kept.items() if file.exists()}
    drops = read_rows(output / "emit" / "dropped.parquet", Dropped)
    emitted = read_rows(kept["emit"], Example)
    labelled, pool = sets[Split.LABELLED], sets[Split.UNLABELLED]
    known = {(s.source, s.id) for s in (*labelled.values(), *pool.values())}
    for e in emitted:
        if e.origin is not Origin.MIX and (e.source, e.sample_id) not in known:
            raise ConfigError(
                f"{kept['emit']}: item {e.sample_id} of {e.source} is in neither set now; run `labelstill run` again"
            )
    taught = {(e.source, e.sample_id) for e in emitted if e.reason}
    said = {i for i, s in labelled.items() if (s.source, i) in taught}
    return Results(
        labelled=labelled,
        pool=pool,
        reasons={p.sample_id: p.reason for p in _rows(kept["rationales"], there, Prediction) if p.sample_id in said},
        pseudo={p.sample_id: p for p in _rows(kept["pseudo_labels"], there, Prediction)},
        corrections={c.sample_id: c for c in _rows(kept["correction"], there, Correction)},
        emitted=emitted,
        # of two items with one id, a row of dropped.parquet does not say which it is: neither is taught
        barred=frozenset(d.sample_id for d in drops if d.reason == Reason.CONTAMINATES),
    )


def _rows(file: Path, there: set[str], kind: type) -> Iterable:  # pyright: ignore
    return read_rows(file, kind) if file.parent.name in there else ()
