"""Read true labels of held-out items, and choose the label to submit for each item of a test set.

A leaderboard requires a label for every item, even if no student gave a usable answer.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import JudgementError
from tasks.items.manifests import read_manifests
from tasks.packs.columns import Columns
from tasks.records import Example, Prediction, Sample
from tasks.storage.json_lines import read_objects


def read_truth(file: Path) -> dict[str, str]:
    """Return a mapping from id to label, read from JSON Lines `{"id": …, "label": …}`; other fields are ignored.

    Raises JudgementError with file and line.
    """
    truth: dict[str, str] = {}
    for number, fields in read_objects(file, JudgementError, "write JSON Lines {id, label}"):
        name, label = fields.get("id"), fields.get("label")
        if not isinstance(name, str) or not isinstance(label, str):
            raise JudgementError(f'{file}, line {number}: needs "id" and "label", both text')
        if truth.setdefault(name, label) != label:
            raise JudgementError(
                f"{file}, line {number}: item {name} has the label {label} here but {truth[name]} above; keep one"
            )
    return truth


@dataclass(frozen=True)
class PredictedLabels:
    """The content of predictions.csv. Made by `choose_test_labels`."""

    labels: dict[str, str]
    """Maps item id to label: first the items that were read, in input order, then the refused ones."""
    unanswered: tuple[str, ...]
    """Ids of items that were read, but about which no student gave a usable answer."""
    unread: tuple[str, ...]
    """Ids of items that were refused when the test set was read."""


def choose_test_labels(
    items: Sequence[Sample], answers: Iterable[Prediction], refused: Iterable[str], usual: Counter[str]
) -> PredictedLabels:
    """Choose for each item the label with the highest sum of probabilities in all `answers` about it.

    `usual` counts how often each label is used. An item without an answer gets the most frequent of the labels that it
    offers, or its first label. The ids in `refused`, whose offered labels are unknown, get the most frequent label of
    all; if `usual` is empty, they are left out.
    """
    sums: dict[str, dict[str, float]] = {s.id: dict.fromkeys(s.labels, 0.0) for s in items}
    for answer in answers:
        probabilities = answer.probabilities or ({answer.label: 1.0} if answer.label else {})
        for label, p in probabilities.items():
            sums[answer.sample_id][label] += p
    ranked = sorted(usual, key=lambda label: (-usual[label], label))
    unanswered = tuple(i for i, p in sums.items() if not any(p.values()))
    unread = tuple(i for i in dict.fromkeys(refused) if i not in sums) if ranked else ()
    labels = {i: max(p, key=lambda label, p=p: p[label]) for i, p in sums.items()}
    labels |= {i: next((label for label in ranked if label in sums[i]), labels[i]) for i in unanswered}
    return PredictedLabels(labels | dict.fromkeys(unread, ranked[0] if ranked else ""), unanswered, unread)


def count_usual_labels(emitted: Iterable[Example], labelled: Iterable[Sample]) -> Counter[str]:
    """Return how often each label was emitted; if no label was emitted, return how often each was given."""
    return Counter(e.label for e in emitted if e.label) or Counter(s.given for s in labelled if s.given)


def keep_own_ids(ids: Iterable[str], manifest: Path, columns: Columns) -> list[str]:
    """Return those of the `ids` that occur in the manifest itself.

    Each of the others was made from the position of an item that has no id. Raises ManifestError as `read_manifests`
    does.
    """
    items = [item for _, item in read_manifests(manifest, columns)]
    places = {item.fallback_id for item in items}
    own = {str((item.fields or {}).get(columns.id or "")) for item in items}
    return [i for i in ids if i not in places or i in own]
