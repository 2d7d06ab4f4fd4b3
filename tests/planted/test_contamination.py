"""What the planted pool promises of itself."""

from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from tasks.media import ImageRef
from tasks.records import Sample, content_digest
from tests.planted.contamination import EVALUATION, OTHERS, SCREENS, TALKS, TALKS_WITH_IMAGES, PlantedPool, plant


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> PlantedPool:
    return plant(tmp_path_factory.mktemp("planted"))


def test_thirty_among_four_hundred(pool: PlantedPool):
    copies = [sample for sample in pool.pool if sample.id in pool.planted_ids]
    assert len(pool.evaluation) == EVALUATION
    assert len(pool.pool) == OTHERS + len(copies)
    assert len(pool.planted_ids) == len(copies) == len(SCREENS) + len(TALKS) + len(TALKS_WITH_IMAGES) == 30
    assert sum(not sample.images for sample in copies) == len(TALKS)
    assert sum(sample.task == "image" for sample in copies) == len(SCREENS)


def test_ids_are_unique_and_files_are_as_said(pool: PlantedPool):
    samples = pool.evaluation + pool.pool
    assert len({sample.id for sample in samples}) == len(samples)
    for image in (image for sample in samples for image in sample.images):
        assert sha256(Path(image.path).read_bytes()).hexdigest() == image.sha256
        with Image.open(image.path) as opened:
            opened.load()
            assert opened.size == (image.width, image.height)


def test_copies_differ_from_one_evaluation_item_by_little(pool: PlantedPool):
    digests = {content_digest(sample) for sample in pool.evaluation}
    for copy in (sample for sample in pool.pool if sample.id in pool.planted_ids):
        assert content_digest(copy) not in digests
        nearest, next_one, *_ = sorted(_apart(copy, sample) for sample in pool.evaluation)
        # a cut by 3 % shifts hard edges: up to 14.3; the next nearest screens are at 18.7 and more
        assert nearest < 16, copy
        assert nearest < next_one / 1.5, copy


def test_no_other_item_of_the_pool_is_a_copy_by_chance(pool: PlantedPool):
    digests = {content_digest(sample) for sample in pool.evaluation}
    assert not any(content_digest(sample) in digests for sample in pool.pool)


def _apart(a: Sample, b: Sample) -> float:
    """Mean difference of two items' pixels, 0 … 255; infinite when their texts differ by more than one digit."""
    said, other = ("".join(part.text for part in s.parts if part.type == "text") for s in (a, b))
    changed = [(x, y) for x, y in zip(said, other, strict=False) if x != y]
    if len(said) != len(other) or len(changed) > 1 or not all((x + y).isdecimal() for x, y in changed):
        return float("inf")
    if len(a.images) != len(b.images):
        return float("inf")
    return max((_difference(x, y) for x, y in zip(a.images, b.images, strict=True)), default=0.0)


def _difference(a: ImageRef, b: ImageRef) -> float:
    with Image.open(a.path) as first, Image.open(b.path) as second:
        thumbs = [image.convert("RGB").resize((14, 21), Image.Resampling.BOX) for image in (first, second)]
    return max(ImageStat.Stat(ImageChops.difference(*thumbs)).mean)
