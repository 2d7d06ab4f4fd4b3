"""The card's section on the students that an evaluation trained."""

from pathlib import Path

from tasks.evaluation.table import Report, make_report
from tasks.report.card.card import CardSettings, write_card
from tasks.report.card.facts import read_facts
from tests.tasks.evaluation.test_scores import answers
from tests.tasks.report.made_run import make_run


def make_evaluation() -> Report:
    return make_report([*answers("raw", 0.7), *answers("all", 0.9, draw=1), *answers("ceiling", 0.95, draw=2)])


def write_evaluated_card(run: Path) -> str:
    """Return the page of the run's card, white space made single, with the evaluation of `make_evaluation`."""
    (run / "evaluate").mkdir(parents=True)
    (run / "evaluate" / "scores.json").write_text(make_evaluation().model_dump_json())
    return " ".join(write_card(run, CardSettings(title="evaluated")).read_text("utf-8").split())


def test_an_evaluation_is_read_and_a_missing_or_broken_one_is_none(tmp_path: Path) -> None:
    assert read_facts(tmp_path).evaluation is None
    file = tmp_path / "evaluate" / "scores.json"
    file.parent.mkdir()
    file.write_text("{}")
    assert read_facts(tmp_path).evaluation is None
    report = make_evaluation()
    file.write_text(report.model_dump_json())
    assert read_facts(tmp_path).evaluation == report


def test_the_section_names_each_variant_with_its_lift_and_the_gap(tmp_path: Path) -> None:
    report = make_evaluation()
    page = write_evaluated_card(tmp_path / "run")
    assert report.gap_closed is not None
    assert f"closes {report.gap_closed.value:.0%}" in page
    for s in report.scores:
        assert f"{s.accuracy.value:.1%}" in page
    assert "3 seeds. It was tested on 200 held-out items, which are not in the training set" in page
    assert 'aria-label="chart: students"' in page
    assert "By class, trained on <code>all</code>" in page


def test_the_section_of_a_transductive_set_warns_about_held_out_items(tmp_path: Path) -> None:
    page = write_evaluated_card(make_run(tmp_path / "run", 6, figures={"transductive": 1.0}))
    assert "200 held-out items, which may be in the training set" in page


def test_without_an_evaluation_there_is_no_section(tmp_path: Path) -> None:
    assert 'id="students"' not in write_card(tmp_path, CardSettings(title="not evaluated")).read_text("utf-8")
