import numpy as np
import pytest

from tasks.correction.decide import correct
from tasks.correction.overlap import average_opinions, collect_opinions, rank_overlaps
from tasks.correction.settings import CorrectionSettings
from tests.tasks.correction.judging import make_judgements


def see(rows: list[list[float]]) -> list[np.ndarray]:
    return [np.array(rows, dtype=np.float32)]


def test_labels_that_nobody_can_tell_apart_overlap_by_half_however_rare_one_is() -> None:
    given = np.array([0] * 90 + [1] * 10 + [2] * 50)
    swallowed = see([[0.9, 0.1, 0]] * 100 + [[0, 0, 1]] * 50)
    first, *rest = rank_overlaps(given, swallowed)
    assert (first.first, first.second) == (0, 1)
    assert (first.share, first.first_as_second, first.second_as_first) == pytest.approx((0.5, 0.1, 0.9))
    assert 0.35 < first.least < 0.5 and all(pair.least < 0.02 for pair in rest)


def test_a_habit_in_one_direction_counts_half_and_few_items_count_less() -> None:
    given = np.array([0] * 50 + [1] * 50 + [2] * 2 + [3] * 2)
    rows = [[0.7, 0.3, 0, 0]] * 50 + [[0, 1, 0, 0]] * 50 + [[0, 0, 0.7, 0.3]] * 2 + [[0, 0, 0.3, 0.7]] * 2
    pairs = {(p.first, p.second): p for p in rank_overlaps(given, see(rows))}
    assert pairs[0, 1].share == pytest.approx(0.15) and pairs[2, 3].share == pytest.approx(0.3)
    assert pairs[2, 3].least < pairs[0, 1].least


def test_opinions_about_an_item_count_equally_and_silence_counts_for_nothing() -> None:
    students = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    teacher = np.array([[np.nan, np.nan], [0.0, 1.0], [np.nan, np.nan]])
    mean, judged = average_opinions([students, teacher])
    assert mean.tolist() == [[1, 0], [0.25, 0.75], [0, 1]] and judged.all()


def test_people_count_as_one_opinion_and_neither_as_none() -> None:
    judgements = make_judgements([0, 1, 1], [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    verdicts = {0: 1, 1: -1}
    settings = CorrectionSettings(review_budget=0)
    decisions = correct(judgements, settings, (), lambda items: {}, verdicts)
    students, people = collect_opinions(decisions)
    assert students is judgements.students
    assert people[0].tolist() == [0, 1] and np.isnan(people[1:]).all()
