"""What a run's files say, gathered for its card: counts, samples of items, and nothing that grows with the items.

Every file is optional. What is drawn is drawn with a seed: the same run gives the same card.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from tasks.dataset.versions import Version, read_versions
from tasks.evaluation.scores import Score
from tasks.evaluation.table import Report
from tasks.evaluation.variants import Variant
from tasks.pseudo_labels.decide import KEEPS
from tasks.pseudo_labels.evidence import Evidence
from tasks.rationales.diversity import Variety, measure_variety
from tasks.records import Action, Origin, Split, Subset
from tasks.report.card.items import Contents, read_contents
from tasks.report.card.rows import Draw, Row, read_columns
from tasks.report.summary import read_stage_records
from tasks.storage.stage_record import StageRecord

_PER_ORIGIN = 4
_PER_REASON = 2
_CHANGED = 24
_REASONS = 5000
"""So many reasons are measured; n-grams of a million would not fit into memory."""
_STEPS = 20
_FILES = 20
"""A folder of more files (copied images) is one line."""


@dataclass(frozen=True)
class Emitted:
    """The training set."""

    parts: Counter[tuple[str, str]]
    """(origin, subset)."""
    labels: dict[str, Counter[str]] | None
    """Label → examples by origin; the mix and tasks without a label set aside. None where that leaves none."""
    examples: dict[str, tuple[Row, ...]]
    """Drawn rows of emit/kept.parquet by origin, strongest first."""
    reasons: tuple[str, ...]
    """All, or an even sample."""
    with_reason: int
    judged_pool: int = 0
    """Examples of origin REVIEW that are items of the pool."""

    @property
    def count(self) -> int:
        """Examples in the set."""
        return self.parts.total()

    @property
    def origins(self) -> Counter[str]:
        """Examples by origin."""
        found: Counter[str] = Counter()
        for (origin, _), count in self.parts.items():
            found[origin] += count
        return found


@dataclass(frozen=True)
class Changes:
    """Given labels that correction changed."""

    pairs: Counter[tuple[str, str | None]]
    """(given, new); None: dropped, as no label is right."""
    drawn: tuple[Row, ...]
    """Rows of correction/kept.parquet, those of the commonest pairs first."""
    report: dict[str, Any]
    """correction/report.json; empty where there is none."""


@dataclass
class Step:
    """The pseudo-labels of one step of a histogram."""

    count: int = 0
    kept: int = 0
    own: float = 0.0
    """Sum of the teacher's own probabilities (or shares of votes)."""
    expected: float = 0.0
    """Sum of the expected precisions."""


@dataclass(frozen=True)
class Confidence:
    """The pool's pseudo-labels, counted in equal steps from 0 to 1. Both are empty if there are none."""

    own: tuple[Step, ...] = ()
    """By the teacher's own word."""
    expected: tuple[Step, ...] = ()
    """By expected precision."""


@dataclass(frozen=True)
class Drops:
    """The items that left a stage for one reason."""

    stage: str
    reason: str
    count: int
    drawn: tuple[Row, ...]
    """`sample_id` and `why` from rows of its dropped.parquet."""


@dataclass(frozen=True)
class Facts:
    """All that the card tells."""

    records: dict[str, StageRecord]
    """By stage, in order."""
    before: Counter[str]
    """Usable labelled items by given label; tasks without a label set aside."""
    emitted: Emitted
    changes: Changes
    confidence: Confidence
    drops: tuple[Drops, ...]
    contents: Contents
    """What the drawn items show and say."""
    files: tuple[tuple[str, int, int], ...]
    """What emit wrote: path under emit/, files (many in a folder are one line), bytes."""
    version: Version | None
    """The set's version and its parent; None where versions were not recorded."""
    diversity: Variety | None
    """Of the emitted reasons; None if there are none."""
    evaluation: Report | None = None
    """What students learnt from it; None where that was not measured."""

    @property
    def labels(self) -> list[str]:
        """Labels of the labelled items and of the set, the commonest of the former first."""
        sizes = {label: found.total() for label, found in (self.emitted.labels or {}).items()}
        return sorted({*self.before, *sizes}, key=lambda x: (-self.before[x], -sizes.get(x, 0), x))

    @property
    def shown_score(self) -> Score | None:
        """The students' scores that are shown by class: those of the variant `all`, or the last."""
        scores = () if self.evaluation is None else self.evaluation.scores
        return next((s for s in scores if s.variant == Variant.ALL), scores[-1] if scores else None)

    def figure(self, stage: str, name: str) -> float | None:
        """A figure of a stage's record; None where it has none of that name."""
        record = self.records.get(stage)
        return None if record is None else record.figures.get(name)


def read_facts(output: Path, seed: int = 0) -> Facts:
    """Read what a run left under `output`; whatever is missing is empty."""
    records = {record.stage: record for record in read_stage_records(output)}
    before, free = _given(output / "samples")
    emitted = _emitted(output, free, seed)
    changes = _changes(output / "correction", seed)
    drops = tuple(d for stage in records for d in _drops(stage, output / stage / "dropped.parquet", seed))
    drawn = [*changes.drawn, *(row for d in drops for row in d.drawn)]
    drawn += [row for rows in emitted.examples.values() for row in rows]
    return Facts(
        records=records,
        before=before,
        emitted=emitted,
        changes=changes,
        confidence=_confidence(output / "pseudo_labels"),
        drops=drops,
        contents=read_contents(output / "samples", {row["sample_id"] for row in drawn}),
        files=tuple(_files(output / "emit")),
        version=next(reversed(read_versions(output)), None),
        diversity=measure_variety(emitted.reasons) if emitted.reasons else None,
        evaluation=_evaluation(output),
    )


def _emitted(output: Path, free: set[str], seed: int) -> Emitted:
    columns = ("sample_id", "messages", "images", "label", "reason", "origin", "why", "source", "task", "subset")
    judged: set[tuple[str, str]] = set()
    parts: Counter[tuple[str, str]] = Counter()
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    draws: defaultdict[str, Draw[Row]] = defaultdict(lambda: Draw(_PER_ORIGIN, seed))
    reasons = Draw[str](_REASONS, seed)
    for row in read_columns(output / "emit" / "kept.parquet", *columns):
        origin = str(row["origin"])
        if origin == Origin.REVIEW:
            judged.add((row["source"], row["sample_id"]))
        parts[origin, row["subset"] or Subset.TRAIN.value] += 1
        draws[origin].add(row)
        if row["reason"]:
            reasons.add(row["reason"])
        if origin != Origin.MIX and row["task"] not in free:
            labels[row["label"]][origin] += 1
    examples = {o.value: tuple(draws[o.value].drawn) for o in Origin if o.value in draws}
    named = None if free and not labels else dict(labels)
    judged_pool = _count_pool(output / "samples", judged)
    return Emitted(parts, named, examples, tuple(reasons.drawn), reasons.seen, judged_pool)


def _count_pool(samples: Path, items: set[tuple[str, str]]) -> int:
    """How many of these items (source, id) are of the pool and not of the labelled set."""
    for split in (Split.UNLABELLED, Split.LABELLED) if items else ():
        rows = read_columns(samples / split / "kept.parquet", "source", "id")
        found = {item for row in rows if (item := (row["source"], row["id"])) in items}
        items = found if split is Split.UNLABELLED else items - found
    return len(items)


def _given(samples: Path) -> tuple[Counter[str], set[str]]:
    """Usable labelled items by given label, and the tasks that have no label set, whose items are not counted."""
    found: Counter[str] = Counter()
    free: set[str] = set()
    for split in (Split.LABELLED, Split.UNLABELLED):
        for row in read_columns(samples / split / "kept.parquet", "task", "labels", "given"):
            if row["labels"] == "[]":
                free.add(row["task"])
            elif row["given"] is not None:
                found[row["given"]] += 1
    return found, free


def _changes(stage: Path, seed: int) -> Changes:
    columns = ("sample_id", "given", "label", "action", "reviewed", "why")
    pairs: Counter[tuple[str, str | None]] = Counter()
    draw = Draw[Row](_CHANGED, seed)
    for row in read_columns(stage / "kept.parquet", *columns):
        if row["action"] == Action.DROP or row["label"] != row["given"]:
            pairs[row["given"], row["label"]] += 1
            draw.add(row)
    place = {pair: n for n, (pair, _) in enumerate(pairs.most_common())}
    drawn = tuple(sorted(draw.drawn, key=lambda row: (place[row["given"], row["label"]], row["sample_id"])))
    return Changes(pairs, drawn, _json(stage / "report.json"))


def _confidence(stage: Path) -> Confidence:
    """Read trust.parquet; labels of which nothing is known are left out."""
    own, expected = ([Step() for _ in range(_STEPS)] for _ in range(2))
    for row in read_columns(stage / "trust.parquet", "decision", "expected", "evidence"):
        confidence = Evidence.model_validate_json(row["evidence"] or "{}").confidence
        if confidence is None or row["expected"] is None:
            continue
        for steps, value in ((own, confidence), (expected, row["expected"])):
            step = steps[min(int(value * _STEPS), _STEPS - 1)]
            step.count += 1
            step.kept += row["decision"] in KEEPS
            step.own += confidence
            step.expected += row["expected"]
    return Confidence(tuple(own), tuple(expected)) if any(step.count for step in own) else Confidence()


def _evaluation(output: Path) -> Report | None:
    """Read what `evaluate` found; None if it was not run, or its file cannot be read."""
    try:
        return Report.model_validate_json((output / "evaluate" / "scores.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _json(file: Path) -> dict[str, Any]:
    try:
        return orjson.loads(file.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}


def _drops(stage: str, file: Path, seed: int) -> Iterable[Drops]:
    draws: defaultdict[str, Draw[Row]] = defaultdict(lambda: Draw(_PER_REASON, seed))
    for row in read_columns(file, "sample_id", "reason", "detail"):
        draws[row["reason"]].add({"sample_id": row["sample_id"], "why": row["detail"]})
    for reason, draw in sorted(draws.items(), key=lambda pair: (-pair[1].seen, pair[0])):
        yield Drops(stage, reason, draw.seen, tuple(draw.drawn))


def _files(emit: Path) -> Iterable[tuple[str, int, int]]:
    folders: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for file in sorted(emit.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            folders[file.parent.relative_to(emit).as_posix()].append((file.name, file.stat().st_size))
    for folder, files in folders.items():
        if len(files) > _FILES:
            yield f"{folder}/*", len(files), sum(size for _, size in files)
        else:
            yield from ((f"{folder}/{name}".removeprefix("./"), 1, size) for name, size in files)
