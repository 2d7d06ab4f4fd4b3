"""Write a planned merge: kept.parquet, dropped.parquet and the exports. Examples are never all in memory at once."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.dataset.decisions import make_example
from tasks.dataset.export.exports import Exported, write_exports
from tasks.dataset.general_mix import MixRow, explain_shortage, is_too_short
from tasks.dataset.merge_plan import Plan
from tasks.dataset.sources import Sources
from tasks.dataset.teacher_lessons import add_lessons
from tasks.errors import TooManyFailures
from tasks.prompts.prompter import Prompter
from tasks.rationales.diversity import measure_diversity
from tasks.records import Dropped, Example, Origin, Subset
from tasks.storage.rows import RowWriter
from tasks.storage.stages import check_item_counts

STAGE = "emit"
_HELD = 100_000
"""Number of samples in memory at a time, about 200 MB. The samples' files are read once per batch: 10 times for a
million items, about 10 s of one core each."""
_MEASURED = 20_000
"""Maximum number of reasons that are compared with each other. The comparison takes 8 s of one busy core."""


@dataclass
class Emitted:
    """What was written, as counts."""

    origins: Counter[Origin] = field(default_factory=Counter[Origin])
    labels: Counter[str] = field(default_factory=Counter[str])
    """Maps each label to the number of examples, not counting the mix."""
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Maps each reason code to the number of dropped items."""
    reasons: int = 0
    """Number of examples with a reason."""
    reason_texts: list[str] = field(default_factory=list[str])
    """The first 20,000 reasons. They are a random sample, because the examples are shuffled."""
    validation: int = 0
    exported: Exported = field(default_factory=lambda: Exported((), {}, ()))

    @property
    def kept(self) -> int:
        """Number of examples written."""
        return self.origins.total()

    def count(self, example: Example) -> None:
        """Count one example."""
        self.origins[example.origin] += 1
        self.reasons += bool(example.reason)
        if example.reason and len(self.reason_texts) < _MEASURED:
            self.reason_texts.append(example.reason)
        self.validation += example.subset is Subset.VALIDATION
        if example.origin is not Origin.MIX:
            self.labels[example.label] += 1

    def figures(self, plan: Plan, sources: Sources) -> dict[str, float]:
        """Return the figures for the stage's record."""
        return {f"from {origin}": float(n) for origin, n in sorted(self.origins.items())} | {
            "with a reason": self.reasons,
            "near-duplicate reasons": measure_diversity(self.reason_texts).near_duplicates,
            "validation": self.validation,
            "of or near evaluation": plan.contaminating,
            "transductive": float(sources.settings.transductive),
            "left out of an export": len(self.exported.left_out),
        }


def write_merged(folder: Path, plan: Plan, sources: Sources, prompter: Prompter, seed: int) -> Emitted:
    """Write kept.parquet (in random order), dropped.parquet and the exports to `folder`, and return the counts.

    Raises ItemCountError unless every merged item was either kept or dropped.
    """
    emitted = Emitted()
    ids: list[str] = []
    with RowWriter(folder / "dropped.parquet", Dropped) as writer:
        for drop in list_dropped(plan, sources):
            writer.write(drop)
            emitted.dropped[drop.reason] += 1
            ids.append(drop.sample_id)

    def stream_examples() -> Iterator[Example]:
        for example in shuffle_examples(plan, sources, prompter, seed):
            ids.append(example.sample_id)
            emitted.count(example)
            kept.write(example)
            yield example

    settings = sources.settings
    with RowWriter(folder / "kept.parquet", Example) as kept:
        emitted.exported = write_exports(folder, settings.name, stream_examples(), settings.export)
    check_item_counts(STAGE, ids, (), list_input_ids(plan, sources))
    return emitted


def shuffle_examples(plan: Plan, sources: Sources, prompter: Prompter, seed: int) -> Iterator[Example]:
    """Yield the kept examples in a random order that depends only on plan and seed. Samples are read in batches."""
    mix = [row.example for row in sources.mix[: plan.mixed] if row.example is not None]
    kept = [place for place in range(plan.own + len(mix)) if plan.outcomes[place].reason is None]
    order: NDArray[np.int64] = np.random.default_rng(seed).permutation(np.array(kept, dtype=np.int64))
    for start in range(0, len(order), _HELD):
        places: list[int] = order[start : start + _HELD].tolist()
        own = {place for place in places if place < plan.own}
        samples = dict(sources.read_places(own))
        answers = sources.read_answers(own)
        for place in places:
            if place >= plan.own:
                yield mix[place - plan.own]
                continue
            sample = samples.pop(place)
            subset = Subset.VALIDATION if plan.validation[place] else Subset.TRAIN
            example = make_example(sample, sources.decide(place, sample), prompter, subset)
            answer = sources.of_labelled.get(sample.id) if place < len(sources.labelled) else answers.get(place)
            yield add_lessons(example, sample, answer, prompter)


def check_mix(plan: Plan, sources: Sources) -> None:
    """Raise TooManyFailures, which names the commonest cause, if the mix has less than half of what its share needs."""
    mix = sources.settings.mix
    rows = sources.mix[: plan.mixed]
    examples = sum(row.example is not None for row in rows)
    usable = sum(outcome.reason is None for outcome in plan.outcomes[plan.own : plan.own + examples])
    if mix is None or not is_too_short(usable, plan.mix_wanted):
        return
    ids = {row.id for row in rows}
    unusable = [
        MixRow(d.sample_id, None, d.reason, d.detail) for d in list_dropped(plan, sources) if d.sample_id in ids
    ]
    why = explain_shortage(mix, usable, plan.mix_wanted, len(rows), unusable)
    raise TooManyFailures(f"{STAGE}: {why}")


def list_dropped(plan: Plan, sources: Sources) -> Iterator[Dropped]:
    """Yield a record for each item that is left out, in order of place; items of the mix come last."""
    place = -1
    for row in chain(repeat(None, plan.own), sources.mix[: plan.mixed]):
        if row is not None and row.example is None:
            yield Dropped(sample_id=row.id, stage=STAGE, reason=row.reason, detail=row.detail, source=row.source)
            continue
        place += 1
        if (reason := plan.outcomes[place].reason) is not None:
            source, detail = plan.manifests[place], plan.detail(place)
            yield Dropped(sample_id=plan.ids[place], source=source, stage=STAGE, reason=reason, detail=detail)


def list_input_ids(plan: Plan, sources: Sources) -> list[str]:
    """Return the ids of all merged items, kept or dropped."""
    return [*plan.ids[: plan.own], *(row.id for row in sources.mix[: plan.mixed])]
