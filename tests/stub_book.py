"""The stub server's books: which item was asked how often, and how many requests were in flight when."""

import time
from array import array
from bisect import bisect_left
from collections import Counter
from pathlib import Path
from typing import Any


class Book:
    """Counts that survive the process when there is a journal: a line a request, written before it is answered.

    A request without an item's name (a probe) is counted as the item "".
    """

    def __init__(self, journal: Path | None) -> None:
        self._journal = journal
        self.clear(keep_journal=True)
        if journal is not None:
            if journal.exists():
                for line in journal.read_text().splitlines():
                    item, fault = line.split(",")
                    self._count(item, fault)
            self._file = journal.open("a", buffering=1)

    def clear(self, *, keep_journal: bool = False) -> None:
        """Forget everything."""
        self.received: Counter[str] = Counter()
        self.faulted: Counter[str] = Counter()
        """Times each item was misbehaved to."""
        self.faults: Counter[str] = Counter()
        self.too_early = 0
        """Requests that came before the Retry-After that their item was told."""
        self._not_before: dict[str, float] = {}
        self._known: frozenset[str] = frozenset()
        self._again: Counter[str] = Counter()
        self._now = self._most = 0
        self._arrivals, self._departures, self._answered = array("d"), array("d"), array("d")
        self._cpu = time.process_time()
        if self._journal is not None and not keep_journal:
            self._file.truncate(0)

    def mark(self) -> None:
        """Reset the counts of what is asked and when; items asked before this moment count as `again`."""
        self._known, self._again = frozenset(self.received) - {""}, Counter()
        self._arrivals, self._departures, self._answered = array("d"), array("d"), array("d")

    @property
    def in_flight(self) -> int:
        """Requests that are being answered now."""
        return self._now

    def seen(self) -> int:
        """How many items were asked; cheap, unlike `figures`."""
        return len(self.received) - ("" in self.received)

    def attempt(self, item: str) -> int:
        """How often `item` was asked before."""
        return self.received[item]

    def receive(self, item: str, fault: str) -> None:
        """A request came, and is going to be answered in the way that `fault` names ("" for rightly)."""
        self._count(item, fault)
        if item in self._known:
            self._again[item] += 1
        if self._not_before.pop(item, 0.0) > time.time():
            self.too_early += 1
        if self._journal is not None:
            self._file.write(f"{item},{fault}\n")

    def _count(self, item: str, fault: str) -> None:
        self.received[item] += 1
        if fault:
            self.faulted[item] += 1
            self.faults[fault] += 1

    def told_to_wait(self, item: str, until: float) -> None:
        """`item` was answered with a Retry-After that ends at `until` (time.time())."""
        self._not_before[item] = until

    def enter(self) -> None:
        """One more in flight."""
        self._now += 1
        self._most = max(self._most, self._now)
        self._arrivals.append(time.monotonic())

    def leave(self, *, answered: bool) -> None:
        """One less; not answered when whoever asked is gone."""
        self._now -= 1
        self._departures.append(time.monotonic())
        if answered:
            self._answered.append(self._departures[-1])

    def figures(self, target: int) -> dict[str, Any]:
        """Everything countable. `target` is the number that ought to be in flight: see `_steady`."""
        items = {item: count for item, count in self.received.items() if item}
        last = self._answered[-1] if self._answered else 0.0
        return {
            "received": sum(items.values()),
            "unnamed": self.received[""],
            "items": self.seen(),
            "more_than_once": sum(count > 1 for count in items.values()),
            "again": len(self._again),
            "again_requests": sum(self._again.values()),
            "faults": dict(self.faults),
            "too_early": self.too_early,
            "in_flight_now": self._now,
            "in_flight_most": self._most,
            "answered": len(self._answered),
            "answered_in_last_second": len(self._answered) - bisect_left(self._answered, last - 1.0),
            "cpu_seconds": time.process_time() - self._cpu,
            **self._steady(target),
        }

    def _steady(self, target: int) -> dict[str, float]:
        """Mean in flight and answers a second between ramp-up and drain.

        Ramp-up ends when the `target`-th request has come, the drain begins when the last one has.
        """
        if target < 1 or len(self._arrivals) <= target:
            return {"in_flight_mean": 0.0, "goodput": 0.0, "steady_seconds": 0.0}
        start, end = self._arrivals[target - 1], self._arrivals[-1]
        total = sum(end - max(t, start) for t in self._arrivals)
        total -= sum(max(0.0, end - max(t, start)) for t in self._departures)
        answered = bisect_left(self._answered, end) - bisect_left(self._answered, start)
        seconds = end - start
        return {"in_flight_mean": total / seconds, "goodput": answered / seconds, "steady_seconds": seconds}
