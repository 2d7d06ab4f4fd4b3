"""Probe students: a classifier on frozen features, for those without a GPU and for a cheap first look.

Minutes on two cores for a thousand items. Kept without pickles: probe.npz, probe.json, and student.json as every
student has it.
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

from tasks.errors import ConfigError, EngineError
from tasks.records import Outcome, Prediction, Sample, content_digest, digest_of
from tasks.storage.json_lines import write_json
from tasks.students.folds import make_folds
from tasks.students.loss_curves import Progress
from tasks.students.probe_classifier import Blocks, Classifier, Weighing, fit, from_arrays, to_arrays
from tasks.students.probe_features import (
    Vector,
    count_ngrams,
    dialogue_text,
    image_text,
    pool_images,
)
from tasks.students.settings import ProbeSpec
from tasks.students.student_folder import describe_training, is_trained, keep_student, read_facts, work_folder

_INNER_FOLDS = 3


@dataclass(frozen=True)
class ProbeRecipe:
    """Makes probes."""

    spec: ProbeSpec
    seed: int
    texts: Mapping[str, str]
    """What was read off the items' images, by digest."""
    images: Mapping[str, Vector]
    """What `describe_images` makes of them, by digest."""

    def digest(self, train: Sequence[Sample], fold: int) -> str:
        """Return the identity of the probe of `fold`: what it is made from, by which recipe, with which seed."""
        items = sorted([s.id, content_digest(s), s.given, image_text(s, self.texts)] for s in train)
        ingredients = self.spec.model_dump(mode="json", exclude={"folds", "repeats", "seed"})
        return digest_of([ingredients, items, fold, self.seed])[:16]

    def train(self, train: Sequence[Sample], fold: int, folder: Path, _: Progress) -> Path:
        """Fit a probe to `train` and their given labels and return `folder`, which holds it.

        A finished folder (one with student.json) is returned as it is; a new one appears whole. Raises ConfigError when
        no item has a label.
        """
        if is_trained(folder):
            return folder
        started = time.monotonic()
        samples = sorted((s for s in train if s.given is not None), key=lambda s: s.id)
        if not samples:
            raise ConfigError(f"fold {fold}: no labelled item is left to train on; set fewer folds")
        blocks = _blocks(samples, self.texts, self.images, self.spec.ngrams)
        weighing = Weighing.fit(blocks)
        given = [s.given or "" for s in samples]
        offered = [s.labels for s in samples]
        inner_folds = _inner_parts(samples, self.seed)
        classifier = fit(weighing.rows(blocks), given, offered, inner_folds, self.spec.regularisation)
        work = work_folder(folder)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        arrays, plain = to_arrays(classifier, weighing)
        with (work / "probe.npz").open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
        write_json(work / "probe.json", {"ngrams": self.spec.ngrams, **plain})
        facts = {"seed": self.seed, "seconds": round(time.monotonic() - started, 1)}
        keep_student(work, folder, facts | describe_training(self.spec, fold, samples))
        return folder


def predict_probe(
    folder: Path,
    samples: Sequence[Sample],
    texts: Mapping[str, str],
    images: Mapping[str, Vector],
) -> Iterator[Prediction]:
    """Yield a prediction of each of `samples`: a probability for each label that the item offers, summing to 1.

    A label that training never showed has probability 0; an item all of whose labels are such has outcome FAILED.
    `texts` and `images` as in `ProbeRecipe`. Raises EngineError when the folder holds no whole probe.
    """
    facts, plain, classifier, weighing = _read(folder)
    source = f"student/fold={facts['fold']}"
    identity = _identity(folder)
    # a thousand at a time: rows of n-gram counts of long dialogues take some 100 KB each
    for start in range(0, len(samples), 1000):
        some = samples[start : start + 1000]
        blocks = _blocks(some, texts, images, plain["ngrams"], len(weighing.state["images_mean"]))
        found = classifier.predict(weighing.rows(blocks), [s.labels for s in some])
        for sample, shares in zip(some, found, strict=True):
            known = bool(shares)
            yield Prediction(
                sample_id=sample.id,
                source=source,
                outcome=Outcome.OK if known else Outcome.FAILED,
                label=max(shares, key=lambda label: shares[label]) if known else None,
                probabilities=shares,
                model=identity,
                detail="" if known else "none of its labels was in the training part",
            )


def _blocks(
    samples: Sequence[Sample],
    texts: Mapping[str, str],
    features: Mapping[str, Vector],
    ngrams: Sequence[int],
    width: int | None = None,
) -> Blocks:
    pooled = pool_images(samples, features)
    if width is not None and 0 in (width, pooled.shape[1]):
        # none of these items has an image, or none of the training part's had
        pooled = np.full((len(samples), width), np.nan, np.float32)
    elif width is not None and pooled.shape[1] != width:
        raise EngineError(
            f"image features of {pooled.shape[1]} numbers for a probe of {width}: remove `correction/students` "
            "and run again"
        )
    return Blocks(
        dialogue=count_ngrams([dialogue_text(s) for s in samples], (ngrams[0], ngrams[1])),
        shown=count_ngrams([image_text(s, texts) for s in samples], (ngrams[0], ngrams[1])),
        images=pooled,
    )


def _inner_parts(samples: Sequence[Sample], seed: int) -> list[int] | None:
    """Parts for calibration, made as folds are; −1 for items never held out, None where there are too few for any."""
    try:
        parts = make_folds(samples, _INNER_FOLDS, seed).fold_of
    except ConfigError:
        return None
    return [parts.get(s.id, -1) for s in samples]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], Classifier, Weighing]:
    try:
        facts = read_facts(folder)
        plain = orjson.loads((folder / "probe.json").read_bytes())
        with np.load(folder / "probe.npz", allow_pickle=False) as arrays:
            classifier, weighing = from_arrays(dict(arrays), plain)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EngineError(f"{folder}: holds no whole probe ({error}); remove the folder to train it again") from error
    return facts, plain, classifier, weighing


def _identity(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("probe.json", "probe.npz"):
        digest.update((folder / name).read_bytes())
    return f"probe#{digest.hexdigest()[:12]}"
