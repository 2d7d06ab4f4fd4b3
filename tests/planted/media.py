"""Plants broken and odd recordings, pictures and boxes, beside good ones, as items of a labelling tool.

`plant(folder)` writes folder/items.json, folder/media/ (names in items are relative to it), and NAME_outside/ beside
the folder for paths that leave it. One file is a named pipe, on which a careless reader waits for ever.
An item with a faulty box has no other box, unless its kind says so: "dropped" is then said of the box.
items.json holds NaN (as Python writes it), a lone surrogate and an integer of 400 digits.
"""

import json
import os
import random
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av
import numpy as np
from PIL import Image, ImageDraw

W, H = 112, 168
LABELS = ("申请退款", "查询物流", "询问尺码")
BOX = [20, 40, 80, 70]
GOOD_BOX = {"corners": BOX, "ref": "button", "image": 0}
FRAMES = [f"f{n}.png" for n in range(6)]
JPEGS = ["j0.jpg", "j1.jpg", "j2.jpg"]
FRAGMENTED = "frag_keyframe+empty_moov+default_base_moof"
LEFT = Image.Transpose.ROTATE_90
Expect = Literal["usable", "dropped", "either"]
Table = dict[Expect, dict[str, Any]]


@dataclass(frozen=True)
class Planted:
    """What is planted under one item id, and what a careful human would want done with it."""

    id: str
    kind: str
    expect: Expect


@dataclass
class Bed:
    """Where things are planted: the media folder, the folder outside, and the items so far."""

    media: Path
    outside: Path
    items: list[dict[str, Any]] = field(default_factory=list)
    planted: list[Planted] = field(default_factory=list)

    def add(self, letter: str, kind: str, expect: Expect, marks: str | None = None, **fields: Any) -> None:
        """Append one item, its id made of the letter and a running number, with a placeholder for every file."""
        number = sum(done.id[0] == letter for done in self.planted) + 1
        item_id, label = f"{letter}{number:02d}", LABELS[len(self.items) % len(LABELS)]
        if marks is None:
            marks = "<image>" * len(fields.get("image", ())) + "<video>" * len(fields.get("videos", ()))
            marks += "<video>" * ("video" in fields)
        text = f"{marks}\n用户: 我想{label},请看。"
        self.items.append({"id": item_id, "instruction": text, **fields, "output": label})
        self.planted.append(Planted(item_id, kind, expect))

    def each(self, letter: str, table: Table, show: Callable[[Any], dict[str, Any]], prefix: str = "") -> None:
        """Append an item for every entry of a table; show makes its fields of the entry's value."""
        for expect, cases in table.items():
            for kind, value in cases.items():
                self.add(letter, prefix + kind, expect, **show(value))

    def film(self, kind: str, expect: Expect, name: str, **options: Any) -> None:
        """Write a recording and append an item that shows it."""
        record(self.media / name, **options)
        self.add("v", kind, expect, video=name)


def boxed(bbox: Any, *files: str, image: Any = 0, ref: Any = "button") -> dict[str, Any]:
    """The fields of an item with one box, on shot.png or on one of the pictures given."""
    return {"image": list(files) or ["shot.png"], "boxes": [{"corners": bbox, "ref": ref, "image": image}]}


def draw(index: int = 0, size: tuple[int, int] = (W, H)) -> Image.Image:
    """A screen that differs by index: a red top left corner, a blue button at BOX, and a bar that moves down."""
    picture = Image.new("RGB", size, (200, 210 - index * 5 % 100, 180))
    pen = ImageDraw.Draw(picture)
    pen.rectangle((0, 0, 15, 15), fill=(220, 20, 20))
    pen.rectangle(tuple(BOX), fill=(20, 40, 200))
    pen.rectangle((0, 80 + index * 3, size[0], 84 + index * 3), fill=(10, 120, 10))
    return picture


def record(
    path: Path,
    count: int = 16,
    size: tuple[int, int] = (W, H),
    codec: str = "libx264",
    pix: str = "yuv420p",
    rate: int = 10,
    ticks: list[int] | None = None,
    container: str | None = None,
    sound: bool = False,
    skip: int = 0,
    lying: bool = False,
    movflags: str = "",
) -> Path:
    """Write a recording; ticks are times in 1/rate s, skip omits first packets, lying stores the pictures turned."""
    with av.open(str(path), "w", format=container, options={"movflags": movflags} if movflags else {}) as out:
        voice = out.add_stream("aac", rate=16000, layout="mono") if sound else None
        stream: Any = out.add_stream(codec, rate=rate) if codec else None
        if stream is not None:
            context = stream.codec_context
            context.width, context.height, context.pix_fmt = *(size[::-1] if lying else size), pix
            context.time_base, context.thread_count = Fraction(1, rate), 1
            if codec in ("libx264", "libx265"):
                context.options = {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}
        out.start_encoding()
        packets = []
        if voice is not None:
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 16000), dtype=np.float32), format="fltp", layout="mono")
            tone.sample_rate, tone.pts = 16000, 0
            packets += voice.encode(tone) + voice.encode(None)
        if stream is not None:
            for index in range(count):
                picture = draw(index, size).transpose(LEFT) if lying else draw(index, size)
                frame = av.VideoFrame.from_image(picture).reformat(format=pix)
                frame.pts, frame.time_base = ticks[index] if ticks else index, Fraction(1, rate)
                packets += stream.encode(frame)
            packets += stream.encode(None) if count else []
        out.mux(packets[skip:])
    return path


def patch(path: Path, mark: bytes, offset: int, value: bytes) -> None:
    """Overwrite bytes of a file at an offset behind a mark."""
    data = path.read_bytes()
    at = data.index(mark) + len(mark) + offset
    path.write_bytes(data[:at] + value + data[at + len(value) :])


def plant_broken(bed: Bed) -> None:
    """Files that are no recording, or only a part of one."""
    media = bed.media
    whole, tail, pieces = (
        record(media / name, movflags=flags).read_bytes()
        for name, flags in (("whole.mp4", "faststart"), ("tail.mp4", ""), ("pieces.mp4", FRAGMENTED))
    )
    start = whole.index(b"mdat") + 4
    noisy = bytearray(whole)
    noisy[start + 4000 :: 23] = random.Random(5).randbytes(len(noisy[start + 4000 :: 23]))
    lfs = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 48213\n".encode()
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{bed.outside / 'leak.mp4'}\n#EXT-X-ENDLIST\n".encode()

    def written(data: bytes) -> dict[str, Any]:
        name = f"file{len(bed.items):02d}.mp4"
        (media / name).write_bytes(data)
        return {"video": name}

    bed.each(
        "v",
        {
            "dropped": {
                "an empty file": b"",
                "an HTML error page saved as .mp4": b"<html><h1>403 Forbidden</h1></html>\n" * 9,
                "a Git LFS pointer instead of the recording": lfs,
                "zero bytes at the full size": bytes(len(whole)),
                "random bytes after a valid ftyp atom": whole[:32] + random.Random(3).randbytes(4000),
                "cut before the index (moov) at the end of the file": tail[: len(tail) * 2 // 3],
                "header and index only, no byte of any frame": whole[:start],
                "cut within the first frame": whole[: start + 30],
                "an HLS playlist that points outside": hls,
                "a track of no frames": pieces[: pieces.index(b"moof") - 4],
            },
            "either": {
                "index in front, cut in the middle of the frames": whole[: (start + len(whole)) // 2],
                "a fragmented MP4, cut": pieces[: -len(pieces) // 3],
                "noise behind the first frames": bytes(noisy),
                "an ffconcat text that points at another recording": b"ffconcat version 1.0\nfile whole.mp4\n",
                "a PNG picture named .mp4": (media / "shot.png").read_bytes(),
            },
            "usable": {"a whole recording with a ZIP file's bytes behind it": whole + b"PK\x03\x04" + bytes(900)},
        },
        written,
    )
    bed.film("an MP4 without any track", "dropped", "none.mp4", count=0)
    bed.film("sound only, no video track", "dropped", "voice.mp4", codec="", sound=True)
    bed.film("an MPEG-TS cut so that its only key frame is missing", "dropped", "nokey.ts", skip=1)


def plant_odd(bed: Bed) -> None:
    """Recordings that play, but are unusual in time, size, codec or container."""
    media, film, pauses = bed.media, bed.film, [0, 1, 2, 3, 90, 91, 92, 93, 94, 300, 301, 302, 303, 304, 305, 306]
    film("a recording of one frame", "either", "one.mp4", count=1)
    film("stored turned, rotated upright by its metadata", "usable", "turned.mp4", lying=True)
    patch(media / "turned.mp4", b"tkhd", 40, struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    film("variable frame rate with pauses of 9 and 20 seconds", "usable", "vfr.mp4", ticks=pauses)
    film("8 frames an hour apart", "usable", "hours.mp4", count=8, ticks=[n * 36000 for n in range(8)])
    film("timestamps that begin at 10 hours", "usable", "late.mkv", ticks=[360000 + n for n in range(16)])
    film("all 8 frames have the timestamp 0", "either", "same.mkv", count=8, codec="ffv1", ticks=[0] * 8)
    film("16 frames within 0.2 milliseconds", "either", "fast.mp4", rate=90000)
    film("the header claims a duration of 23 days, 1.6 seconds are there", "usable", "lie.mkv")
    patch(media / "lie.mkv", b"\x44\x89\x88", 0, struct.pack(">d", 2e9))
    film("a fragmented MP4 without frame count in its header", "usable", "frag.mp4", movflags=FRAGMENTED)
    film("a raw H.264 stream named .mp4, without container or timestamps", "usable", "raw.mp4", container="h264")
    film("a WebM named .mp4", "usable", "webm.mp4", count=6, codec="libvpx", container="webm")
    film("MS-MPEG-4 v2 in AVI", "usable", "old.avi", codec="msmpeg4v2")
    film("HEVC with 10 bits a colour", "usable", "deep.mp4", count=6, codec="libx265", pix="yuv420p10le")
    film("a sound track first, the video track second", "usable", "sound.mp4", sound=True)
    film("odd width and height, 111×167", "usable", "odd.mp4", size=(111, 167), pix="yuv444p")
    film("a recording of 1×1 pixel", "dropped", "dot.mkv", size=(1, 1), codec="ffv1", pix="bgr0")
    film("a recording of 3×5000 pixels", "either", "strip.mkv", count=3, size=(3, 5000), codec="ffv1", pix="bgr0")
    tall, wide = (
        record(media / name, codec="mpeg2video", rate=25, size=size).read_bytes()
        for name, size in (("tall.ts", (W, H)), ("wide.ts", (H, W)))
    )
    (media / "change.ts").write_bytes(tall + wide)
    bed.add("v", "the picture size changes from 112×168 to 168×112 halfway", "either", video="change.ts")
    for name in ("anim.gif", "anim.webp"):
        draw().save(media / name, save_all=True, append_images=[draw(n) for n in range(1, 6)], duration=100)
        bed.add("v", f"an animation, {name}", "usable" if name == "anim.gif" else "either", video=name)


def plant_values(bed: Bed) -> None:
    """Names that lead elsewhere, values of the wrong kind, placeholders that do not match."""
    media, add, leak = bed.media, bed.add, record(bed.outside / "leak.mp4")
    (media / "link.mp4").symlink_to(leak)
    (media / "loop.mp4").symlink_to("loop.mp4")
    (media / "folder.mp4").mkdir()
    os.mkfifo(media / "pipe.mp4")
    for name in ("sub1/rec.mp4", "sub2/rec.mp4", "录屏 #1%20[终].mp4", "caf\u00e9.mp4"):
        (media / name).parent.mkdir(exist_ok=True)
        record(media / name, size=(H, W) if name == "sub2/rec.mp4" else (W, H))
    bed.each(
        "v",
        {
            "dropped": {
                "a path that leaves the folder by ..": f"../../{bed.outside.name}/leak.mp4",
                "an absolute path outside the folder": str(leak),
                "a symbolic link to itself": "loop.mp4",
                "a missing file": "gone.mp4",
                "a folder named .mp4": "folder.mp4",
                "a named pipe, no writer": "pipe.mp4",
                "a web address as file name": "https://example.invalid/rec.mp4",
                "an FFmpeg protocol as file name": "concat:whole.mp4|tail.mp4",
                "a name with a zero byte": "whole.mp4\x00.mp4",
                "a name of 5000 letters": "a" * 5000 + ".mp4",
                "an empty name": "",
                "a number as recording": 17,
                "null as recording": None,
                "an object as recording": {"url": {"path": ["whole.mp4"]}},
            },
            "either": {
                "a symbolic link to a recording outside the folder": "link.mp4",
                "é in two code points, on disk in one": "cafe\u0301.mp4",
                "capitals, on disk small letters": "WHOLE.MP4",
                "frame files in a flat list under video, one placeholder": FRAMES[:3],
            },
            "usable": {
                "a path with .. that stays in the folder": "sub1/../sub2/rec.mp4",
                "a name with Chinese letters, a space, #, % and brackets": "录屏 #1%20[终].mp4",
            },
        },
        lambda value: {"video": value},
    )
    add("v", "two recordings of the same name in two folders", "usable", videos=["sub1/rec.mp4", "sub2/rec.mp4"])
    add("v", "the same recording twice, two placeholders", "usable", videos=["whole.mp4", "whole.mp4"])
    add("v", "a good recording and a missing one", "dropped", videos=["whole.mp4", "gone.mp4"])
    add("v", "three placeholders, one recording", "dropped", "<video><video><video>", video="whole.mp4")
    add("v", "two recordings, one placeholder", "dropped", "<video>", videos=["whole.mp4", "tail.mp4"])
    add("v", "one recording, no placeholder", "either", "", video="whole.mp4")
    add("v", "an image placeholder for a recording", "dropped", "<image>", video="whole.mp4")
    add("v", "a recording listed as image", "dropped", image=["whole.mp4"])


def plant_frame_lists(bed: Bed) -> None:
    """Recordings given as frame files, with one thing wrong or odd in each list."""
    media, good, leak = bed.media, FRAMES, bed.outside / "leak.png"
    (media / "half.png").write_bytes((media / "f3.png").read_bytes()[:300])
    draw(3, (W, H + 56)).save(media / "tall.png")
    draw(3).convert("CMYK").save(media / "cmyk.jpg")
    draw(3).convert("P").save(media / "palette.png", transparency=0)
    Image.fromarray(np.asarray(draw(3).convert("L")).astype(np.uint16) * 257).save(media / "deep.png")
    for number, turn in ((5, Image.Transpose.TRANSPOSE), (6, LEFT), (8, Image.Transpose.ROTATE_270)):
        exif = Image.Exif()
        exif[0x0112] = number  # how a viewer must turn the stored picture of 168×112
        draw().transpose(turn).save(media / f"turn{number}.jpg", exif=exif)
    bed.each(
        "v",
        {
            "dropped": {
                "of nothing": [],
                "of a lost file": ["x.png"],
                "of lists": [[["f0.png"]], {}],
                "of paths outside": [str(leak)],
            },
            "either": {
                "with a missing file": [*good, "f99.png"],
                "with a cut PNG": [*good[:3], "half.png", *good[4:]],
                "of one frame": good[:1],
                "with null": [*good[:3], None],
                "with an MP4": [*good[:2], "whole.mp4"],
                "with a frame of another size": [*good[:3], "tall.png", *good[4:]],
            },
            "usable": {
                "with one file many times": [good[0]] * 5 + good[1:],
                "with a CMYK JPEG and a palette PNG with transparency": [*good[:3], "cmyk.jpg", "palette.png"],
                "with a 16-bit grey PNG (Pillow's plain convert to RGB makes it white)": [*good[:3], "deep.png"],
                "with frames turned by EXIF, of one size once upright": ["f0.png", "turn6.jpg", "turn8.jpg"],
            },
        },
        lambda names: {"videos": [names]},
        "a frame list ",
    )


def plant_boxes(bed: Bed) -> None:
    """Boxes that are no boxes, lie in the wrong place, or belong to an odd picture."""
    media, shots, upright = bed.media, ("shot.png", "shot2.png"), [60, 125, 110, 166]
    bed.each(
        "b",
        {
            "dropped": {
                "all numbers negative": [-80, -90, -20, -30],
                "zero area": [30, 40, 30, 40],
                "zero width": [30, 40, 30, 90],
                "wholly outside": [300, 400, 360, 460],
                "NaN": [20, float("nan"), 80, 70],
                "words": ["left", "top", "x", "y"],
                "booleans": [False, False, True, True],
                "values of a 0-1000 grid": [250, 300, 700, 600],
                "fractions of the picture": [0.1, 0.2, 0.5, 0.4],
                "three numbers": BOX[:3],
                "null": None,
                "an empty list": [],
                "a polygon of 8 numbers": [20, 40, 80, 40, 80, 70, 20, 70],
                "an object": {"x": 20, "y": 40, "w": 60, "h": 30},
                "an integer of 400 digits": [20, 40, 10**399, 70],
                "lists nested 200 deep": json.loads("[" * 200 + "]" * 200),
            },
            "either": {
                "slightly negative": [-3, -2, 40, 50],
                "left and right reversed": [80, 40, 20, 70],
                "in a string": str(BOX),
                "both corners reversed": [80, 70, 20, 40],
                "two pixels over the edge": [60, 120, 114, 170],
                "numbers as strings": ["20", "40", "80", "70"],
                "five numbers, the last a score": [*BOX, 0.97],
                "two points": [[20, 40], [80, 70]],
                "a fifth of a pixel wide": [50.1, 40, 50.3, 70],
            },
            "usable": {
                "fractions of pixels": [20.4, 40.5, 79.6, 70.1],
                "the whole picture to its edge": [-0.0, 0, W, H],
            },
        },
        boxed,
        "bbox: ",
    )
    bed.each(
        "b",
        {"dropped": {repr(value): value for value in (2, -1, True, None, 1.5)}, "either": {"'1'": "1"}},
        lambda index: boxed(BOX, *shots, image=index),
        "box on one of two pictures, image = ",
    )
    bed.each(
        "b",
        {
            "dropped": {"null": None, "empty": "", "a list": ["a", {"b": 1}]},
            "either": {
                "with placeholders and markup of its own": "<image><|box_start|>(1,2),(3,4)<|box_end|><video>",
                "with a lone surrogate, which UTF-8 cannot write": "按钮\ud83d",
                "20000 letters long": "长" * 20000,
            },
        },
        lambda ref: boxed(BOX, ref=ref),
        "box whose name (ref) is ",
    )
    draw().save(media / "cut.jpg", quality=90)
    (media / "cut.jpg").write_bytes((media / "cut.jpg").read_bytes()[:1200])
    Image.new("1", (13400, 13400)).save(media / "bomb.png")
    draw().save(media / "really.jpg", format="PNG")
    (media / "vector.png").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="112" height="168"/>')
    bed.each(
        "b",
        {
            "usable": {
                "right on the upright picture, stored turned by EXIF 6": boxed(upright, "turn6.jpg"),
                "right on the upright picture, stored mirrored by EXIF 5": boxed(upright, "turn5.jpg"),
                "on picture 1 of [x, x]": boxed(BOX, *shots[:1] * 2, image=1),
                "on a PNG named .jpg": boxed(BOX, "really.jpg"),
            },
            "either": {
                "on an animated GIF given as picture": boxed(BOX, "anim.gif"),
            },
            "dropped": {
                "fits only the stored picture, before EXIF turns it": boxed([120, 20, 160, 100], "turn6.jpg"),
                "in the missing lower part of a cut JPEG": boxed([20, 140, 80, 165], "cut.jpg"),
                "on a missing picture": boxed(BOX, "gone.png"),
                "on an SVG named .png": boxed(BOX, "vector.png"),
                "on an all black picture of 13400×13400 pixels in a small file": boxed(BOX, "bomb.png"),
                "on image 0 of an item that has only a recording": {"video": "whole.mp4", "boxes": [GOOD_BOX]},
            },
        },
        lambda fields: fields,
        "box: ",
    )
    many = [{**GOOD_BOX, "corners": [n % 100, n % 150, n % 100 + 8, n % 150 + 9]} for n in range(5000)]
    bed.each(
        "b",
        {
            "either": {
                "null": None,
                "an empty list": [],
                "one object, not a list": GOOD_BOX,
                "5000 of them": many,
                "the same one twice": [GOOD_BOX] * 2,
                "one good, one on image 9": [GOOD_BOX, {**GOOD_BOX, "image": 9}],
            },
            "dropped": {
                "numbers only": BOX,
                "a text": "button",
                "one without bbox": [{"ref": "button", "image": 0}],
            },
        },
        lambda boxes: {"image": ["shot.png"], "boxes": boxes},
        "boxes: ",
    )


def plant_good(bed: Bed) -> None:
    """Twelve items with nothing wrong."""
    shots = ["shot.png", "shot2.png"]
    for name, codec in (("good.mp4", "libx264"), ("good.mov", "mpeg4"), ("good.webm", "libvpx")):
        record(bed.media / name, count=12, codec=codec)
    bed.each(
        "g",
        {
            "usable": {
                "an MP4": {"video": "good.mp4"},
                "a MOV": {"video": "good.mov"},
                "a WebM": {"video": "good.webm"},
                "a list of PNG frames": {"videos": [FRAMES]},
                "a list of JPEG frames": {"videos": [JPEGS]},
                "two recordings": {"videos": ["good.mp4", "good.mov"]},
                "two pictures": {"image": shots},
                "a recording and a frame list": {"videos": ["good.mp4", FRAMES]},
                "a picture with a box": boxed(BOX),
                "a picture and a recording": {"image": shots[:1], "video": "good.webm"},
                "a recording and a picture with a box": {"video": "good.mp4", **boxed(BOX)},
                "two pictures with a box each": {"image": shots, "boxes": [GOOD_BOX, {**GOOD_BOX, "image": 1}]},
            }
        },
        lambda fields: fields,
        "good: ",
    )


def plant(folder: Path) -> list[Planted]:
    """Draw everything into an empty or new folder, write items.json in a mixed order, and tell what was planted."""
    folder = folder.resolve()
    bed = Bed(folder / "media", folder.parent / f"{folder.name}_outside")
    bed.media.mkdir(parents=True)
    bed.outside.mkdir()
    for n, name in enumerate([*FRAMES, *JPEGS, "shot.png", f"../../{bed.outside.name}/leak.png"]):
        draw(n).save(bed.media / name)
    draw(4, (140, 196)).save(bed.media / "shot2.png")
    for part in (plant_broken, plant_odd, plant_values, plant_frame_lists, plant_boxes, plant_good):
        part(bed)
    random.Random(7).shuffle(bed.items)
    (folder / "items.json").write_text(json.dumps(bed.items, indent=1), encoding="utf-8")
    return bed.planted


if __name__ == "__main__":
    for thing in plant(Path(sys.argv[1])):
        print(f"{thing.id}  {thing.expect:8}{thing.kind}")
