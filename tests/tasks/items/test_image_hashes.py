import io
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from tasks.demo.screens import KINDS, draw_screen
from tasks.items.image_hashes import (
    HEIGHT,
    WIDTH,
    ImageHashes,
    compute_hashes,
    find_same_pictures,
    is_same_picture,
    make_thumbnail,
)
from tasks.media import ImageRef
from tests.tasks.making import image


def make_screen(seed: int, kind: str = "订单详情页") -> Image.Image:
    return draw_screen(kind, Random(seed)).image


def save(folder: Path, name: str, shown: Image.Image, **options: object) -> ImageRef:
    path = folder / name
    shown.save(path, **options)
    return image(name, str(path))


def crop(shown: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    w, h = shown.size
    return shown.crop((round(w * left), round(h * top), round(w * (1 - right)), round(h * (1 - bottom))))


def count_differing_bits(a: int, b: int) -> int:
    return (a ^ b).bit_count()


COPIES = {
    "jpeg": lambda s: s,
    "half": lambda s: s.resize((56, 84)),
    "large": lambda s: s.resize((190, 286)),
    "other shape": lambda s: s.resize((150, 150)),
    "cut all round": lambda s: crop(s, 0.03, 0.03, 0.03, 0.03),
    "cut left": lambda s: crop(s, 0.03, 0, 0, 0),
    "cut left and bottom": lambda s: crop(s, 0.03, 0, 0, 0.03),
    "cut and scaled back": lambda s: crop(s, 0.03, 0.03, 0.03, 0.03).resize(s.size),
}


@pytest.mark.parametrize("kind", ["订单详情页", "实物照片", "优惠券页"])
@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_the_same_picture_and_its_hash_is_near_one_of_the_cuts(tmp_path: Path, how: str, kind: str) -> None:
    shown = make_screen(1, kind)
    whole = save(tmp_path, "a.png", shown)
    copy = save(tmp_path, "b.jpg", COPIES[how](shown), quality=70)
    assert is_same_picture(whole, copy)
    assert is_same_picture(copy, whole)
    known = make_thumbnail(whole)
    assert known is not None
    found = ImageHashes().hashes([copy])["b.jpg"]
    assert min(count_differing_bits(int(h), found) for h in compute_hashes(known)) <= 6


@pytest.mark.parametrize("kind", KINDS)
def test_other_screens_of_a_kind_are_other_pictures(tmp_path: Path, kind: str) -> None:
    first, *others = (save(tmp_path, f"{i}.png", make_screen(i, kind)) for i in range(6))
    assert not any(is_same_picture(first, other) for other in others)


def test_a_picture_cut_by_a_tenth_is_another(tmp_path: Path) -> None:
    whole = save(tmp_path, "a.png", make_screen(1))
    assert not is_same_picture(whole, save(tmp_path, "b.png", crop(make_screen(1), 0.1, 0.1, 0.1, 0.1)))


def test_files_that_cannot_be_read_are_like_none_but_themselves(tmp_path: Path) -> None:
    whole, gone = save(tmp_path, "a.png", make_screen(1)), image("gone", str(tmp_path / "gone.png"))
    cut = tmp_path / "cut.png"
    cut.write_bytes(Path(whole.path).read_bytes()[:300])
    assert make_thumbnail(gone) is None
    assert not is_same_picture(whole, gone)
    assert not is_same_picture(gone, image("cut", str(cut)))
    assert is_same_picture(gone, gone)
    assert ImageHashes().hashes([gone, image("cut", str(cut)), whole]).keys() == {"a.png"}


def test_turned_by_its_exif_data_a_picture_is_upright(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    data = io.BytesIO()
    make_screen(1).transpose(Image.Transpose.ROTATE_90).save(data, "PNG", exif=turned)
    (tmp_path / "t.png").write_bytes(data.getvalue())
    assert is_same_picture(save(tmp_path, "a.png", make_screen(1)), image("t", str(tmp_path / "t.png")))


def test_the_hash_says_which_low_frequencies_are_above_their_median() -> None:
    rising = np.tile(np.linspace(0, 255, WIDTH, dtype=np.float32), (HEIGHT, 1))
    first = f"{int(compute_hashes(rising)[0]):064b}"
    # a picture that changes from left to right only: no frequency from top to bottom, and of the others the odd ones
    assert first[0] == "1"  # brightness itself
    assert first[1] == "0"  # cos(x) falls where this rises
    falling = f"{int(compute_hashes(rising[:, ::-1])[0]):064b}"
    assert falling[1] == "1"


def test_hashes_are_kept_and_no_file_is_opened_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = save(tmp_path, "a.png", make_screen(1))
    cache = tmp_path / "deep" / "hashes.sqlite"
    first = ImageHashes(cache).hashes([shown])
    Path(shown.path).unlink()
    assert ImageHashes(cache).hashes([shown]) == first != {}
    for number, value in enumerate((0, 2**64 - 1)):  # SQLite's integers are signed
        monkeypatch.setattr("tasks.items.image_hashes.compute_hashes", lambda _, value=value: [value])
        extreme = save(tmp_path, f"{number}.png", make_screen(2 + number))
        assert ImageHashes(cache).hashes([extreme]) == ImageHashes(cache).hashes([extreme]) == {extreme.sha256: value}


def test_pairs_are_compared_together_as_they_are_one_by_one(tmp_path: Path) -> None:
    whole = save(tmp_path, "whole.png", make_screen(1))
    copy = save(tmp_path, "copy.jpg", crop(make_screen(1), 0.02, 0, 0, 0.02))
    others = [save(tmp_path, f"{seed}.png", make_screen(seed)) for seed in (2, 3)]
    pairs = list(combinations([whole, copy, *others], 2))
    found = find_same_pictures(pairs)
    assert found == {(one.sha256, other.sha256) for one, other in pairs if is_same_picture(one, other)}
    assert found == {(whole.sha256, copy.sha256)}
