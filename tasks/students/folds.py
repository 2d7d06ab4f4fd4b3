"""Split the labelled set into folds, and make sure that no student predicts an item that it was trained on.

scikit-learn makes stratified folds in which a group of similar items stays together. The folds are recorded, so that
items added later do not move existing ones.
"""

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from sklearn.model_selection import StratifiedGroupKFold  # pyright: ignore[reportMissingTypeStubs]

from tasks.errors import ConfigError, LeakageError
from tasks.items.duplicates import find_grown_dialogues, group_linked
from tasks.records import Sample, content_digest, digest_of
from tasks.storage.json_lines import write_json

_SHOWN = 5
"""Number of the largest groups that are reported with their ids."""


@dataclass(frozen=True)
class Folds:
    """The fold (0 … k-1) of each sample id, with facts for reports."""

    fold_of: dict[str, int]
    """Maps item id to fold; items that are never held out are in `always_train` instead."""
    k: int
    groups: int
    """Number of groups (see `number_groups`)."""
    rare: dict[str, int]
    """Maps each label that is never held out to its number of items; see `make_folds` for which labels these are."""
    always_train: tuple[str, ...] = ()
    """Ids of items in a group with a rare label: every student trains on them, and a person judges them."""
    group_sizes: Counter[int] = field(default_factory=Counter[int])
    """Maps a group size to the number of groups of that size."""
    largest_groups: tuple[tuple[str, ...], ...] = ()
    """Item ids of each of the largest groups: up to five groups of two items or more."""
    moved: tuple[str, ...] = ()
    """Recorded ids that could not keep their fold, because groups merged or a label became rare."""

    @property
    def digest(self) -> str:
        """Return a digest that identifies the split."""
        return digest_of(self.fold_of)[:12]


@dataclass(frozen=True)
class _Set:
    """Samples sorted by id, so that their original order does not matter."""

    ids: list[str]
    labels: list[str]
    groups: list[list[int]]
    """Positions by group."""

    def labels_of(self, group: int) -> set[str]:
        return {self.labels[i] for i in self.groups[group]}


def make_folds(
    samples: Sequence[Sample],
    k: int,
    seed: int,
    *,
    repeat: int = 0,
    recorded: Mapping[str, int] | None = None,
    links: Sequence[tuple[int, int]] = (),
) -> Folds:
    """Split labelled samples into `k` folds, stratified by given label; groups are kept together.

    Groups are those of `number_groups`; `links` are further pairs of positions in `samples` that belong together
    (`duplicates.find_near_duplicates`). A label is never held out if it has fewer items than folds, or if one fold
    would hold out all its items, because that fold's student would not know the label. Items in a group with such a
    label are not held out either.

    Each `repeat` 0, 1, … gives another split. `recorded` maps item ids to their folds in an earlier run, which they
    keep; it is ignored if that run had another k. A group with recorded items takes the fold that most of them have.
    Each other group, the largest first, goes to the fold where its labels are rarest.

    Raises ConfigError when too few groups or items can be held out for `k` folds.
    The first split is made by scikit-learn's `StratifiedGroupKFold`.
    """
    data = _sort_samples(samples, links)
    before: dict[str, int] = {}
    if recorded and max(recorded.values()) == k - 1:
        before = {i: recorded[i] for i in data.ids if i in recorded}
    counts = Counter(data.labels)
    rare = {label for label, n in counts.items() if n < k}
    while True:
        held = [g for g in range(len(data.groups)) if not data.labels_of(g) & rare]
        if len(held) < k:
            raise ConfigError(
                f"student.folds: {k} folds need at least {k} different items to hold out, but only {len(held)} have a "
                "label with as many items as folds; set fewer folds"
            )
        fold = (
            _continue_split(data, held, before, k)
            if before
            else _make_first_split(data, held, k, _make_seed(seed, repeat))
        )
        held_out_labels = _find_wholly_held_out(data, fold)
        if not held_out_labels:
            break
        rare |= held_out_labels
    fold_of = {data.ids[i]: fold[g] for g in held for i in data.groups[g]}
    largest = sorted((g for g in data.groups if len(g) > 1), key=lambda g: (-len(g), g))[:_SHOWN]
    return Folds(
        fold_of=dict(sorted(fold_of.items())),
        k=k,
        groups=len(data.groups),
        rare={label: counts[label] for label in sorted(rare)},
        always_train=tuple(i for i in data.ids if i not in fold_of),
        group_sizes=Counter(map(len, data.groups)),
        largest_groups=tuple(tuple(data.ids[i] for i in g) for g in largest),
        moved=tuple(i for i, was in before.items() if fold_of.get(i) != was),
    )


def number_groups(samples: Sequence[Sample], links: Sequence[tuple[int, int]] = ()) -> list[int]:
    """Return a group number for each sample, from 0 in order of first appearance.

    Samples are in one group if they share an image, a recording or their content, if `links` contains the pair of their
    positions, or if one is the beginning of the other (`duplicates.find_grown_dialogues`).
    """
    first_with: dict[str, int] = {}
    same = [
        (i, first_with.setdefault(key, i))
        for i, sample in enumerate(samples)
        for key in (*(media.sha256 for media in (*sample.images, *sample.videos)), content_digest(sample))
    ]
    return group_linked(len(samples), [*same, *find_grown_dialogues(samples), *links]).tolist()


def write_folds(split: Folds, folder: Path, repeat: int) -> None:
    """Write the split of a repeat to `folder`, with the sizes of its groups and the ids of the largest."""
    sizes = {str(size): n for size, n in sorted(split.group_sizes.items())}
    write_json(_get_file(folder, repeat), vars(split) | {"group_sizes": sizes})


def read_folds(folder: Path, repeat: int, k: int) -> dict[str, int] | None:
    """Return the fold of each sample id as recorded by an earlier run with the same k; None if there is no record."""
    file = _get_file(folder, repeat)
    if not file.exists():
        return None
    facts = orjson.loads(file.read_bytes())
    return facts["fold_of"] if facts["k"] == k else None


def check_out_of_fold(samples: Sequence[Sample], fold_of: Mapping[str, int], seen: Mapping[int, set[str]]) -> None:
    """Raise LeakageError if the student of a sample's fold was trained on the sample or on equal content.

    `seen` maps a fold to the content digests (`records.content_digest`) in its student's training record. A sample
    without a fold was in every training set and has no out-of-fold prediction to check.
    """
    for sample in samples:
        fold = fold_of.get(sample.id)
        if fold is not None and content_digest(sample) in seen[fold]:
            raise LeakageError(
                f"item {sample.id}: the student of fold {fold} was trained on it or on a duplicate of it; "
                "delete that student's folder and run again"
            )


def assign_unseen(pool: Sequence[Sample], seen: Mapping[int, set[str]]) -> dict[str, int]:
    """Map the id of each pool item to the fold whose student predicts it; items that all students saw are left out.

    The item's content determines which of the students is chosen that were not trained on equal content. Only one
    student predicts each item: the average of several would be more confident than the single out-of-fold prediction
    of a labelled item, and so would be given too much weight. `seen` is as in `check_out_of_fold`.
    """
    folds = sorted(seen)
    fold_of: dict[str, int] = {}
    for sample in pool:
        content = content_digest(sample)
        first = int(content[:8], 16) % len(folds)
        allowed = [fold for fold in folds[first:] + folds[:first] if content not in seen[fold]]
        if allowed:
            fold_of[sample.id] = allowed[0]
    return fold_of


def _get_file(folder: Path, repeat: int) -> Path:
    return folder / (f"folds-{repeat}.json" if repeat else "folds.json")


def _sort_samples(samples: Sequence[Sample], links: Sequence[tuple[int, int]]) -> _Set:
    order = sorted(range(len(samples)), key=lambda i: samples[i].id)
    place = {old: new for new, old in enumerate(order)}
    ordered = [samples[i] for i in order]
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(number_groups(ordered, [(place[a], place[b]) for a, b in links])):
        groups.setdefault(group, []).append(i)
    return _Set([s.id for s in ordered], [s.given or "" for s in ordered], list(groups.values()))


def _make_seed(seed: int, repeat: int) -> int:
    return seed if repeat == 0 else int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])


def _make_first_split(data: _Set, held: Sequence[int], k: int, seed: int) -> dict[int, int]:
    """Return the fold of each group of `held`, chosen by scikit-learn."""
    rows = [(data.labels[i], g) for g in held for i in sorted(data.groups[g])]
    labels, groups = [label for label, _ in rows], [g for _, g in rows]
    commonest = max(Counter(labels).values())
    if commonest < k:
        raise ConfigError(
            f"student.folds: no label has {k} items that can be held out, the most frequent has {commonest}; "
            "set fewer folds"
        )
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    fold: dict[int, int] = {}
    with warnings.catch_warnings():
        # items that share a group with a rare label may leave fewer than k of a label
        warnings.filterwarnings("ignore", "The least populated class")
        for number, (_, held_out) in enumerate(splitter.split(np.zeros(len(rows)), labels, groups)):  # pyright: ignore
            fold |= {groups[int(row)]: number for row in held_out}
    return fold


def _continue_split(data: _Set, held: Sequence[int], before: Mapping[str, int], k: int) -> dict[int, int]:
    """Return the fold of each group of `held`: its items' recorded fold, or the one where its labels are rarest."""
    columns = {label: n for n, label in enumerate(sorted(set(data.labels)))}
    contents = np.zeros((len(data.groups), len(columns)))
    for g, members in enumerate(data.groups):
        for i in members:
            contents[g, columns[data.labels[i]]] += 1
    shares = contents / contents.sum(axis=0)
    fold: dict[int, int] = {}
    for g in held:
        votes = Counter(before[data.ids[i]] for i in data.groups[g] if data.ids[i] in before)
        if votes:
            fold[g] = min(votes, key=lambda f: (-votes[f], f))
    load = np.zeros((k, len(columns)))
    for g, number in fold.items():
        load[number] += contents[g]
    for g in sorted(set(held) - fold.keys(), key=lambda g: (-len(data.groups[g]), g)):
        crowd = load @ shares[g]
        fold[g] = min(range(k), key=lambda f: (crowd[f], load[f].sum(), f))
        load[fold[g]] += contents[g]
    return fold


def _find_wholly_held_out(data: _Set, fold: Mapping[int, int]) -> set[str]:
    """Return the labels whose items are all in one fold; groups without a fold are in every training set."""
    homes: dict[str, set[int]] = {}
    for g in range(len(data.groups)):
        for label in data.labels_of(g):
            homes.setdefault(label, set()).add(fold.get(g, -1))
    return {label for label, found in homes.items() if len(found) == 1 and -1 not in found}
