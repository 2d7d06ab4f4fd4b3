"""Draw the demo's items, and write the three manifests for a run, with some wrong labels and broken items."""

import functools
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

import numpy as np
import PIL
from PIL import Image

from tasks.dataset.merge_plan import apportion
from tasks.demo import dialogues
from tasks.demo.screens import KINDS, draw_screen
from tasks.errors import ConfigError
from tasks.items.settings import SourceConfig

IMAGE_LABELS = tuple(KINDS)
DIALOGUE_LABELS = tuple(dialogues.PHRASES)
NEAR_KINDS = {name: kind.near for name, kind in KINDS.items()}
_NOISE = 0.12
"""Share of the labelled items that get a wrong label."""
_TAIL = 5.0
"""How many times more frequent the most frequent label in the labelled set is than the rarest. With balanced labels, a
student is right on 91.5 % of the test set although 12 % of its training labels are wrong. Wrong labels do more harm if
a label has few items."""
_NEAR = NEAR_KINDS | dialogues.NEAR_INTENTS


@dataclass(frozen=True)
class DemoItem:
    """A generated item with its true label. `instruction` is the full text, with one `<image>` per image."""

    id: str
    task: Literal["image", "dialogue"]
    label: str
    instruction: str
    images: tuple[Image.Image, ...]
    reason: str


@dataclass(frozen=True)
class DemoPaths:
    """Where `write_demo` has written the three sets and the file with the true labels."""

    labelled: SourceConfig
    unlabelled: SourceConfig
    test: SourceConfig
    truth: Path


def _join(parts: Sequence[str], most: int) -> str:
    text = parts[0]
    for part in parts[1:]:
        if len(text) + 1 + len(part) <= most:
            text = f"{text}，{part}"
    return text


def _draw_image_item(ident: str, label: str, rng: Random) -> DemoItem:
    shown = draw_screen(label, rng)
    offered = json.dumps(IMAGE_LABELS, ensure_ascii=False)
    instruction = f"Picture 1: <image>\n你是一个网店识图助手,请判断图片属于哪一类。分类标签:{offered}。"
    reason = _join(shown.marks[:3] + shown.notes[:1] if rng.random() < 0.7 else shown.marks[::-1][:3], 40)
    return DemoItem(ident, "image", label, instruction, (shown.image,), reason)


def _draw_dialogue_item(ident: str, label: str, rng: Random) -> DemoItem:
    talk = dialogues.compose(label, rng)
    instruction = (
        "你是一个网店客服助手，请判断用户的意图。\n<用户与客服的对话 START>\n"
        + "\n".join(talk.turns)
        + f"\n<用户与客服的对话 END>\n分类标签:{json.dumps(DIALOGUE_LABELS, ensure_ascii=False)}。"
    )
    images = tuple(draw_screen(kind, rng).image for kind in talk.screens)
    return DemoItem(ident, "dialogue", label, instruction, images, dialogues.make_reason(talk, rng))


def draw_items(
    n: int, seed: int, *, prefix: str = "item", image_share: float = 0.55, tail: float = 1.0
) -> Iterator[DemoItem]:
    """Yield n randomly generated items. The same arguments give the same bytes.

    `image_share` is the share of items of the image task; the others are dialogues. In each task, the most frequent
    label is `tail` times as frequent as the rarest, and the frequencies of the others form a geometric sequence between
    them. A `tail` of 1 gives balanced labels.
    """
    rng = Random(f"{seed}/plan")
    pictures = round(n * image_share)
    plan = _plan_labels(IMAGE_LABELS, pictures, tail) + _plan_labels(DIALOGUE_LABELS, n - pictures, tail)
    rng.shuffle(plan)
    for i, label in enumerate(plan):
        # the id is a digest, so it reveals neither position nor label
        ident = f"{prefix}-{hashlib.sha256(f'{seed}/{prefix}/{i}'.encode()).hexdigest()[:10]}"
        make = _draw_image_item if label in KINDS else _draw_dialogue_item
        yield make(ident, label, Random(f"{seed}/{i}"))


def _plan_labels(labels: Sequence[str], n: int, tail: float) -> list[str]:
    """Return n labels; their frequencies fall geometrically to the last label, which has 1/`tail` of the first's."""
    if tail == 1.0:
        return [labels[i % len(labels)] for i in range(n)]
    weights = np.array([tail ** (-i / (len(labels) - 1)) for i in range(len(labels))])
    counts = apportion(n * weights / sum(weights.tolist())).tolist()
    return [label for label, count in zip(labels, counts, strict=True) for _ in range(count)]


# --- writing the three sets ----------------------------------------------------------------------------------

_SETS = {"labelled": "train", "unlabelled": "pool", "test": "test"}
"""Maps each set to the name of its folder."""


def _derive_seed(seed: int, what: str) -> int:
    return int(hashlib.sha256(f"labelstill demo/{seed}/{what}".encode()).hexdigest()[:12], 16)


@functools.cache
def _digest_sources() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    texts = [PIL.__version__.encode(), *(path.read_bytes() for path in sources)]
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


def _choose_wrong_label(label: str, rng: Random) -> str:
    near, whole = _NEAR[label], IMAGE_LABELS if label in KINDS else DIALOGUE_LABELS
    far = [name for name in whole if name != label and name not in near]
    return rng.choice(near) if rng.random() < 0.7 else rng.choice(far)


def _write_entry(item: DemoItem, given: str | None, images: Path, rng: Random) -> dict[str, Any]:
    names = [f"{item.id}-{i}.png" for i in range(len(item.images))]
    for name, image in zip(names, item.images, strict=True):
        image.save(images / name)
    entry: dict[str, Any] = {"id": item.id, "instruction": item.instruction}
    # the challenge's manifests write a single image as text or as a list
    entry["image"] = names[0] if len(names) == 1 and rng.random() < 0.5 else names
    return entry if given is None else entry | {"output": given}


def _break_entry(entry: dict[str, Any], how: int, images: Path, others: list[dict[str, Any]], rng: Random) -> int:
    """Break an entry in one of six ways, chosen by `how`, and return its index in `others`."""
    name = entry["image"] if isinstance(entry["image"], str) else entry["image"][0]
    file, place = images / name, rng.randint(0, len(others))
    match how % 6:
        case 0:
            file.unlink()
        case 1:
            file.write_bytes(file.read_bytes()[:200])
        case 2 if "output" in entry:
            entry["output"] = "其他页面"
        case 2:
            file.write_bytes(b"")
        case 3 if others:
            first = rng.randrange(len(others))
            entry["id"] = others[first]["id"]
            # after the item with the same id, so that the valid item comes first
            place = rng.randint(first + 1, len(others))
        case 4:
            entry["instruction"] = entry["instruction"].replace("<image>", "<image><image>", 1)
        case _:
            entry["instruction"] = rng.choice([None, 7, ["Picture 1: <image>"]])
    return place


def _write_set(
    folder: Path, split: str, n: int, seed: int, wrong: int, broken: int, tail: float
) -> list[dict[str, Any]]:
    """Write the images and the manifest of one set, and return its lines for truth.jsonl."""
    images, rng = folder / "images", Random(seed)
    images.mkdir(parents=True)
    mistaken = set(rng.sample(range(n), wrong))
    entries: list[dict[str, Any]] = []
    truth: list[dict[str, Any]] = []
    for i, item in enumerate(draw_items(n, seed, tail=tail)):
        given = (_choose_wrong_label(item.label, rng) if i in mistaken else item.label) if split == "labelled" else None
        entries.append(_write_entry(item, given, images, rng))
        truth.append({"id": item.id, "split": split, "label": item.label, "given": given, "wrong": i in mistaken})
    for how, item in enumerate(draw_items(broken, seed + 1, image_share=1.0)):
        entry = _write_entry(item, item.label if split == "labelled" else None, images, rng)
        entries.insert(_break_entry(entry, how, images, entries, rng), entry)
    (folder / "x.json").write_text(json.dumps(entries, ensure_ascii=False, indent=1), encoding="utf-8")
    return truth


def _locate_sets(folder: Path) -> DemoPaths:
    sources = {
        split: SourceConfig(manifest=folder / name / "x.json", images=folder / name / "images")
        for split, name in _SETS.items()
    }
    return DemoPaths(**sources, truth=folder / "truth.jsonl")


def write_demo(
    folder: Path, seed: int = 7, *, labelled: int = 400, unlabelled: int = 400, test: int = 400, broken: int = 6
) -> DemoPaths:
    """Write the demo's three sets and their true labels to `folder`, and return where they are.

    If the folder was already written with the same arguments and code, it is reused; otherwise it is replaced
    atomically. 12 % of the labelled items get a wrong label. Some labels are frequent and others rare in the labelled
    set; pool and test set are balanced. Each set also has `broken` unreadable items, which are not in truth.jsonl.
    Raises ConfigError if the folder contains anything other than demo data.
    """
    counts = {"labelled": labelled, "unlabelled": unlabelled, "test": test}
    recipe: dict[str, Any] = {"seed": seed, **counts, "broken": broken, "version": _digest_sources()}
    mark = folder / "recipe.json"
    if mark.is_file():
        if json.loads(mark.read_text(encoding="utf-8")) == recipe:
            return _locate_sets(folder)
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: not a folder of demo data (no recipe.json); choose a new or empty folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        fresh, old = Path(scratch) / "fresh", Path(scratch) / "old"
        truth: list[dict[str, Any]] = []
        for split, name in _SETS.items():
            wrong, tail = (round(labelled * _NOISE), _TAIL) if split == "labelled" else (0, 1.0)
            truth += _write_set(fresh / name, split, counts[split], _derive_seed(seed, split), wrong, broken, tail)
        lines = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in truth)
        (fresh / "truth.jsonl").write_text(lines, encoding="utf-8")
        (fresh / "recipe.json").write_text(json.dumps(recipe, indent=1), encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    return _locate_sets(folder)
