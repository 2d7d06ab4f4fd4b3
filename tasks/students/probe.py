"""Train probe students: classifiers on frozen features, for use without a GPU or as a cheap first step.

Training takes minutes on two cores for a thousand items. A probe is stored without pickles: probe.npz, probe.json and,
as for every student, student.json.
"""

import hashlib
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from threadpoolctl import threadpool_limits

from tasks.errors import ConfigError, EngineError
from tasks.models.engines.identity import identify_checkpoint
from tasks.records import Outcome, Prediction, Sample, digest_of
from tasks.storage.json_lines import write_json
from tasks.students.folds import make_folds
from tasks.students.loss_curves import Progress
from tasks.students.probe_classifier import Classifier, Features, fit, from_arrays, to_arrays
from tasks.students.probe_features import Vector, count_ngrams, list_texts, pool_images
from tasks.students.settings import ProbeSpec
from tasks.students.student_folder import (
    describe_training,
    identify_item,
    is_trained,
    keep_student,
    read_facts,
    work_folder,
)

_INNER_FOLDS = 3
_SEVERAL_THREADS = 1500
"""From this number of items on, linear algebra uses all cores."""
_RECIPE = 2
"""Number of the recipe. A student of an earlier one is not reused."""


@dataclass(frozen=True)
class ProbeRecipe:
    """Trains probes."""

    spec: ProbeSpec
    seed: int
    texts: Mapping[str, str]
    """Maps image digest to the text on the image."""
    images: Mapping[str, Vector]
    """Maps image digest to the features of the image (see `describe_images`)."""

    def digest(self, train: Sequence[Sample], fold: int) -> str:
        """Return a digest that identifies the probe of `fold`, made from its items, settings and seed."""
        items = [identify_item(s, self.texts) for s in sorted(train, key=lambda s: s.id)]
        ingredients = self.spec.model_dump(mode="json", exclude={"folds", "repeats", "seed"})
        name = self.spec.embedding_model
        embedder = [identify_checkpoint(name, None)] if name is not None else []
        return digest_of([_RECIPE, ingredients, items, fold, self.seed, *embedder])[:16]

    def train(self, train: Sequence[Sample], fold: int, folder: Path, progress: Progress) -> Path:
        """Fit a classifier per task to the items of `train` and their given labels, and return the probe's folder.

        A finished folder (one with student.json) is returned unchanged; a new one appears atomically. Raises
        ConfigError when no item has a label.
        """
        if is_trained(folder):
            return folder
        started = time.monotonic()
        samples = sorted((s for s in train if s.given is not None), key=lambda s: s.id)
        if not samples:
            raise ConfigError(f"fold {fold}: no labelled item is left to train on; set fewer folds")
        parts = _make_inner_parts(samples, self.seed)
        tasks: dict[str, dict[str, object]] = {}
        arrays: dict[str, np.ndarray[Any, Any]] = {}
        for done, (task, its) in enumerate(_group_by_task(samples).items()):
            progress(done, len({s.task for s in samples}), 0.0)
            features = _make_features(its, self.texts, self.images)
            given, offered = [s.given or "" for s in its], [s.labels for s in its]
            inner = None if parts is None else [parts[s.id] for s in its]
            # on a busy machine several threads per small system of equations wait for each other: 180 ms instead of 4
            with threadpool_limits(1 if len(its) < _SEVERAL_THREADS else None):
                classifier = fit(features, given, offered, inner, self.seed)
            found, tasks[task] = to_arrays(classifier)
            arrays |= {f"{len(tasks)} {name}": array for name, array in found.items()}
        work = work_folder(folder)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        with (work / "probe.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        write_json(work / "probe.json", {"tasks": tasks})
        facts = {"seed": self.seed, "seconds": round(time.monotonic() - started, 1)}
        keep_student(work, folder, facts | describe_training(self.spec, fold, samples))
        return folder


def predict_probe(
    folder: Path,
    samples: Sequence[Sample],
    texts: Mapping[str, str],
    images: Mapping[str, Vector],
) -> Iterator[Prediction]:
    """Yield a prediction for each of `samples`; the probabilities of an item's labels add up to 1.

    A label without training items has probability 0. An item with only such labels has outcome FAILED. `texts` and
    `images` are as in `ProbeRecipe`. Raises EngineError when the folder contains no complete probe.
    """
    facts, classifiers = _read(folder)
    source = f"student/fold={facts['fold']}"
    identity = _compute_identity(folder)
    # a thousand at a time: n-gram counts of a long dialogue take about 100 KB
    for start in range(0, len(samples), 1000):
        some = samples[start : start + 1000]
        found: dict[str, dict[str, float]] = {}
        for task, its in _group_by_task(some).items():
            if task in classifiers:
                width = len(classifiers[task].arrays.get("images mean", ()))
                features = _make_features(its, texts, images, width)
                predicted = classifiers[task].predict(features, [s.labels for s in its])
                found |= dict(zip((s.id for s in its), predicted, strict=True))
        for sample in some:
            shares = found.get(sample.id, {})
            yield Prediction(
                sample_id=sample.id,
                source=source,
                outcome=Outcome.OK if shares else Outcome.FAILED,
                label=max(shares, key=lambda label: shares[label]) if shares else None,
                probabilities=shares,
                model=identity,
                detail="" if shares else "none of its labels was in the training part",
            )


def _group_by_task(samples: Sequence[Sample]) -> dict[str, list[Sample]]:
    """Return the samples of each task, in alphabetical order of the tasks' names."""
    return {task: [s for s in samples if s.task == task] for task in sorted({s.task for s in samples})}


def _make_features(
    samples: Sequence[Sample], texts: Mapping[str, str], features: Mapping[str, Vector], width: int | None = None
) -> Features:
    """Return the features of samples of one task. `width` is the number of image features that a probe expects."""
    pooled = pool_images(samples, features)
    if width is None and np.isnan(pooled).all():
        pooled = pooled[:, :0]
    elif width is not None and (width == 0 or pooled.shape[1] == 0):
        # either these items or the training items have no images
        pooled = np.full((len(samples), width), np.nan, np.float32)
    elif width is not None and pooled.shape[1] != width:
        raise EngineError(
            f"the probe needs {width} features per image, not {pooled.shape[1]}; delete "
            "`correction/students` and run again"
        )
    listed = [list_texts(sample, texts) for sample in samples]
    return Features({name: count_ngrams([one[name] for one in listed]) for name in listed[0]}, pooled)


def _make_inner_parts(samples: Sequence[Sample], seed: int) -> dict[str, int] | None:
    """Return the calibration part of each item, made like folds, −1 if it is never held out; None with few items."""
    try:
        parts = make_folds(samples, _INNER_FOLDS, seed).fold_of
    except ConfigError:
        return None
    return {s.id: parts.get(s.id, -1) for s in samples}


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Classifier]]:
    """Return the facts about a probe and its classifier for each task."""
    classifiers: dict[str, Classifier] = {}
    try:
        facts = read_facts(folder)
        tasks = orjson.loads((folder / "probe.json").read_bytes())["tasks"]
        with np.load(folder / "probe.npz", allow_pickle=False) as stored:
            for number, (task, plain) in enumerate(tasks.items(), 1):
                prefix = f"{number} "
                arrays = {name.removeprefix(prefix): stored[name] for name in stored if name.startswith(prefix)}
                classifiers[task] = from_arrays(arrays, plain)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EngineError(f"{folder}: incomplete probe ({error}); delete the folder to train it again") from error
    return facts, classifiers


def _compute_identity(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("probe.json", "probe.npz"):
        digest.update((folder / name).read_bytes())
    return f"probe#{digest.hexdigest()[:12]}"
