"""Folds: who is trained without whom. scikit-learn's stratified group folds over groups of equal images."""

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array  # pyright: ignore[reportMissingTypeStubs]
from scipy.sparse.csgraph import connected_components  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]
from sklearn.model_selection import StratifiedGroupKFold  # pyright: ignore[reportMissingTypeStubs]

from tasks.errors import ConfigError
from tasks.records import Sample, digest_of


@dataclass(frozen=True)
class Folds:
    """The fold (0 … k-1) of each sample id, and what was noticed while making them."""

    fold_of: dict[str, int]
    k: int
    groups: int
    """Number of groups; items of one group share an image or, without images, their whole text."""
    rare: dict[str, int]
    """Labels with fewer items than folds: their out-of-fold students may never have seen them."""

    @property
    def digest(self) -> str:
        """Identity of the split."""
        return digest_of(self.fold_of)[:12]


def make_folds(samples: Sequence[Sample], k: int, seed: int) -> Folds:
    """Split labelled samples into `k` folds, stratified by given label, equal images and equal texts kept together.

    Raises ConfigError when there are fewer groups than folds, or no label has an item for each fold.
    Source of the method: scikit-learn's `StratifiedGroupKFold`.
    """
    # The order of the input must not matter: sklearn shuffles from the seed, over items and groups in order of id.
    samples = sorted(samples, key=lambda s: s.id)
    groups = group_numbers(samples)
    if len(set(groups)) < k:
        raise ConfigError(f"student.folds: {k} folds need at least {k} different items; there are {len(set(groups))}")
    labels = [sample.given or "" for sample in samples]
    commonest = max(Counter(labels).values())
    if commonest < k:
        raise ConfigError(f"student.folds: no label has {k} items, the commonest has {commonest}; set fewer folds")
    splitter = StratifiedGroupKFold(n_splits=k, shuffle=True, random_state=seed)
    fold_of: dict[str, int] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")  # reported below, by name
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels, groups)):  # pyright: ignore
            for position in held_out:
                fold_of[samples[int(position)].id] = fold
    rare = {label: n for label, n in sorted(Counter(labels).items()) if n < k}
    return Folds(fold_of, k, len(set(groups)), rare)


def group_numbers(samples: Sequence[Sample]) -> list[int]:
    """A group number for each sample: samples that share any image, or hold the same content, are in one group."""
    first_with: dict[str, int] = {}
    links = [
        (i, first_with.setdefault(key, i))
        for i, sample in enumerate(samples)
        for key in (*(image.sha256 for image in sample.images), content_digest(sample))
    ]
    ends = np.array(links, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(links)), ends), shape=(len(samples), len(samples)))
    return connected_components(graph, directed=False)[1].tolist()  # pyright: ignore


def content_digest(sample: Sample) -> str:
    """Digest of what the item shows and says, whatever its id or label."""
    return digest_of([p.text if p.type == "text" else p.image.sha256 for p in sample.parts])
