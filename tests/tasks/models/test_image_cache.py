import hashlib
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from qwen_vl_utils import fetch_image, smart_resize

from tasks.errors import EngineError
from tasks.media import ImageRef
from tasks.models.image_cache import ImageCache, TooThin, compute_sides, fill_cache, list_sides, open_images
from tasks.models.unanswered import BadMedia
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Sampling
from tests.tasks.making import sample

BOUNDS = {"min_pixels": 56 * 56, "max_pixels": 200 * 784, "patch_size": 14}


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height))


def ref(path: Path, width: int, height: int) -> ImageRef:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(path=str(path), sha256=digest, width=width, height=height)


def saved(folder: Path, name: str, width: int = 700, height: int = 500, **how: object) -> ImageRef:
    noise(width, height).save(folder / name, **how)
    return ref(folder / name, width, height)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "cache")


@pytest.mark.parametrize("patch_size", [14, 16])
def test_sides_are_those_of_smart_resize(patch_size: int) -> None:
    rng = np.random.default_rng(7)
    for width, height in np.exp(rng.uniform(0, 9, (2000, 2))).astype(int).tolist():
        image = ImageRef(path="a.png", sha256="0" * 64, width=width, height=height)
        try:
            expected = smart_resize(height, width, 2 * patch_size, BOUNDS["min_pixels"], BOUNDS["max_pixels"])[::-1]
        except ValueError:
            expected = (0, 0)
        if 0 in expected:
            with pytest.raises(TooThin):
                compute_sides(image, **BOUNDS | {"patch_size": patch_size})
        else:
            assert compute_sides(image, **BOUNDS | {"patch_size": patch_size}) == expected


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.png", ".png"), ("a.bmp", ".png"), ("a.webp", ".png"), ("a.jpg", ".jpg")]
)
@pytest.mark.parametrize("patch_size", [14, 16])
def test_the_model_sees_what_qwen_vl_utils_makes(
    cache: ImageCache, tmp_path: Path, name: str, suffix: str, patch_size: int
):
    image = saved(tmp_path, name)
    file = cache.file(image, **BOUNDS | {"patch_size": patch_size})
    assert file.suffix == suffix
    assert file.parent == cache.folder / image.sha256[:2]
    (opened,) = cache.open([image], **BOUNDS | {"patch_size": patch_size}) or []
    expected = fetch_image({"image": image.path, **BOUNDS}, image_patch_size=patch_size)
    assert opened.mode == "RGB"
    assert opened.size == expected.size == compute_sides(image, **BOUNDS | {"patch_size": patch_size})
    assert opened.width % (2 * patch_size) == opened.height % (2 * patch_size) == 0
    off = np.abs(pixels(opened).astype(int) - pixels(expected))
    # JPEG at this quality is not lossless, but no visible detail of a screenshot may be lost
    assert off.max() == 0 if suffix == ".png" else 0 < off.mean() < 1.5


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_students_and_engines_see_the_same_pixels(cache: ImageCache, tmp_path: Path, name: str):
    images = [saved(tmp_path, name), saved(tmp_path, "b.png", 90, 300)]
    for trained, asked in zip(open_images(images, **BOUNDS) or [], cache.open(images, **BOUNDS) or [], strict=True):
        assert np.array_equal(pixels(trained), pixels(asked))


def test_orientation_transparency_and_palette(cache: ImageCache, tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    noise(500, 700).save(tmp_path / "sideways.png", exif=exif)
    clear = Image.new("LA", (560, 560), (0, 0))
    clear.save(tmp_path / "clear.png")
    noise(560, 560).convert("P").save(tmp_path / "palette.gif")
    sideways = ref(tmp_path / "sideways.png", 700, 500)
    images = [sideways, ref(tmp_path / "clear.png", 560, 560), ref(tmp_path / "palette.gif", 560, 560)]
    turned, white, colours = cache.open(images, **BOUNDS) or []
    assert turned.size == compute_sides(sideways, **BOUNDS)
    assert turned.width > turned.height
    assert pixels(white).min() == 255
    assert len(colours.getcolors(1 << 20) or []) > 100


def test_each_bound_has_its_own_file_and_a_second_pass_reads_no_source(cache: ImageCache, tmp_path: Path):
    image = saved(tmp_path, "a.png")
    small, large = cache.file(image, min_pixels=3136, max_pixels=3136, patch_size=14), cache.file(image, **BOUNDS)
    assert small != large
    Path(image.path).unlink()
    assert cache.file(image, **BOUNDS) == large
    assert (cache.open([image], **BOUNDS) or [])[0].size == compute_sides(image, **BOUNDS)
    assert cache.open([], **BOUNDS) is None


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: b"", lambda d: d[:2000], lambda d: b"\0" * len(d)])
def test_a_torn_file_is_written_again(cache: ImageCache, tmp_path: Path, name: str, damage):
    image = saved(tmp_path, name)
    file = cache.file(image, **BOUNDS)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert cache.file(image, **BOUNDS).read_bytes() == whole


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_undecodable_file_is_written_again(cache: ImageCache, tmp_path: Path, name: str):
    image = saved(tmp_path, name)
    file = cache.file(image, **BOUNDS)
    whole = file.read_bytes()
    file.write_bytes(b"\0" * (len(whole) - 12) + whole[-12:])
    assert pixels((cache.open([image], **BOUNDS) or [])[0]).max() > 0
    assert file.read_bytes() == whole


def test_sources_that_cannot_be_used_are_named(cache: ImageCache, tmp_path: Path):
    whole = saved(tmp_path, "whole.png")
    (tmp_path / "torn.png").write_bytes(Path(whole.path).read_bytes()[:500])
    (tmp_path / "text.png").write_text("no image")
    saved(tmp_path, "other.png", 300, 300)
    bad = {
        "torn.png": "cannot be decoded",
        "text.png": "cannot be decoded",
        "other.png": "has changed since it was read",
    }
    refs = {name: ref(tmp_path / name, 700, 500) for name in bad}
    refs["other.png"] = whole.model_copy(update={"path": refs["other.png"].path})
    for name, image in refs.items():
        with pytest.raises(BadMedia, match=f"{name}: {bad[name]}"):
            cache.file(image, **BOUNDS)
    assert not [p for p in cache.folder.rglob("*") if p.is_file()]


def test_a_source_that_cannot_be_read_now_is_no_bad_image(cache: ImageCache, tmp_path: Path):
    for path in (tmp_path / "missing.png", tmp_path):  # a folder cannot be read like a file
        image = ImageRef(path=str(path), sha256="00", width=700, height=500)
        with pytest.raises(OSError, match=f"{path.name}: cannot be read"):
            cache.file(image, **BOUNDS)


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files"), ImportError("plugin")])
def test_a_decoder_that_the_machine_stops_does_not_condemn_the_image(
    cache: ImageCache, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
):
    image = saved(tmp_path, "a.png")

    def fail(file: object) -> Image.Image:
        raise error

    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(type(error)):
        cache.file(image, **BOUNDS)


@pytest.mark.parametrize(("width", "height"), [(1, 20_000), (10_000, 40)])
def test_a_thin_image_is_refused_by_name(cache: ImageCache, tmp_path: Path, width: int, height: int):
    """The second image has an allowed aspect ratio, but its height would be 0 at the given number of pixels."""
    Image.new("RGB", (width, height)).save(tmp_path / "strip.png")
    image = ref(tmp_path / "strip.png", width, height)
    for opening in (cache.file, lambda image, **b: open_images([image], **b)):
        with pytest.raises(TooThin, match=rf"strip\.png: {width}×{height} pixels"):
            opening(image, **BOUNDS)


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_image(tmp_path: Path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(EngineError, match=r"image cache .*taken cannot be written"):
        ImageCache(tmp_path / "taken").file(saved(tmp_path, "a.png"), **BOUNDS)


def _make_all(folder: Path, images: list[ImageRef]) -> list[bytes]:
    cache = ImageCache(folder)
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda image: cache.file(image, **BOUNDS).read_bytes(), images * 3))
    return made


def test_threads_and_processes_make_the_same_images_at_once(tmp_path: Path):
    images = [saved(tmp_path, f"{n}.{kind}", 300 + n, 200) for n in range(6) for kind in ("png", "jpg")]
    with multiprocessing.get_context("fork").Pool(3) as pool:
        results = pool.starmap(_make_all, [(tmp_path / "cache", images)] * 3)
    expected = [ImageCache(tmp_path / "alone").file(image, **BOUNDS).read_bytes() for image in images]
    assert all(made == expected * 3 for made in results)
    files = [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    assert len(files) == len(images)


def test_fill_cache_writes_missing_images_and_counts_failures(cache: ImageCache, tmp_path: Path):
    good, torn = saved(tmp_path, "a.png"), saved(tmp_path, "b.bmp")
    Path(torn.path).write_bytes(b"no image")
    assert fill_cache(cache, [good, torn, good], **BOUNDS) == 1
    (made,) = [file for file in cache.folder.rglob("*") if file.is_file()]
    assert made == cache.file(good, **BOUNDS)


def test_sides_are_those_of_a_shortened_prompt() -> None:
    wide = ImageRef(path="/wide.png", sha256="w", width=560, height=280)
    tall = ImageRef(path="/tall.png", sha256="t", width=280, height=560)
    asking = Prompter(load_pack("demo").model_copy(update={"boxes": True}), "m", max_pixels=9**6, min_pixels=3136)
    item = sample("s", wide, tall)
    turns = tuple(part.model_copy(update={"turn": number}) for number, part in enumerate(item.parts, 1))
    request = asking.classify(item.model_copy(update={"parts": turns}), Sampling())
    assert list_sides(request, request, 14) == ((560, 280), (280, 560))
    shorter = request.model_copy(update={"parts": turns[1:], "max_pixels": 112 * 224})
    assert list_sides(request, shorter, 14) == (None, (112, 224))
    assert list_sides(request.model_copy(update={"boxes": None}), shorter, 14) == ()
