import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.feature_extraction.text import TfidfVectorizer

from tasks.duplicates import grown_dialogues, near_duplicates, perceptual_hashes
from tasks.records import ImageRef, Sample
from tests.tasks.making import image, sample

ASKS = "用户: 上周买的这件外套我穿着有点小，想换大一号的，可是页面上找不到换货的入口，请问我要怎么申请才好？"
ASKS_TOO = "用户: 上周买的这件外套我穿着有点小，想换大一号的，可是页面上找不到换货的入口，请问我要怎么申请才好"
OTHER = "用户: 快递三天没有更新了，麻烦查一下现在到底走到哪里，谢谢。"


def picture(seed: int) -> Image.Image:
    """A patchwork that no other seed's resembles."""
    grey = np.random.default_rng(seed).integers(0, 256, (9, 9), dtype=np.uint8)
    return Image.fromarray(grey).resize((180, 240), Image.Resampling.BILINEAR).convert("RGB")


def saved(path: Path, shown: Image.Image, **options: object) -> ImageRef:
    shown.save(path, **options)
    return image(path.name, str(path))


# --- hashes --------------------------------------------------------------------------------------------------


def test_the_hash_is_the_sign_of_each_step_to_the_right(tmp_path: Path) -> None:
    rising = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90)
    falling = rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    halves = Image.new("L", (256, 256))
    halves.paste(rising, (0, 0))
    halves.paste(falling.crop((0, 0, 256, 128)), (0, 128))
    found = perceptual_hashes(
        [saved(tmp_path / "r.png", rising), saved(tmp_path / "f.png", falling), saved(tmp_path / "h.png", halves)]
    )
    assert found == {"r.png": 2**64 - 1, "f.png": 0, "h.png": 0xFFFFFFFF_00000000}


def test_copies_saved_otherwise_keep_their_hash_and_other_pictures_have_another(tmp_path: Path) -> None:
    shown = picture(1)
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = [
        saved(tmp_path / "a.png", shown),
        saved(tmp_path / "small.jpg", shown.resize((140, 190)), quality=60),
        saved(tmp_path / "large.jpg", shown.resize((1800, 2400)), quality=80),
        saved(tmp_path / "turned.jpg", shown.transpose(Image.Transpose.ROTATE_90), exif=turned),
        saved(tmp_path / "other.png", picture(2)),
    ]
    hashes = perceptual_hashes([*kinds, kinds[0]])
    distances = {name: (hashes["a.png"] ^ value).bit_count() for name, value in hashes.items()}
    assert max(distances[name] for name in ("a.png", "small.jpg", "large.jpg", "turned.jpg")) <= 3
    assert distances["other.png"] > 16


def test_an_image_that_cannot_be_read_has_no_hash_and_its_item_is_near_nothing(tmp_path: Path) -> None:
    cut = tmp_path / "cut.png"
    saved(cut, picture(1))
    cut.write_bytes(cut.read_bytes()[:300])
    images = [image("gone", str(tmp_path / "gone.png")), image("cut", str(cut)), saved(tmp_path / "a.png", picture(1))]
    assert list(perceptual_hashes(images)) == ["a.png"]
    samples = [sample(f"s{i}", ASKS, images[i // 2]) for i in range(6)]
    assert near_duplicates(samples) == [(4, 5)]


# --- near-duplicates -----------------------------------------------------------------------------------------

HASHES = {"a": 0b0000, "a1": 0b0001, "a4": 0b1111, "a5": 0b11111, "z": 2**64 - 1}
A, A1, A4, A5, Z, UNREAD = (image(name) for name in ("a", "a1", "a4", "a5", "z", "unread"))


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        pytest.param((ASKS, A), (ASKS_TOO, A4), True, id="both near"),
        pytest.param((ASKS, A), (ASKS_TOO, A5), False, id="image too far"),
        pytest.param((ASKS, A), (OTHER, A), False, id="the same image, other text"),
        pytest.param((ASKS, A), (ASKS, Z), False, id="the same text, other image"),
        pytest.param((ASKS, A, Z), (ASKS_TOO, A1, Z), True, id="two images near in order"),
        pytest.param((ASKS, A, Z), (ASKS, Z, A), False, id="two images the other way round"),
        pytest.param((ASKS, A), (ASKS, A, A), False, id="one image more"),
        pytest.param((ASKS, A), (ASKS,), False, id="image and none"),
        pytest.param((ASKS, UNREAD), (ASKS, UNREAD), False, id="no hash"),
        pytest.param((A,), (A1,), True, id="no text, one bit"),
        pytest.param((A,), (A4,), False, id="no text, four bits"),
        pytest.param(("用户: 看图", A), ("用户: 看图", A4), False, id="hardly a text, four bits"),
        pytest.param((ASKS,), (ASKS_TOO,), False, id="text alone must be nearer"),
        pytest.param((ASKS * 3,), (ASKS * 2 + ASKS_TOO,), True, id="text alone, nearer"),
        pytest.param((f"{ASKS}\n",), (f"  {ASKS}",), True, id="white space"),
        pytest.param((ASKS, A), (ASKS * 2, A), False, id="twice as long, though of the same trigrams"),
    ],
)
def test_what_is_near(one: tuple[str | ImageRef, ...], other: tuple[str | ImageRef, ...], near: bool) -> None:
    samples = [sample("x", "用户: 有没有券", image("x")), sample("a", *one), sample("b", *other, given="查询物流")]
    assert near_duplicates(samples, hashes=HASHES | {"x": 2**40 - 1}) == ([(1, 2)] if near else [])


def test_thresholds_can_be_set() -> None:
    samples = [sample("a", ASKS, A), sample("b", ASKS_TOO, A5)]
    assert near_duplicates(samples, hashes=HASHES, hash_distance=5) == [(0, 1)]
    assert near_duplicates(samples, hashes=HASHES, hash_distance=5, text_similarity=0.99) == []


def test_copies_make_one_pair_each_and_nothing_has_no_pairs() -> None:
    samples = [sample(f"s{i}", ASKS, A) for i in range(50)]
    assert near_duplicates(samples, hashes=HASHES) == [(0, i) for i in range(1, 50)]
    assert near_duplicates([]) == []


HAN = "我你他这那有没想要退换货款衣鞋包快慢大小多少"


def edited(rng: random.Random, text: str) -> str:
    characters = list(text)
    for _ in range(rng.randint(1, 8)):
        characters[rng.randrange(len(characters))] = rng.choice("天地人和之")
    return "".join(characters)


@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10**6), st.floats(0.4, 0.85))
def test_pairs_are_those_of_scikit_learns_vectorizer_over_all_pairs(seed: int, similarity: float) -> None:
    """Over more items than a block holds, in any order, with hashed trigrams against a vocabulary."""
    rng = random.Random(seed)
    originals = ["".join(rng.choices(HAN, k=rng.randint(25, 60))) for _ in range(90)]
    said = list(dict.fromkeys(originals + [edited(rng, rng.choice(originals)) for _ in range(240)]))
    rng.shuffle(said)
    shown = [rng.choice([A, A1, A4, A5]) for _ in said]
    samples = [sample(f"s{i}", text, ref) for i, (text, ref) in enumerate(zip(said, shown, strict=True))]
    found = np.zeros((len(said), len(said)), dtype=bool)
    for pair in near_duplicates(samples, hashes=HASHES, text_similarity=similarity, hash_distance=2):
        found[pair] = True
    weights = TfidfVectorizer(analyzer="char", ngram_range=(3, 3), sublinear_tf=True)
    matrix = weights.fit_transform([f"\2\2{text}\3\3" for text in said])
    likeness = (matrix @ matrix.T).toarray()
    lengths = np.array([len(text) for text in said])
    as_long = np.minimum.outer(lengths, lengths) >= similarity**2 * np.maximum.outer(lengths, lengths)
    bits = np.array([HASHES[ref.sha256] for ref in shown])
    expected = np.triu((likeness > similarity) & as_long & (np.bitwise_count(bits[:, None] ^ bits) <= 2), 1)
    certain = np.abs(likeness - similarity) > 0.01  # two trigrams may have one hash
    assert expected.any() and (expected == found)[certain].all()


# --- growing dialogues ---------------------------------------------------------------------------------------

BEGUN = ("用户: 这件外套我穿着有点小，想换大一号的。", "\n客服: 好的，请您拍一下吊牌。")


@pytest.mark.parametrize(
    ("one", "other", "linked"),
    [
        pytest.param(BEGUN, (*BEGUN, "\n用户: 好"), True, id="a turn more"),
        pytest.param(("".join(BEGUN),), (*BEGUN, "\n用户: 好"), True, id="cut otherwise"),
        pytest.param(BEGUN, (*BEGUN, "\n用户: ", A), True, id="a turn and an image more"),
        pytest.param((A, *BEGUN), (A, *BEGUN, "\n用户: 好"), True, id="begins with an image"),
        pytest.param(BEGUN, BEGUN, True, id="the same"),
        pytest.param((A, *BEGUN), (Z, *BEGUN, "\n用户: 好"), False, id="another image"),
        pytest.param(("用户: 你好",), ("用户: 你好", *BEGUN), False, id="too short to say anything"),
        pytest.param((A, Z, "看"), (A, Z, "看", *BEGUN), False, id="images are no text"),
        pytest.param(BEGUN, (BEGUN[0], BEGUN[1] + "请"), False, id="goes on within the line"),
        pytest.param(BEGUN, (BEGUN[1], BEGUN[0]), False, id="another order"),
    ],
)
def test_which_dialogue_begins_another(
    one: tuple[str | ImageRef, ...], other: tuple[str | ImageRef, ...], linked: bool
) -> None:
    short, long = sample("a", *one), sample("b", *other)
    assert grown_dialogues([short, sample("x", OTHER), long]) == ([(0, 2)] if linked else [])
    back = [(1, 0)] if linked and one != other else [(0, 1)] if linked else []
    assert grown_dialogues([long, short]) == back


LINES = ("用户: 一二三四五六七", "客服: 甲乙丙丁戊己庚", "用户: 天地玄黄宇宙洪")


@given(st.lists(st.lists(st.sampled_from(LINES), min_size=1, max_size=4), max_size=12))
def test_links_hang_together_what_begins_alike(dialogues: list[list[str]]) -> None:
    samples = [sample(f"s{i}", "\n".join(lines)) for i, lines in enumerate(dialogues)]
    home = list(range(len(samples)))
    for a, b in grown_dialogues(samples):
        assert dialogues[b][: len(dialogues[a])] == dialogues[a] and len(dialogues[a]) >= 2
        home = [home[a] if h == home[b] else h for h in home]
    for i, one in enumerate(dialogues):
        for j, other in enumerate(dialogues):
            if len(one) >= 2 and other[: len(one)] == one:
                assert home[i] == home[j]


def test_a_dialogue_grows_through_many_items() -> None:
    lines = [f"用户: 第{n}句话，说的都是同一件外套。" for n in range(9)]
    samples: list[Sample] = [sample(f"s{n}", *(f"\n{line}" for line in lines[: n + 1])) for n in range(9)]
    assert grown_dialogues(samples) == [(n, n + 1) for n in range(9 - 1) if n]
