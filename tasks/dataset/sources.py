"""Read what is merged: the samples, the results of the earlier stages, and reviewers' verdicts.

`Sources` decides about each item on its own, by the rules in decisions.py; merge_plan.py then handles duplicates.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar

from tasks.dataset.decisions import Decision, LeftOutReason, decide_labelled, decide_pool, decide_pseudo_labelled
from tasks.dataset.general_mix import MixRow, convert_to_sample, draw_share
from tasks.dataset.reasons import find_unused_reasons
from tasks.dataset.settings import EmitSettings
from tasks.errors import ConfigError
from tasks.items.settings import SourceConfig
from tasks.rationales.settings import RationaleSettings
from tasks.records import Correction, Dropped, Origin, Prediction, Sample, Split, content_digest
from tasks.review.queue import CONFLICTS, STORE
from tasks.review.verdicts import Verdict, read_store, settle_verdicts
from tasks.storage.rows import StoredRows
from tasks.storage.stage_record import read_record

Samples = Sequence[Sample] | StoredRows[Sample]
"""Samples that can be iterated more than once."""


@dataclass(frozen=True)
class Sources:
    """What is merged. `corrections` and `reasons` are keyed by labelled-item id, `pseudo` by pool-item id."""

    labelled: Samples = ()
    pool: Samples = ()
    mix: Sequence[MixRow] = ()
    """The drawn rows, in the order in which they are used."""
    evaluation: Samples = ()
    """The held-out items. They and their near-duplicates are not used for training, unless `transductive` is set."""
    corrections: Mapping[str, Correction] = field(default_factory=dict[str, Correction])
    pseudo: Mapping[str, Decision] = field(default_factory=dict[str, Decision])
    """The decisions that follow from trusted pseudo-labels."""
    reasons: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])
    """Reasons for the given labels."""
    unreasoned: Collection[str] = ()
    """Ids of labelled items without a good reason for their given label. They are left out, unless their label was
    changed or a reviewer confirmed it."""
    verdicts: Mapping[str, Sequence[Verdict]] = field(default_factory=dict[str, Sequence[Verdict]])
    """People's verdicts on conflicting duplicates, keyed by case id. `find_verdict` finds those that are used."""
    settings: EmitSettings = field(default_factory=EmitSettings)
    of_labelled: Mapping[str, Prediction] = field(default_factory=dict[str, Prediction])
    """The teacher's answers about the labelled set, given without seeing its labels, keyed by item id."""
    of_pool: Sequence[Prediction] | StoredRows[Prediction] = ()
    """Its answers about the pool, in the order of the pool; empty if it was not asked."""
    alike_reasons: int = 0
    """Number of reasons that are not used because they are too similar to another one."""

    @property
    def own(self) -> int:
        """Number of labelled and pool items."""
        return len(self.labelled) + len(self.pool)

    def decide_all(self) -> Iterator[tuple[Sample, Decision]]:
        """Yield every labelled, pool and mix item with the decision about it, ignoring its duplicates."""
        for place, sample in enumerate(chain(self.labelled, self.pool)):
            yield sample, self.decide(place, sample)
        for row in self.mix:
            if row.example is not None:
                yield convert_to_sample(row.example), Decision("", Origin.MIX, row.example.why)

    def decide(self, place: int, sample: Sample) -> Decision:
        """Return the decision about the labelled or pool item at `place`, ignoring its duplicates."""
        verdict = self.find_verdict(sample)
        if place >= len(self.labelled):
            return decide_pool(self.pseudo.get(sample.id), verdict)
        correction, reason = self.corrections.get(sample.id), self.reasons.get(sample.id)
        decision = decide_labelled(sample, correction, reason, verdict=verdict, waiting=self.settings.waiting)
        as_given = decision.origin is Origin.GIVEN and decision.label == sample.given and decision.refused is None
        if sample.id in self.unreasoned and as_given and not decision.reason:
            return decision._replace(refused=LeftOutReason.UNREASONED)
        return decision

    def find_verdict(self, sample: Sample) -> str | None:
        """Return the reviewer's verdict (a label or `neither`), or None if there is no verdict or it is outdated."""
        given = {sample.id: self.verdicts.get(qualify_id(sample)) or self.verdicts.get(sample.id, ())}
        settled = settle_verdicts(given, {sample.id: sample.labels}, {sample.id: content_digest(sample)})
        return settled.verdicts.get(sample.id)

    def read_places(self, places: Collection[int]) -> Iterator[tuple[int, Sample]]:
        """Yield (place, sample) for the items at `places`, in order of place. Other rows are not decoded."""
        start = 0
        mix = [convert_to_sample(row.example) for row in self.mix if row.example is not None]
        for samples in (self.labelled, self.pool, mix, self.evaluation):
            wanted = {place - start for place in places if start <= place < start + len(samples)}
            if isinstance(samples, StoredRows):
                yield from ((start + i, sample) for i, sample in (samples.at(wanted) if wanted else ()))
            else:
                yield from ((start + i, samples[i]) for i in sorted(wanted))
            start += len(samples)

    def read_answers(self, places: Collection[int]) -> dict[int, Prediction]:
        """Return the teacher's answers about those of the items at `places` that are in the pool, keyed by place."""
        first = len(self.labelled)
        wanted = {place - first for place in places if place >= first}
        if isinstance(self.of_pool, StoredRows):
            return {first + i: answer for i, answer in self.of_pool.at(wanted)}
        return {first + i: self.of_pool[i] for i in wanted if i < len(self.of_pool)}


def qualify_id(sample: Sample) -> str:
    """Return an id that is unique even if the labelled set and the pool both use the sample's own id."""
    return f"{sample.split}/{sample.id}"


# --- from a run's folder -------------------------------------------------------------------------------------


def check_stages(
    output: Path, stages: Iterable[str], sets: Mapping[Split, SourceConfig], digests: Mapping[Split, str]
) -> dict[str, str]:
    """Map each stage whose results are merged to its digest. `digests` are the current digests of the sets.

    Raises ConfigError if a stage has no record, or if its manifest has changed since the stage ran. Otherwise a label
    that was corrected in the meantime could be overwritten by a decision about the old label.
    """
    found: dict[str, str] = {}
    for stage in stages:
        record = read_record(output / stage)
        if record is None:
            raise ConfigError(f"{output / stage}: no finished stage; run `{stage}` first or take it out of `stages`")
        split = Split.UNLABELLED if stage == "pseudo_labels" else Split.LABELLED
        if split in sets and record.inputs.get("samples", digests[split]) != digests[split]:
            raise ConfigError(
                f"{output / stage}: {sets[split].manifest} has changed since this stage ran; run `{stage}` again or "
                f"run all stages with `distill` (paid answers are reused)"
            )
        found[stage] = record.digest
    return found


def read_sources(
    output: Path,
    sets: Collection[Split],
    stages: Collection[str],
    settings: EmitSettings,
    rationales: RationaleSettings,
    seed: int,
    labelled_digest: str | None = None,
) -> Sources:
    """Return the results of the run in `output`: its `sets`, and what `stages` kept. The samples stay on disk.

    `labelled_digest` is the current digest of the labelled set: a teacher's answers about an earlier one do not count.
    """

    def samples(split: Split) -> Samples:
        return StoredRows(output / "samples" / split / "kept.parquet", Sample) if split in sets else ()

    def kept(stage: str, kind: type[_Kept]) -> Iterable[_Kept]:
        return StoredRows(output / stage / "kept.parquet", kind) if stage in stages else ()

    labelled, pool = samples(Split.LABELLED), samples(Split.UNLABELLED)
    corrections = {c.sample_id: c for c in kept("correction", Correction)}
    pseudo = {p.sample_id: decide_pseudo_labelled(p) for p in kept("pseudo_labels", Prediction)}
    reasons = {p.sample_id: p for p in kept("rationales", Prediction)}
    unused, alike = find_unused_reasons(corrections, pseudo, reasons, settings, rationales, seed)
    for split, sample_id in unused:
        if split is Split.UNLABELLED:
            pseudo[sample_id] = pseudo[sample_id]._replace(reason="")
        elif sample_id in corrections:
            corrections[sample_id] = corrections[sample_id].model_copy(update={"reason": ""})
    unreasoned: frozenset[str] = frozenset()
    if rationales.without_reason == "drop_item" and "rationales" in stages:
        unreasoned = frozenset(d.sample_id for d in StoredRows(output / "rationales" / "dropped.parquet", Dropped))
    return Sources(
        labelled=labelled,
        pool=pool,
        evaluation=samples(Split.TEST),
        mix=draw_share(settings.mix, len(labelled) + len(pool), seed) if settings.mix else (),
        corrections=corrections,
        pseudo=pseudo,
        reasons={i: p for i, p in reasons.items() if (Split.LABELLED, i) not in unused},
        unreasoned=unreasoned,
        verdicts=read_store(output / CONFLICTS / STORE),
        settings=settings,
        of_labelled=_read_answers(output, labelled_digest) if "pseudo_labels" in stages else {},
        of_pool=StoredRows(output / "pseudo_labels" / "predictions.parquet", Prediction)
        if "pseudo_labels" in stages
        else (),
        alike_reasons=alike,
    )


def _read_answers(output: Path, labelled_digest: str | None) -> dict[str, Prediction]:
    record = read_record(output / "pseudo_labels")
    if record is None or record.inputs.get("labelled") != labelled_digest:
        return {}
    rows = StoredRows(output / "pseudo_labels" / "labelled.parquet", Prediction)
    return {p.sample_id: p for p in rows}


_Kept = TypeVar("_Kept", Correction, Prediction)
