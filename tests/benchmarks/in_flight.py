"""Benchmark 5: how full the engine keeps a server whose answers take unequal times, against a loop with barriers.

Latencies are log-normal with σ = 1, a tail that one batch in a thousand items always meets. Measured by the stub,
from the moment it has seen as many requests as ought to be in flight (end of ramp-up) to the last request (drain).
Both sides run at the same time, each with a stub of its own: nearly all of it is waiting.

Then servers that become slower under load, alone, behind a proxy with a time limit, and with a limit on requests in
flight: the engine's adaptive limit, whose upper bound is far too high, beside fixed limits. Goodput is all items over
the wall time, from the first request to the last answer.
"""

import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.clients.peers import measure, verdict
from tests.stub_server import Options, running

ROUNDS, TARGET, ITEMS, MEDIAN_SECONDS = 3, 256, 2_048, 1.0

BOUND, FIXED, LOADED_ITEMS = 256, (16, 48, 128), 6_000
LOADED = Options(median_seconds=0.25, sigma=0.5, slots=16)
SERVERS = {
    "slower under load": LOADED,
    "behind a proxy, 504 after 2.5 s": replace(LOADED, gateway_seconds=2.5),
    "429 above 48 in flight": replace(LOADED, slots=48, most_in_flight=48, median_seconds=0.75),
}


def main() -> None:
    """Measure, print medians and ratios."""
    compare_with_barrier()
    for what, options in SERVERS.items():
        compare_with_fixed_limits(what, options)


def compare_with_barrier() -> None:
    """Print how full the engine keeps a server, and the loop with barriers."""
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


def compare_with_fixed_limits(what: str, options: Options) -> None:
    """Print the goodput of the engine's adaptive limit and of fixed limits, all measured at the same time."""

    def ask(client: str, concurrency: int) -> Mapping[str, float]:
        with running(options) as stub:
            return measure(client, stub, count=LOADED_ITEMS, concurrency=concurrency)

    with ThreadPoolExecutor(1 + len(FIXED)) as threads:
        ours = threads.submit(ask, "our_answers", BOUND)
        fixed = {limit: threads.submit(ask, "fixed", limit) for limit in FIXED}
        goodput = {f"fixed at {limit}": 1000 / figures.result()["wall"] for limit, figures in fixed.items()}
    best = max(goodput.values())
    sent = ours.result()["received"]
    adaptive = f"adaptive, at most {BOUND}"
    goodput[adaptive] = 1000 / ours.result()["wall"]
    print(f"a server that is {what}: {LOADED_ITEMS:,} items" if options == LOADED else f"the same, {what}")
    for who, rate in goodput.items():
        print(f"  {who:22}{rate:6.1f} answers a second")
    print(f"  all {LOADED_ITEMS:,} items answered, with {sent / LOADED_ITEMS:.2f} requests an item")
    print(verdict("goodput, adaptive / best fixed", goodput[adaptive] / best, 0.95, at_most=False))


if __name__ == "__main__":
    main()
