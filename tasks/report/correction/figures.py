"""Every figure of a correction's report: its types; what stands in report.json."""

from dataclasses import dataclass

from tasks.correction.decide import Estimate
from tasks.correction.gate import Gate
from tasks.records import Action


@dataclass(frozen=True)
class Share:
    """`hits` of `of`, with the 95 % Wilson interval; None without any."""

    hits: int
    of: int
    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Pair:
    """Flagged items of one given label with one proposed label (None: none of the labels)."""

    given: str
    proposed: str | None
    items: int
    changed: int
    """Of these, the ones whose label was changed (or that were dropped)."""


@dataclass(frozen=True)
class ClassFigures:
    """The items of one given label."""

    label: str
    items: int
    flagged: int
    expected_wrong: float
    changed: int


@dataclass(frozen=True)
class Bin:
    """Judged items whose P(wrong), by a model that did not know their verdict, lies in [low, high)."""

    low: float
    high: float
    predicted: float | None
    wrong: Share


@dataclass(frozen=True)
class Bar:
    """All items whose P(wrong) lies in [low, high)."""

    low: float
    high: float
    items: int
    flagged: int


@dataclass(frozen=True)
class Suspect:
    """One item of the list of the most suspicious ones."""

    id: str
    given: str
    candidate: str | None
    p_given: float
    p_candidate: float
    p_neither: float
    action: Action
    verdict: str | None


@dataclass(frozen=True)
class Changes:
    """Labels that are not the given ones any more; the last three are expected numbers of the unreviewed ones."""

    by_verdict: int
    dropped: int
    unreviewed: int
    right_to_wrong: float
    wrong_to_right: float
    wrong_to_wrong: float


@dataclass(frozen=True)
class Figures:
    """The whole report. Lists of classes are in the order of `labels`."""

    title: str
    items: int
    labels: tuple[str, ...]
    repeats: int
    actions: dict[str, int]
    flagged: int
    verdicts: int
    reviews: int
    """Items that were put before the person, of which `audited` make the audit."""
    audited: int
    verdicts_from_before: int
    teacher_calls: int
    teacher_without_answer: int
    costs: dict[str, float]
    calibrated: bool
    """Whether there were verdicts enough for estimates; else P(wrong) is a prior's."""
    estimates: dict[str, Estimate]
    threshold: float | None
    """Lowest P(wrong) that is flagged; None where flags are not set by it."""
    audited_verdicts: int
    measured_precision: Share | None
    """On the audited items that have a verdict, each judged by a model that did not know it."""
    measured_recall: Share | None
    gate: Gate
    gate_open: bool
    changes: Changes
    expected_wrong_given: float
    """Given labels expected to be wrong; an item with a verdict counts as the verdict says."""
    expected_wrong_left: float
    """The same of the final labels."""
    budget: tuple[tuple[int, float], ...]
    """(further reviews in order of gain, wrong labels expected then)."""
    classes: tuple[ClassFigures, ...]
    pairs: tuple[Pair, ...]
    """The commonest first."""
    reliability: tuple[Bin, ...]
    histogram: tuple[Bar, ...]
    suspects: tuple[Suspect, ...]
    excluded: dict[str, str]
