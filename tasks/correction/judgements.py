"""Convert the students' and the teacher's predictions about labelled items, from files or a run, to arrays."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from tasks.errors import JudgementError
from tasks.records import NEITHER, Prediction, Sample
from tasks.storage.json_lines import read_objects

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Judgements:
    """What the students predict about N items with C labels.

    `given` [N] contains indices into `labels`. `students` [N, C] contains out-of-fold probabilities, which add up to 1
    in each row. `dissent` [N] is the share of runs (repeats or models) whose most probable label is not the given one.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    given: Ints
    students: Floats
    dissent: Floats


class _Row(NamedTuple):
    given: str | None
    probabilities: dict[str, float]


def read_probabilities(files: Sequence[Path]) -> Judgements:
    """Return the mean of the probabilities in several files, one per model or repeat.

    A line is ``{"id", "given", "probabilities": {label: p}}``. Items keep the order of the first file. The
    probabilities of a line are scaled to add up to 1; a missing label counts as 0. Raises JudgementError for an invalid
    line, a repeated item, an item that is missing from a file, or an item whose given label differs between files.
    """
    labels: dict[str, int] = {}
    runs = [_read(file, labels, needs_given=True) for file in files]
    first = runs[0]
    for file, run in zip(files[1:], runs[1:], strict=True):
        _check_same_items(files[0], {i: row.given for i, row in first.items()}, file, run)
    ids = tuple(first)
    given = np.array([labels[row.given or ""] for row in first.values()], dtype=np.int64)
    students = np.zeros((len(ids), len(labels)), dtype=np.float32)
    dissent = np.zeros(len(ids), dtype=np.float32)
    for run in runs:
        found = _tabulate_rows(run, ids, labels)
        students += found
        dissent += found.argmax(axis=1) != given
    students /= len(runs)
    dissent /= len(runs)
    return Judgements(ids, tuple(labels), given, students, dissent)


def read_teacher(file: Path, judgements: Judgements) -> Floats:
    """Return the teacher's probabilities [N, C + 1] for the items of `judgements`; the last column is `neither`.

    Labels that are not in `judgements` are left out. Raises JudgementError for the same faults as `read_probabilities`.
    """
    labels = {label: i for i, label in enumerate(judgements.labels)}
    run = _read(file, labels, needs_given=False)
    _check_same_items(None, dict.fromkeys(judgements.ids), file, run)
    found = _tabulate_rows(run, judgements.ids, labels)
    rejects = found[:, labels[NEITHER]] if NEITHER in labels else np.zeros(len(found), dtype=np.float32)
    answers = np.column_stack([found[:, : len(judgements.labels)], rejects])
    total = answers.sum(axis=1, keepdims=True)
    return np.divide(answers, total, out=np.full_like(answers, np.nan), where=total > 0)


def split_judged(
    samples: Sequence[Sample], runs: Sequence[Mapping[str, Prediction]], always_train: Sequence[str]
) -> tuple[list[Sample], dict[str, str]]:
    """Return the samples that every run predicted, and a mapping of each other sample's id to why it was not predicted.

    `always_train` has the ids of samples that are in every training set, so no student may predict them.
    """
    rare = set(always_train)
    unjudged: dict[str, str] = {}
    for sample in samples:
        if sample.id in rare:
            unjudged[sample.id] = "in every training set: its class, or one that shares its group, has too few items"
            continue
        missing = [run.get(sample.id) for run in runs if (p := run.get(sample.id)) is None or p.label is None]
        if missing:
            outcome = missing[0].outcome if missing[0] is not None else "nothing"
            unjudged[sample.id] = f"the student gave no usable answer ({outcome})"
    return [s for s in samples if s.id not in unjudged], unjudged


def list_labels(samples: Sequence[Sample]) -> list[str]:
    """Return all labels that the samples offer, without repetitions, in order of first appearance."""
    return list(dict.fromkeys(label for sample in samples for label in sample.labels))


def index_verdicts(judgements: Judgements, verdicts: Mapping[str, str]) -> dict[int, int]:
    """Convert `verdicts`, which maps a sample id to a label or `neither`, to a mapping of item to label index.

    `neither` becomes -1. Verdicts on items outside `judgements` are left out.
    """
    labels = {label: i for i, label in enumerate(judgements.labels)} | {NEITHER: -1}
    return {i: labels[verdicts[identity]] for i, identity in enumerate(judgements.ids) if identity in verdicts}


def judge_by_predictions(
    samples: Sequence[Sample], runs: Sequence[Mapping[str, Prediction]], labels: Sequence[str]
) -> Judgements:
    """Return the mean of the predictions of `runs`.

    Each run maps sample ids to out-of-fold predictions, and must have predicted every sample.
    """
    places = {label: i for i, label in enumerate(labels)}
    given = np.array([places[s.given or ""] for s in samples], dtype=np.int64)
    found = [tabulate(run, samples, labels) for run in runs]
    students = np.mean(found, axis=0, dtype=np.float64).astype(np.float32).reshape(len(samples), len(labels))
    dissent = np.mean([row.argmax(axis=1) != given for row in found], axis=0).astype(np.float32)
    return Judgements(tuple(s.id for s in samples), tuple(labels), given, students, dissent)


def tabulate(run: Mapping[str, Prediction], samples: Sequence[Sample], labels: Sequence[str]) -> Floats:
    """Return the probabilities [N, C] that `run` predicts for the samples; each row is scaled to add up to 1.

    A prediction without probabilities counts as certain of its label. Probabilities of labels outside `labels` are left
    out. The row of a sample without a usable prediction is NaN.
    """
    places = {label: i for i, label in enumerate(labels)}
    found = np.zeros((len(samples), len(labels)), dtype=np.float32)
    for i, sample in enumerate(samples):
        prediction = run.get(sample.id)
        if prediction is None or prediction.label is None:
            found[i] = math.nan
            continue
        for label, p in (prediction.probabilities or {prediction.label: 1.0}).items():
            if label in places:
                found[i, places[label]] = p
        total = found[i].sum()
        found[i] = found[i] / total if total > 0 else math.nan
    return found


def average_answers(tables: Sequence[Floats]) -> Floats:
    """Return the mean [N, C] of the answers that there are; an item's row in a table without its answer is NaN."""
    answered = np.sum([~np.isnan(table[:, :1]) for table in tables], axis=0)
    total = np.sum([np.nan_to_num(table) for table in tables], axis=0, dtype=np.float32)
    return np.divide(total, answered, out=np.full_like(total, np.nan), where=answered > 0)


def join_predictions(models: Sequence[Mapping[str, Prediction]]) -> dict[str, Prediction]:
    """Return one answer for each sample that one of several models was asked about, keyed by sample id.

    It has the mean of the models' probabilities, and reason and boxes of a model that chose the same label. An answer
    without probabilities counts as certain of its label, and one without a label does not count.
    """
    found: dict[str, Prediction] = {}
    for identity in dict.fromkeys(i for answers in models for i in answers):
        given = [answers[identity] for answers in models if identity in answers]
        usable = [p for p in given if p.label is not None]
        if len(usable) < 2:
            found[identity] = usable[0] if usable else given[0]
            continue
        shares: Counter[str] = Counter()
        for p in usable:
            shares.update({k: v / len(usable) for k, v in (p.probabilities or {p.label or "": 1.0}).items()})  # pyright: ignore
        label = max(shares, key=lambda each: shares[each])
        same = [p for p in usable if p.label == label]
        best = (same or usable)[-1]
        explained = {} if same else {"reason": "", "boxes": ()}
        found[identity] = best.model_copy(update={"label": label, "probabilities": dict(shares), **explained})
    return found


def _read(file: Path, labels: dict[str, int], *, needs_given: bool) -> dict[str, _Row]:
    """Return the rows by id, and add their labels to `labels` in order of first mention."""
    rows: dict[str, _Row] = {}
    for number, row in read_objects(file, JudgementError, "write one JSON object per item"):
        identity, probabilities = row.get("id"), row.get("probabilities")
        if not isinstance(identity, str):
            raise _fault(file, number, '"id" must be text')
        if identity in rows:
            raise _fault(file, number, f"item {identity!r} occurs twice; keep one of the two lines")
        label = row.get("given")
        if needs_given and not isinstance(label, str):
            raise _fault(file, number, f'item {identity!r}: "given" must be text, the label it has')
        if not isinstance(probabilities, dict) or not probabilities:
            raise _fault(file, number, f'item {identity!r}: "probabilities" must be an object of label and number')
        total = 0.0
        for name, p in cast("dict[str, Any]", probabilities).items():
            if isinstance(p, bool) or not isinstance(p, int | float) or not p >= 0 or p == math.inf:
                what = f"item {identity!r}: the probability of {name!r} is {p!r}; it must be a number of at least 0"
                raise _fault(file, number, what)
            labels.setdefault(name, len(labels))
            total += p
        if not 0 < total < math.inf:
            raise _fault(file, number, f"item {identity!r}: its probabilities add up to {total:g}; one must be above 0")
        given = label if needs_given else None
        if given is not None:
            labels.setdefault(given, len(labels))
        rows[identity] = _Row(given, probabilities)
    if not rows:
        raise JudgementError(f"{file}: contains no items; write one JSON object per item")
    return rows


def _tabulate_rows(rows: Mapping[str, _Row], ids: Sequence[str], labels: Mapping[str, int]) -> Floats:
    """Return the probabilities [N, C] of the items in the order of `ids`; rows sum to 1."""
    found = np.zeros((len(ids), len(labels)))
    for i, identity in enumerate(ids):
        for label, p in rows[identity].probabilities.items():
            found[i, labels[label]] = p
    # Normalise before converting to 32 bits, in which a score of 1e-50 is 0 and one of 1e39 infinite.
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def _check_same_items(
    first: Path | None, expected: Mapping[str, str | None], file: Path, found: Mapping[str, _Row]
) -> None:
    for identity, label in expected.items():
        if identity not in found:
            raise JudgementError(f"{file}: item {identity!r} is missing; every file must contain every item")
        if found[identity].given != label:
            raise JudgementError(
                f"{file}: the given label of item {identity!r} differs from that in {first}; correct one of the files"
            )
    for identity in found:
        if identity not in expected:
            what = "is missing from another file; remove it here or add it there"
            raise JudgementError(f"{file}: item {identity!r} {what}")


def _fault(file: Path, number: int, what: str) -> JudgementError:
    return JudgementError(f"{file}, line {number}: {what}")
