"""Damaged ledgers, snapshots, mixes and images, into the readers that open them."""

import io
import json
import os
import warnings
from functools import cache
from pathlib import Path
from random import Random

from PIL import Image

from tasks.dataset.general_mix import draw_mix
from tasks.dataset.versions import open_snapshot
from tasks.errors import LabelstillError, LedgerError
from tasks.items.images import check_image
from tasks.items.refusals import Unusable
from tasks.models.ledger.ledger import Ledger
from tasks.models.ledger.tools import read_stats
from tasks.records import Generation
from tasks.storage.rows import write_rows
from tests.properties.damage import Row, damaged_bytes, damaged_row, sometimes
from tests.properties.result import Result
from tests.tasks.making import generation
from tests.tasks.questions import question

KEYS = tuple(f"{n:064x}" for n in range(40))


def _answer(key: str, text: str = "回答" * 50) -> Generation:
    return generation(key, texts=(text,), engine="server/m")


@cache
def _ledger(folder: Path) -> bytes:
    path = folder / "whole.sqlite"
    with Ledger(path) as ledger:
        for key in KEYS:
            ledger.put(question(key), _answer(key))
    return path.read_bytes()


def _torn(rng: Random, data: bytes) -> bytes:
    """What disks and file systems do to a file: pages of zeros or of something else, an end that is missing."""
    for _ in range(rng.randint(1, 3)):
        page = 4096 * rng.randrange(max(1, len(data) // 4096))
        length = rng.choice((1, 100, 4096, 3 * 4096))
        way = rng.randrange(4)
        if way == 0:
            data = data[:page]
        elif way == 1:
            data = data[:page] + bytes(len(data[page : page + length])) + data[page + length :]
        elif way == 2:
            data = data[:page] + rng.randbytes(len(data[page : page + length])) + data[page + length :]
        else:
            data = damaged_bytes(rng, data)
    return data


def bad_ledger(rng: Random, folder: Path) -> Result:
    """Open a damaged ledger, look up, write, and read again: each answer is right, asked again, or refused aloud.

    The file never vanishes: one that can't be used is set aside.
    """
    whole = _ledger(folder)
    path, result = folder / "ledger.sqlite", Result()
    for old in folder.glob("ledger.sqlite*"):
        old.unlink()
    path.write_bytes(_torn(rng, whole))
    damaged, new = path.read_bytes(), "f" * 64
    try:
        with Ledger(path) as ledger:
            found = ledger.get([*KEYS, new])
            ledger.put(question(new), _answer(new, "neu"))
            ledger.flush()
            result.require(ledger.get([new]).get(new) == _answer(new, "neu"), "an answer that was just written is gone")
        aside = next(folder.glob("ledger.sqlite.*-[0-9]*[0-9]"), None)
        read_stats(path)
    except LedgerError as error:
        result.require(path.exists(), "the file is gone")
        return result.count_refusal(error, path)
    result.require(aside is None or aside.read_bytes()[:100] == damaged[:100], "the file set aside is another")
    wrong = [key for key, answer in found.items() if key not in KEYS or answer.key != key]
    result.require(not wrong, f"{len(wrong)} answers to other questions")
    altered = sum(answer != _answer(key) for key, answer in found.items() if key in KEYS)
    right = len(found) - altered
    if altered:
        return result.count("read, some bytes altered")
    return result.count("set aside" if aside else "whole" if right == len(KEYS) else "some asked again")


@cache
def _snapshot(folder: Path) -> bytes:
    from tasks.records import Example, Message, Origin
    from tests.tasks.making import image

    rows = [
        Example(
            sample_id=f"s{n}",
            messages=(Message(role="user", content=f"<image>在吗{n}"), Message(role="assistant", content="在")),
            images=(image("a" * 64),), label="申请退款", origin=Origin.GIVEN, why="given", source="m.json",
        )
        for n in range(30)
    ]  # fmt: skip
    write_rows(folder / "kept.parquet", rows)
    return (folder / "kept.parquet").read_bytes()


def bad_snapshot(rng: Random, folder: Path) -> Result:
    """Open the damaged examples of an emission as a version."""
    whole = _snapshot(folder)
    path, result = folder / "snapshot.parquet", Result()
    path.write_bytes(damaged_bytes(rng, whole))
    try:
        snapshot = open_snapshot(str(path))
    except LabelstillError as error:
        return result.count_refusal(error, path)
    return result.require(snapshot.rows == 30, f"{snapshot.rows} rows of 30").count("read")


def bad_mix(rng: Random, folder: Path) -> Result:
    """Draw from a bad file of conversations: every line is taught or left out with its reason."""
    Image.new("RGB", (40, 30)).save(folder / "a.png")
    turns: list[Row] = [{"role": "user", "content": "<image>什么"}, {"role": "assistant", "content": "杯子"}]
    rows = [
        {"messages": turns, "images": [rng.choice(("a.png", "none.png", "../x.png", "/etc/hosts"))]} for _ in range(4)
    ]
    damaged = [sometimes(rng, 0.6, damaged_row, row) for row in rows]
    lines, result = rng.random() < 0.6, Result()
    file = folder / ("mix.jsonl" if lines else "mix.json")
    text = "".join(json.dumps(row) + "\n" for row in damaged) if lines else json.dumps(damaged)
    data = text.encode()
    whole = rng.random() < 0.6
    file.write_bytes(data if whole else damaged_bytes(rng, data))
    try:
        drawn = draw_mix(file, folder, 10, 0)
    except LabelstillError as error:
        return result.count_refusal(error, file)
    result.require(not whole or len(drawn) == 4, f"{len(drawn)} rows of 4")
    explained = all(row.example is not None or (row.reason and row.detail) for row in drawn)
    result.require(explained, "left out without a word")
    return result.count(*("kept" if row.example else row.reason for row in drawn))


@cache
def _pictures() -> tuple[bytes, ...]:
    picture = Image.effect_noise((48, 32), 80).convert("RGB")
    made: list[bytes] = []
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"):
        out = io.BytesIO()
        picture.save(out, kind)
        made.append(out.getvalue())
    return tuple(made)


def bad_image(rng: Random, folder: Path) -> Result:
    """Check a damaged image file: measured, or refused with a reason that names it."""
    file, result = folder / "image", Result()
    file.write_bytes(damaged_bytes(rng, rng.choice(_pictures())))
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            found = check_image(file, 10**6)
        except Unusable as why:
            return result.require(os.fspath(file) in why.detail, f"names no file: {why.detail}").count(why.reason)
    return result.require(found.width > 0 and found.height > 0, "no size").count("kept")
