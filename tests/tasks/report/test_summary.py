from pathlib import Path

from tasks.report.summary import summarize_run
from tests.tasks.report.made_run import make_run


def test_the_summary_says_what_came_in_what_changed_and_what_is_expected(tmp_path: Path) -> None:
    results = dict(summarize_run(make_run(tmp_path / "run")).results)
    assert results["Labelled items"] == "60 of 61 usable; 1 cannot be used: image missing 1"
    assert results["Pool"] == "60 of 60 usable"
    assert results["Pseudo-labels"].startswith("48 of 60 items in the pool got one that can be trusted; 96.0%")
    assert results["Training set"] == "109 examples; 12 left out"


def test_comparisons_come_after_the_results(tmp_path: Path) -> None:
    summary = summarize_run(make_run(tmp_path / "run", 6), compared=[("Right labels", "88.0% before, 99.8% after")])
    assert summary.results[-1] == ("Right labels", "88.0% before, 99.8% after")


def test_warnings_of_the_card_are_shown_and_a_licence_removes_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 6)
    assert any("No licence" in warning for warning in summarize_run(run).warnings)
    assert not any("No licence" in warning for warning in summarize_run(run, "cc0-1.0").warnings)


def test_a_transductive_set_is_the_first_warning(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", 6, figures={"transductive": 1.0})
    assert summarize_run(run).warnings[0].startswith("Transductive: this training set may contain evaluation items")


def test_the_text_is_one_screen_and_names_existing_files(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    (run / "card").mkdir()
    (run / "card" / "index.html").touch()
    text = summarize_run(run).to_text()
    assert len(text.splitlines()) <= 40
    assert f"  card  {run / 'card' / 'index.html'}" in text.splitlines()


def test_a_run_without_stages_has_a_summary(tmp_path: Path) -> None:
    assert "Questions" in summarize_run(tmp_path).to_text()
