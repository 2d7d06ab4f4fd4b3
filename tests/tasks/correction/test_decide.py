from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tasks.correction.decide import Adjudicator, Decisions, correct
from tasks.correction.judgements import Floats, Ints, Judgements
from tasks.correction.settings import CorrectionSettings
from tasks.records import Action
from tests.benchmarks.correction.noisy_sets import NoisySet
from tests.benchmarks.correction.students import Student
from tests.tasks.correction.judging import (
    answer_from,
    answer_nothing,
    change_confidence,
    judge_noisy_set,
    make_judgements,
    make_noisy_set,
    make_teacher,
)

KEEP, RELABEL, DROP, REVIEW = Action.KEEP, Action.RELABEL, Action.DROP, Action.REVIEW


class Person:
    """Knows the truth, and keeps what it was asked."""

    def __init__(self, truth: Ints) -> None:
        self.truth = truth
        self.asked: list[list[int]] = []

    def __call__(self, items: Ints) -> dict[int, int]:
        self.asked.append(items.tolist())
        return {item: int(self.truth[item]) for item in items.tolist()}


class Teacher:
    """Has these probabilities [N, C + 1], and keeps what it was asked."""

    def __init__(self, table: Floats) -> None:
        self.table = table
        self.asked: list[int] = []

    def __call__(self, items: Ints) -> Floats:
        self.asked += items.tolist()
        return self.table[items]


def check_consistency(found: Decisions) -> None:
    """What holds of every correction, whatever went in."""
    judgements, count = found.judgements, len(found.judgements.ids)
    assert len(found.action) == len(found.label) == len(found.flagged) == count
    for item, (action, label) in enumerate(zip(found.action, found.label.tolist(), strict=True)):
        same = label == judgements.given[item]
        assert {KEEP: same, REVIEW: same, DROP: label == -1, RELABEL: not same and label >= 0}[action]
        assert action is not REVIEW or (found.flagged[item] and item not in found.verdicts)
        if item in found.verdicts:
            assert label == found.verdicts[item] and found.flagged[item] == (label != judgements.given[item])
            assert found.gain[item] == 0
        else:
            assert action is not DROP and (action is not RELABEL or found.gate.open)
    shares = (found.beliefs.p_given, found.beliefs.p_candidate, found.beliefs.p_neither)
    assert all(np.isfinite(p).all() and (p >= 0).all() for p in shares)
    assert sum(shares) == pytest.approx(np.ones(count))
    assert len(set(found.person_asked.tolist())) == len(found.person_asked)


# --- any set -------------------------------------------------------------------------------------------------


@st.composite
def any_set(draw: st.DrawFn) -> tuple[Judgements, Floats, Ints]:
    """Judgements, a teacher's [N, C + 1] with some rows it can't say anything about, and a person's truth."""
    items, labels = draw(st.integers(1, 60)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 100_000)))
    sure = draw(st.sampled_from([0.05, 0.5, 5]))
    students, teacher = (rng.dirichlet([sure] * n, size=items).astype(np.float32) for n in (labels, labels + 1))
    given_labels = students.argmax(axis=1) if draw(st.booleans()) else rng.integers(labels, size=items)
    teacher[rng.random(items) < draw(st.sampled_from([0, 0.3, 1]))] = np.nan
    return make_judgements(given_labels.tolist(), students), teacher, rng.integers(-1, labels, size=items)


@settings(max_examples=40, deadline=None)
@given(any_set(), st.booleans(), st.floats(0, 1))
def test_without_reviews_no_label_changes(
    case: tuple[Judgements, Floats, Ints], with_teacher: bool, level: float
) -> None:
    judgements, teacher, truth = case
    person = Person(truth)
    settings = CorrectionSettings(review_budget=0, gate_level=level, teacher_share=1)
    found = correct(judgements, settings, [Adjudicator(Teacher(teacher))] if with_teacher else [], person)
    check_consistency(found)
    assert (found.label == judgements.given).all()
    assert set(found.action) <= {KEEP, REVIEW} and not found.gate.open
    assert not any(person.asked) and not found.verdicts and not found.estimates


@settings(max_examples=15, deadline=None)
@given(any_set(), st.booleans(), st.integers(0, 80), st.integers(0, 80), st.sampled_from([None, 0.5, 0.9]))
def test_decisions_are_consistent_and_within_the_budget(
    case: tuple[Judgements, Floats, Ints], with_teacher: bool, reviews: int, audit: int, target: float | None
) -> None:
    judgements, table, truth = case
    person, teacher, count = Person(truth), Teacher(table), len(case[0].ids)
    settings = CorrectionSettings(review_budget=reviews, audit=audit, teacher_share=0.3, target_precision=target)
    found = correct(judgements, settings, [Adjudicator(teacher)] if with_teacher else [], person)
    check_consistency(found)
    asked = [item for items in person.asked for item in items]
    assert asked == found.person_asked.tolist() and len(set(asked)) == len(asked) == min(reviews, count)
    assert found.audited == min(reviews, audit, count) == len(person.asked[0])
    assert set(found.verdicts) == set(asked)
    assert teacher.asked == [i for items in found.asked for i in items] and len(teacher.asked) <= 0.3 * count


# --- the person ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", [0, 1, 2, -1])
def test_a_persons_verdict_stands_whatever_the_models_say(verdict: int) -> None:
    judgements = make_judgements([0, 0, 0], [[0.01, 0.98, 0.01], [0.98, 0.01, 0.01], [0.3, 0.3, 0.4]])
    found = correct(judgements, CorrectionSettings(review_budget=3), (), answer_from(dict.fromkeys(range(3), verdict)))
    check_consistency(found)
    assert found.label.tolist() == [verdict] * 3
    assert set(found.action) == {{0: KEEP, -1: DROP}.get(verdict, RELABEL)}


def test_a_person_who_answers_some_questions_is_not_taken_to_have_answered_the_others() -> None:
    made = make_noisy_set()
    half = {i: int(t) for i, t in enumerate(made.truth) if i % 2}
    found = correct(
        judge_noisy_set(made),
        CorrectionSettings(),
        (),
        lambda items: {i: half[i] for i in items.tolist() if i in half},
    )
    check_consistency(found)
    assert 0 < len(found.verdicts) < 100 == len(found.person_asked)
    assert all(item % 2 for item in found.verdicts)


def test_earlier_verdicts_stand_and_are_not_asked_for_again_beyond_the_audit() -> None:
    made = make_noisy_set("human-like", 0.2)
    judgements = judge_noisy_set(made)
    # Nobody would have asked about these, and no model believes it.
    sure = np.argsort(judgements.students[np.arange(600), made.given])[-30:]
    truth = made.truth.copy()
    truth[sure] = -1
    known = dict.fromkeys(sure.tolist(), -1)
    person = Person(truth)
    found = correct(judgements, CorrectionSettings(review_budget=70, audit=20), (), person, known)
    check_consistency(found)
    assert {found.action[i] for i in known} == {DROP}
    # the budget is a total: earlier verdicts count
    assert [len(items) for items in person.asked] == [20, 70 - len({*person.asked[0], *known})] and not set(
        person.asked[1]
    ) & set(known)
    assert set(found.verdicts) == set(known) | set(found.person_asked.tolist())
    alone = correct(judgements, CorrectionSettings(review_budget=0), (), answer_nothing, known)
    check_consistency(alone)
    assert set(alone.verdicts) == set(known) and {alone.action[i] for i in known} == {DROP}


def test_what_is_left_of_the_budget_goes_where_labels_are_most_likely_wrong() -> None:
    made = make_noisy_set("human-like", 0.2)
    found = correct(
        judge_noisy_set(made),
        CorrectionSettings(review_budget=150, audit=50, gate_level=1),
        (),
        answer_from(made.truth),
    )
    more = found.person_asked[found.audited :]
    rest = np.setdiff1d(np.arange(600), found.person_asked)
    doubt = found.evidence.log_ratio
    assert len(more) == 100 and (doubt[more] < doubt[rest].max()).sum() <= 10 and doubt[more].min() > -2
    wrong = made.truth != made.given
    assert wrong[more].mean() > wrong[rest].mean() + 0.5


# --- the gate ------------------------------------------------------------------------------------------------


def contradicted() -> Judgements:
    """200 items given a: the students predict b for one half, with varying confidence, and a for the other."""
    sure = np.linspace(0.75, 0.97, 100)
    rows = np.column_stack([0.8 * (1 - sure), sure, 0.2 * (1 - sure)])
    return make_judgements([0] * 200, np.vstack([rows, np.tile([0.9, 0.06, 0.04], (100, 1))]))


def test_where_the_audit_finds_candidates_wrong_nothing_changes_unreviewed() -> None:
    found = correct(
        contradicted(), CorrectionSettings(review_budget=50), (), answer_from(np.zeros(200, dtype=np.int64))
    )
    check_consistency(found)
    assert not found.gate.open and (found.label == 0).all() and set(found.action) <= {KEEP, REVIEW}
    assert found.beliefs.p_given.mean() > 0.9


def test_where_the_audit_finds_candidates_right_they_are_applied_to_the_others() -> None:
    truth = np.repeat([1, 0], 100)
    found = correct(contradicted(), CorrectionSettings(review_budget=50), (), answer_from(truth))
    check_consistency(found)
    assert found.gate.open and (found.label == truth).all()
    assert (found.flagged == (truth == 1)).all()
    assert [found.action.count(a) for a in (RELABEL, KEEP)] == [100, 100]


def test_where_the_audit_finds_both_wrong_the_others_wait_for_a_person() -> None:
    truth = np.repeat([-1, 0], 100)
    found = correct(contradicted(), CorrectionSettings(review_budget=50), (), answer_from(truth))
    check_consistency(found)
    waiting = [i for i, action in enumerate(found.action) if action is REVIEW]
    assert not found.gate.open and len(waiting) > 50 and max(waiting) < 100
    assert found.action.count(RELABEL) == 0 and found.action.count(DROP) == sum(i < 100 for i in found.verdicts)


def test_a_gate_level_of_one_never_opens() -> None:
    found = correct(
        contradicted(), CorrectionSettings(review_budget=50, gate_level=1), (), answer_from(np.repeat([1, 0], 100))
    )
    assert not found.gate.open
    assert {i for i, label in enumerate(found.label.tolist()) if label} <= set(found.verdicts)


# --- the teacher ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught() -> NoisySet:
    return make_noisy_set("human-like", 0.2, students=(Student(blur=1.2),), teacher=Student("zero-shot", 0.3))


def table_of(made: NoisySet) -> Floats:
    assert made.teacher
    return np.column_stack([made.teacher.probabilities, np.zeros(600)]).astype(np.float32)


def teacher_of(made: NoisySet) -> list[Adjudicator]:
    return make_teacher(made.teacher.probabilities) if made.teacher else []


def are_equal(one: Decisions, other: Decisions) -> bool:
    def arrays(found: Decisions) -> list[NDArray[Any]]:
        beliefs = found.beliefs
        return [found.label, found.flagged, beliefs.p_given, beliefs.p_candidate, found.gain, found.person_asked]

    pairs = zip(arrays(one), arrays(other), strict=True)
    return one.action == other.action and all((a == b).all() for a, b in pairs)


def test_the_teacher_is_asked_about_the_most_suspicious_only_and_nothing_else_of_it_is_used(taught: NoisySet) -> None:
    judgements, table = judge_noisy_set(taught), table_of(taught)
    settings = CorrectionSettings(teacher_share=0.15)
    found = correct(judgements, settings, [Adjudicator(Teacher(table))], answer_from(taught.truth))
    (asked,) = found.asked
    assert len(asked) == 90
    margin = found.evidence.margin
    assert margin[asked].min() > np.quantile(margin, 0.8)
    others = np.setdiff1d(np.arange(600), asked)
    for poison in (0, 10):
        poisoned = table.copy()
        poisoned[others] = np.eye(11)[poison]
        other = [Adjudicator(Teacher(poisoned))]
        assert are_equal(correct(judgements, settings, other, answer_from(taught.truth)), found)
    table[asked] = np.eye(11)[0]
    assert not are_equal(correct(judgements, settings, [Adjudicator(Teacher(table))], answer_from(taught.truth)), found)


def test_a_good_teacher_helps() -> None:
    more: list[float] = []
    for seed in range(3):
        made = make_noisy_set(
            "human-like", 0.2, seed=seed, students=(Student(blur=1.2),), teacher=Student("zero-shot", 0.3)
        )
        judgements, settings = judge_noisy_set(made), CorrectionSettings(review_budget=30)
        found = [
            correct(judgements, settings, teacher, answer_from(made.truth), seed=seed)
            for teacher in ([], teacher_of(made))
        ]
        right = [float((each.label == made.truth).mean()) for each in found]
        more.append(right[1] - right[0])
    assert np.mean(more) > 0.01


def test_a_teacher_that_can_say_nothing_is_as_good_as_none(taught: NoisySet) -> None:
    silent = Teacher(np.full((600, 11), np.nan, dtype=np.float32))
    with_it = correct(judge_noisy_set(taught), CorrectionSettings(), [Adjudicator(silent)], answer_from(taught.truth))
    assert len(silent.asked) == 150  # a quarter of 600
    assert are_equal(with_it, correct(judge_noisy_set(taught), CorrectionSettings(), (), answer_from(taught.truth)))


def test_where_the_teacher_finds_no_label_right_the_item_waits_for_a_person() -> None:
    truth = np.repeat([1, 0], 100)
    table = np.tile(np.array([0.05, 0.9, 0.05, 0], dtype=np.float32), (200, 1))
    table[:15] = [0.2, 0.1, 0.1, 0.6]
    # All of the first hundred are asked.
    settings = CorrectionSettings(review_budget=50, audit=50, teacher_share=0.5)
    found = correct(contradicted(), settings, [Adjudicator(Teacher(table))], answer_from(truth))
    check_consistency(found)
    assert set(range(15)) <= set(found.asked[0].tolist()) and found.gate.open
    unreviewed = [i for i in range(100) if i not in found.verdicts]
    assert {found.action[i] for i in unreviewed if i < 15} == {REVIEW}
    assert {found.action[i] for i in unreviewed if i >= 15} == {RELABEL}
    cold = correct(
        contradicted(),
        CorrectionSettings(review_budget=0, teacher_share=0.5),
        [Adjudicator(Teacher(table))],
        answer_nothing,
    )
    assert all(cold.action[i] is REVIEW for i in range(15)) and (cold.label == 0).all()


def test_a_teacher_is_not_asked_about_labels_that_nobody_doubts() -> None:
    rows = np.tile([0.98, 0.01, 0.01], (100, 1))
    teacher = Teacher(np.full((100, 4), 0.25, dtype=np.float32))
    found = correct(
        make_judgements([0] * 100, rows),
        CorrectionSettings(review_budget=0, teacher_share=1),
        [Adjudicator(teacher)],
        answer_nothing,
    )
    assert teacher.asked == [] and found.action == (KEEP,) * 100


def test_a_further_teacher_is_asked_about_what_the_first_leaves_uncertain_most_uncertain_first() -> None:
    table = np.tile(np.array([0.02, 0.96, 0.02, 0], dtype=np.float32), (200, 1))
    table[:40] = [0.45, 0.35, 0.2, 0]  # the first teacher is undecided
    settings = CorrectionSettings(review_budget=0, teacher_share=0.5)
    for share, expected in ((1.0, 40), (0.1, 20)):
        first, second = Teacher(table), Teacher(table)
        found = correct(contradicted(), settings, [Adjudicator(first), Adjudicator(second, share)], answer_nothing)
        assert len(first.asked) == 100 and len(second.asked) == expected and set(second.asked) <= set(range(40))
        assert found.teacher_calls == 100 + expected


# --- flags and estimates -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reviews", [0, 10])
def test_without_enough_verdicts_a_margin_flags(reviews: int) -> None:
    made = make_noisy_set()
    found = correct(judge_noisy_set(made), CorrectionSettings(review_budget=reviews), (), answer_from(made.truth))
    unseen = np.setdiff1d(np.arange(600), list(found.verdicts))
    students, given = found.judgements.students, found.judgements.given
    own = students[np.arange(600), given]
    rarely = own >= 0.5 * np.array([own[given == label].mean() for label in given])
    doubtful = (found.evidence.margin > 0.1) & ~rarely
    assert (found.flagged == doubtful)[unseen].all() and not found.estimates


@pytest.mark.parametrize("power", [0.3, 2.0, 4.0])
@pytest.mark.parametrize("noise", ["symmetric", "human-like"])
def test_how_sure_the_students_are_of_themselves_hardly_matters(noise: str, power: float) -> None:
    made = make_noisy_set(noise, 0.2, items=1000)
    judgements = judge_noisy_set(made)
    # So few reviews that the prior, which is on the tempered scale, still has a say; and the gate is open.
    settings = CorrectionSettings(review_budget=20, gate_level=0)
    plain, bent = (
        correct(j, settings, (), answer_from(made.truth)) for j in (judgements, change_confidence(judgements, power))
    )
    assert plain.flagged.sum() > 100
    assert (plain.flagged == bent.flagged).mean() > 0.98 and (plain.label == bent.label).mean() > 0.97


@pytest.mark.parametrize("target", [0.5, 0.8])
def test_flags_are_about_as_precise_as_asked(target: float) -> None:
    precisions: list[float] = []
    for seed in range(4):
        made = make_noisy_set("human-like", 0.2, seed=seed, students=(Student(blur=1.2),), items=1000)
        found = correct(
            judge_noisy_set(made), CorrectionSettings(target_precision=target), (), answer_from(made.truth), seed=seed
        )
        unseen = np.setdiff1d(np.flatnonzero(found.flagged), list(found.verdicts))
        assert len(unseen) > 30
        precisions.append(float((made.truth != made.given)[unseen].mean()))
    assert np.mean(precisions) == pytest.approx(target, abs=0.12)


def test_estimates_lie_in_their_intervals_near_the_truth() -> None:
    made = make_noisy_set("human-like", 0.2, items=1000)
    found = correct(judge_noisy_set(made), CorrectionSettings(), (), answer_from(made.truth))
    wrong = made.truth != made.given
    caught = float((found.flagged & wrong).sum())
    truth = {"wrong": wrong.mean(), "precision": caught / found.flagged.sum(), "recall": caught / wrong.sum()}
    assert found.estimates.keys() == truth.keys()
    for name, estimate in found.estimates.items():
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.value == pytest.approx(truth[name], abs=0.1)


def test_the_same_seed_gives_the_same_decisions() -> None:
    made = make_noisy_set("human-like", 0.2)
    first, again, other = (
        correct(judge_noisy_set(made), CorrectionSettings(), (), answer_from(made.truth), seed=s) for s in (3, 3, 4)
    )
    assert are_equal(first, again) and first.estimates == again.estimates
    assert set(other.person_asked.tolist()) != set(first.person_asked.tolist())


# --- no harm -------------------------------------------------------------------------------------------------

SETS: dict[str, dict[str, Any]] = {
    "symmetric": {"noise": "symmetric", "rate": 0.2},
    "class-dependent, middling": {"noise": "class-dependent", "rate": 0.2, "students": (Student(blur=1.2),)},
    "human-like, two students": {"noise": "human-like", "rate": 0.1, "students": (Student(), Student(kin=0.7))},
    "bad and sure of itself": {"noise": "human-like", "rate": 0.05, "students": (Student(blur=3, temperature=0.2),)},
    "two classes mistaken": {"noise": "human-like", "rate": 0.05, "students": (Student(blur=0.5, mistakes=2),)},
    "clean labels": {"noise": "symmetric", "rate": 0.0, "students": (Student(blur=1.2),)},
    "unusable items": {"noise": "symmetric", "rate": 0.1, "unusable": 0.1},
    "imbalanced": {"noise": "human-like", "rate": 0.2, "imbalance": 20.0, "items": 800},
    "mistaken teacher": {
        "noise": "human-like", "rate": 0.05, "students": (Student(blur=1.2),),
        "teacher": Student("zero-shot", 1, mistakes=3),
    },
    "200 items": {"noise": "human-like", "rate": 0.1, "items": 200, "classes": 5},
}  # fmt: skip


@pytest.mark.parametrize("name", SETS)
def test_no_harm(name: str) -> None:
    """Only items that no person saw are counted: a person's corrections would hide the rule's mistakes."""
    points: list[float] = []
    for seed in range(4):
        made = make_noisy_set(**SETS[name], seed=seed)
        found = correct(
            judge_noisy_set(made),
            CorrectionSettings(review_budget=60),
            teacher_of(made),
            answer_from(made.truth),
            seed=seed,
        )
        check_consistency(found)
        unseen = made.truth >= 0
        unseen[list(found.verdicts)] = False
        after, before = ((labels == made.truth)[unseen].mean() for labels in (found.label, made.given))
        points.append(100 * float(after - before))
    assert np.mean(points) >= 0 and min(points) > -0.1, points


@pytest.mark.parametrize("name", ["symmetric", "class-dependent, middling", "human-like, two students"])
def test_and_good(name: str) -> None:
    """A rule that changes nothing does no harm either."""
    made = make_noisy_set(**SETS[name])
    found = correct(
        judge_noisy_set(made), CorrectionSettings(review_budget=60), teacher_of(made), answer_from(made.truth)
    )
    left = [float((labels != made.truth).mean()) for labels in (found.label, made.given)]
    assert left[0] < 0.7 * left[1]


# --- tiny sets -----------------------------------------------------------------------------------------------

TINY: dict[str, tuple[list[int], list[list[float]]]] = {
    "one item": ([0], [[0.2, 0.8]]),
    "one item, one label": ([0], [[1.0]]),
    "two items": ([0, 1], [[0.2, 0.8], [0.2, 0.8]]),
    "three items, one label": ([0, 0, 0], [[1.0]] * 3),
    "all disagree": ([0, 1, 0] * 10, [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]] * 10),
    "nobody disagrees": ([0, 1, 0] * 10, [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]] * 10),
    "nobody knows": ([0, 1, 0] * 10, [[0.5, 0.5]] * 30),
}


@pytest.mark.parametrize("name", TINY)
@pytest.mark.parametrize("verdict", [0, -1])
def test_tiny_sets(name: str, verdict: int) -> None:
    given_labels, students = TINY[name]
    judgements, count, labels = make_judgements(given_labels, students), len(given_labels), len(students[0])
    teacher = make_teacher(np.full((count, labels), 1 / labels))
    cold = correct(judgements, CorrectionSettings(review_budget=0, teacher_share=1), teacher, answer_nothing)
    check_consistency(cold)
    assert cold.label.tolist() == given_labels
    expected = {"all disagree": {REVIEW}, "one item": {REVIEW}, "two items": {REVIEW, KEEP}}.get(name, {KEEP})
    assert set(cold.action) == expected
    for reviews in (1, 2, 100):
        found = correct(
            judgements,
            CorrectionSettings(review_budget=reviews),
            teacher,
            answer_from(dict.fromkeys(range(count), verdict)),
        )
        check_consistency(found)
        assert len(found.verdicts) == min(reviews, count)


def test_a_larger_audit_contains_the_smaller_one_which_is_a_third_of_the_budget() -> None:
    judgements = judge_noisy_set(make_noisy_set())
    audits: list[set[int]] = []
    for budget in (30, 60, 150, 400):
        person = Person(judgements.given)
        correct(judgements, CorrectionSettings(review_budget=budget), (), person)
        audits.append(set(person.asked[0]))
    assert [len(audit) for audit in audits] == [10, 20, 50, 133]
    assert all(small < large for small, large in pairwise(audits))
