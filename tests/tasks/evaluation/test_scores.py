import numpy as np
import pytest

from tasks.evaluation.scores import Scored, measure_gap_closed, measure_lift, score
from tasks.evaluation.table import compare, describe, make_report


def answers(variant: str, right: float, *, seeds: int = 3, items: int = 200, draw: int = 0) -> list[Scored]:
    """Answers of which about the share `right` is right; the classes are a, b and c."""
    rng = np.random.default_rng(draw)
    rows: list[Scored] = []
    for seed in range(seeds):
        for i in range(items):
            truth = "abc"[i % 3]
            label = truth if rng.random() < right else "abc"[(i + 1) % 3]
            rows.append(Scored(sample_id=f"i{i}", variant=variant, seed=seed, truth=truth, label=label))
    return rows


def test_a_score_counts_what_is_right_by_seed_and_by_class() -> None:
    rows = [
        Scored(sample_id=i, variant="raw", seed=seed, truth=truth, label=label)
        for seed, labels in ((0, ["x", "x", "y", None]), (1, ["x", "y", "y", "y"]))
        for i, truth, label in zip("pqrs", ["x", "x", "y", "y"], labels, strict=True)
    ]
    found = score("raw", rows)
    assert (found.seeds, found.items, found.by_seed) == (2, 4, (0.75, 0.75))
    assert found.accuracy.value == 0.75
    assert found.accuracy.low < 0.75 < found.accuracy.high
    by_label = {c.label: c for c in found.classes}
    assert (by_label["x"].precision, by_label["x"].recall, by_label["x"].items) == (1.0, 0.75, 2)
    assert found.confusion == {"x": {"x": 3, "y": 1}, "y": {"y": 3, "(none)": 1}}
    # x: 2·3/(4+3), y: 2·3/(4+4)
    assert found.macro_f1.value == pytest.approx((6 / 7 + 6 / 8) / 2)


def test_the_agreement_of_reason_and_label_is_of_the_items_that_were_asked() -> None:
    row = Scored(sample_id="i", variant="all", seed=0, truth="x", label="x")
    assert score("all", [row]).agreement is None
    reasoned = [row.model_copy(update={"sample_id": str(i), "reasoned": "x" if i else "y"}) for i in range(4)]
    assert score("all", reasoned).agreement == 0.75


def test_a_lift_is_found_and_none_is_not() -> None:
    low, high, same = answers("raw", 0.8), answers("all", 0.95, draw=1), answers("b", 0.8, draw=2)
    gain = measure_lift("raw", low, "all", high).points
    assert gain.low > 0.08
    assert 0.1 < gain.value < 0.2
    nothing = measure_lift("raw", low, "b", same).points
    assert nothing.low < 0 < nothing.high


def test_an_interval_covers_the_true_share_as_often_as_it_says() -> None:
    covered = 0
    for draw in range(60):
        accuracy = score("raw", answers("raw", 0.8, seeds=2, items=100, draw=draw)).accuracy
        covered += accuracy.low <= 0.8 <= accuracy.high
    assert covered >= 52  # of 57 expected; fewer than 52 happens once in 200 times


def test_the_gap_closed_is_the_share_of_the_way_from_raw_to_the_ceiling() -> None:
    way = measure_gap_closed(answers("raw", 0.7), answers("all", 0.85, draw=1), answers("ceiling", 1.0, draw=2))
    assert 0.4 < way.value < 0.6
    assert way.low < way.value < way.high


def test_seeds_with_missing_answers_are_refused_by_name() -> None:
    rows = answers("raw", 0.8, seeds=2, items=5)
    with pytest.raises(ValueError, match="1 answers are missing, the first of seed 1 about item i4"):
        score("raw", rows[:-1])


def test_a_report_compares_with_raw_and_says_so_in_a_table() -> None:
    report = make_report([*answers("raw", 0.7), *answers("all", 0.9, draw=1), *answers("ceiling", 0.95, draw=2)])
    assert [x.variant for x in report.lifts] == ["all", "ceiling"]
    assert report.gap_closed is not None
    assert report.figures()["gap closed"] == report.gap_closed.value
    text = describe(report)
    assert "200 held-out items, 3 students each" in text
    assert "`all` closes" in text


def test_the_table_of_a_transductive_set_begins_with_the_warning() -> None:
    rows = answers("raw", 0.7)
    assert describe(make_report(rows, transductive=True)).startswith("**Transductive: this training set may contain")
    assert "ransductive" not in describe(make_report(rows))


def test_two_runs_are_compared_on_what_both_answered() -> None:
    old, new = answers("all", 0.7), answers("all", 0.9, draw=1)
    text = compare("old", old, "new", [x for x in new if x.sample_id != "i0"])
    assert "199 held-out items in common" in text
    assert "| all | " in text
    assert "F1 by class" in text
    with pytest.raises(ValueError, match="no variant"):
        compare("old", old, "new", answers("raw", 0.7))


def test_every_variant_is_compared_and_every_class_that_either_run_gave() -> None:
    order = ("raw", "all", "phased", "ceiling")
    old = [x for v in order for x in answers(v, 0.9, items=60)]
    new = [x.model_copy(update={"label": "d"}) if x.sample_id == "i0" else x for x in old]
    text = compare("old", old, "new", new)
    taught = [line.split(" | ")[0].removeprefix("| ") for line in text.splitlines() if "] | " in line]
    assert taught == list(order)
    assert "F1 by class, trained on `all`" in text
    assert "| d | 0 | 0.0% | 0.0% | +0.0 |" in text
