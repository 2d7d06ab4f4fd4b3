"""How many labels of a class are kept: caps, quotas and floors."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Balance:
    """How many labels of a class may, and should, be kept."""

    cap: int | None = None
    """At most so many of any class."""
    quotas: Mapping[str, int] = field(default_factory=dict[str, int])
    """At most so many of these classes."""
    floor: int = 0
    """The surest so many of each class go before all others, as long as the kept set still reaches its target."""


def allowed(labels: Sequence[str], order: Ints, balance: Balance) -> NDArray[np.bool_]:
    """[N] whether an item is among the surest of its class that `balance` leaves room for.

    `order` [N] has the items' places in `labels`, the surest first.
    """
    sizes = Counter(labels)
    room = {
        label: min(size if balance.cap is None else balance.cap, balance.quotas.get(label, size))
        for label, size in sizes.items()
    }
    fits = np.zeros(len(labels), dtype=bool)
    for i in map(int, order):
        fits[i] = room[labels[i]] > 0
        room[labels[i]] -= 1
    return fits


def floors_first(labels: Sequence[str], order: Ints, floor: int) -> tuple[Ints, Ints]:
    """`order` in two: the first `floor` items of each class, and the rest, both in that order."""
    taken: Counter[str] = Counter()
    first = np.zeros(len(order), dtype=bool)
    for place, i in enumerate(map(int, order)):
        first[place] = taken[labels[i]] < floor
        taken[labels[i]] += 1
    return order[first], order[~first]
