"""A planned merge as files: what is kept, what is dropped, and the same set for each trainer, none of it held."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.dataset.export.exports import Exported, ExportSpec, write_exports
from tasks.dataset.merge import STAGE, drops, examples, input_ids
from tasks.dataset.merge_plan import Plan, Rules, Sources
from tasks.dataset.shuffling import shuffled
from tasks.dataset.versions import VersionWriter
from tasks.prompts.prompter import Prompter
from tasks.records import Dropped, Example, Origin, Subset
from tasks.storage.rows import RowWriter
from tasks.storage.stages import check_books

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
    said: list[str] = field(default_factory=list[str])
    """What they say; of more than 20,000 the first, which are any, the examples being shuffled."""
    validation: int = 0
    exported: Exported = field(default_factory=lambda: Exported((), {}, ()))

    @property
    def kept(self) -> int:
        """How many examples were written."""
        return self.origins.total()


def write_merged(
    folder: Path,
    plan: Plan,
    sources: Sources,
    rules: Rules,
    prompter: Prompter,
    name: str,
    export: ExportSpec,
    versions: VersionWriter | None = None,
) -> Emitted:
    """Write kept.parquet (shuffled), dropped.parquet and the exports called `name` to `folder`; `versions` is told too.

    Raises BooksError unless what was kept and dropped is what was to be merged, id for id.
    """
    emitted = Emitted()
    ids: list[str] = []
    with RowWriter(folder / "dropped.parquet", Dropped) as writer:
        for drop in drops(plan, sources):
            writer.write(drop)
            emitted.dropped[drop.reason] += 1
            ids.append(drop.sample_id)
    expected = input_ids(plan, sources)
    kept = shuffled(examples(plan, sources, rules, prompter), len(expected) - len(ids), rules.seed, folder)
    with RowWriter(folder / "kept.parquet", Example) as writer:
        counted = _counted(kept, emitted, ids, writer)
        if versions is not None:
            counted = _recorded(counted, versions)
        emitted.exported = write_exports(folder, name, counted, export)
    check_books(STAGE, ids, (), expected)
    return emitted


def _counted(examples: Iterable[Example], emitted: Emitted, ids: list[str], writer: RowWriter) -> Iterator[Example]:
    for example in examples:
        ids.append(example.sample_id)
        emitted.origins[example.origin] += 1
        emitted.reasons += bool(example.reason)
        if example.reason and len(emitted.said) < _MEASURED:
            emitted.said.append(example.reason)
        emitted.validation += example.subset is Subset.VALIDATION
        if example.origin is not Origin.MIX:
            emitted.labels[example.label] += 1
        writer.write(example)
        yield example


def _recorded(examples: Iterable[Example], versions: VersionWriter) -> Iterator[Example]:
    for example in examples:
        versions.add(example)
        yield example
