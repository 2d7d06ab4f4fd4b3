"""Sets for tests/benchmarks/probe.py: items with a known truth, of which about one label in eight is wrong.

(a) drawn screens of 23 kinds with 4 to 80 items each, and noisy text as from OCR; (b) scikit-learn's handwritten
digits; (c) CIFAR-10N, photos with the labels of real people, where ../shared has it (it is never committed).
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits

from tasks.media import ImagePart, ImageRef, Part, TextPart
from tasks.records import Sample, Split

CIFAR = Path(__file__).parents[3] / "shared/data/correction/cifar10n_images.parquet"
_WRONG = 0.12
_KINDS = 23
_CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 500)]


@dataclass(frozen=True)
class ProbeSet:
    """Items with given labels, the text on their images, and the truth by item."""

    name: str
    samples: tuple[Sample, ...]
    texts: dict[str, str]
    truth: dict[str, str]


def draw_screens(folder: Path, seed: int = 0) -> ProbeSet:
    """Draw screens whose kind shows in some words and, less clearly, in the layout and its colours."""
    rng = np.random.default_rng(seed)
    kinds = [f"kind {k:02d}" for k in range(_KINDS)]
    sizes = np.geomspace(4, 80, _KINDS).astype(int)
    common = [_make_phrase(rng) for _ in range(80)]
    own = [[_make_phrase(rng) for _ in range(7)] for _ in kinds]
    for kind in range(1, _KINDS, 2):  # pairs of kinds share words and are confused with each other
        own[kind][:3] = own[kind - 1][:3]
    content: list[tuple[Image.Image, str, int]] = []
    for kind, size in enumerate(sizes):
        for _ in range(size):
            picked = [common[i] for i in rng.integers(0, len(common), rng.integers(6, 16))]
            picked += [own[kind][i] for i in rng.integers(0, 7, rng.integers(0, 5))]
            picked += [f"¥{rng.integers(1, 999)}.{rng.integers(10, 99)}" for _ in range(rng.integers(0, 4))]
            rng.shuffle(picked)
            content.append((_draw_screen(kind, rng), "\n".join(_garble(p, rng) for p in picked), kind))
    truth = np.array([kind for _, _, kind in content])
    given = _make_wrong(truth, lambda kind: min(kind ^ 1, _KINDS - 1), rng)
    return _write_set("drawn screens", folder, [(c[0], c[1]) for c in content], truth, given, kinds)


def draw_digits(folder: Path, seed: int = 0) -> ProbeSet:
    """Write scikit-learn's digits as images; 13 % have the label of a digit that looks similar."""
    rng = np.random.default_rng(seed)
    images, truth = load_digits(return_X_y=True)
    similar = [6, 7, 3, 8, 9, 6, 5, 1, 3, 4]
    given = _make_wrong(truth, lambda digit: similar[digit], rng, 0.13)
    pictures = [Image.fromarray((255 - row.reshape(8, 8) * 15.9).astype(np.uint8)) for row in images]
    return _write_set("digits", folder, [(p, "") for p in pictures], truth, given, [str(d) for d in range(10)])


def read_cifar(folder: Path, count: int = 2500) -> ProbeSet | None:
    """Return the first `count` photos with one labeller's labels; None where the data is absent."""
    if not CIFAR.exists():
        return None
    table = pd.read_parquet(CIFAR).sample(count, random_state=0)
    names = sorted(set(table["true"]))
    truth, given = (np.array([names.index(label) for label in table[c]]) for c in ("true", "random_label1"))
    pictures = [Image.open(io.BytesIO(data)) for data in table["jpg"]]
    return _write_set("CIFAR-10N", folder, [(p, "") for p in pictures], truth, given, names)


def _make_phrase(rng: np.random.Generator) -> str:
    return "".join(_CHARACTERS[i] for i in rng.integers(0, len(_CHARACTERS), rng.integers(2, 6)))


def _garble(phrase: str, rng: np.random.Generator) -> str:
    """Lose or replace about one character in six, as OCR of small text does."""
    out = ""
    for character in phrase:
        chance = rng.random()
        if chance > 0.17:
            out += character
        elif chance > 0.08:
            out += _CHARACTERS[rng.integers(0, len(_CHARACTERS))]
    return out


def _draw_screen(kind: int, rng: np.random.Generator) -> Image.Image:
    """Draw bars and boxes whose places depend on the family of the kind, in colours that depend on the shop."""
    theme = tuple(int(c) for c in rng.integers(60, 255, 3))
    screen = Image.new("RGB", (180, 390), (250, 250, 250) if rng.random() < 0.8 else (25, 25, 30))
    draw = ImageDraw.Draw(screen)
    draw.rectangle((0, 0, 180, 25 + int(rng.integers(0, 24))), fill=theme)
    family = kind // 4
    for row in range(9):
        top = 45 + row * 36 + int(rng.integers(-10, 10))
        left = int(rng.integers(4, 20))
        if (row * 3 + family) % 6 < 2:
            draw.rectangle((left, top, left + 30, top + 28), fill=tuple(int(c) for c in rng.integers(0, 255, 3)))
            left += 40
        wide = 40 + (row * 7 + kind * 5) % 6 * 12 + int(rng.integers(-30, 30))
        draw.rectangle((left, top + 4, left + wide, top + 12), fill=(120, 120, 120))
        if rng.random() < 0.5:
            draw.rectangle((left, top + 18, left + wide // 2, top + 24), fill=(180, 180, 180))
    return screen


def _make_wrong(
    truth: Any, confuse: Callable[[int], int], rng: np.random.Generator, share: float = _WRONG
) -> np.ndarray[Any, Any]:
    given = truth.copy()
    chosen = rng.choice(len(truth), round(share * len(truth)), replace=False)
    for item in chosen:
        others = [k for k in np.unique(truth) if k != truth[item]]
        similar = confuse(int(truth[item]))
        usual = rng.random() < 0.7 and similar != truth[item]
        given[item] = similar if usual else others[rng.integers(0, len(others))]
    return given


def _write_set(
    name: str, folder: Path, content: Sequence[tuple[Image.Image, str]], truth: Any, given: Any, labels: Sequence[str]
) -> ProbeSet:
    folder.mkdir(parents=True, exist_ok=True)
    samples: list[Sample] = []
    texts: dict[str, str] = {}
    for number, (picture, text) in enumerate(content):
        path = folder / f"{number}.png"
        picture.save(path)
        image = ImageRef(path=str(path), sha256=f"{name}-{number}", width=picture.width, height=picture.height)
        texts[image.sha256] = text
        parts: tuple[Part, ...] = (TextPart(text="图"), ImagePart(image=image))
        samples.append(
            Sample(
                id=f"{number:05d}", task="image", parts=parts, labels=tuple(labels), given=labels[given[number]],
                split=Split.LABELLED, source=str(folder / "train.json"),
            )
        )  # fmt: skip
    return ProbeSet(name, tuple(samples), texts, {s.id: labels[truth[i]] for i, s in enumerate(samples)})
