import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from tasks.errors import EngineError
from tasks.items.ocr import Found, OcrReader, PageText, Unread, get_reader_identity
from tasks.items.ocr_settings import OcrSettings
from tasks.media import ImageRef


def make_ref(path: Path) -> ImageRef:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return ImageRef(path=str(path), sha256=digest, width=1, height=1)


def draw_lines(path: Path, *lines: str, **how: object) -> ImageRef:
    image = Image.new("RGB", (420, 420), "white")  # a strip would be enlarged until its short side is 736
    for number, line in enumerate(lines):
        for column, text in enumerate(line.split("|")):
            place = (15 + 220 * column, 15 + 60 * number)
            ImageDraw.Draw(image).text(place, text, fill="black", font=ImageFont.load_default(size=34))
    image.save(path, **how)
    return make_ref(path)


def list_readers() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "tasks.items.ocr_child" in p.cmdline()]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ImageRef]:
    folder = tmp_path_factory.mktemp("images")
    made = {
        "rows": draw_lines(folder / "rows.png", "Order 20417|paid", "Refund 365"),
        "blank": draw_lines(folder / "blank.png"),
        "palette": draw_lines(folder / "palette.gif", "98765"),
    }
    made["upright"] = draw_lines(folder / "upright.png", "31415")
    sideways = Image.open(made["upright"].path).rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways.save(folder / "sideways.jpg", exif=exif)
    return made | {"sideways": make_ref(folder / "sideways.jpg")}


def test_text_is_read_in_order_and_once(images: dict[str, ImageRef], tmp_path: Path):
    reader, steps = OcrReader(tmp_path, processes=2), []
    texts = reader.read([*images.values(), images["rows"]], lambda done, total: steps.append((done, total)))
    assert texts == {
        images["rows"].sha256: "Order 20417 paid\nRefund 365",
        images["blank"].sha256: "",
        images["palette"].sha256: "98765",
        images["upright"].sha256: "31415",
        images["sideways"].sha256: "31415",
    }
    assert steps == [(done, 5) for done in range(6)]
    assert not reader.unread
    assert not list_readers()
    asked: list[ImageRef] = []

    def reading(missing: Sequence[ImageRef], processes: int) -> Iterator[Found]:
        asked.extend(missing)
        return iter(())

    moved = [image.model_copy(update={"path": "/nowhere.png"}) for image in images.values()]
    assert OcrReader(tmp_path, reading=reading).read(moved) == texts
    assert OcrReader(tmp_path, reading=reading).read([]) == {}
    assert not asked
    *read, unknown = reader.find_lines(
        [images["rows"], images["sideways"], images["blank"].model_copy(update={"sha256": "?"})]
    )
    assert [[line.text for line in lines] for lines in read] == [["Order 20417 paid", "Refund 365"], ["31415"]]
    assert unknown == ()
    left, top, right, bottom = read[0][1].corners  # drawn at 15, 75, in letters of 34 pixels
    assert 5 < left < 20 and 70 < top < 90 and 150 < right < 220 and 105 < bottom < 125
    assert read[1][0].corners == pytest.approx(
        reader.find_lines([images["upright"]])[0][0].corners, abs=6
    )  # as seen upright


def test_what_cannot_be_read_is_told_and_tried_again(images: dict[str, ImageRef], tmp_path: Path):
    torn, missing = tmp_path / "torn.png", tmp_path / "missing.png"
    torn.write_bytes(Path(images["rows"].path).read_bytes()[:300])
    changed = images["rows"].model_copy(update={"path": images["palette"].path})
    gone = images["palette"].model_copy(update={"path": str(missing)})
    reader = OcrReader(tmp_path, processes=1)
    bad = [make_ref(torn), changed, gone]
    assert reader.read([*bad, images["sideways"]]) == {i.sha256: "" for i in bad} | {images["sideways"].sha256: "31415"}
    assert {u.path for u in reader.unread.values()} == {i.path for i in bad}
    assert "changed" in reader.unread[changed.sha256].detail
    missing.write_bytes(Path(images["palette"].path).read_bytes())
    assert reader.read([gone]) == {gone.sha256: "98765"}
    assert set(reader.unread) == {make_ref(torn).sha256, changed.sha256}


def test_a_reader_that_dies_loses_one_image(images: dict[str, ImageRef], tmp_path: Path):
    """A pipe without a writer holds the reader at its first image until it is killed."""
    os.mkfifo(tmp_path / "stuck.png")
    stuck = ImageRef(path=str(tmp_path / "stuck.png"), sha256="0" * 64, width=1, height=1)

    def kill() -> None:
        while True:
            try:
                writer = os.open(stuck.path, os.O_WRONLY | os.O_NONBLOCK)
            except OSError:  # nobody has opened it for reading yet
                time.sleep(0.05)
            else:
                break
        for process in list_readers():
            process.kill()
        os.close(writer)

    killing = threading.Thread(target=kill)
    killing.start()
    reader = OcrReader(tmp_path, processes=1)
    texts = reader.read([stuck, images["palette"]])
    killing.join()
    assert texts == {stuck.sha256: "", images["palette"].sha256: "98765"}
    assert "-9" in reader.unread[stuck.sha256].detail


def test_breaking_off_keeps_what_was_read_and_ends_the_readers(images: dict[str, ImageRef], tmp_path: Path):
    class Enough(Exception):
        pass

    def until_one(done: int, total: int) -> None:
        if done:
            raise Enough

    with pytest.raises(Enough):
        OcrReader(tmp_path, processes=2).read(list(images.values()), until_one)
    assert not list_readers()
    with sqlite3.connect(tmp_path / "ocr.sqlite") as store:
        assert store.execute("SELECT count(*) FROM entries").fetchone() == (1,)


def test_readers_end_when_their_user_is_killed(images: dict[str, ImageRef], tmp_path: Path):
    call = f"""
from pathlib import Path
from tasks.items.ocr import OcrReader
from tasks.media import ImageRef
images = [ImageRef(path={images["rows"].path!r}, sha256=f"{{n:064}}", width=1, height=1) for n in range(10**5)]
OcrReader(Path({str(tmp_path)!r}), processes=1).read(images)
"""
    user = subprocess.Popen([sys.executable, "-c", call])
    try:
        while not (started := psutil.Process(user.pid).children()):
            assert user.poll() is None
            time.sleep(0.1)
    finally:
        user.send_signal(signal.SIGKILL)
        user.wait()
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_a_reader_that_does_not_start_says_why(
    images: dict[str, ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: not found')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(EngineError, match=r"does not start: ImportError: libGL\.so\.1: not found"):
        OcrReader(tmp_path, processes=2).read(list(images.values()))
    assert not list_readers()


def test_images_may_be_read_elsewhere(images: dict[str, ImageRef], tmp_path: Path):
    sent: list[str] = []

    def reading(missing: Sequence[ImageRef], processes: int) -> Iterator[Found]:
        for image in missing:
            sent.append(image.sha256)
            yield image, Unread(image.path, "its node is gone") if image == images["blank"] else PageText("seen")

    rows, blank = images["rows"], images["blank"]
    reader = OcrReader(tmp_path, reading=reading)
    assert reader.read([rows, blank]) == {rows.sha256: "seen", blank.sha256: ""}
    assert reader.unread[blank.sha256].detail == "its node is gone"
    reader.read([rows, blank])
    assert sent == [rows.sha256, blank.sha256, blank.sha256]  # what was read is known, the other is tried again


def test_text_of_any_size_and_direction_is_read(tmp_path: Path):
    tall = Image.new("RGB", (600, 4000), "white")
    for number in range(30):
        draw = ImageDraw.Draw(tall)
        draw.text((30, 20 + 130 * number), f"Parcel {100 + number}", "#777", ImageFont.load_default(size=18 + number))
    tall.save(tmp_path / "tall.png")
    upright = Image.open(draw_lines(tmp_path / "upright.png", "Order 20417", "Refund 365").path)
    upright.rotate(180).save(tmp_path / "turned.png")
    upright.crop((0, 10, 420, 55)).save(tmp_path / "strip.png")
    refs = {name: make_ref(tmp_path / f"{name}.png") for name in ("tall", "turned", "strip")}
    texts = OcrReader(tmp_path, processes=1).read(list(refs.values()))
    assert texts[refs["tall"].sha256].splitlines() == [f"Parcel {100 + number}" for number in range(30)]
    assert set(texts[refs["turned"].sha256].splitlines()) == {"Order 20417", "Refund 365"}
    assert texts[refs["strip"].sha256] == "Order 20417"


def test_the_readers_settings_are_part_of_its_identity():
    assert f"squeeze={OcrSettings().squeeze}" in get_reader_identity()


def test_as_many_readers_as_cores_that_may_be_used():
    code = """
import os
from tasks.items.ocr import count_readers
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print(count_readers())
"""
    counted = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert counted.stdout == "1\n"
