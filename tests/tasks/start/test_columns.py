import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.errors import ConfigError, ManifestError
from tasks.start.columns import Found, find_columns
from tasks.start.conversions import Row
from tasks.start.data import read_data

NUMBERS = range(40)
TEXT = [f"a text of some length, number {n}" for n in NUMBERS]
KIND = [("cat", "dog")[n % 2] for n in NUMBERS]
DATE = [f"Mon, {n % 28 + 1} Jan 2026 10:{n:02d}:00 GMT" for n in NUMBERS]
PLACE = [("living room", "front garden")[n // 20] for n in NUMBERS]
KEY = [f"a7f{n:05d}" for n in NUMBERS]
FILE = [f"{n}.png" for n in NUMBERS]


def find(wanted: str | None = None, **columns: Sequence[object]) -> Found:
    rows: list[Row] = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    return find_columns(rows, {"output": wanted}, None)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"uid": NUMBERS, "text": TEXT, "label": KIND}, ("uid", "text", None, "label")),
        ({"file_name": FILE, "class": KIND}, (None, None, "file_name", "class")),
        ({"编号": NUMBERS, "内容": TEXT, "图片": FILE, "意图": KIND}, ("编号", "内容", "图片", "意图")),
        ({"a": TEXT, "b": KIND, "c": FILE, "d": NUMBERS}, (None, "a", "c", "b")),
        ({"id": [n // 8 for n in NUMBERS], "text": TEXT, "label": KIND}, (None, "text", None, "label")),
        ({"text": TEXT, "productCategory": KIND, "split": ["train"] * 40}, (None, "text", None, "productCategory")),
        ({"text": TEXT, "label": [n % 3 for n in NUMBERS], "price": [n / 7 for n in NUMBERS]},
         (None, "text", None, "label")),
        ({"image": FILE, "created_at": DATE, "when": DATE, "place": PLACE, "key": KEY, "label": KIND},
         ("key", None, "image", "label")),
        ({"text": PLACE, "note": TEXT, "label": KIND}, (None, "text", None, "label")),
        ({"image": [[name] for name in FILE], "answer": KIND}, (None, None, "image", "answer")),
    ],
)  # fmt: skip
def test_columns_are_found_by_name_and_content(
    columns: dict[str, Sequence[object]], expected: tuple[str | None, ...]
) -> None:
    found = find(**columns)
    assert (found.id, found.instruction, found.image, found.output) == expected
    assert found.remarks == ()


def test_a_person_decides_between_columns_that_fit_equally() -> None:
    rows: list[Row] = [{"text": text, "tag": text[-1], "label": kind} for text, kind in zip(TEXT, KIND, strict=True)]
    asked: list[tuple[str, list[str]]] = []

    def ask(question: str, answers: Sequence[str]) -> str:
        asked.append((question, list(answers)))
        return answers[-1]

    assert find_columns(rows, {}, ask).output == "tag"
    assert asked == [("Which column is the label?", ["label", "tag"])]
    assert find_columns(rows, {}, None).remarks == ("assumed: label is `label`, not `tag`; --label changes it",)
    assert find_columns(rows, {"output": "tag"}, None).remarks == ()
    constant: list[Row] = [row | {"label": "x"} for row in rows]
    assert find_columns(constant, {}, None).output == "tag"


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ConfigError, match="--label: no column `kind` with content; there are `text`, `label`"):
        find("kind", text=TEXT, label=KIND)
    with pytest.raises(ManifestError, match="no column has labels; the columns are `text`"):
        find(text=TEXT)
    with pytest.raises(ManifestError, match="no column has texts, images or recordings"):
        find(label=KIND)


def test_boxes_are_found_where_intake_can_read_them(tmp_path: Path) -> None:
    rows = [{"id": str(n), "text": TEXT[n], "label": KIND[n], "boxes": str(n)} for n in NUMBERS]
    swift = {"bbox": [[1, 2, 3, 4]], "ref": ["x"]}
    manifest = tmp_path / "train.json"
    manifest.write_text(json.dumps([row | {"objects": swift if row["id"] == "7" else None} for row in rows]))
    columns = read_data(manifest, None, tmp_path / "items", {}, None).columns
    assert columns.boxes == "objects"  # `boxes` counts something here
