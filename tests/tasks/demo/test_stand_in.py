from pathlib import Path

from tasks.demo.stand_in import answer_from_truth


def test_only_the_items_asked_about_are_answered(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text('{"id": "a", "label": "商品页", "wrong": true}\n{"id": "b", "label": "支付页", "wrong": false}\n')
    assert answer_from_truth(file, ["b", "c"]) == {"b": "支付页"}
