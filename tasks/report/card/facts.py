"""Read the card's contents from a run's files: counts, and a few items as examples.

Every file is optional. Memory use does not grow with the number of items. The examples are drawn with a fixed seed, so
the same run always gives the same card.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
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
from tasks.report.correction.report import describe_overlaps
from tasks.storage.failure import read_failure
from tasks.storage.stage_record import StageRecord, read_record

_EXAMPLES_PER_ORIGIN = 4
_ITEMS_PER_DROP_REASON = 2
_CHANGED_ITEMS = 24
_REASONS = 5000
"""Maximum number of reasons that are measured. The n-grams of a million reasons would not fit into memory."""
_STEPS = 20
"""Number of bars in a histogram of probabilities."""
_FILES = 20
"""A folder with more files than this, such as copied images, is shown as one line."""

_STAGES = (
    "samples/labelled",
    "samples/unlabelled",
    "samples/test",
    "rationales",
    "correction",
    "pseudo_labels",
    "emit",
)


@dataclass(frozen=True)
class Emitted:
    """The training set."""

    parts: Counter[tuple[str, str]]
    """Maps (origin, subset) to the number of examples."""
    labels: dict[str, Counter[str]] | None
    """Maps label to examples per origin, without the mix and tasks without a label set. None if no task has one."""
    examples: dict[str, tuple[Row, ...]]
    """Maps origin to some rows of emit/kept.parquet. The strongest origin comes first."""
    reasons: tuple[str, ...]
    """All reasons, or a random sample of them if there are too many."""
    with_reason: int
    """Number of examples that have a reason."""
    judged_pool: int = 0
    """Number of examples of origin REVIEW whose items are from the pool."""

    @property
    def count(self) -> int:
        """Number of examples in the set."""
        return self.parts.total()

    @property
    def origins(self) -> Counter[str]:
        """Number of examples by origin."""
        counts: Counter[str] = Counter()
        for (origin, _), count in self.parts.items():
            counts[origin] += count
        return counts


@dataclass(frozen=True)
class Changes:
    """The given labels that correction changed."""

    pairs: Counter[tuple[str, str | None]]
    """Maps (given label, new label) to the number of items. None as the new label means that the item was dropped."""
    drawn: tuple[Row, ...]
    """Some rows of correction/kept.parquet. Rows of the most frequent pairs come first."""
    report: dict[str, Any]
    """The content of correction/report.json, or an empty dict if there is no such file."""


@dataclass
class Step:
    """The pseudo-labels in one bar of a histogram."""

    count: int = 0
    kept: int = 0
    own: float = 0.0
    """Sum of the teacher's own probabilities (or of its shares of votes)."""
    expected: float = 0.0
    """Sum of the expected precisions."""


@dataclass(frozen=True)
class Confidence:
    """Two histograms of the pool's pseudo-labels, from 0 to 1. Both are empty if there are no pseudo-labels."""

    own: tuple[Step, ...] = ()
    """The bars over the teacher's own probability (or share of votes)."""
    expected: tuple[Step, ...] = ()
    """The bars over the expected precision."""


@dataclass(frozen=True)
class Drops:
    """The items that a stage dropped for one reason."""

    stage: str
    reason: str
    count: int
    drawn: tuple[Row, ...]
    """The columns `sample_id` and `why` for a few of these items."""


@dataclass(frozen=True)
class Facts:
    """Everything that the card shows about the run's data. `read_facts` creates it."""

    records: dict[str, StageRecord]
    """Maps stage to its record, in the order of the stages."""
    before: Counter[str]
    """Maps given label to the number of usable labelled items, except for tasks without a label set."""
    emitted: Emitted
    changes: Changes
    confidence: Confidence
    drops: tuple[Drops, ...]
    contents: Contents
    """Texts and pictures of the items that are shown."""
    files: tuple[tuple[str, int, int], ...]
    """What emit wrote: path under emit/, number of files (1, or all files of a folder), and bytes."""
    version: Version | None
    """The latest version of the set, or None if no version is recorded."""
    diversity: Variety | None
    """How varied the emitted reasons are, or None if there are no reasons."""
    evaluation: Report | None = None
    """Scores of students that were trained on the set, or None if no students were measured."""
    failure: str = ""
    """Why the last run failed, if that was because of its models."""
    overlaps: str = ""
    """A sentence about the labels whose definitions may overlap; empty if there are none."""

    @property
    def labels(self) -> list[str]:
        """All labels of the labelled items and of the set. Labels with the most labelled items come first."""
        sizes = {label: found.total() for label, found in (self.emitted.labels or {}).items()}
        return sorted({*self.before, *sizes}, key=lambda x: (-self.before[x], -sizes.get(x, 0), x))

    @property
    def shown_score(self) -> Score | None:
        """The score that is shown per class: that of the variant `all`, or else that of the last variant."""
        scores = () if self.evaluation is None else self.evaluation.scores
        return next((s for s in scores if s.variant == Variant.ALL), scores[-1] if scores else None)

    def find_figure(self, stage: str, name: str) -> float | None:
        """Return a figure from a stage's record, or None if the run has no such stage or figure."""
        record = self.records.get(stage)
        return None if record is None else record.figures.get(name)


def read_stage_records(output: Path) -> Iterator[StageRecord]:
    """Yield the record of each finished stage of the run under `output`, in the order of the stages."""
    for stage in _STAGES:
        record = read_record(output / stage)
        if record is not None:
            yield record


def read_facts(output: Path, seed: int = 0) -> Facts:
    """Read the files that a run wrote under `output`. If a file is missing, the facts from it are empty."""
    records = {record.stage: record for record in read_stage_records(output)}
    before, tasks_without_labels = _count_given_labels(output / "samples")
    emitted = _read_emitted(output, tasks_without_labels, seed)
    changes = _read_changes(output / "correction", seed)
    drops = tuple(d for stage in records for d in _read_drops(stage, output / stage / "dropped.parquet", seed))
    drawn = [*changes.drawn, *(row for d in drops for row in d.drawn)]
    drawn += [row for rows in emitted.examples.values() for row in rows]
    return Facts(
        records=records,
        before=before,
        emitted=emitted,
        changes=changes,
        confidence=_read_confidence(output / "pseudo_labels"),
        drops=drops,
        contents=read_contents(output / "samples", {row["sample_id"] for row in drawn}),
        files=tuple(_list_files(output / "emit")),
        version=next(reversed(read_versions(output)), None),
        diversity=measure_variety(emitted.reasons) if emitted.reasons else None,
        evaluation=_read_evaluation(output),
        failure=read_failure(output),
        overlaps=describe_overlaps(output / "correction"),
    )


def _read_emitted(output: Path, tasks_without_labels: set[str], seed: int) -> Emitted:
    shown = ("messages", "images", "videos", "boxes", "label", "reason", "origin", "why")
    columns = ("sample_id", *shown, "source", "task", "subset")
    judged: set[tuple[str, str]] = set()
    parts: Counter[tuple[str, str]] = Counter()
    labels: defaultdict[str, Counter[str]] = defaultdict(Counter)
    draws: defaultdict[str, Draw[Row]] = defaultdict(lambda: Draw(_EXAMPLES_PER_ORIGIN, seed))
    reasons = Draw[str](_REASONS, seed)
    for row in read_columns(output / "emit" / "kept.parquet", *columns):
        origin = str(row["origin"])
        if origin == Origin.REVIEW:
            judged.add((row["source"], row["sample_id"]))
        parts[origin, row["subset"] or Subset.TRAIN.value] += 1
        draws[origin].add(row)
        if row["reason"]:
            reasons.add(row["reason"])
        if origin != Origin.MIX and row["task"] not in tasks_without_labels:
            labels[row["label"]][origin] += 1
    examples = {o.value: tuple(draws[o.value].drawn) for o in Origin if o.value in draws}
    judged_pool = _count_pool_items(output / "samples", judged)
    return Emitted(
        parts=parts,
        labels=None if tasks_without_labels and not labels else dict(labels),
        examples=examples,
        reasons=tuple(reasons.drawn),
        with_reason=reasons.seen,
        judged_pool=judged_pool,
    )


def _count_pool_items(samples: Path, items: set[tuple[str, str]]) -> int:
    """Return how many of the `items`, given as (source, id), are in the pool and not in the labelled set."""
    for split in (Split.UNLABELLED, Split.LABELLED) if items else ():
        rows = read_columns(samples / split / "kept.parquet", "source", "id")
        found = {item for row in rows if (item := (row["source"], row["id"])) in items}
        items = found if split is Split.UNLABELLED else items - found
    return len(items)


def _count_given_labels(samples: Path) -> tuple[Counter[str], set[str]]:
    """Return a count of usable items per given label, and the tasks without a label set, which are not counted."""
    counts: Counter[str] = Counter()
    tasks_without_labels: set[str] = set()
    for split in (Split.LABELLED, Split.UNLABELLED):
        for row in read_columns(samples / split / "kept.parquet", "task", "labels", "given"):
            if row["labels"] == "[]":
                tasks_without_labels.add(row["task"])
            elif row["given"] is not None:
                counts[row["given"]] += 1
    return counts, tasks_without_labels


def _read_changes(stage: Path, seed: int) -> Changes:
    columns = ("sample_id", "given", "label", "action", "reviewed", "why")
    pairs: Counter[tuple[str, str | None]] = Counter()
    draw = Draw[Row](_CHANGED_ITEMS, seed)
    for row in read_columns(stage / "kept.parquet", *columns):
        if row["action"] == Action.DROP or row["label"] != row["given"]:
            pairs[row["given"], row["label"]] += 1
            draw.add(row)
    rank = {pair: n for n, (pair, _) in enumerate(pairs.most_common())}
    drawn = tuple(sorted(draw.drawn, key=lambda row: (rank[row["given"], row["label"]], row["sample_id"])))
    return Changes(pairs, drawn, _read_json(stage / "report.json"))


def _read_confidence(stage: Path) -> Confidence:
    """Read trust.parquet. Answers without a confidence or an expected precision are left out."""
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


def _read_evaluation(output: Path) -> Report | None:
    """Return the scores that `evaluate` wrote, or None if it was not run or its file is broken."""
    try:
        return Report.model_validate_json((output / "evaluate" / "scores.json").read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return orjson.loads(file.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}


def _read_drops(stage: str, file: Path, seed: int) -> Iterable[Drops]:
    draws: defaultdict[str, Draw[Row]] = defaultdict(lambda: Draw(_ITEMS_PER_DROP_REASON, seed))
    for row in read_columns(file, "sample_id", "reason", "detail", "source"):
        source = row["source"] or None
        draws[row["reason"]].add({"sample_id": row["sample_id"], "why": row["detail"], "source": source})
    for reason, draw in sorted(draws.items(), key=lambda pair: (-pair[1].seen, pair[0])):
        yield Drops(stage, reason, draw.seen, tuple(draw.drawn))


def _list_files(emit: Path) -> Iterable[tuple[str, int, int]]:
    folders: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
    for file in sorted(emit.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            folders[file.parent.relative_to(emit).as_posix()].append((file.name, file.stat().st_size))
    for folder, files in folders.items():
        if len(files) > _FILES:
            yield f"{folder}/*", len(files), sum(size for _, size in files)
        else:
            yield from ((f"{folder}/{name}".removeprefix("./"), 1, size) for name, size in files)
