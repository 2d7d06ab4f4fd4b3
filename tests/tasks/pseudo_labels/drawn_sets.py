"""Drawn sets of pseudo-labels whose truth is known: for the tests and the benchmark of trust."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tasks.pseudo_labels.calibration_targets import Targets
from tasks.pseudo_labels.evidence import Evidence
from tasks.records import Prediction
from tests.tasks.making import prediction


@dataclass(frozen=True)
class World:
    """How sets are drawn: sizes, and a teacher."""

    labelled: int = 400
    pool: int = 400
    classes: int = 18
    accuracy: float = 2.5
    """Log odds of a right label in a middling class, on middling evidence."""
    spread: float = 0.7
    """Standard deviation of the classes' own log odds."""
    sureness: float = 1.5
    """Factor from the log odds that are right to those that the teacher claims; 1 is calibrated."""
    students: bool = True
    certain: float = 0.15
    """Share of labelled items that a person has judged; of the others there are beliefs, …"""
    off: float = 0.35
    """… all off by a common draw of this standard deviation in log odds, of which no more is known than that."""


@dataclass(frozen=True)
class DrawnSet:
    """One labelled set and one pool."""

    targets: Targets
    predictions: list[Prediction]
    evidence: dict[str, Evidence]
    right: dict[str, bool]


def draw(world: World, seed: int) -> DrawnSet:
    """Draw both sets from one distribution."""
    rng = np.random.default_rng([seed, 7])
    own = rng.normal(0, world.spread, world.classes)
    sizes = 1 / np.arange(1, world.classes + 1) ** 0.7
    count = world.labelled + world.pool
    classes = rng.choice(world.classes, count, p=sizes / sizes.sum())
    seen = world.accuracy + rng.normal(0, 1.5, count)
    right = rng.random(count) < _share(seen + own[classes])
    found = _evidence(world, seen, right, rng)
    labels = [f"class-{c}" for c in classes.tolist()]
    n = world.labelled
    names = [f"{i:06}" for i in range(world.pool)]
    return DrawnSet(
        _targets(world, found[:n], labels[:n], right[:n], rng),
        [prediction(i, label) for i, label in zip(names, labels[n:], strict=True)],
        dict(zip(names, found[n:], strict=True)),
        dict(zip(names, right[n:].tolist(), strict=True)),
    )


def _evidence(
    world: World, seen: NDArray[np.float64], right: NDArray[np.bool_], rng: np.random.Generator
) -> list[Evidence]:
    claimed = _share(world.sureness * seen)
    votes = rng.binomial(5, np.clip(claimed, 0.3, 1)) / 5
    agree = rng.random(len(seen)) < np.where(right, 0.8, 0.15)
    ratio = np.where(agree, 1, -1) * rng.gamma(2.0, 1.0, len(seen))
    return [
        Evidence(probability=p, margin=2 * p - 1, vote_share=v, students=s if world.students else None)
        for p, v, s in zip(claimed.tolist(), votes.tolist(), ratio.tolist(), strict=True)
    ]


def _targets(
    world: World, found: list[Evidence], labels: list[str], right: NDArray[np.bool_], rng: np.random.Generator
) -> Targets:
    count = len(found)
    certain = rng.random(count) < world.certain
    share = right.mean().clip(0.01, 0.99)
    # a signal N(±d/2, d) in log odds about each item: a calibrated belief is the prior's log odds plus the signal
    signal = rng.normal(np.where(right, 8.0, -8.0), 4.0)
    believed = _share(np.log(share / (1 - share)) + signal + rng.normal(0, world.off))
    return Targets(tuple(found), tuple(labels), np.where(certain, right, believed), certain, (0.0, world.off))


def _share(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-odds))
