"""A pool with 30 near-duplicates of evaluation items in it, written without sight of what is to find them.

How a test uses it: `plant(tmp_path)`, then evaluation and pool go to the check for contamination. At least 28 of
`planted_ids` must be stopped and at most 1 % of the other 400. Those are drawn from the same small world, so many show
the same kind of screen or talk as an evaluation item, with other goods and other numbers: that is no duplicate. Only
those are left out which are one by chance: the same pixels, and a text that is the same but for its digits.

Every other dialogue names a number, in the evaluation set and in the pool alike, so that digits can be changed; the
demo's own hardly ever do.
"""

import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from random import Random

from PIL import Image

from tasks.demo.dataset import DemoItem, draw_items
from tasks.items.cutting import cut_instruction
from tasks.items.images import check_image
from tasks.packs.pack import load_pack
from tasks.records import Sample, Split

EVALUATION, OTHERS = 100, 400
_NUMBERS = ("订单尾号{}", "单号{}帮我看下", "我花了{}元买的", "手机后四位{}", "直播间{}号链接", "货号A{}")
_START = "START>\n"


@dataclass(frozen=True)
class PlantedPool:
    """Samples with real image files; `planted_ids` are those of the pool that repeat an evaluation item."""

    evaluation: list[Sample]
    pool: list[Sample]
    planted_ids: frozenset[str]


@dataclass(frozen=True)
class Change:
    """What is done to a copy: each image cut by 3 % on `sides`, resized, encoded again; a digit of the text changed."""

    sides: str = ""
    """Of `ltrb`: left, top, right, bottom."""
    scale: float = 1.0
    form: str = "PNG"
    quality: int = 0
    digit: bool = False


SCREENS = (
    Change(form="JPEG", quality=60),
    Change(form="JPEG", quality=90),
    Change(form="WEBP", quality=60),
    Change(form="WEBP", quality=85),
    Change(scale=0.7),
    Change(scale=1.4),
    Change(scale=1.15, form="JPEG", quality=80),
    Change(scale=0.85, form="WEBP", quality=75),
    Change(sides="b"),
    Change(sides="lt"),
    Change(sides="ltrb"),
    Change(sides="r", form="JPEG", quality=70),
    Change(sides="tb", scale=0.7, form="JPEG", quality=60),
)
TALKS_WITH_IMAGES = (
    Change(digit=True),
    Change(form="JPEG", quality=75),
    Change(form="JPEG", quality=60, digit=True),
    Change(form="WEBP", quality=70),
    Change(scale=0.8),
    Change(scale=1.3, digit=True),
    Change(sides="lb"),
    Change(sides="tr", digit=True),
    Change(sides="l", scale=1.4, form="JPEG", quality=85),
    Change(scale=0.75, form="WEBP", quality=65, digit=True),
)
TALKS = (Change(digit=True),) * 7
"""Each kind of item with what its copies suffer: 30 in all."""


def plant(folder: Path, seed: int = 0) -> PlantedPool:
    """Draw both sets, write their images under `folder`, and mix the changed copies into the pool.

    The same seed gives the same samples but for the folder's own path.
    """
    writer, rng = _Writer(folder.resolve()), Random(f"contamination/{seed}")
    chosen = list(_numbered(draw_items(EVALUATION, _seed(seed, "evaluation"), image_share=0.5), rng))
    evaluation = [writer.sample(item, Split.TEST) for item in chosen]
    known = {_gist(sample) for sample in evaluation}
    pool: list[Sample] = []
    for item in _numbered(draw_items(OTHERS + EVALUATION, _seed(seed, "pool"), image_share=0.5), rng):
        sample = writer.sample(item, Split.UNLABELLED)
        if _gist(sample) not in known:
            pool.append(sample)
        if len(pool) == OTHERS:
            break
    copies = [writer.sample(item, Split.UNLABELLED, change) for item, change in _copies(chosen, rng)]
    pool += copies
    rng.shuffle(pool)
    return PlantedPool(evaluation, pool, frozenset(copy.id for copy in copies))


def _seed(seed: int, name: str) -> int:
    return int(sha256(f"contamination/{seed}/{name}".encode()).hexdigest()[:12], 16)


def _gist(sample: Sample) -> tuple[str, ...]:
    """What two items share when they are the same but for the digits of their texts."""
    return tuple(re.sub(r"\d", "0", part.text) if part.type == "text" else part.image.sha256 for part in sample.parts)


def _numbered(items: Iterator[DemoItem], rng: Random) -> Iterator[DemoItem]:
    """The items, every other dialogue with a turn more, in which a number is named."""
    seen = Counter[bool]()
    for item in items:
        # counted apart, so that enough of either sort hold a digit
        seen[bool(item.images)] += item.task == "dialogue"
        if item.task == "dialogue" and seen[bool(item.images)] % 2:
            said = rng.choice(_NUMBERS).format(rng.randint(1000, 9999))
            item = replace(item, instruction=item.instruction.replace(_START, f"{_START}用户: {said}\n", 1))
        yield item


def _copies(items: list[DemoItem], rng: Random) -> Iterator[tuple[DemoItem, Change]]:
    """Evaluation items under another id and with a digit changed where asked, each with the change of its images."""
    for changes, task, pictured in (
        (SCREENS, "image", True),
        (TALKS_WITH_IMAGES, "dialogue", True),
        (TALKS, "dialogue", False),
    ):
        able = [item for item in items if item.task == task and bool(item.images) == pictured]
        rng.shuffle(able)
        # those with a digit first: not every item has one
        for change in sorted(changes, key=lambda change: not change.digit):
            source = next(item for item in able if not change.digit or _digits(item))
            able.remove(source)
            copy = replace(source, id=f"item-{sha256(f'{source.id}/copy'.encode()).hexdigest()[:10]}")
            yield (_other_digit(copy, rng) if change.digit else copy), change


def _digits(item: DemoItem) -> list[int]:
    """Where the digits of the user's and the shop's words stand; the role sentence and the labels hold none."""
    return [match.start() for match in re.finditer(r"\d", item.instruction)]


def _other_digit(item: DemoItem, rng: Random) -> DemoItem:
    place = rng.choice(_digits(item))
    digit = rng.choice([d for d in "123456789" if d != item.instruction[place]])
    return replace(item, instruction=item.instruction[:place] + digit + item.instruction[place + 1 :])


class _Writer:
    """Writes items' images into one folder, under names that tell no more than the ids do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.pack = folder / "images", load_pack("demo")
        self.folder.mkdir(parents=True, exist_ok=True)

    def sample(self, item: DemoItem, split: Split, change: Change | None = None) -> Sample:
        content = cut_instruction(item.instruction, self.pack.task(item.task))
        paths = [self._write(image, f"{item.id}-{i}", change or Change()) for i, image in enumerate(item.images)]
        assert content.offered is not None
        return Sample(
            id=item.id,
            task=item.task,
            parts=content.parts([check_image(path, 10**6) for path in paths]),
            labels=content.offered,
            split=split,
            source=str(self.folder.parent / "planted.json"),
        )

    def _write(self, image: Image.Image, name: str, change: Change) -> Path:
        path = self.folder / f"{name}.{change.form.lower()}"
        data = io.BytesIO()
        options = {"quality": change.quality} if change.quality else {}
        _changed(image, change).save(data, change.form, **options)
        path.write_bytes(data.getvalue())
        return path


def _changed(image: Image.Image, change: Change) -> Image.Image:
    """The image cut and resized; 3 % of its width or height go at each of the sides."""
    x, y = round(image.width * 0.03), round(image.height * 0.03)
    left, top, right, bottom = (side in change.sides for side in "ltrb")
    image = image.crop((x * left, y * top, image.width - x * right, image.height - y * bottom))
    if change.scale == 1:
        return image
    size = round(image.width * change.scale), round(image.height * change.scale)
    return image.resize(size, Image.Resampling.BICUBIC)
