"""What is merged: the samples, what the earlier stages decided about them, and what people said.

Each item's own decision is made here (decisions.py has the rules); how items compete is in merge_plan.py.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TypeVar

from tasks.dataset.decisions import Decision, Reason, decide_labelled, decide_pool, decide_pseudo_labelled
from tasks.dataset.general_mix import MixRow, as_sample, draw_share
from tasks.dataset.reasons import drop_unsound_reasons, find_unspoken
from tasks.dataset.settings import EmitSettings
from tasks.errors import ConfigError
from tasks.items.settings import SourceConfig
from tasks.packs.pack import Pack
from tasks.rationales.settings import RationaleSettings
from tasks.records import Correction, Dropped, Origin, Prediction, Sample, Split, content_digest
from tasks.review.queue import CONFLICTS, STORE
from tasks.review.verdicts import Verdict, read_store, split_valid
from tasks.storage.rows import StoredRows
from tasks.storage.stage_record import read_record

Samples = Sequence[Sample] | StoredRows[Sample]
"""Samples that can be gone through more than once."""


@dataclass(frozen=True)
class Sources:
    """What is merged. `corrections` and `reasons` (of the *given* label) go by labelled id, `pseudo` by pool id."""

    labelled: Samples = ()
    pool: Samples = ()
    mix: Sequence[MixRow] = ()
    """In the order in which they are taken."""
    evaluation: Samples = ()
    """The held-out items: none of them, nor what is nearly one, is taught."""
    corrections: Mapping[str, Correction] = field(default_factory=dict[str, Correction])
    pseudo: Mapping[str, Decision] = field(default_factory=dict[str, Decision])
    """By trusted pseudo-labels."""
    reasons: Mapping[str, str] = field(default_factory=dict[str, str])
    unreasoned: Collection[str] = ()
    """Labelled items that are left out where they would be taught their given label: nobody gave a good reason for it.
    Another label, or one that a person confirmed, needs none."""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict[str, Verdict])
    """What people said about items in conflict, by id; `verdict` says which of them hold."""
    settings: EmitSettings = field(default_factory=EmitSettings)
    alike_reasons: int = 0
    """Reasons that are not taught since another says nearly the same."""

    @property
    def own(self) -> int:
        """Labelled and pool items: all but the mix and the evaluation split."""
        return len(self.labelled) + len(self.pool)

    def decided(self) -> Iterator[tuple[Sample, Decision]]:
        """Yield every item with the decision it would get by itself: labelled, pool, mix."""
        for place, sample in enumerate(chain(self.labelled, self.pool)):
            yield sample, self.decide(place, sample)
        for row in self.mix:
            if row.example is not None:
                yield as_sample(row.example), Decision("", Origin.MIX, row.example.why)

    def decide(self, place: int, sample: Sample) -> Decision:
        """Return what the labelled or pool item at `place` would be taught with, by itself."""
        verdict = self.verdict(sample)
        if place >= len(self.labelled):
            return decide_pool(self.pseudo.get(sample.id), verdict)
        correction, reason = self.corrections.get(sample.id), self.reasons.get(sample.id, "")
        decision = decide_labelled(sample, correction, reason, verdict=verdict, waiting=self.settings.waiting)
        as_given = decision.origin is Origin.GIVEN and decision.label == sample.given and decision.refused is None
        if sample.id in self.unreasoned and as_given and not decision.reason:
            return decision._replace(refused=Reason.UNREASONED)
        return decision

    def verdict(self, sample: Sample) -> str | None:
        """Return what a person said about the item: a label, or `neither`; None where nobody did, or it is outdated."""
        said = self.verdicts.get(sample.id)
        if said is None:
            return None
        held, _ = split_valid({sample.id: said}, {sample.id: sample.labels}, {sample.id: content_digest(sample)})
        return held.get(sample.id)

    def at(self, places: Collection[int]) -> Iterator[tuple[int, Sample]]:
        """Yield (place, sample) of items, evaluation last; only what holds a wanted place is read."""
        start = 0
        mix = [as_sample(row.example) for row in self.mix if row.example is not None]
        for samples in (self.labelled, self.pool, mix, self.evaluation):
            wanted = {place - start for place in places if start <= place < start + len(samples)}
            if isinstance(samples, StoredRows):
                yield from ((start + i, sample) for i, sample in (samples.at(wanted) if wanted else ()))
            else:
                yield from ((start + i, samples[i]) for i in sorted(wanted))
            start += len(samples)


# --- from a run's folder -------------------------------------------------------------------------------------


def check_stages(
    output: Path, stages: Iterable[str], sets: Mapping[Split, SourceConfig], digests: Mapping[Split, str]
) -> dict[str, str]:
    """Return the digest of each stage whose results are merged; `digests` are those of the sets as they are now.

    Raises ConfigError where a stage has left no record, or decided about other items than stand in the manifest now: a
    label that was mended since would give way to a decision about the former one.
    """
    found: dict[str, str] = {}
    for stage in stages:
        record = read_record(output / stage)
        if record is None:
            raise ConfigError(f"{output / stage}: no finished stage; run `{stage}` first or take it out of `stages`")
        split = Split.UNLABELLED if stage == "pseudo_labels" else Split.LABELLED
        if split in sets and record.inputs.get("samples", digests[split]) != digests[split]:
            raise ConfigError(
                f"{output / stage}: decided about other items than {sets[split].manifest} holds now; run "
                f"`{stage}` again, or the whole way: answers that were paid for are reused"
            )
        found[stage] = record.digest
    return found


def read_sources(
    output: Path,
    sets: Collection[Split],
    stages: Collection[str],
    pack: Pack,
    settings: EmitSettings,
    rationales: RationaleSettings,
    seed: int,
) -> Sources:
    """Return what a run has left under `output`: its sets, and what `stages` kept. The samples stay on disk."""

    def samples(split: Split) -> Samples:
        return StoredRows(output / "samples" / split / "kept.parquet", Sample) if split in sets else ()

    def kept(stage: str, kind: type[_Kept]) -> Iterable[_Kept]:
        return StoredRows(output / stage / "kept.parquet", kind) if stage in stages else ()

    labelled, pool = samples(Split.LABELLED), samples(Split.UNLABELLED)
    corrections = drop_unsound_reasons({c.sample_id: c for c in kept("correction", Correction)}, labelled, pack)
    pseudo = {p.sample_id: decide_pseudo_labelled(p) for p in kept("pseudo_labels", Prediction)}
    reasons = {p.sample_id: p for p in kept("rationales", Prediction)}
    unspoken, alike = find_unspoken(corrections, pseudo, reasons, settings, rationales, seed)
    for split, sample_id in unspoken:
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
        reasons={i: p.reason for i, p in reasons.items() if (Split.LABELLED, i) not in unspoken},
        unreasoned=unreasoned,
        verdicts=read_store(output / CONFLICTS / STORE),
        settings=settings,
        alike_reasons=alike,
    )


_Kept = TypeVar("_Kept", Correction, Prediction)
