"""Make judgements for tests: by hand, or from the sets of `make bench-correction`, whose true labels are known."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from tasks.correction.decide import Adjudicator, LookUp
from tasks.correction.judgements import Floats, Ints, Judgements
from tasks.correction.suspicion import Suspicion, measure_suspicion, temper
from tests.benchmarks.correction.noisy_sets import NoisySet, Setting, item_id, make
from tests.benchmarks.correction.students import Student


def make_judgements(
    given: Sequence[int], students: Sequence[Sequence[float]] | NDArray[np.floating], dissent: float | None = None
) -> Judgements:
    """Return judgements on items i0, i1, … with labels a, b, …; `dissent` is that of one run unless given."""
    table = np.array(students, dtype=np.float32)
    labels = tuple("abcdefghijklmnopqrstuvwxyz"[: table.shape[1]])
    places = np.array(given, dtype=np.int64)
    away = (table.argmax(axis=1) != places) if dissent is None else np.full(len(places), dissent)
    return Judgements(tuple(f"i{i}" for i in range(len(places))), labels, places, table, away.astype(np.float32))


def measure_evidence(judgements: Judgements, teacher: Floats | None = None) -> Suspicion:
    return measure_suspicion(judgements, temper(judgements), [] if teacher is None else [teacher])


def make_noisy_set(noise: str = "symmetric", rate: float = 0.2, *, seed: int = 0, **fields: object) -> NoisySet:
    """Return a synthetic set: by default, 600 items of ten classes and one student of medium skill."""
    values: dict[str, object] = {"students": (Student(blur=0.8),), "items": 600}
    return make(Setting(f"{noise} {rate}", noise, rate, **(values | fields)), seed)  # type: ignore[arg-type]


def judge_noisy_set(made: NoisySet) -> Judgements:
    dissent = np.mean([s.probabilities.argmax(axis=1) != made.given for s in made.students], axis=0)
    ids = tuple(item_id(i) for i in range(len(made.given)))
    return Judgements(ids, made.names, made.given, made.mean.astype(np.float32), dissent.astype(np.float32))


def change_confidence(judgements: Judgements, power: float) -> Judgements:
    """Return the same judgements with more (`power` above 1) or less confident students."""
    table = judgements.students.astype(np.float64) ** power
    students = (table / table.sum(axis=1, keepdims=True)).astype(np.float32)
    return Judgements(judgements.ids, judgements.labels, judgements.given, students, judgements.dissent)


def answer_from(verdicts: Mapping[int, int] | Ints) -> LookUp:
    """Return a person who gives these verdicts."""
    return lambda items: {item: int(verdicts[item]) for item in items.tolist()}


def answer_nothing(items: Ints) -> dict[int, int]:
    """Give no verdict on any item."""
    return {}


def make_teacher(probabilities: NDArray[np.floating]) -> list[Adjudicator]:
    """Return one teacher with these probabilities [N, C], which finds a label for every item."""
    table = np.column_stack([probabilities, np.zeros(len(probabilities))]).astype(np.float32)
    return [Adjudicator(lambda items: table[items])]
