"""Bad manifests, of every format and as folders, into the intake."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tasks.errors import ManifestError
from tasks.items.raw_items import is_utf8
from tasks.items.samples import Intake, Reason, read_samples
from tasks.media import TextPart
from tasks.packs.pack import load_pack
from tasks.records import Split
from tests.properties.damage import Row, damaged_bytes, damaged_row, odd_value, sometimes
from tests.properties.result import Result
from tests.tasks.intake import SAID, SHOWN, item

PACKS = tuple(load_pack(name) for name in ("demo", "captions", "www2025"))
FORMATS = ("m.json", "lines.json", "m.jsonl", "m.csv", "m.parquet")
_UNREAD = ("input", "videos")
"""Keys of other tools' data, which no pack here reads."""
_COLUMNS = ("id", "instruction", "image", "output", "image_path", "caption", *_UNREAD)
_ROUNDED = 1727340000000000001.0


def write_images(folder: Path) -> Path:
    """The image folder of the bad manifests: two good files, two broken ones, and ways out of it."""
    images = folder / "images"
    if not images.exists():
        (images / "sub").mkdir(parents=True)
        for name in ("a.png", "b.jpg"):
            Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(images / name)
        (images / "cut.png").write_bytes((images / "a.png").read_bytes()[:100])
        (images / "page.png").write_text("<html>", encoding="utf-8")
        (images / "out.png").symlink_to("/etc/hosts")
        (images / "out").symlink_to("/etc")
    return images


def rows(rng: Random) -> list[Any]:
    """One to five items, most of them with faults."""
    names = (
        "a.png",
        "b.jpg",
        "cut.png",
        "page.png",
        "none.png",
        "out.png",
        "out/hosts",
        "../images/a.png",
        "sub/../a.png",
    )
    found: list[Any] = []
    for number in range(rng.randint(1, 5)):
        shown = rng.choice(names)
        row = item(id=rng.choice((f"i{number}", "same", number)), image=rng.choice((shown, [shown])))
        row |= {"image_path": shown, "caption": "一只杯子"}
        if rng.random() < 0.4:
            row |= {"instruction": SAID, "image": [], "output": "询问尺码"}
        elif rng.random() < 0.2:
            row |= {"instruction": SHOWN * 2, "image": [shown, shown]}
        if rng.random() < 0.1:
            row["instruction"] += rng.choice(("<video>", "<AUDIO>", "<|video_pad|>"))
        if rng.random() < 0.1:
            row["id"] = _ROUNDED
        row |= {key: "用户: 在吗" for key in _UNREAD if rng.random() < 0.2}
        found.append(sometimes(rng, 0.7, damaged_row, row))
    return found


def encoded(rng: Random, name: str, items: Sequence[Any]) -> bytes:
    """The items as a file of that format, as far as it can hold them."""
    if name == "m.json":
        return json.dumps(items, ensure_ascii=rng.random() < 0.5).encode(errors="surrogatepass")
    if name in ("lines.json", "m.jsonl"):
        return b"\n".join(json.dumps(row, ensure_ascii=False).encode(errors="surrogatepass") for row in items)
    fields: list[Row] = [row if isinstance(row, dict) else {"id": row} for row in items]
    if name == "m.csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, _COLUMNS, extrasaction="ignore", restval="")
        writer.writeheader()
        writer.writerows(fields)
        return out.getvalue().encode(errors="surrogatepass")
    columns = {
        column: [row.get(column) for row in fields] for column in _COLUMNS if column in _UNREAD or rng.random() < 0.97
    }
    return _parquet(columns)


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    arrays: dict[str, pa.Array] = {}
    for name, cells in columns.items():
        try:
            arrays[name] = pa.array(cells)
            if pa.types.is_struct(arrays[name].type) and not arrays[name].type.num_fields:
                raise TypeError("an object without fields, which Parquet can't hold")
        except (pa.ArrowException, UnicodeError, OverflowError, TypeError):
            # What no column of one type holds; and bytes that are not UTF-8, as other writers leave them.
            raw = [None if cell is None else str(cell).encode(errors="surrogatepass") for cell in cells]
            arrays[name] = pa.array(raw, pa.binary()).view(pa.string())
    out = io.BytesIO()
    pq.write_table(pa.table(arrays), out)
    return out.getvalue()


def bad_manifest(rng: Random, folder: Path) -> Result:
    """Write a bad manifest, or a folder with two, read it, and look whether every item came out."""
    images, pack, split = write_images(folder), rng.choice(PACKS), rng.choice(tuple(Split))
    watched = folder / "watched"
    watched.mkdir(exist_ok=True)
    for old in watched.iterdir():
        old.unlink()
    total: int | None = 0
    unread: Counter[str] = Counter()
    repeated = 0
    files: list[Path] = []
    for name in rng.sample(FORMATS, 2 if rng.random() < 0.2 else 1):
        items = rows(rng)
        data = encoded(rng, name, items)
        # A lone line that is a list is an array of items.
        whole = rng.random() < 0.6 and not (name == "lines.json" and len(items) == 1 and isinstance(items[0], list))
        files.append(watched / name)
        if whole:
            # An item with bytes that are not UTF-8 is dropped without being parsed.
            parsed = [row for row in items if isinstance(row, dict) and is_utf8(json.dumps(row, ensure_ascii=False))]
            unread.update(key for row in parsed for key in _UNREAD if _says(row.get(key)))
        if whole and "json" in name and b'"output":' in data and rng.random() < 0.1:
            data = data.replace(b'"output":', b'"output": "x", "output":', 1)
            repeated += 1
        files[-1].write_bytes(data if whole else damaged_bytes(rng, data))
        total = total + len(items) if whole and total is not None else None
    if len(files) > 1 and rng.random() < 0.3:
        (watched / "notes.txt").write_text(str(odd_value(rng)), encoding="utf-8", errors="replace")
    manifest = files[0] if len(files) == 1 else watched
    result = Result()
    try:
        intake = read_samples(manifest, images, pack, split)
    except ManifestError as error:
        return result.count_refusal(error, watched)
    reported = all(intake.unread.get(key, 0) >= n for key, n in unread.items())
    result.require(reported, f"{unread} unread: {intake.unread}")
    # A line that is not UTF-8 is not parsed.
    refused = sum(d.reason in (Reason.DUPLICATE_KEY, Reason.NOT_UTF8) for d in intake.dropped)
    result.require(refused >= repeated, "the first value of a repeated key is lost")
    return _judged(result, intake, total)


def _says(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _judged(result: Result, intake: Intake, total: int | None) -> Result:
    result.count(*("kept" for _ in intake.kept), *(d.reason for d in intake.dropped))
    result.require(len(intake.kept) + len(intake.dropped) == intake.read, "kept + dropped is not what was read")
    result.require(total is None or intake.read == total, f"{intake.read} read of {total} written")
    result.require({d.reason for d in intake.dropped} <= set(Reason), "a reason that is none")
    result.require(all(d.sample_id and d.detail for d in intake.dropped), "a drop without its item or its place")
    result.require(len({s.id for s in intake.kept}) == len(intake.kept), "an id twice")
    result.require(all(s.id != str(int(_ROUNDED)) for s in intake.kept), "a rounded id")
    texts = [part.text.lower() for s in intake.kept for part in s.parts if isinstance(part, TextPart)]
    result.require(not any("<video>" in text or "<audio>" in text for text in texts), "a video or audio is lost")
    for record in (*intake.kept, *intake.dropped):
        record.model_dump_json()  # what can't be written would be lost with its stage
    for image in (image for sample in intake.kept for image in sample.images):
        result.require("/images/" in image.path, f"{image.path} is outside the folder")
    return result
