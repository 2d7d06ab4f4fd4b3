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

from tasks.errors import ConfigError, EngineError
from tasks.models.engines.identity import identify_checkpoint
from tasks.records import Outcome, Prediction, Sample, digest_of
from tasks.storage.json_lines import write_json
from tasks.students.folds import make_folds
from tasks.students.loss_curves import Progress
from tasks.students.probe_classifier import Blocks, Classifier, FeatureWeights, fit, from_arrays, to_arrays
from tasks.students.probe_features import (
    Vector,
    count_ngrams,
    join_dialogue_text,
    join_image_text,
    pool_images,
)
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
        return digest_of([ingredients, items, fold, self.seed, *embedder])[:16]

    def train(self, train: Sequence[Sample], fold: int, folder: Path, _: Progress) -> Path:
        """Fit a probe to the items of `train` and their given labels, and return its folder.

        A finished folder (one with student.json) is returned unchanged; a new one appears atomically. Raises
        ConfigError when no item has a label.
        """
        if is_trained(folder):
            return folder
        started = time.monotonic()
        samples = sorted((s for s in train if s.given is not None), key=lambda s: s.id)
        if not samples:
            raise ConfigError(f"fold {fold}: no labelled item is left to train on; set fewer folds")
        blocks = _make_blocks(samples, self.texts, self.images, self.spec.ngrams)
        weighing = FeatureWeights.fit(blocks)
        given = [s.given or "" for s in samples]
        offered = [s.labels for s in samples]
        inner_folds = _make_inner_parts(samples, self.seed)
        classifier = fit(weighing.make_rows(blocks), given, offered, inner_folds, self.spec.regularisation, self.seed)
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
    """Yield a prediction for each of `samples`; the probabilities of an item's labels add up to 1.

    A label without training items has probability 0. An item with only such labels has outcome FAILED. `texts` and
    `images` are as in `ProbeRecipe`. Raises EngineError when the folder contains no complete probe.
    """
    facts, plain, classifier, weighing = _read(folder)
    source = f"student/fold={facts['fold']}"
    identity = _compute_identity(folder)
    # a thousand at a time: n-gram counts of a long dialogue take about 100 KB
    for start in range(0, len(samples), 1000):
        some = samples[start : start + 1000]
        blocks = _make_blocks(some, texts, images, plain["ngrams"], len(weighing.state["images_mean"]))
        found = classifier.predict(weighing.make_rows(blocks), [s.labels for s in some])
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


def _make_blocks(
    samples: Sequence[Sample],
    texts: Mapping[str, str],
    features: Mapping[str, Vector],
    ngrams: Sequence[int],
    width: int | None = None,
) -> Blocks:
    pooled = pool_images(samples, features)
    if width is not None and 0 in (width, pooled.shape[1]):
        # either these items or the training items have no images
        pooled = np.full((len(samples), width), np.nan, np.float32)
    elif width is not None and pooled.shape[1] != width:
        raise EngineError(
            f"the probe needs {width} features per image, not {pooled.shape[1]}; delete "
            "`correction/students` and run again"
        )
    return Blocks(
        dialogue=count_ngrams([join_dialogue_text(s) for s in samples], (ngrams[0], ngrams[1])),
        shown=count_ngrams([join_image_text(s, texts) for s in samples], (ngrams[0], ngrams[1])),
        images=pooled,
    )


def _make_inner_parts(samples: Sequence[Sample], seed: int) -> list[int] | None:
    """Return calibration parts, made like folds, with −1 for items never held out; None if there are too few items."""
    try:
        parts = make_folds(samples, _INNER_FOLDS, seed).fold_of
    except ConfigError:
        return None
    return [parts.get(s.id, -1) for s in samples]


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], Classifier, FeatureWeights]:
    try:
        facts = read_facts(folder)
        plain = orjson.loads((folder / "probe.json").read_bytes())
        with np.load(folder / "probe.npz", allow_pickle=False) as arrays:
            classifier, weighing = from_arrays(dict(arrays), plain)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise EngineError(f"{folder}: incomplete probe ({error}); delete the folder to train it again") from error
    return facts, plain, classifier, weighing


def _compute_identity(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in ("probe.json", "probe.npz"):
        digest.update((folder / name).read_bytes())
    return f"probe#{digest.hexdigest()[:12]}"
