"""Probe students: a classifier on frozen features, for those without a GPU and for a cheap first look.

Minutes on two cores for a thousand items. Kept without pickles: probe.npz, probe.json, and student.json as every
student has it.
"""

import hashlib
import shutil
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from tasks.errors import ConfigError, EngineError
from tasks.records import Outcome, Prediction, Sample, content_digest, digest_of
from tasks.storage.json_lines import write_json
from tasks.students.folds import make_folds
from tasks.students.probe_classifier import Blocks, Classifier, Weighing, fit, from_arrays, to_arrays
from tasks.students.probe_features import (
    Vector,
    count_ngrams,
    dialogue_text,
    image_text,
    pool_images,
)
from tasks.students.settings import ProbeSpec

_INNER_FOLDS = 3


def probe_digest(spec: ProbeSpec, samples: Sequence[Sample], texts: Mapping[str, str], fold: int, seed: int) -> str:
    """Identity of the probe of `fold`: what it is made from, by which recipe, with which seed."""
    items = sorted([s.id, content_digest(s), s.given, image_text(s, texts)] for s in samples)
    ingredients = spec.model_dump(mode="json", exclude={"folds", "repeats", "seed"})
    return digest_of([ingredients, items, fold, seed])[:16]


def train_probe(
    spec: ProbeSpec,
    samples: Sequence[Sample],
    texts: Mapping[str, str],
    fold: int,
    seed: int,
    folder: Path,
    images: Mapping[str, Vector],
) -> Path:
    """Fit a probe to `samples` and their given labels and return `folder`, which holds it.

    `texts` is what was read off the images and `images` what `describe_images` makes of them, both by digest. A
    finished folder (one with student.json) is returned as it is; a new one appears whole. Raises ConfigError when no
    item has a label.
    """
    if (folder / "student.json").exists():
        return folder
    started = time.monotonic()
    samples = sorted((s for s in samples if s.given is not None), key=lambda s: s.id)
    if not samples:
        raise ConfigError(f"fold {fold}: no labelled item is left to train on; set fewer folds")
    blocks = _blocks(samples, texts, images, spec.ngrams)
    weighing = Weighing.fit(blocks)
    given = [s.given or "" for s in samples]
    offered = [s.labels for s in samples]
    classifier = fit(weighing.rows(blocks), given, offered, _inner_parts(samples, seed), spec.regularisation)
    facts: dict[str, object] = {
        "fold": fold,
        "seed": seed,
        "items": len(samples),
        "seconds": round(time.monotonic() - started, 1),
        "spec": spec.model_dump(mode="json"),
        "trained_on": [s.id for s in samples],
        "trained_on_content": sorted({content_digest(s) for s in samples}),
    }
    _write(folder, spec, classifier, weighing, facts)
    return folder


def predict_probe(
    folder: Path,
    samples: Sequence[Sample],
    texts: Mapping[str, str],
    images: Mapping[str, Vector],
) -> Iterator[Prediction]:
    """Yield a prediction of each of `samples`: a probability for each label that the item offers, summing to 1.

    A label that training never showed has probability 0; an item all of whose labels are such has outcome FAILED.
    `texts` and `images` as in `train_probe`. Raises EngineError when the folder holds no whole probe.
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
        raise EngineError(f"image features of {pooled.shape[1]} numbers for a probe of {width}: make them by its spec")
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


def _write(folder: Path, spec: ProbeSpec, classifier: Classifier, weighing: Weighing, facts: dict[str, object]) -> None:
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    arrays, plain = to_arrays(classifier, weighing)
    with (work / "probe.npz").open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    plain = {"ngrams": spec.ngrams, **plain}
    write_json(work / "probe.json", plain)
    write_json(work / "student.json", facts)
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any], Classifier, Weighing]:
    try:
        facts = orjson.loads((folder / "student.json").read_bytes())
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
