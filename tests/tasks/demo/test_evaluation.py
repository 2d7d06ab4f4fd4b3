import json
from pathlib import Path

import pytest

from tasks.demo.evaluation import compare_with_truth
from tasks.records import Action
from tasks.storage.rows import write_rows
from tests.tasks.making import correction, prediction, proposal

RIGHT, WRONG, THIRD = "申请退款", "查询物流", "反馈破损"


@pytest.fixture
def figures(tmp_path: Path) -> dict[str, str]:
    """Six labelled items: a and b right, c to f planted; d the student overlooks, e is changed to a third label."""
    truth = dict.fromkeys("ab", RIGHT) | dict.fromkeys("cdef", WRONG) | dict.fromkeys(("p1", "p2", "p3", "p4"), RIGHT)
    file = tmp_path / "truth.jsonl"
    file.write_text("".join(json.dumps({"id": id, "label": label}) + "\n" for id, label in truth.items()))
    cases = [
        correction("a"),
        proposal("b"),  # a proposal that would do harm; it waits
        proposal("c", action=Action.RELABEL, label=WRONG),
        correction("d"),
        proposal(
            "e", action=Action.RELABEL, label=THIRD, candidate=THIRD, predicted=THIRD, adjudicated=THIRD, reviewed=True
        ),
        correction("f", predicted=THIRD, action=Action.DROP, label=None, reviewed=True, verdict="neither"),
    ]
    pool = [prediction("p1"), prediction("p2"), prediction("p3", WRONG), prediction("p4", None)]
    for folder in ("correction", "pseudo_labels"):
        (tmp_path / folder).mkdir()
    write_rows(tmp_path / "correction" / "kept.parquet", cases)
    write_rows(tmp_path / "pseudo_labels" / "predictions.parquet", pool)
    write_rows(tmp_path / "pseudo_labels" / "kept.parquet", pool[1:3])
    return dict(compare_with_truth(tmp_path, file))


def test_the_figures_equal_a_count_by_hand(figures: dict[str, str]) -> None:
    assert figures["Compared with the truth"].startswith("4 labels were made wrong on purpose")
    assert "33.3% before, 60.0% after" in figures["Compared with the truth"]
    assert "1 of 2 changed to the true label; without review 1 of 1; 2 reviewed" in figures["  labels changed"]
    assert figures["  found by students"].startswith("4, precision 75.0%, recall 75.0%")  # b, c, e, f
    assert figures["  found by the teacher"].startswith("3, precision 66.7%, recall 50.0%")  # b, c, e
    assert figures["  found by both"].startswith("3, precision 66.7%, recall 50.0%")  # b, c, e
    assert figures["  pseudo-labels"] == "50.0% of 2 kept ones are right; the teacher alone: 50.0% of 4"
