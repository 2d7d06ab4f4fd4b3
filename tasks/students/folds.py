"""Folds: which items are held out together, and that no student predicts an item that it was trained on.

Made by scikit-learn's stratified group folds; what is alike stays together. They are recorded, so that items that are
added later do not move those that are there.
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
from tasks.items.duplicates import group_linked, grown_dialogues
from tasks.records import Sample, content_digest, digest_of
from tasks.storage.json_lines import write_json

_SHOWN = 5
"""Groups that are reported by their ids, the largest."""


@dataclass(frozen=True)
class Folds:
    """The fold (0 … k-1) of each sample id, and what was noticed while making them."""

    fold_of: dict[str, int]
    """Of the items that are held out at some time; who has no fold is in `always_train`."""
    k: int
    groups: int
    """Number of groups: what `group_numbers` links is in one."""
    rare: dict[str, int]
    """Number of items of each label that is never held out: fewer items than folds, or one fold would hold out all."""
    always_train: tuple[str, ...] = ()
    """Ids of the items with a rare label, and of all others in their groups: trained on by all, judged by a person."""
    group_sizes: Counter[int] = field(default_factory=Counter[int])
    """Number of groups by size."""
    largest_groups: tuple[tuple[str, ...], ...] = ()
    """Ids of the largest groups, up to five, of two items or more."""
    moved: tuple[str, ...] = ()
    """Recorded ids that could not keep their fold: a group grew together, or a label became rare."""

    @property
    def digest(self) -> str:
        """Identity of the split."""
        return digest_of(self.fold_of)[:12]


@dataclass(frozen=True)
class _Set:
    """Samples in order of id, so that the order in which they came can't matter."""

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
    """Split labelled samples into `k` folds, stratified by given label, groups kept together.

    Groups are those of `group_numbers`; `links` are further pairs of positions in `samples` that belong together
    (`duplicates.near_duplicates`). Labels with fewer items than folds are never held out, nor is a label that a fold
    would hold out as a whole (else its student would not know it), nor what shares a group with one.

    `repeat` 0, 1, … gives another split each. `recorded` (id → fold, of an earlier run with the same k; of another k it
    is ignored) is kept: items may come and go. A new group that is linked to recorded items takes their fold, the one
    of most items where they have several; the others go, the largest first, where their labels are scarcest.

    Raises ConfigError when too few groups or items can be held out for so many folds.
    Source of the first split: scikit-learn's `StratifiedGroupKFold`.
    """
    data = _in_order(samples, links)
    before: dict[str, int] = {}
    if recorded and max(recorded.values()) == k - 1:
        before = {i: recorded[i] for i in data.ids if i in recorded}
    counts = Counter(data.labels)
    rare = {label for label, n in counts.items() if n < k}
    while True:
        held = [g for g in range(len(data.groups)) if not data.labels_of(g) & rare]
        if len(held) < k:
            raise ConfigError(
                f"student.folds: {k} folds need at least {k} different items that can be held out; there are "
                f"{len(held)} (a label with fewer items than folds can't be); set fewer folds"
            )
        fold = _continued(data, held, before, k) if before else _first_split(data, held, k, _seed(seed, repeat))
        lonely = _wholly_held_out(data, fold)
        if not lonely:
            break
        rare |= lonely
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


def group_numbers(samples: Sequence[Sample], links: Sequence[tuple[int, int]] = ()) -> list[int]:
    """A group number for each sample, from 0 by first appearance.

    Together are samples that share any image, hold the same content, or are pairs of `links` (positions), and a
    dialogue with its beginnings (`duplicates.grown_dialogues`).
    """
    first_with: dict[str, int] = {}
    same = [
        (i, first_with.setdefault(key, i))
        for i, sample in enumerate(samples)
        for key in (*(image.sha256 for image in sample.images), content_digest(sample))
    ]
    return group_linked(len(samples), [*same, *grown_dialogues(samples), *links]).tolist()


def write_folds(split: Folds, folder: Path, repeat: int) -> None:
    """Write the split of that repeat to `folder`, with its groups: how many of which size, and the largest by ids."""
    sizes = {str(size): n for size, n in sorted(split.group_sizes.items())}
    write_json(_file(folder, repeat), vars(split) | {"group_sizes": sizes})


def read_folds(folder: Path, repeat: int, k: int) -> dict[str, int] | None:
    """Return the fold of each sample id that an earlier run with as many folds recorded; None where there was none."""
    file = _file(folder, repeat)
    if not file.exists():
        return None
    facts = orjson.loads(file.read_bytes())
    return facts["fold_of"] if facts["k"] == k else None


def check_out_of_fold(samples: Sequence[Sample], fold_of: Mapping[str, int], seen: Mapping[int, set[str]]) -> None:
    """Raise LeakageError if the student of a sample's fold was trained on the sample, or on equal content.

    `seen` holds, by fold, the content digests (`records.content_digest`) that the student's own training record names.
    A sample without a fold was in every training set and has no out-of-fold prediction to check.
    """
    for sample in samples:
        fold = fold_of.get(sample.id)
        if fold is not None and content_digest(sample) in seen[fold]:
            raise LeakageError(
                f"item {sample.id}: the student of fold {fold} was trained on it or on a duplicate of it; "
                "delete that student's folder and run again"
            )


def assign_unseen(pool: Sequence[Sample], seen: Mapping[int, set[str]]) -> dict[str, int]:
    """Return, by id, the fold whose student is asked about an item of the pool; none where all students saw it.

    It is one student per item, chosen by content among those that saw nothing equal: an average over all would be surer
    than the one out-of-fold prediction of a labelled item, and would be weighed wrongly. `seen` as in
    `check_out_of_fold`.
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


def _file(folder: Path, repeat: int) -> Path:
    return folder / (f"folds-{repeat}.json" if repeat else "folds.json")


def _in_order(samples: Sequence[Sample], links: Sequence[tuple[int, int]]) -> _Set:
    order = sorted(range(len(samples)), key=lambda i: samples[i].id)
    place = {old: new for new, old in enumerate(order)}
    ordered = [samples[i] for i in order]
    groups: dict[int, list[int]] = {}
    for i, group in enumerate(group_numbers(ordered, [(place[a], place[b]) for a, b in links])):
        groups.setdefault(group, []).append(i)
    return _Set([s.id for s in ordered], [s.given or "" for s in ordered], list(groups.values()))


def _seed(seed: int, repeat: int) -> int:
    return seed if repeat == 0 else int(np.random.SeedSequence([seed, repeat]).generate_state(1)[0])


def _first_split(data: _Set, held: Sequence[int], k: int, seed: int) -> dict[int, int]:
    """The fold of each group of `held`, by scikit-learn."""
    rows = [(data.labels[i], g) for g in held for i in sorted(data.groups[g])]
    labels, groups = [label for label, _ in rows], [g for _, g in rows]
    commonest = max(Counter(labels).values())
    if commonest < k:
        raise ConfigError(
            f"student.folds: no label has {k} items that can be held out, the commonest has {commonest}; "
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


def _continued(data: _Set, held: Sequence[int], before: Mapping[str, int], k: int) -> dict[int, int]:
    """The fold of each group of `held`: its items' recorded one, or the one where its labels are scarcest."""
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


def _wholly_held_out(data: _Set, fold: Mapping[int, int]) -> set[str]:
    """Labels whose every item is in one fold; groups without a fold are in every training set."""
    homes: dict[str, set[int]] = {}
    for g in range(len(data.groups)):
        for label in data.labels_of(g):
            homes.setdefault(label, set()).add(fold.get(g, -1))
    return {label for label, found in homes.items() if len(found) == 1 and -1 not in found}
