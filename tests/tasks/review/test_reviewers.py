from pathlib import Path

import pytest

from tasks.errors import ConfigError
from tasks.review.reviewers import read_verdicts


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "verdicts.jsonl"


def asked(*ids: str) -> dict[str, list[str]]:
    return {key: ["商品页", "支付页"] for key in ids}


def test_a_label_that_the_item_does_not_offer_is_named(file: Path) -> None:
    file.write_text('{"id": "a", "verdict": "商品页面"}\n')
    with pytest.raises(ConfigError, match=r"verdicts\.jsonl, line 1: `商品页面` is no label of item a"):
        read_verdicts("verdict_file", file, asked("a"))


def test_only_the_items_asked_about_are_answered(file: Path) -> None:
    file.write_text(
        '{"id": "a", "verdict": "商品页"}\n\n{"id": "b", "verdict": "neither"}\n{"id": 7, "verdict": "支付页"}\n'
    )
    assert read_verdicts("verdict_file", file, asked("a", "7", "c")) == {"a": "商品页", "7": "支付页"}


def test_the_stand_in_reads_the_truth_of_the_items_asked_about(file: Path) -> None:
    file.write_text(
        '{"id": "a", "label": "商品页", "planted": true}\n{"id": "b", "label": "支付页", "planted": false}\n'
    )
    assert read_verdicts("demo_stand_in", file, asked("b")) == {"b": "支付页"}


def test_an_empty_verdict_leaves_the_case_open(file: Path) -> None:
    lines = ['{"id": "a", "verdict": null}', '{"id": "b", "verdict": " "}', '{"id": "c", "verdict": " 商品页 "}']
    file.write_text("\n".join(lines))
    assert read_verdicts("verdict_file", file, asked("a", "b", "c")) == {"c": "商品页"}


@pytest.mark.parametrize("line", ["{", "[]", '"a"', '{"verdict": "x"}', '{"id": "b"}', '{"id": "b", "verdict": 3}'])
def test_a_line_that_is_no_verdict_is_named(file: Path, line: str) -> None:
    file.write_text('{"id": "a", "verdict": "商品页"}\n' + line + "\n")
    with pytest.raises(ConfigError, match=r"verdicts\.jsonl, line 2: .*verdict"):
        read_verdicts("verdict_file", file, asked("a"))


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"verdicts\.jsonl"):
        read_verdicts("verdict_file", file, {})
