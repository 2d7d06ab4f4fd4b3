"""What the planted reasons and the planted pool promise of themselves."""

import re
from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from tasks.records import ImageRef, Sample, content_digest
from tests.planted_contamination import EVALUATION, OTHERS, SCREENS, TALKS, TALKS_WITH_IMAGES, PlantedPool, plant
from tests.planted_reason_sets import FAMILIES
from tests.planted_reasons import ALIKE, EACH, GOOD, LIMIT, BadKind, Planted, judge, likeness, planted

_HAN, _KANA = re.compile(r"[\u4e00-\u9fff]"), re.compile(r"[\u3040-\u30ff]")
_QUOTED = re.compile("“[^”]*”")


@pytest.fixture(scope="module")
def reasons() -> list[Planted]:
    return planted()


def test_numbers_ids_and_labels(reasons: list[Planted]):
    counts = Counter(item.kind for item in reasons)
    assert counts == {None: GOOD} | dict.fromkeys(BadKind, EACH)
    assert len({item.sample.id for item in reasons}) == len(reasons)
    assert all(item.label == item.sample.given and item.label in item.sample.labels for item in reasons)
    assert min(Counter(item.label for item in reasons if item.kind is None).values()) >= 25


def test_the_same_every_time(reasons: list[Planted]):
    assert planted() == reasons


def test_only_the_length_kind_breaks_the_limit(reasons: list[Planted]):
    for item in reasons:
        bare = item.reason.replace(item.label, "")
        if item.kind is BadKind.LENGTH:
            assert len(item.reason) > LIMIT or len(bare) <= 4, item
        else:
            assert 6 <= len(item.reason) <= LIMIT, item


def test_only_the_language_kind_is_not_chinese(reasons: list[Planted]):
    for item in reasons:
        foreign = bool(_KANA.search(item.reason)) or len(_HAN.findall(item.reason)) < len(item.reason) / 4
        assert foreign == (item.kind is BadKind.LANGUAGE), item


def test_only_the_other_label_kind_names_one_unquoted(reasons: list[Planted]):
    for item in reasons:
        said = _QUOTED.sub("", item.reason)
        others = [label for label in item.sample.labels if label != item.label and label in said]
        if item.kind is BadKind.OTHER_LABEL:
            assert others, item
        else:
            assert not others or "不申请退款" in said, item


def test_unalike_but_within_families(reasons: list[Planted]):
    rest = [item.reason for item in reasons if item.kind is None]
    assert max(likeness(a, b) for i, a in enumerate(rest) for b in rest[:i]) <= ALIKE
    for number, family in enumerate(FAMILIES):
        kin = {item.reason for item in reasons if item.family == number}
        assert len(kin) == family.size
        assert all(max(likeness(a, b) for b in kin - {a}) > ALIKE for a in kin)


def test_one_of_a_family_may_pass(reasons: list[Planted]):
    bad = {item.sample.id for item in reasons if item.kind}
    kin = [item for item in reasons if item.family == 0]
    good = next(item for item in reasons if item.kind is None)
    leak = next(item for item in reasons if item.kind is BadKind.LEAKAGE)
    assert judge(reasons, bad) == ([], [])
    assert judge(reasons, bad - {kin[0].sample.id}) == ([], [])
    assert len(judge(reasons, bad - {kin[0].sample.id, kin[1].sample.id})[0]) == 1
    assert judge(reasons, bad - {leak.sample.id} | {good.sample.id}) == ([leak], [good])


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
