import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.audit import Gate, choose_cases, gate_from, wilson_lower
from tasks.correction import NEITHER
from tasks.records import Action, Correction
from tests.tasks.making import correction, proposal


@pytest.mark.parametrize(
    ("successes", "trials", "lower"),
    [
        (0, 0, 0.0),
        (0, 10, 0.0),
        (10, 10, 0.7225),
        (8, 10, 0.4902),
        (1, 2, 0.0945),
        (50, 100, 0.4038),
        (95, 100, 0.8882),
    ],
)
def test_known_wilson_bounds(successes: int, trials: int, lower: float) -> None:
    assert wilson_lower(successes, trials) == pytest.approx(lower, abs=1e-4)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_bound_lies_below_the_share_and_rises_with_each_success(successes: int, trials: int) -> None:
    successes = min(successes, trials)
    assert -1e-12 <= wilson_lower(successes, trials) <= successes / trials
    if successes < trials:
        assert wilson_lower(successes, trials) < wilson_lower(successes + 1, trials)


# --- the gate ------------------------------------------------------------------------------------------------


def verdicts(wins: int, losses: int, neither: int = 0) -> tuple[list[Correction], dict[str, str]]:
    given = ["查询物流"] * wins + ["申请退款"] * losses + [NEITHER] * neither
    return [proposal(f"s{i}") for i in range(len(given))], {f"s{i}": v for i, v in enumerate(given)}


@pytest.mark.parametrize(
    ("wins", "losses", "is_open"),
    [(0, 0, False), (3, 0, False), (4, 0, True), (10, 9, False), (20, 8, True), (0, 9, False)],
)
def test_the_gate_opens_on_enough_audited_wins(wins: int, losses: int, is_open: bool) -> None:
    gate = gate_from(*verdicts(wins, losses), 0.5)
    assert (gate.wins, gate.losses, gate.open) == (wins, losses, is_open)
    assert gate.lower == wilson_lower(wins, wins + losses)
    assert ("gate open" if is_open else "gate closed") in gate.summary and f"{losses} losses" in gate.summary


def test_a_higher_level_wants_more() -> None:
    assert gate_from(*verdicts(20, 4), 0.5).open and not gate_from(*verdicts(20, 4), 0.9).open


def test_without_any_verdict_even_level_zero_stays_closed() -> None:
    assert not gate_from([proposal("a")], {}, 0.0).open


def test_neither_and_third_labels_count_for_nobody_and_questions_say_nothing_about_proposals() -> None:
    cases, given_verdicts = verdicts(2, 1, neither=3)
    cases += [proposal("third"), proposal("unjudged"), correction("question", action=Action.REVIEW)]
    gate = gate_from(cases, given_verdicts | {"third": "反馈破损", "question": "申请退款"}, 0.5)
    assert gate == Gate(2, 1, 4, wilson_lower(2, 3), 0.5)


# --- who is asked about --------------------------------------------------------------------------------------


def pile(proposals: int, questions: int) -> list[Correction]:
    closed = [correction(f"k{i}") for i in range(20)]
    return (
        [proposal(f"p{i:03}") for i in range(proposals)]
        + [correction(f"q{i:03}", action=Action.REVIEW) for i in range(questions)]
        + closed
    )


def count(cases: list[Correction]) -> tuple[int, int]:
    return sum(c.candidate is not None for c in cases), sum(c.candidate is None for c in cases)


@pytest.mark.parametrize(
    ("proposals", "questions", "budget", "expected"),
    [
        pytest.param(200, 200, 100, (75, 25), id="three quarters are proposals"),
        pytest.param(10, 200, 100, (10, 90), id="too few proposals"),
        pytest.param(200, 10, 100, (90, 10), id="too few questions"),
        pytest.param(10, 10, 100, (10, 10), id="all"),
        pytest.param(10, 10, 0, (0, 0), id="none"),
        pytest.param(0, 0, 10, (0, 0), id="nothing open"),
    ],
)
def test_shares(proposals: int, questions: int, budget: int, expected: tuple[int, int]) -> None:
    assert count(choose_cases(pile(proposals, questions), budget, 0)) == expected


@settings(deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 60), st.integers(0, 5))
def test_the_budget_is_never_exceeded_and_never_left_unused(p: int, q: int, budget: int, seed: int) -> None:
    cases = pile(p, q)
    chosen = choose_cases(cases, budget, seed)
    assert len(chosen) == min(budget, p + q)
    assert len({c.sample_id for c in chosen}) == len(chosen)
    assert all(c.action is Action.REVIEW and c in cases for c in chosen)


def test_the_draw_follows_the_seed_and_not_the_order_of_cases() -> None:
    cases = pile(50, 50)
    assert choose_cases(cases, 20, 1) == choose_cases(cases[::-1], 20, 1)
    assert choose_cases(cases, 20, 1) != choose_cases(cases, 20, 2)
