import json
from pathlib import Path

import pytest

from tasks.demo.evaluation import DemoFigures, Found, describe, evaluate_demo
from tasks.records import Action
from tasks.storage.rows import write_rows
from tests.tasks.making import correction, prediction, proposal

RIGHT, WRONG, THIRD = "申请退款", "查询物流", "反馈破损"


@pytest.fixture
def figures(tmp_path: Path) -> DemoFigures:
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
    return evaluate_demo(tmp_path, file)


def test_the_figures_equal_a_count_by_hand(figures: DemoFigures) -> None:
    assert figures == DemoFigures(
        teacher_accuracy=0.5,
        pool=4,
        kept_pseudo=2,
        kept_precision=0.5,
        planted=4,
        disagreements=Found(4, precision=0.75, recall=0.75),  # b, c, e, f
        adjudicated=Found(3, precision=2 / 3, recall=0.5),  # b, c, e
        held_wrong=Found(3, precision=2 / 3, recall=0.5),  # b, c, e
        changed=2,
        changed_right=1,
        changed_unreviewed=1,
        changed_unreviewed_right=1,
        reviewed=2,
        label_accuracy_before=2 / 6,
        label_accuracy_after=3 / 5,
    )


def test_the_summary_has_all_figures(figures: DemoFigures) -> None:
    text = "\n".join(line for _, line in describe(figures))
    for words in (
        "4 labels were made wrong on purpose",
        "33.3% before, 60.0% after",
        "1 of 2 changed to the true label; without review 1 of 1",
        "4, precision 75.0%, recall 75.0%",
        "50.0% of 2 kept ones are right; the teacher alone: 50.0% of 4",
    ):
        assert words in text
