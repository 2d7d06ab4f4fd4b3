"""Correction's students, asked about the pool: each item by as many of them as judged a labelled item out of fold."""

from collections.abc import Sequence

from flows.config import CorrectionConfig
from flows.correction import STAGE
from flows.students import trained_students
from flows.training import student_facts
from tasks.correction.decide import check_out_of_fold
from tasks.models.ask import Asker
from tasks.packs.pack import Pack
from tasks.records import Prediction, Sample, content_digest
from tasks.students.fold_files import recorded_folds
from tasks.students.folds import Folds

Runs = tuple[dict[str, Prediction], ...]
"""Predictions by sample id, a mapping a repeat."""


def students_say(
    config: CorrectionConfig, pack: Pack, labelled: Sequence[Sample], pool: Sequence[Sample], asker: Asker
) -> tuple[Runs, Runs]:
    """What the students under `output`/correction say of `labelled`, out of fold, and of `pool`.

    An item of the pool is put before one student a repeat, chosen by its content among those that saw nothing equal:
    an average over all folds would be surer than what a labelled item has, and would be weighed wrongly. Items that
    every student saw are missing, and so is a repeat whose folds are not recorded. Raises LeakageError like
    `out_of_fold`.
    """
    of_labelled: list[dict[str, Prediction]] = []
    of_pool: list[dict[str, Prediction]] = []
    folder = config.output / STAGE
    for repeat in range(config.student.repeats):
        fold_of = recorded_folds(folder, repeat, config.student.folds)
        if fold_of is None:
            continue
        outside = tuple(s.id for s in labelled if s.id not in fold_of)
        split = Folds(fold_of=fold_of, k=config.student.folds, groups=0, rare={}, always_train=outside)
        students, ask = trained_students(config, pack, labelled, split, repeat, folder / "students", asker)
        seen = {s.fold: set(student_facts(s)["trained_on_content"]) for s in students}
        check_out_of_fold(labelled, fold_of, seen)
        asked_of = {s.id: _unseen(s, seen) for s in pool}
        for items, folds, runs in ((labelled, fold_of, of_labelled), (pool, asked_of, of_pool)):
            said: dict[str, Prediction] = {}
            for student in students:
                if mine := [s for s in items if folds.get(s.id) == student.fold]:
                    said |= {p.sample_id: p for p in ask(student, students, mine)}
            runs.append(said)
    return tuple(of_labelled), tuple(of_pool)


def _unseen(sample: Sample, seen: dict[int, set[str]]) -> int | None:
    """A fold whose student saw nothing equal to the sample; the same for the same content."""
    content = content_digest(sample)
    first = int(content[:8], 16)
    folds = sorted(seen)
    return next((f for i in range(len(folds)) if content not in seen[f := folds[(first + i) % len(folds)]]), None)
