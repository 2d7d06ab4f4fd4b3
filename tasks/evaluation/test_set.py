"""Held-out items: their true labels where they are known, and the label that is predicted for each of a test set.

A leaderboard wants a label for every item, also for those that nobody could answer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import JudgementError
from tasks.items.manifests import read_set
from tasks.packs.columns import Columns
from tasks.records import Example, Prediction, Sample
from tasks.storage.json_lines import read_objects


def read_truth(file: Path) -> dict[str, str]:
    """Return label by id from JSON Lines `{"id": …, "label": …}`; other fields are ignored.

    Raises JudgementError naming file and line.
    """
    truth: dict[str, str] = {}
    for number, fields in read_objects(file, JudgementError, "give JSON Lines of id and label"):
        name, label = fields.get("id"), fields.get("label")
        if not isinstance(name, str) or not isinstance(label, str):
            raise JudgementError(f'{file}, line {number}: needs {{"id": …, "label": …}}, both text')
        if truth.setdefault(name, label) != label:
            raise JudgementError(
                f"{file}, line {number}: item {name} has two labels, {truth[name]} and {label}; keep one"
            )
    return truth


@dataclass(frozen=True)
class PredictedLabels:
    """What predictions.csv holds. Made by `choose_test_labels`; written and reported by evaluate."""

    labels: dict[str, str]
    """By id: the items that were read, in order, then the others."""
    unanswered: tuple[str, ...]
    """Items that were read, about which no student said anything."""
    unread: tuple[str, ...]
    """Items that were refused on the way in."""


def choose_test_labels(
    items: Sequence[Sample], answers: Iterable[Prediction], refused: Iterable[str], usual: Counter[str]
) -> PredictedLabels:
    """Return the likeliest label of each item, the probabilities of all `answers` about it added up.

    Without an answer it is the commonest label in `usual` that the item offers, or its first. The ids in `refused`,
    whose items' own labels nobody has read, get the commonest of all; with an empty `usual` they are left out.
    """
    sums: dict[str, dict[str, float]] = {s.id: dict.fromkeys(s.labels, 0.0) for s in items}
    for answer in answers:
        said = answer.probabilities or ({answer.label: 1.0} if answer.label else {})
        for label, p in said.items():
            sums[answer.sample_id][label] += p
    ranked = sorted(usual, key=lambda label: (-usual[label], label))
    unanswered = tuple(i for i, p in sums.items() if not any(p.values()))
    unread = tuple(i for i in dict.fromkeys(refused) if i not in sums) if ranked else ()
    labels = {i: max(p, key=lambda label, p=p: p[label]) for i, p in sums.items()}
    labels |= {i: next((label for label in ranked if label in sums[i]), labels[i]) for i in unanswered}
    return PredictedLabels(labels | dict.fromkeys(unread, ranked[0] if ranked else ""), unanswered, unread)


def count_usual_labels(emitted: Iterable[Example], labelled: Iterable[Sample]) -> Counter[str]:
    """Count the emitted labels, or the given ones where nothing was emitted: which label is likeliest unseen."""
    return Counter(e.label for e in emitted if e.label) or Counter(s.given for s in labelled if s.given)


def keep_own_ids(ids: Iterable[str], manifest: Path, columns: Columns) -> list[str]:
    """Return those of the `ids` by which the intake calls a manifest's items that are the items' own.

    The others are what it calls items that have none, by their place. Raises ManifestError as `read_set` does.
    """
    items = [item for _, item in read_set(manifest, columns)]
    places = {item.fallback_id for item in items}
    own = {str((item.fields or {}).get(columns.id or "")) for item in items}
    return [i for i in ids if i not in places or i in own]
