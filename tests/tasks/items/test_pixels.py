"""What trainers load with `Image.open(path).convert("RGB")` against what models are shown."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageChops

from tasks.items.pixels import encode_picture, render_if_different, render_pixels

GREY = Image.linear_gradient("L").resize((40, 30))
RGB = Image.merge("RGB", (GREY, GREY.rotate(90).resize((40, 30)), GREY.rotate(180)))
PALETTE = RGB.convert("P")


def make_transparent(mode: str) -> Image.Image:
    picture = RGB.convert(mode)
    picture.putalpha(GREY)
    return picture


def rotate_by_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


DEEP = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("name", "picture", "saved_with", "shown"),
    [
        ("plain.png", RGB, {}, None),
        ("grey.png", GREY, {}, None),
        ("bits.png", GREY.convert("1"), {}, None),
        ("palette.gif", RGB.convert("P"), {}, None),
        ("cmyk.jpg", RGB.convert("CMYK"), {}, None),
        ("opaque.png", RGB.convert("RGBA"), {}, None),
        ("animated.gif", RGB.convert("P"), {"save_all": True, "append_images": [GREY.convert("P")]}, None),
        ("animated.webp", RGB, {"save_all": True, "append_images": [GREY.convert("RGB")], "lossless": True}, None),
        ("animated.png", RGB, {"save_all": True, "append_images": [GREY.convert("RGB")]}, None),
        ("profile.png", RGB, {"icc_profile": b"x" * 200}, None),
        ("upright.jpg", RGB, {"exif": Image.Exif()}, None),
        ("transparent.png", make_transparent("RGBA"), {}, (40, 30)),
        ("transparent.webp", make_transparent("RGBA"), {"lossless": True, "exact": True}, (40, 30)),
        ("grey-transparent.png", make_transparent("LA"), {}, (40, 30)),
        ("palette-transparent.png", PALETTE, {"transparency": PALETTE.getpixel((9, 9))}, (40, 30)),
        ("palette-transparent.gif", PALETTE, {"transparency": PALETTE.getpixel((9, 9))}, (40, 30)),
        ("rgb-transparent.png", Image.new("RGB", (40, 30), "red"), {"transparency": (255, 0, 0)}, (40, 30)),
        ("rotated.jpg", RGB, {"exif": rotate_by_exif()}, (30, 40)),
        ("rotated.png", RGB, {"exif": rotate_by_exif()}, (30, 40)),
        ("rotated.webp", RGB, {"exif": rotate_by_exif(), "lossless": True}, (30, 40)),
        ("deep.png", DEEP, {}, (40, 30)),
        ("deep.tif", DEEP, {}, (40, 30)),
    ],
)
def test_only_files_that_trainers_show_otherwise_are_rendered(
    tmp_path: Path, name: str, picture: Image.Image, saved_with: dict[str, object], shown: tuple[int, int] | None
) -> None:
    picture.save(tmp_path / name, **saved_with)
    with Image.open(tmp_path / name) as opened:
        rendered = render_if_different(opened)
    with Image.open(tmp_path / name) as opened:
        wanted = render_pixels(opened)
    assert (rendered and rendered.size) == shown
    if rendered is None:
        with Image.open(tmp_path / name) as opened:
            assert ImageChops.difference(opened.convert("RGB"), wanted).getbbox() is None


def test_transparent_is_white_and_sixteen_bits_are_scaled() -> None:
    clear = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    assert render_pixels(clear).getpixel((0, 0)) == (255, 255, 255)
    assert ImageChops.difference(render_pixels(DEEP), GREY.convert("RGB")).getbbox() is None


def test_a_rotation_noted_behind_the_pixels_is_found(tmp_path: Path) -> None:
    RGB.save(tmp_path / "late.png")
    body = rotate_by_exif().tobytes()[6:]
    chunk = struct.pack(">I", len(body)) + b"eXIf" + body + struct.pack(">I", zlib.crc32(b"eXIf" + body))
    data = (tmp_path / "late.png").read_bytes()
    (tmp_path / "late.png").write_bytes(data[:-12] + chunk + data[-12:])
    with Image.open(tmp_path / "late.png") as opened:
        rendered = render_if_different(opened)
    assert rendered is not None and rendered.size == (30, 40)


def test_a_plain_file_is_recognised_without_decoding_it(tmp_path: Path) -> None:
    RGB.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:80])
    with Image.open(tmp_path / "cut.png") as opened:
        assert render_if_different(opened) is None


def test_a_rendered_photo_has_neither_rotation_nor_profile(tmp_path: Path) -> None:
    RGB.save(tmp_path / "photo.jpg", exif=rotate_by_exif(), icc_profile=b"x" * 200, quality=95)
    with Image.open(tmp_path / "photo.jpg") as opened:
        data = encode_picture(render_pixels(opened), ".jpg")
    (tmp_path / "shown.jpg").write_bytes(data)
    with Image.open(tmp_path / "shown.jpg") as shown:
        assert shown.size == (30, 40) and not shown.getexif() and "icc_profile" not in shown.info
