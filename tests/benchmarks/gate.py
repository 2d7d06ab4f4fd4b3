"""How often the gate of correction opens wrongly, and how many verdicts it costs, if read after every verdict.

10,000 simulated audits of up to 200 verdicts each. Goal: of the audits of candidates that are right by the toss of a
coin, at most 2.5 % ever open the gate. Below are the same figures for Wilson's interval.

    python -m tests.benchmarks.gate [--runs 10000] [--verdicts 200]
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np
from scipy.stats import binomtest

from tasks.correction.gate import bound_win_share

LEVEL = 0.5
GOAL = 0.025

Bound = Callable[[int, int], float]
"""Takes wins and losses; returns the lower bound of the share of wins."""


def bound_by_wilson(wins: int, losses: int) -> float:
    """Return the lower bound of the 95 % Wilson interval, which holds at one look."""
    return float(binomtest(wins, wins + losses).proportion_ci(method="wilson").low)


def find_least_wins(bound: Bound, verdicts: int) -> np.ndarray:
    """Return for each number of verdicts, from 1, how many wins open the gate; more than there are if none do."""
    least: list[int] = []
    wins = 0
    for count in range(1, verdicts + 1):
        while wins <= count and bound(wins, count - wins) <= LEVEL:
            wins += 1
        least.append(wins)
    return np.array(least)


def open_at(bound: Bound, right: float, runs: int, verdicts: int) -> np.ndarray:
    """Return the number of verdicts [runs] at which the gate first opens; infinite where it never does."""
    wins = (np.random.default_rng(0).random((runs, verdicts)) < right).cumsum(axis=1)
    opened = wins >= find_least_wins(bound, verdicts)
    return np.where(opened.any(axis=1), opened.argmax(axis=1) + 1.0, np.inf)


def main() -> None:
    """Simulate, print a table, and exit with 1 if the goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--verdicts", type=int, default=200)
    options = parser.parse_args()
    print("| candidates right | bound | ever opened | verdicts to open, median | 90th percentile |")
    print("|--:|---|--:|--:|--:|")
    for name, bound in (("ours", bound_win_share), ("Wilson", bound_by_wilson)):
        for right in (0.5, 0.8, 0.9):
            found = open_at(bound, right, options.runs, options.verdicts)
            median, late = np.quantile(found, [0.5, 0.9], method="higher")
            print(f"| {right:.0%} | {name} | {np.isfinite(found).mean():.2%} | {median:g} | {late:g} |")
    once = (np.random.default_rng(0).random((options.runs, 40)) < LEVEL).sum(axis=1)
    least = find_least_wins(bound_by_wilson, 40)[-1]
    soon = np.isfinite(open_at(bound_by_wilson, LEVEL, options.runs, 40)).mean()
    print(f"Wilson, a coin flip and 40 verdicts: {(once >= least).mean():.2%} at one look, {soon:.2%} at 40 looks")
    wrongly = float(np.isfinite(open_at(bound_win_share, LEVEL, options.runs, options.verdicts)).mean())
    sys.exit(0 if wrongly <= GOAL else f"{wrongly:.2%} of the coin flips opened the gate; the goal is {GOAL:.1%}")


if __name__ == "__main__":
    main()
