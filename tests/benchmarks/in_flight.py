"""Benchmark 5: how full the engine keeps a server whose answers take unequal times, against a loop with barriers.

Latencies are log-normal with σ = 1, a tail that one batch in a thousand items always meets. Measured by the stub,
from the moment it has seen as many requests as ought to be in flight (end of ramp-up) to the last request (drain).
Both sides run at the same time, each with a stub of its own: nearly all of it is waiting.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.clients.peers import measure, verdict
from tests.stub_server import Options, running

ROUNDS, TARGET, ITEMS, MEDIAN_SECONDS = 3, 256, 2_048, 1.0


def main() -> None:
    """Measure, print medians and ratios."""
    ours: list[dict[str, float]] = []
    barrier: list[dict[str, float]] = []
    options = Options(median_seconds=MEDIAN_SECONDS, sigma=1.0)
    with running(options) as one, running(options) as other, ThreadPoolExecutor(2) as threads:
        for _ in range(ROUNDS):
            ask = partial(measure, target=TARGET, count=ITEMS, concurrency=TARGET)
            pair = threads.submit(ask, "our_answers", one), threads.submit(ask, "barrier", other)
            ours.append(pair[0].result())
            barrier.append(pair[1].result())
    share = {who: median(r["in_flight_mean"] for r in rounds) / TARGET for who, rounds in (("o", ours), ("b", barrier))}
    goodput = {who: median(r["goodput"] for r in rounds) for who, rounds in (("o", ours), ("b", barrier))}
    print(
        f"{ITEMS:,} items, latency log-normal (median {MEDIAN_SECONDS:g} s, σ = 1), target {TARGET} in flight, ", end=""
    )
    print(f"median of {ROUNDS} runs side by side")
    print(f"  labelstill            {share['o']:7.1%} of the target in flight, {goodput['o']:6.0f} answers a second")
    print(f"  barrier each 1,024    {share['b']:7.1%} of the target in flight, {goodput['b']:6.0f} answers a second")
    print(verdict("mean in flight / target", share["o"], 0.98, at_most=False))
    print(verdict("goodput, ours / barrier's", goodput["o"] / goodput["b"], 1.3, at_most=False))


if __name__ == "__main__":
    main()
