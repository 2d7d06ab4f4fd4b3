"""Judgements for tests: by hand, or from the sets of `make bench-correction`, whose truth is known."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.correction.decide import AskTeacher, LookUp
from tasks.correction.judgements import Floats, Ints, Judgements
from tasks.correction.suspicion import Suspicion, measure_suspicion, temper
from tests.benchmarks.correction.noisy_sets import NoisySet, Setting, item_id, make
from tests.benchmarks.correction.students import Student


def judged(
    given: Sequence[int], students: Sequence[Sequence[float]] | NDArray[np.floating], dissent: float | None = None
) -> Judgements:
    """Items i0, i1, … and labels a, b, …; dissent is of one run unless it is given."""
    table = np.array(students, dtype=np.float32)
    labels = tuple("abcdefghijklmnopqrstuvwxyz"[: table.shape[1]])
    places = np.array(given, dtype=np.int64)
    away = (table.argmax(axis=1) != places) if dissent is None else np.full(len(places), dissent)
    return Judgements(tuple(f"i{i}" for i in range(len(places))), labels, places, table, away.astype(np.float32))


def evidence_of(judgements: Judgements, teacher: Floats | None = None) -> Suspicion:
    return measure_suspicion(judgements, temper(judgements), teacher)


def noisy(noise: str = "symmetric", rate: float = 0.2, *, seed: int = 0, **fields: object) -> NoisySet:
    """A made-up set; 600 items of ten classes and one middling student unless the fields of `Setting` say otherwise."""
    values: dict[str, object] = {"students": (Student(blur=0.8),), "items": 600}
    return make(Setting(f"{noise} {rate}", noise, rate, **(values | fields)), seed)  # type: ignore[arg-type]


def of_noisy(made: NoisySet) -> Judgements:
    dissent = np.mean([s.probabilities.argmax(axis=1) != made.given for s in made.students], axis=0)
    ids = tuple(item_id(i) for i in range(len(made.given)))
    return Judgements(ids, made.names, made.given, made.mean.astype(np.float32), dissent.astype(np.float32))


def powered(judgements: Judgements, power: float) -> Judgements:
    """The same students, more (above 1) or less sure of themselves."""
    table = judgements.students.astype(np.float64) ** power
    students = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    return Judgements(judgements.ids, judgements.labels, judgements.given, students, judgements.dissent)


def says(verdicts: Mapping[int, int] | Ints) -> LookUp:
    """A person who says this about the items."""
    return lambda items: {item: int(verdicts[item]) for item in items.tolist()}


def nobody(items: Ints) -> dict[int, int]:
    """A person who has judged nothing."""
    return {}


def teaches(probabilities: NDArray[np.floating]) -> AskTeacher:
    """A teacher with these probabilities [N, C], who finds a label for every item."""
    table = np.column_stack([probabilities, np.zeros(len(probabilities))]).astype(np.float32)
    return lambda items: table[items]
