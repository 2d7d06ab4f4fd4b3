"""Noisy sets from a setting and a seed, and the files that `labelstill find-errors` reads."""

import zlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import orjson

from tests.benchmarks.correction.latent import NEITHER, NOISE, Floats, Ints, draw_items
from tests.benchmarks.correction.students import Predicted, Student, predict


@dataclass(frozen=True)
class Setting:
    """What a set is like. `rate`: share of usable items with a wrong label; `imbalance`: largest class over smallest.

    `unusable`: share of items with no right label. `teacher`: a better (or worse) model, whose use is counted.
    `reviews`: how many items a person looks at.
    """

    name: str
    noise: str
    rate: float
    students: tuple[Student, ...]
    items: int = 3000
    classes: int = 10
    imbalance: float = 1.0
    unusable: float = 0.0
    teacher: Student | None = None
    reviews: int = 100


@dataclass(frozen=True)
class NoisySet:
    """`given` [N] class numbers, `truth` [N] too or NEITHER, `students` each with [N, C] probabilities."""

    names: tuple[str, ...]
    given: Ints
    truth: Ints
    students: tuple[Predicted, ...]
    teacher: Predicted | None = None

    @property
    def mean(self) -> Floats:
        """[N, C]: the mean of the students, what rules for one model are given."""
        return np.mean([student.probabilities for student in self.students], axis=0)


def make(setting: Setting, seed: int) -> NoisySet:
    """The same set for the same setting and seed."""
    rng = np.random.default_rng([zlib.crc32(setting.name.encode()), seed])
    items = draw_items(rng, setting.items, setting.classes, setting.imbalance, setting.unusable)
    given = NOISE[setting.noise](rng, items, setting.rate)
    first = rng.normal(size=items.features.shape)
    # The first model's blur is what the others' `kin` is a share of.
    leading = replace(setting.students[0], kin=1 - setting.students[0].shared)
    students = [predict(rng, student, items, given, first) for student in (leading, *setting.students[1:])]
    teacher = predict(rng, setting.teacher, items, given, first) if setting.teacher else None
    names = tuple(f"class {number:02d}" for number in range(setting.classes))
    return NoisySet(names, given, items.truth, tuple(students), teacher)


@dataclass(frozen=True)
class Files:
    """The command's inputs on disk."""

    probabilities: tuple[Path, ...]
    verdicts: Path
    teacher: Path | None


def write(noisy: NoisySet, folder: Path) -> Files:
    """One file a student, the teacher's where there is one, and the truth of every item as verdicts."""
    paths = tuple(folder / f"student{number}.jsonl" for number in range(len(noisy.students)))
    for path, student in zip(paths, noisy.students, strict=True):
        _write_probabilities(path, noisy, student)
    teacher = folder / "teacher.jsonl" if noisy.teacher else None
    if teacher and noisy.teacher:
        _write_probabilities(teacher, noisy, noisy.teacher)
    verdicts = folder / "verdicts.jsonl"
    with verdicts.open("wb") as out:
        for number, truth in enumerate(noisy.truth.tolist()):
            verdict = "neither" if truth == NEITHER else noisy.names[truth]
            out.write(orjson.dumps({"id": item_id(number), "verdict": verdict}) + b"\n")
    return Files(paths, verdicts, teacher)


def item_id(number: int) -> str:
    """Of the item in this row."""
    return f"item-{number}"


def _write_probabilities(path: Path, noisy: NoisySet, predicted: Predicted) -> None:
    rows = predicted.probabilities.round(6).tolist()
    folds = [] if predicted.folds is None else predicted.folds.tolist()
    with path.open("wb") as out:
        for number, (row, given) in enumerate(zip(rows, noisy.given.tolist(), strict=True)):
            # A label that is not there counts as 0: some lines use that.
            present = {name: p for name, p in zip(noisy.names, row, strict=True) if p > 0}
            line = {"id": item_id(number), "given": noisy.names[given], "probabilities": present, "model": path.stem}
            if folds:
                line["fold"] = folds[number]
            out.write(orjson.dumps(line) + b"\n")
