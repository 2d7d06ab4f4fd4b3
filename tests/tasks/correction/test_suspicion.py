import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.correction.judgements import Judgements
from tasks.correction.suspicion import measure_suspicion, temper
from tests.benchmarks.correction.students import Student
from tests.tasks.correction.judging import (
    change_confidence,
    judge_noisy_set,
    make_judgements,
    make_noisy_set,
    measure_evidence,
)


@st.composite
def some_judgements(draw: st.DrawFn) -> Judgements:
    labels, items = draw(st.integers(1, 4)), draw(st.integers(1, 8))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    # Most rows have zeros; some have all their weight on one label.
    table = rng.random((items, labels)) * (rng.random((items, labels)) < draw(st.floats(0.1, 1)))
    table[np.arange(items), rng.integers(labels, size=items)] += 0.01
    return make_judgements(rng.integers(labels, size=items).tolist(), table / table.sum(axis=1, keepdims=True))


# --- tempering -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0.3, 0.6, 2.0])
@pytest.mark.parametrize("noise", ["symmetric", "human-like"])
def test_over_and_underconfident_students_end_on_one_scale(noise: str, power: float) -> None:
    plain = judge_noisy_set(make_noisy_set(noise, 0.15))
    tempered, again = temper(plain), temper(change_confidence(plain, power))
    assert np.abs(np.exp(tempered) - np.exp(again)).max() < 0.05
    # The other way round it would be no test: untempered, the same rows are far apart.
    assert np.abs(plain.students - change_confidence(plain, power).students).max() > 0.15


def test_tempered_rows_are_probabilities_in_the_same_order() -> None:
    judgements = judge_noisy_set(make_noisy_set())
    tempered = np.exp(temper(judgements))
    assert tempered.sum(axis=1) == pytest.approx(np.ones(600))
    assert (tempered.argmax(axis=1) == judgements.students.argmax(axis=1)).all()


def test_an_overconfident_student_is_made_less_sure_and_a_timid_one_surer() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=500)
    predicted = np.where(rng.random(500) < 0.7, truth, rng.integers(3, size=500))  # right on 80 %
    for sure, top in ((0.998, 0.8), (0.4, 0.8)):
        table = np.full((500, 3), (1 - sure) / 2)
        table[np.arange(500), predicted] = sure
        assert np.exp(temper(make_judgements(truth.tolist(), table))).max(axis=1) == pytest.approx(
            np.full(500, top), abs=0.06
        )


# --- the figures of an item ----------------------------------------------------------------------------------


def test_the_candidate_is_the_best_label_but_the_given() -> None:
    students = [[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.0, 1.0, 0.0]]
    found = measure_evidence(make_judgements([0, 1, 0, 0], students))
    assert found.candidate.tolist() == [1, 0, 2, 1]
    assert found.margin == pytest.approx([-0.5, 0.5, 0.5, 1])
    assert found.entropy == pytest.approx([0.8018, 0.8018, 0.8979, 0], abs=1e-3)
    assert found.teacher_log_ratios.tolist() == [[0]] * 4
    assert (found.log_ratio > 0).tolist() == [False, True, True, True]
    assert found.log_ratio.argmax() == 3


@settings(max_examples=100, deadline=None)
@given(some_judgements())
def test_figures_are_numbers_and_say_what_they_should(judgements: Judgements) -> None:
    found = measure_evidence(judgements)
    students, items = judgements.students, np.arange(len(judgements.ids))
    for values in (found.margin, found.entropy, found.log_ratio, found.others):
        assert np.isfinite(values).all()
    others = students.copy()
    others[items, judgements.given] = -1
    possible = others.max(axis=1) > 0
    assert ((found.candidate >= 0) == possible).all()
    assert (found.candidate != judgements.given).all()
    assert others[items, found.candidate][possible] == pytest.approx(others.max(axis=1)[possible])
    assert (found.entropy > -1e-6).all() and (found.entropy < np.log(len(judgements.labels)) + 1e-6).all()
    assert ((found.log_ratio > 0) <= (found.margin >= 0)).all()


@pytest.mark.parametrize("given_label", [0, 1, 2])
def test_an_item_whose_given_label_has_all_the_probability_is_the_least_suspicious(given_label: int) -> None:
    """Files that leave small probabilities out have many of them; which label it is must not matter."""
    students = np.full((30, 3), 0.1)
    students[np.arange(30), np.arange(30) % 3] = 0.8
    students[0] = np.eye(3)[given_label]
    given_labels = (np.arange(30) % 3).tolist()
    given_labels[0] = given_label
    found = measure_evidence(make_judgements(given_labels, students))
    assert found.candidate[0] == -1
    assert found.log_ratio[0] == found.log_ratio.min() and found.log_ratio[0] < found.log_ratio[1:].min()
    assert found.margin[0] == found.margin.min() == pytest.approx(-1)


# --- with a teacher ------------------------------------------------------------------------------------------


def fill_teacher_rows(rows: dict[int, list[float]], items: int, labels: int) -> NDArray[np.float32]:
    table = np.full((items, labels), np.nan, dtype=np.float32)
    for item, row in rows.items():
        table[item] = row
    return table


def test_the_teacher_counts_where_it_was_asked_and_nowhere_else() -> None:
    judgements = make_judgements([0, 0, 0, 1], [[0.4, 0.5, 0.1], [0.4, 0.5, 0.1], [0.4, 0.5, 0.1], [0.1, 0.8, 0.1]])
    tempered = temper(judgements)
    alone = measure_suspicion(judgements, tempered)
    # For the given label; for a third one, which becomes the candidate.
    found = measure_suspicion(
        judgements, tempered, [fill_teacher_rows({0: [0.9, 0.05, 0.05], 1: [0.02, 0.08, 0.9]}, 4, 3)]
    )
    assert found.candidate.tolist() == [1, 2, 1, 0]
    assert found.teacher_log_ratios[:, 0] == pytest.approx(
        [np.log(0.051 / 0.901), np.log(0.901 / 0.021), 0, 0], abs=1e-3
    )
    assert found.log_ratio[2:] == pytest.approx(alone.log_ratio[2:]) and found.others[2:] == pytest.approx(
        alone.others[2:]
    )
    assert found.others[1] == pytest.approx(np.log(0.901 / 0.081), abs=1e-3)


def test_a_label_that_only_the_teacher_thinks_possible_can_be_the_candidate() -> None:
    judgements = make_judgements([0, 0, 1], [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.1, 0.8, 0.1]])
    found = measure_suspicion(judgements, temper(judgements), [fill_teacher_rows({0: [0.0, 0.0, 1.0]}, 3, 3)])
    assert found.candidate.tolist()[:2] == [2, -1]


def test_a_teacher_that_was_asked_nothing_changes_nothing() -> None:
    judgements = judge_noisy_set(make_noisy_set(students=(Student("zero-shot", blur=1.0),)))
    tempered = temper(judgements)
    alone, found = (
        measure_suspicion(judgements, tempered),
        measure_suspicion(judgements, tempered, [fill_teacher_rows({}, 600, 10)]),
    )
    for name in ("candidate", "log_ratio", "others", "margin"):
        assert (getattr(alone, name) == getattr(found, name)).all()
    assert not found.teacher_log_ratios.any()


def test_teachers_stand_side_by_side_and_choose_the_candidate_together() -> None:
    judgements = make_judgements([0, 0], [[0.4, 0.5, 0.1], [0.4, 0.5, 0.1]])
    weak = fill_teacher_rows({0: [0.2, 0.7, 0.1], 1: [0.2, 0.7, 0.1]}, 2, 3)
    strong = fill_teacher_rows({1: [0.01, 0.04, 0.95]}, 2, 3)
    found = measure_suspicion(judgements, temper(judgements), [weak, strong])
    assert found.candidate.tolist() == [1, 2]
    assert found.teacher_log_ratios[0] == pytest.approx([np.log(0.701 / 0.201), 0])
    assert found.teacher_log_ratios[1] == pytest.approx([np.log(0.101 / 0.201), np.log(0.951 / 0.011)])
    assert found.others[1] == pytest.approx(np.log(0.526 / 0.371), abs=1e-3)
