"""The probe beside its predecessor and HOG + SVM on three noisy sets: agreement with the truth, time, flags.

    python tests/benchmarks/probe.py [screens digits photos]

All are trained on the same folds. The flags of `correct` on the probe's probabilities are compared with those of
cleanlab's default filter, which runs in an environment of its own (.peers).
"""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize
from sklearn.svm import SVC

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks.correction.decide import correct
from tasks.correction.judgements import Ints, judge_by_predictions
from tasks.correction.settings import CorrectionSettings
from tasks.records import Prediction
from tasks.students.folds import make_folds
from tasks.students.probe import ProbeRecipe, predict_probe
from tasks.students.probe_features import Vector, describe_images
from tasks.students.settings import ProbeSpec
from tests.benchmarks.correction.report import goal
from tests.benchmarks.correction.rules import ask_cleanlab
from tests.benchmarks.correction.scoring import f1
from tests.benchmarks.probe_sets import ProbeSet, draw_digits, draw_screens, read_cifar

Array = np.ndarray[Any, Any]
FitAndPredict = Callable[[Array, Array], Array]
"""Takes the items to train on and the items to predict, and returns the predicted label of each of the latter."""

FOLDS = 5
SECONDS = 6.0
REVIEWS = (0, 60, 200)


def main(names: Sequence[str]) -> None:
    """Measure on the sets of these names and print."""
    with tempfile.TemporaryDirectory() as folder:
        for name, make in (("screens", draw_screens), ("digits", draw_digits), ("photos", read_cifar)):
            if name in names:
                noisy = make(Path(folder) / name)
                if noisy is None:
                    print("\nCIFAR-10N: skipped, the data is not there")
                else:
                    measure(noisy, Path(folder) / f"{name}-probes")


def measure(noisy: ProbeSet, folder: Path) -> None:
    """Print the figures of one set."""
    samples, truth = noisy.samples, np.array([noisy.truth[s.id] for s in noisy.samples])
    given = np.array([s.given or "" for s in samples])
    folds = make_folds(samples, FOLDS, 0)
    fold_of = np.array([folds.fold_of.get(s.id, -1) for s in samples])
    spec = ProbeSpec(folds=FOLDS)
    started = time.perf_counter()
    images = describe_images(spec, samples)
    seconds = time.perf_counter() - started
    print(f"\n{noisy.name}: {len(samples)} items, {(truth != given).mean():.1%} wrong; features {seconds:.1f} s")
    found, per_fold, cpu = predict_out_of_fold(noisy, spec, images, fold_of, folder)
    asked = fold_of >= 0
    new = np.array([found[s.id].label if s.id in found else None for s in samples])
    agreement = float((new == truth)[asked].mean())
    print(f"  probe        {agreement:.1%} of the truth, {(new == given)[asked].mean():.1%} of the given labels")
    before = float((cross_predict(make_predecessor(noisy, images, given), given, fold_of) == truth)[asked].mean())
    print(f"  predecessor  {before:.1%} of the truth")
    if noisy.name == "drawn screens":
        print(goal("points above the predecessor", 100 * (agreement - before), 5, at_most=False))
    else:
        peer = float((cross_predict(make_hog_svm(noisy, given), given, fold_of) == truth)[asked].mean())
        print(f"  HOG + SVM    {peer:.1%} of the truth (cells of 8 of 32 pixels, 9 directions, C 2, gamma scale)")
        print(goal("agreement with the truth", agreement, peer, at_most=False))
    print(goal("seconds per fold, features cached", per_fold, SECONDS, at_most=True) + f"; {cpu:.1f} s of CPU time")
    measure_flags(noisy, found, truth)


def measure_flags(noisy: ProbeSet, found: Mapping[str, Prediction], truth: Array) -> None:
    """Print how well `correct` flags wrong labels with and without verdicts."""
    chosen = [i for i, s in enumerate(noisy.samples) if s.id in found]
    samples = [noisy.samples[i] for i in chosen]
    labels = list(samples[0].labels)
    judgements = judge_by_predictions(samples, [found], labels)
    right = np.array([labels.index(truth[i]) for i in chosen])
    wrong = right != judgements.given
    peer = ask_cleanlab({"set": (judgements.given, judgements.students)})["set"].default

    def look_up(items: Ints) -> dict[int, int]:
        return {item: int(right[item]) for item in items.tolist()}

    for reviews in REVIEWS:
        decisions = correct(judgements, CorrectionSettings(review_budget=reviews), (), look_up)
        unseen = np.ones(len(right), bool)
        unseen[list(decisions.verdicts)] = False
        ours, theirs = f1(decisions.flagged[unseen], wrong[unseen]), f1(peer[unseen], wrong[unseen])
        caught = int(wrong[list(decisions.verdicts)].sum()) if reviews else 0
        accuracy = float((decisions.label == right).mean())
        print(
            f"  {reviews:3} reviews: F1 {ours:.3f}, cleanlab {theirs:.3f}; {caught} wrong labels reviewed"
            f"; right labels {1 - wrong.mean():.1%} before, {accuracy:.1%} after"
        )


def predict_out_of_fold(
    noisy: ProbeSet, spec: ProbeSpec, images: Mapping[str, Vector], fold_of: Array, folder: Path
) -> tuple[dict[str, Prediction], float, float]:
    """Return the probe's predictions by item, and wall and CPU seconds per fold."""
    found: dict[str, Prediction] = {}
    started, cpu = time.perf_counter(), time.process_time()
    for fold in range(FOLDS):
        train = [s for s, f in zip(noisy.samples, fold_of, strict=True) if f != fold]
        held_out = [s for s, f in zip(noisy.samples, fold_of, strict=True) if f == fold]
        recipe = ProbeRecipe(spec, spec.seed_of(0), noisy.texts, images)
        home = recipe.train(train, fold, folder / str(fold), lambda *_: None)
        found |= {p.sample_id: p for p in predict_probe(home, held_out, noisy.texts, images)}
    return found, (time.perf_counter() - started) / FOLDS, (time.process_time() - cpu) / FOLDS


def cross_predict(fit_and_predict: FitAndPredict, given: Array, fold_of: Array) -> Array:
    """Return the out-of-fold predictions of a peer."""
    found = np.full(len(given), "", given.dtype)
    for fold in range(FOLDS):
        found[fold_of == fold] = fit_and_predict(fold_of != fold, fold_of == fold)
    return found


def make_predecessor(noisy: ProbeSet, images: Mapping[str, Vector], given: Array) -> FitAndPredict:
    """Return the probe before this one: one balanced logistic regression on the concatenated features."""
    counter: Any = HashingVectorizer(
        analyzer="char_wb", ngram_range=(1, 3), n_features=1 << 17, norm=None, alternate_sign=False
    )
    counts = counter.transform([noisy.texts[s.images[0].sha256] for s in noisy.samples])
    pictures = np.array([images[s.images[0].sha256] for s in noisy.samples])

    def fit_and_predict(used: Array, asked: Array) -> Array:
        weighing = TfidfTransformer(sublinear_tf=True).fit(counts[used])
        centred = normalize(csr_matrix(pictures - pictures[used].mean(0)))
        rows = hstack([weighing.transform(counts), centred]).tocsr()
        model = LogisticRegression(C=30, class_weight="balanced", max_iter=100)
        return model.fit(rows[used], given[used]).predict(rows[asked])

    return fit_and_predict


def make_hog_svm(noisy: ProbeSet, given: Array) -> FitAndPredict:
    """Return histograms of oriented gradients (Dalal and Triggs, 2005) with an RBF support vector machine."""
    rows = np.array([_describe_by_hog(Image.open(s.images[0].path)) for s in noisy.samples])
    return lambda used, asked: SVC(C=2, gamma="scale").fit(rows[used], given[used]).predict(rows[asked])


def _describe_by_hog(picture: Image.Image, side: int = 32, cell: int = 8, directions: int = 9) -> Array:
    grey = np.asarray(picture.convert("L").resize((side, side), Image.Resampling.BILINEAR), float) / 255
    down, across = np.gradient(grey)
    angle = np.mod(np.arctan2(down, across), np.pi)
    bins = np.minimum((angle / np.pi * directions).astype(int), directions - 1)
    cells = np.zeros((side // cell, side // cell, directions))
    np.add.at(cells, (*(np.indices(grey.shape) // cell), bins), np.hypot(down, across))
    blocks = np.lib.stride_tricks.sliding_window_view(cells, (2, 2), axis=(0, 1)).reshape(-1, directions * 4)
    for _ in range(2):  # L2-Hys: normalise, clip, normalise
        blocks = np.minimum(blocks / np.sqrt((blocks**2).sum(1, keepdims=True) + 1e-5), 0.2)
    return blocks.ravel()


if __name__ == "__main__":
    main(sys.argv[1:] or ("screens", "digits", "photos"))
