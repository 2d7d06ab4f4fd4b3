from pathlib import Path

from tasks.evaluation.table import Report, make_report
from tasks.report.card.evaluation import evaluation_of, students
from tests.tasks.evaluation.test_scores import answers


def made() -> Report:
    return make_report([*answers("raw", 0.7), *answers("all", 0.9, draw=1), *answers("ceiling", 0.95, draw=2)])


def test_an_evaluation_is_read_back_and_a_missing_or_broken_one_is_none(tmp_path: Path) -> None:
    assert evaluation_of(tmp_path) is None
    file = tmp_path / "evaluate" / "scores.json"
    file.parent.mkdir()
    file.write_text("{}")
    assert evaluation_of(tmp_path) is None
    report = made()
    file.write_text(report.model_dump_json())
    assert evaluation_of(tmp_path) == report


def test_the_section_names_each_variant_with_its_lift_and_the_gap() -> None:
    report = made()
    shown = students(report)
    assert report.gap_closed is not None
    assert f"closes {report.gap_closed.value:.0%}" in shown
    for s in report.scores:
        assert f"{s.accuracy.value:.1%}" in shown
    assert "3 seeds, 200 held-out items that were never taught" in shown
    assert 'class="chart"' in shown
    assert "By class, taught <code>all</code>" in shown


def test_a_transductive_set_is_not_said_to_hold_no_evaluation_item() -> None:
    shown = students(made(), transductive=True)
    assert "200 held-out items that may have been taught" in shown and "never taught" not in shown


def test_without_an_evaluation_there_is_no_section() -> None:
    assert students(None) == ""
