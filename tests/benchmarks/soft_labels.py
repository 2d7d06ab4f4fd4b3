"""Soft labels, fusing and ensembling on human noise: small students of five real models, scored by the true labels.

    python tests/benchmarks/soft_labels.py [--data FOLDER]

Per teacher and seed: 1,000 labelled pictures with people's own labels, 3,000 that the teacher labels, 1,000 held out. A
student is a linear softmax model on a probe's features of the pictures. Its folds are as those of a run: four students,
each without a quarter of the labelled pictures. Fusing linear students is the mean of their weights. The intervals are
those of the mean over 5 teachers × 5 seeds. A student of this size says little about Qwen2-VL: see `make bench-lift`.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from sklearn.decomposition import PCA

from tasks.items.images import MAX_PIXELS, check_image
from tasks.media import ImagePart, ImageRef
from tasks.records import Sample, Split
from tasks.students.probe_features import describe_images
from tasks.students.settings import ProbeSpec
from tests.benchmarks.correction.real import DATA

Values = NDArray[np.float64]
SEEDS, FOLDS, COMPONENTS = 5, 4, 150
LABELLED, POOL = 1000, 3000


def describe(pictures: pd.Series, folder: Path) -> Values:
    """Return the main components of the pictures' features, those of a probe student, and a constant."""
    images: list[ImageRef] = []
    for number, data in enumerate(pictures):
        file = folder / f"{number}.jpg"
        file.write_bytes(data)
        images.append(check_image(file, MAX_PIXELS))
    samples = [
        Sample(id=i.path, task="", parts=(ImagePart(image=i),), labels=(), split=Split.TEST, source="") for i in images
    ]
    known = describe_images(ProbeSpec(), samples)
    found = PCA(COMPONENTS, random_state=0).fit_transform(np.array([known[i.sha256] for i in images], np.float64))
    return np.column_stack([found / found.std(0).mean(), np.ones(len(found))])


def fit(items: Values, targets: Values, penalty: float = 1.0) -> Values:
    """Return the weights of the student with the least cross entropy with `targets` [items, classes]."""

    def loss(flat: Values) -> tuple[float, Values]:
        weights = flat.reshape(items.shape[1], -1)
        logits = items @ weights
        value = -(targets * log_softmax(logits, axis=1)).sum() + penalty / 2 * (flat**2).sum()
        return value, (items.T @ (softmax(logits, axis=1) - targets) + penalty * weights).ravel()

    start = np.zeros(items.shape[1] * targets.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 80}).x.reshape(items.shape[1], -1)


def main(folder: Path) -> None:
    """Print the accuracy of each kind of student, and its lift with a 95 % interval."""
    table = pd.read_parquet(folder / "cifar10n_images.parquet")
    stored = np.load(folder / "cifar10n_aggregate.npz")
    places = table["cifar_index"].to_numpy()
    teachers = stored["pred_probs"].astype(np.float64)[:, places]
    teachers /= teachers.sum(2, keepdims=True)
    with tempfile.TemporaryDirectory() as scratch:
        items = describe(table["jpg"], Path(scratch))
    true = stored["true"][places]
    hard = np.eye(teachers.shape[2])
    given = hard[stored["given"][places]]
    scores: dict[str, list[float]] = defaultdict(list)
    for number, teacher in enumerate(teachers):
        for seed in range(SEEDS):
            order = np.random.default_rng([number, seed]).permutation(len(items))
            labelled, pool, held = np.split(order, [LABELLED, LABELLED + POOL])
            both = np.concatenate([labelled, pool])

            def right(logits: Values, held: NDArray[np.int64] = held) -> float:
                return float((logits.argmax(1) == true[held]).mean())

            scores["raw"].append(right(items[held] @ fit(items[labelled], given[labelled])))
            guessed = hard[teacher[pool].argmax(1)]
            for name, labels in (("all", guessed), ("soft", teacher[pool])):
                scores[name].append(right(items[held] @ fit(items[both], np.concatenate([given[labelled], labels]))))
            parts = [np.delete(labelled, np.s_[fold::FOLDS]) for fold in range(FOLDS)]
            weights = [fit(items[part], given[part]) for part in parts]
            scores["one fold student"].append(float(np.mean([right(items[held] @ w) for w in weights])))
            scores["ensemble"].append(right(np.mean([softmax(items[held] @ w, axis=1) for w in weights], axis=0)))
            scores["fused"].append(right(items[held] @ np.mean(weights, axis=0)))
    for name, base in (("all", "raw"), ("soft", "all"), ("ensemble", "raw"), ("fused", "raw"), ("fused", "ensemble")):
        lift = 100 * (np.array(scores[name]) - np.array(scores[base]))
        low, high = lift.mean() + np.array([-1.96, 1.96]) * lift.std(ddof=1) / len(lift) ** 0.5
        print(f"{name} against {base}: {lift.mean():+.1f} points [{low:+.1f}, {high:+.1f}]")
    print({name: round(float(np.mean(found)), 4) for name, found in scores.items()})
    mean = teachers.mean(0)
    alone = [float((t.argmax(1) == true).mean()) for t in teachers]
    print(f"the five models: alone {min(alone):.3f} to {max(alone):.3f}, mean of probabilities", end=" ")
    print(f"{(mean.argmax(1) == true).mean():.3f}; right by number of models that agree with the mean:", end=" ")
    agree = (teachers.argmax(2) == mean.argmax(1)).sum(0)
    shares = {k: (mean.argmax(1) == true)[agree == k] for k in range(1, 6)}
    print({k: f"{s.mean():.3f} of {len(s)}" for k, s in shares.items() if len(s)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA.parent)
    data = parser.parse_args().data
    if (data / DATA.name).exists():
        main(data)
    else:
        print(f"skipped: no {DATA.name} in {data}")
