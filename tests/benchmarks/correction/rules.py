"""The rules side by side: each says which items are wrong, and what their labels become."""

import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.clients.peers import QUIET, python_of
from tests.benchmarks.correction.latent import Floats, Ints
from tests.benchmarks.correction.noisy_sets import NoisySet
from tests.stub_server import ROOT

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Cleanlab:
    """What cleanlab says of a set, all [N]; rankings are higher for the more suspicious.

    `overlaps` [pairs, 2]: the pairs of classes, most overlapping first (`find_overlapping_classes`).
    """

    default: Flags
    by_class: Flags
    self_confidence: Floats
    normalized_margin: Floats
    overlaps: Ints


@dataclass(frozen=True)
class Rule:
    """A rule's `flags` [N], `labels` [N] after it, and `ranking` [N] by which it puts the most suspicious first."""

    flags: Flags
    labels: Ints
    ranking: Floats


def ask_cleanlab(sets: Mapping[str, tuple[Ints, Floats]]) -> dict[str, Cleanlab]:
    """One process of cleanlab for all sets: key → (given [N], probabilities [N, C])."""
    with tempfile.TemporaryDirectory() as folder:
        for key, (given, probabilities) in sets.items():
            np.savez(Path(folder) / f"{key}.in.npz", given=given, probabilities=probabilities)
        client = Path(__file__).with_name("cleanlab_client.py")
        words = [str(python_of("cleanlab")), str(client), folder]
        ended = subprocess.run(words, cwd=ROOT, env={**os.environ, **QUIET}, capture_output=True, text=True)
        if ended.returncode:
            raise RuntimeError(f"cleanlab failed:\n{ended.stdout[-2000:]}\n{ended.stderr[-4000:]}")
        return {key: _read(Path(folder) / f"{key}.out.npz") for key in sets}


def _read(path: Path) -> Cleanlab:
    with np.load(path, allow_pickle=False) as stored:
        return Cleanlab(**{name: stored[name] for name in Cleanlab.__dataclass_fields__})


def others(noisy: NoisySet, found: Cleanlab) -> dict[str, Rule]:
    """Every rule but ours. They see the students' mean and neither the teacher nor any person.

    All relabel what they flag to the likeliest label, so `cleanlab` is its autofix too: one that dropped what it flags
    would only lose accuracy.
    """
    mean, given = noisy.mean, noisy.given
    best = mean.argmax(1)
    differs = best != given
    margin = mean.max(1) - mean[np.arange(len(given)), given]

    def rule(flags: Flags, ranking: Floats) -> Rule:
        return Rule(flags, np.where(flags, best, given), ranking)

    return {
        "cleanlab": rule(found.default, found.self_confidence),
        "by class": rule(found.by_class, found.normalized_margin),
        "disagree": rule(differs, margin),
        "sure .9": rule(differs & (mean.max(1) >= 0.9), margin),
    }


def reviewed(noisy: NoisySet, labels: Ints, ranking: Floats, reviews: int) -> Ints:
    """`labels` [N] after a person has also judged the most suspicious items of a ranking."""
    first = np.argsort(-ranking, kind="stable")[:reviews]
    judged = labels.copy()
    judged[first] = noisy.truth[first]
    return judged
