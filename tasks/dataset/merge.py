"""A planned merge as files: what is kept, what is dropped, and the same set for each trainer, none of it held."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.dataset.decisions import make_example
from tasks.dataset.export.exports import Exported, write_exports
from tasks.dataset.merge_plan import Plan
from tasks.dataset.sources import Sources
from tasks.prompts.prompter import Prompter
from tasks.rationales.diversity import measure_diversity
from tasks.records import Dropped, Example, Origin, Subset
from tasks.storage.rows import RowWriter
from tasks.storage.stages import check_item_counts

STAGE = "emit"
_HELD = 100_000
"""Samples in memory at a time, about 200 MB. For each such batch the samples' files are gone through once: 10 times at
a million, about 10 s of a core each."""
_MEASURED = 20_000
"""Reasons that are compared with each other: 8 s of a busy core."""


@dataclass
class Emitted:
    """What was written, counted on its way."""

    origins: Counter[Origin] = field(default_factory=Counter[Origin])
    labels: Counter[str] = field(default_factory=Counter[str])
    """Of examples that have one: not of the mix."""
    dropped: Counter[str] = field(default_factory=Counter[str])
    """By reason code."""
    reasons: int = 0
    """Examples that say why."""
    spoken: list[str] = field(default_factory=list[str])
    """The reasons; of more than 20,000 the first, which are any, the examples being shuffled."""
    validation: int = 0
    exported: Exported = field(default_factory=lambda: Exported((), {}, ()))

    @property
    def kept(self) -> int:
        """How many examples were written."""
        return self.origins.total()

    def count(self, example: Example) -> None:
        """Count one example."""
        self.origins[example.origin] += 1
        self.reasons += bool(example.reason)
        if example.reason and len(self.spoken) < _MEASURED:
            self.spoken.append(example.reason)
        self.validation += example.subset is Subset.VALIDATION
        if example.origin is not Origin.MIX:
            self.labels[example.label] += 1

    def figures(self, plan: Plan, sources: Sources) -> dict[str, float]:
        """Return the stage's figures by name."""
        return {f"from {origin}": float(n) for origin, n in sorted(self.origins.items())} | {
            "with a reason": self.reasons,
            "near-duplicate reasons": measure_diversity(self.spoken).near_duplicates,
            "validation": self.validation,
            "of or near evaluation": plan.contaminating,
            "transductive": float(sources.settings.transductive),
            "left out of an export": len(self.exported.left_out),
        }


def write_merged(
    folder: Path, plan: Plan, sources: Sources, prompter: Prompter, seed: int, *, candidate: bool = False
) -> Emitted:
    """Write kept.parquet (shuffled), dropped.parquet and the exports to `folder`; a candidate gets no exports.

    Raises ItemCountError unless what was kept and dropped is what was to be merged, id for id.
    """
    emitted = Emitted()
    ids: list[str] = []
    with RowWriter(folder / "dropped.parquet", Dropped) as writer:
        for drop in drops(plan, sources):
            writer.write(drop)
            emitted.dropped[drop.reason] += 1
            ids.append(drop.sample_id)

    def written() -> Iterator[Example]:
        for example in shuffled_examples(plan, sources, prompter, seed):
            ids.append(example.sample_id)
            emitted.count(example)
            kept.write(example)
            yield example

    settings = sources.settings
    export = settings.export.model_copy(update={"formats": ()}) if candidate else settings.export
    with RowWriter(folder / "kept.parquet", Example) as kept:
        emitted.exported = write_exports(folder, settings.name, written(), export)
    check_item_counts(STAGE, ids, (), input_ids(plan, sources))
    return emitted


def shuffled_examples(plan: Plan, sources: Sources, prompter: Prompter, seed: int) -> Iterator[Example]:
    """Yield the examples in an order that the plan and the seed alone decide; samples are read by place, in batches."""
    mix = [row.example for row in sources.mix[: plan.mixed] if row.example is not None]
    kept = [place for place in range(plan.own + len(mix)) if plan.fates[place].reason is None]
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(np.array(kept, dtype=np.int64))
    for start in range(0, len(order), _HELD):
        places: list[int] = order[start : start + _HELD].tolist()
        samples = dict(sources.at({place for place in places if place < plan.own}))
        for place in places:
            if place >= plan.own:
                yield mix[place - plan.own]
                continue
            sample = samples.pop(place)
            subset = Subset.VALIDATION if plan.validation[place] else Subset.TRAIN
            yield make_example(sample, sources.decide(place, sample), prompter, subset)


def drops(plan: Plan, sources: Sources) -> Iterator[Dropped]:
    """Yield the items that are left out, and why, in order; those of the mix last."""
    place = -1
    for row in chain(repeat(None, plan.own), sources.mix[: plan.mixed]):
        if row is not None and row.example is None:
            yield Dropped(sample_id=row.id, stage=STAGE, reason=row.reason, detail=row.detail)
            continue
        place += 1
        if (reason := plan.fates[place].reason) is not None:
            yield Dropped(sample_id=plan.ids[place], stage=STAGE, reason=reason, detail=plan.detail(place))


def input_ids(plan: Plan, sources: Sources) -> list[str]:
    """Return the ids of all items that are kept or dropped."""
    return [*plan.ids[: plan.own], *(row.id for row in sources.mix[: plan.mixed])]
