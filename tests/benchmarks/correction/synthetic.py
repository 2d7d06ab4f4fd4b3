"""Every rule on the sets that the benchmark makes itself."""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests.benchmarks.correction import scoring
from tests.benchmarks.correction.command import Corrected, correct
from tests.benchmarks.correction.noisy_sets import NoisySet, Setting, make, write
from tests.benchmarks.correction.report import goal, table
from tests.benchmarks.correction.rules import Cleanlab, ask_cleanlab, others, reviewed

WORST_RUN = -0.1
"""Points of label accuracy that a single run may lose."""
PEERS = ("cleanlab", "by class", "disagree", "sure .9")


@dataclass(frozen=True)
class Run:
    """Figures of one set. By rule: `f1`, `precision` (average precision of the ranking), `after` (label accuracy).

    `best` is the F1 of the best threshold on our suspicion in hindsight. `unasked` says how many labels changed with
    no review at all; `alone` how many changed that no person had looked at, and `alone_right` of those are right.
    """

    f1: dict[str, float]
    precision: dict[str, float]
    after: dict[str, float]
    best: float
    before: float
    unasked: int
    alone: int
    alone_right: int
    calls: float
    seconds: float


def run(settings: Sequence[Setting], seeds: Sequence[int], command: Sequence[str]) -> None:
    """Measure and print the table and the verdicts."""
    sets = {f"{number}-{seed}": make(setting, seed) for number, setting in enumerate(settings) for seed in seeds}
    peers = ask_cleanlab({key: (noisy.given, noisy.mean) for key, noisy in sets.items()})
    found: dict[str, list[Run]] = {}
    for number, setting in enumerate(settings):
        print(f"  {number + 1} of {len(settings)}: {setting.name}", file=sys.stderr, flush=True)
        for seed in seeds:
            key = f"{number}-{seed}"
            found.setdefault(setting.name, []).append(_one(setting, sets[key], peers[key], seed, command))
    print(f"\nSynthetic sets: {len(settings)} settings, {len(seeds)} seeds; means over the seeds")
    _table(found)
    _summary(found)


def _one(setting: Setting, noisy: NoisySet, peer: Cleanlab, seed: int, command: Sequence[str]) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        files = write(noisy, Path(folder))
        ours = correct(noisy, files, reviews=setting.reviews, seed=seed, command=command)
        cold = correct(noisy, files, reviews=0, seed=seed, command=command)
    rules = others(noisy, peer)
    # What a person has seen is no find of any rule: it is left out for all of them.
    unseen = ~ours.reviewed
    wrong = (noisy.given != noisy.truth)[unseen]
    flags = {"ours": ours.flagged, "no review": cold.flagged} | {name: rule.flags for name, rule in rules.items()}
    rankings = {"ours": ours.suspicion, "cleanlab": peer.self_confidence, "by class": peer.normalized_margin}
    labels = {"ours": ours.labels} | {name: rule.labels for name, rule in rules.items()}
    labels["no review"] = cold.labels
    # Ours has a person's help; here is what as much of it does in cleanlab's order, without its autofix and with it.
    labels["review"] = reviewed(noisy, noisy.given, peer.self_confidence, setting.reviews)
    labels["both"] = reviewed(noisy, labels["cleanlab"], peer.self_confidence, setting.reviews)
    alone, right = _alone(noisy, ours)
    return Run(
        f1={name: scoring.f1(flag[unseen], wrong) for name, flag in flags.items()},
        precision={name: scoring.average_precision(rank[unseen], wrong) for name, rank in rankings.items()},
        after={name: scoring.accuracy(label, noisy.truth) for name, label in labels.items()},
        best=scoring.best_f1(ours.suspicion[unseen], wrong),
        before=scoring.accuracy(noisy.given, noisy.truth),
        unasked=int((cold.labels != noisy.given).sum()),
        alone=alone,
        alone_right=right,
        calls=ours.summary.get("teacher_calls", 0) / len(noisy.given),
        seconds=ours.seconds,
    )


def _alone(noisy: NoisySet, ours: Corrected) -> tuple[int, int]:
    """Labels changed, or items dropped, that no person saw; how many of them rightly (a drop of what is unusable)."""
    changed = ~ours.reviewed & (ours.labels != noisy.given)
    return int(changed.sum()), int((ours.labels == noisy.truth)[changed].sum())


def _table(found: dict[str, list[Run]]) -> None:
    rows = []
    for name, runs in found.items():
        f1s = [scoring.mean([run.f1[rule] for run in runs]) for rule in ("ours", "no review", *PEERS)]
        best = scoring.mean([run.best for run in runs])
        precisions = [scoring.mean([run.precision[rule] for run in runs]) for rule in ("ours", "cleanlab", "by class")]
        before = scoring.mean([run.before for run in runs])
        after = [scoring.mean([run.after[rule] for run in runs]) for rule in ("ours", *PEERS, "review", "both")]
        worst = min(scoring.points(run.after["ours"], run.before) for run in runs)
        alone, right = sum(run.alone for run in runs), sum(run.alone_right for run in runs)
        figures = [*f1s, best, *precisions, before, *after]
        calls = scoring.mean([run.calls for run in runs])
        rows.append([name, *figures, f"{worst:+.2f}", f"{right}/{alone}", f"{calls:.0%}"])
    groups = (("", 1), ("F1 of detection", 7), ("average precision", 3), ("label accuracy", 8), ("", 3))
    names = ["setting", "ours", "0 rev.", "cleanl.", "class", "disagr", "sure.9", "best"]
    names += ["ours", "self.c", "n.marg", "before", "ours", "autofx", "class", "disagr", "sure.9", "review", "both"]
    table(groups, [*names, "worst", "alone", "calls"], rows)
    print("  best: at the best threshold on our suspicion in hindsight; worst: of a run's changes of accuracy, points;")
    print("  alone: right changes / changes that no person looked at; review: as many reviews in cleanlab's order;")
    print("  both: those and its autofix")


def _summary(found: dict[str, list[Run]]) -> None:
    runs = [run for each in found.values() for run in each]
    print("  Means over all runs: F1, regret to the best threshold, label accuracy after")
    for rule in ("ours", "no review", *PEERS):
        regret = scoring.mean([run.best - run.f1[rule] for run in runs])
        print(f"    {rule:12}{_f1(runs, rule):>8.3f}{regret:>8.3f}{_after(runs, rule):>8.4f}")
    for rule in ("review", "both"):
        print(f"    {rule:12}{'':>16}{_after(runs, rule):>8.4f}")
    print(f"    {'before':12}{'':>16}{scoring.mean([run.before for run in runs]):>8.4f}")
    behind = [name for name, each in found.items() if _f1(each, "ours") < max(_f1(each, p) for p in PEERS[:2])]
    print(f"  F1 below cleanlab's better filter in {len(behind)} of {len(found)}: {'; '.join(behind) or 'none'}")
    change = {name: np.mean([scoring.points(r.after["ours"], r.before) for r in each]) for name, each in found.items()}
    harmed = [f"{name} ({points:+.3f})" for name, points in change.items() if points < -1e-9]
    worst, where = min((scoring.points(r.after["ours"], r.before), name) for name, each in found.items() for r in each)
    print(goal("settings with a lower mean accuracy", len(harmed), 0, at_most=True), "; ".join(harmed))
    print(goal("worst run's change of accuracy, points", worst, WORST_RUN, at_most=False), f"({where})")
    print(goal("labels changed without any review", sum(run.unasked for run in runs), 0, at_most=True))
    print(f"  the command took {np.median([run.seconds for run in runs]):.1f} s (median)")


def _f1(runs: list[Run], rule: str) -> float:
    return scoring.mean([run.f1[rule] for run in runs])


def _after(runs: list[Run], rule: str) -> float:
    return scoring.mean([run.after[rule] for run in runs])
