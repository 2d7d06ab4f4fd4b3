import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import ConfigError
from tasks.records import Dropped
from tasks.storage.json_lines import escape_json, read_models, read_objects, write_json_lines


def make_dropped(sample_id: str) -> Dropped:
    return Dropped(sample_id=sample_id, stage="x", reason="y")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "new" / "rows.jsonl"
    write_json_lines(file, [make_dropped("一\u2028"), {"a": 1}])
    assert file.read_bytes().count(b"\n") == 2
    objects = list(read_objects(file, ConfigError, "advice"))
    assert [n for n, _ in objects] == [1, 2] and objects[0][1]["sample_id"] == "一\u2028"


def test_byte_order_mark_and_blank_lines_are_no_content(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert list(read_objects(file, ConfigError, "advice")) == [(1, {"a": 1}), (4, {"a": 2})]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"a": ', "rows.jsonl, line 2: not JSON: .*; write it again"),
        (b'{"a": NaN}', "rows.jsonl, line 2: not JSON: NaN is not a JSON number; write it again"),
        (b"[1]", "rows.jsonl, line 2: must be a JSON object; write it again"),
        (b'{"a": "\xff"}', "rows.jsonl, line 2: not JSON"),
    ],
)
def test_a_faulty_line_is_named(tmp_path: Path, line: bytes, says: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"{}\n" + line + b"\n")
    with pytest.raises(ConfigError, match=says):
        list(read_objects(file, ConfigError, "write it again"))


def test_a_line_that_is_not_the_model_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    write_json_lines(file, [make_dropped("a"), {"sample_id": "b"}])
    with pytest.raises(ConfigError, match=r"line 2: not a valid drop \(stage: Field required\); advice"):
        list(read_models(file, Dropped, "drop", ConfigError, "advice"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl: cannot be read: No such file or directory; advice"):
        list(read_objects(tmp_path / "none.jsonl", ConfigError, "advice"))


@given(st.text())
def test_an_escaped_text_stands_between_quotes(text: str) -> None:
    assert json.loads(f'"{escape_json(text)}"') == text
