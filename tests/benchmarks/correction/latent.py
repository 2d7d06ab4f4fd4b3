"""Items with a truth that we know, and the noise that people put on it.

An item is a point near its class's centre, drawn towards the centre of a second class the harder it is. People and
models see the point blurred, each in their own way and partly in the same way: that is where shared errors come from.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NEITHER = -1
"""The truth of an item for which no label is right."""

DIMENSIONS = 8
SPREAD = 2.4
"""Of the centres: with ten classes each has its nearest neighbour about six away."""
SCATTER = 0.7
"""Of a class's items about their place between the centres."""
HARDEST = 0.7
"""How far towards the second class the hardest items lie, as a share of the way."""
HUMAN_BLUR = 1.3
"""How badly people see: about as a middling student does."""


@dataclass(frozen=True)
class Items:
    """What there is to see: `centres` [C, D], `features` [N, D], `truth` [N] (or NEITHER), `hint` [N, D].

    `hint` is what misleads people in an item, as unit normal noise; a model may share a part of it.
    """

    centres: Floats
    features: Floats
    truth: Ints
    hint: Floats

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Whether some label is right."""
        return self.truth != NEITHER


def log_odds(points: Floats, centres: Floats, scatter: float) -> Floats:
    """[N, C]: log density of each point under each class, up to a constant."""
    squared = ((points[:, None, :] - centres[None]) ** 2).sum(-1)
    return -squared / (2 * scatter**2)


def softmax(logits: Floats) -> Floats:
    """Rows of probabilities."""
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def choose(rng: np.random.Generator, probabilities: Floats) -> Ints:
    """One column for each row, by its probabilities."""
    points = rng.random((len(probabilities), 1)) * probabilities.sum(1, keepdims=True)
    return np.minimum((probabilities.cumsum(1) < points).sum(1), probabilities.shape[1] - 1)


def draw_items(rng: np.random.Generator, count: int, classes: int, imbalance: float, unusable: float) -> Items:
    """`imbalance`: largest class over smallest, in between geometrically; `unusable`: the share with no right label.

    Every class has at least six usable items, so that each of five folds can have one to learn from.
    """
    centres = rng.normal(size=(classes, DIMENSIONS)) * SPREAD
    sizes = np.geomspace(1, 1 / imbalance, classes)
    truth = rng.choice(classes, size=count, p=sizes / sizes.sum())
    truth[: 6 * classes] = np.tile(np.arange(classes), 6)
    rng.shuffle(truth)
    near = log_odds(centres, centres, 2.5)
    np.fill_diagonal(near, -np.inf)
    second = choose(rng, softmax(near)[truth])
    hard = rng.beta(1.2, 4.0, size=(count, 1)) * HARDEST
    features = (
        centres[truth] + hard * (centres[second] - centres[truth]) + rng.normal(size=(count, DIMENSIONS)) * SCATTER
    )
    gone = rng.choice(count, size=round(unusable * count), replace=False)
    mixed = rng.dirichlet(np.ones(classes), size=len(gone)) @ centres
    features[gone] = mixed + rng.normal(size=mixed.shape) * SPREAD
    truth = truth.astype(np.int64)
    truth[gone] = NEITHER
    return Items(centres, features, truth, rng.normal(size=(count, DIMENSIONS)))


def symmetric(rng: np.random.Generator, items: Items, rate: float) -> Ints:
    """Any other label, whatever the item is; unusable items get any label at all."""
    classes, count = len(items.centres), len(items.truth)
    given = np.where(items.usable, items.truth, rng.integers(classes, size=count))
    wrong = items.usable & (rng.random(count) < rate)
    given[wrong] = (given[wrong] + rng.integers(1, classes, size=wrong.sum())) % classes
    return given


def class_dependent(rng: np.random.Generator, items: Items, rate: float) -> Ints:
    """Each class is taken for one certain other, some classes more often than others.

    Never for the half of a class: then nothing in the set would say which of the two is right.
    """
    classes, count = len(items.centres), len(items.truth)
    rates = np.minimum(rate * rng.uniform(0.4, 1.6, size=classes), 0.46)
    order = rng.permutation(classes)
    other = np.empty(classes, np.int64)
    other[order] = np.roll(order, 1)
    given = np.where(items.usable, items.truth, rng.integers(classes, size=count))
    wrong = items.usable & (rng.random(count) < rates[given])
    given[wrong] = other[given[wrong]]
    return given


def human(rng: np.random.Generator, items: Items, rate: float) -> Ints:
    """The items that look most like another class as people see them, with some luck, are taken for one like it.

    Four in five for the most plausible other class, the rest for any plausible one. Exactly `rate` of the usable
    items are wrong. Unusable items get what they look like.
    """
    seen = log_odds(items.features + HUMAN_BLUR * items.hint, items.centres, 1.0)
    rows = np.flatnonzero(items.usable)
    own = seen[rows, items.truth[rows]]
    others = seen[rows].copy()
    others[np.arange(len(rows)), items.truth[rows]] = -np.inf
    doubt = others.max(1) - own + rng.logistic(size=len(rows)) * 3
    wrong = np.argsort(-doubt)[: round(rate * len(rows))]
    taken = np.where(rng.random(len(rows)) < 0.8, others.argmax(1), choose(rng, softmax(others / 3)))
    given = np.where(items.usable, items.truth, seen.argmax(1))
    given[rows[wrong]] = taken[wrong]
    return given


NOISE = {"symmetric": symmetric, "class-dependent": class_dependent, "human-like": human}
