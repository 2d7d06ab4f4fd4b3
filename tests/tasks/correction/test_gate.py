import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from tasks.correction.calibration import Beliefs, calibrate
from tasks.correction.gate import Gate, bound_win_share, choose_audit, choose_by_gain, expect_gain, judge_gate
from tasks.correction.judgements import Ints, Judgements
from tasks.correction.suspicion import Suspicion
from tests.tasks.correction.judging import judge_noisy_set, make_judgements, make_noisy_set, measure_evidence


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (4, 0), (8, 0), (8, 2), (30, 40), (95, 5)])
def test_shares_above_the_bound_explain_the_verdicts_forty_times_as_well(wins: int, losses: int) -> None:
    def likelihood(share: float) -> float:
        return share**wins * (1 - share) ** losses

    lower = bound_win_share(wins, losses)
    above, _ = quad(likelihood, lower, 1, epsabs=0)
    assert above / (1 - lower) / likelihood(lower) == pytest.approx(40, rel=1e-6)


def test_without_wins_the_bound_is_zero() -> None:
    assert bound_win_share(0, 0) == bound_win_share(0, 10) == 0.0


@pytest.mark.parametrize("wins", range(11))
def test_eight_straight_wins_open_the_gate(wins: int) -> None:
    assert Gate(wins, 0, 0, bound_win_share(wins, 0), 0.5).open == (wins >= 8)


def test_a_coin_flip_rarely_opens_the_gate_however_often_somebody_looks() -> None:
    """The bound may fail in 2.5 % of all audits. Wilson's opened in 15 %, by looking after each of 40 verdicts."""
    tosses = np.random.default_rng(0).random((400, 40)) < 0.5
    opened = 0
    for wins in tosses.cumsum(axis=1).tolist():
        opened += any(bound_win_share(won, looks - won) > 0.5 for looks, won in enumerate(wins, 1))
    assert opened <= 0.025 * len(tosses)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_bound_lies_below_the_share_and_rises_with_each_win(wins: int, verdicts: int) -> None:
    losses = max(verdicts - wins, 0)
    lower = bound_win_share(wins, losses)
    assert 0 <= lower <= wins / max(wins + losses, 1)
    assert lower < bound_win_share(wins + 1, losses)
    assert bound_win_share(wins, losses + 1) <= lower


# --- the gate ------------------------------------------------------------------------------------------------


def contradicted(disagreeing: int, agreeing: int = 40) -> Judgements:
    """The first `disagreeing` items are given a and predicted as b, with varying confidence; the others agree."""
    sure = np.linspace(0.75, 0.95, disagreeing)
    rows = np.column_stack([0.8 * (1 - sure), sure, 0.2 * (1 - sure)])
    return make_judgements([0] * (disagreeing + agreeing), np.vstack([rows, np.tile([0.9, 0.06, 0.04], (agreeing, 1))]))


def gate(judgements: Judgements, verdicts: dict[int, int], level: float = 0.5) -> Gate:
    return judge_gate(judgements, measure_evidence(judgements), verdicts, level, verdicts)


def test_the_gate_opens_when_candidates_were_right_and_stays_closed_when_they_were_wrong() -> None:
    judgements = contradicted(80)
    right, wrong = (gate(judgements, dict.fromkeys(range(40), verdict)) for verdict in (1, 0))
    assert right.open and (right.wins, right.losses, right.neither) == (40, 0, 0)
    assert right.lower == bound_win_share(40, 0)
    assert right.summary.startswith("labels may change without a person: ") and "40 would become right" in right.summary
    assert not wrong.open and wrong.wins == 0 and wrong.summary.startswith("no label changes without a person: ")


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (7, 0), (5, 5), (12, 1)])
def test_the_missing_wins_would_just_open_the_gate(wins: int, losses: int) -> None:
    def make_gate(more: int) -> Gate:
        return Gate(wins + more, losses, 0, bound_win_share(wins + more, losses), 0.5)

    missing = make_gate(0).missing
    assert missing is not None and make_gate(missing).open
    assert missing == 0 or not make_gate(missing - 1).open


def test_half_right_is_not_enough() -> None:
    judgements = contradicted(80)
    verdicts = {i: i % 2 for i in range(60)}
    assert not gate(judgements, verdicts).open


def test_a_higher_level_wants_more() -> None:
    judgements = contradicted(80)
    verdicts = {i: int(i % 6 > 0) for i in range(60)}
    assert gate(judgements, verdicts, 0.5).open and not gate(judgements, verdicts, 0.9).open
    assert not gate(judgements, dict.fromkeys(range(60), 1), 1.0).open


def test_without_any_verdict_even_level_zero_stays_closed() -> None:
    assert gate(contradicted(10), {}, 0.0) == Gate(0, 0, 0, 0.0, 0.0)
    assert not gate(contradicted(10), {}, 0.0).open


def test_neither_and_third_labels_are_neither_wins_nor_losses() -> None:
    verdicts = dict.fromkeys(range(40), 1) | dict.fromkeys(range(40, 44), -1) | dict.fromkeys(range(44, 48), 2)
    found = gate(contradicted(80), verdicts)
    assert (found.wins, found.losses, found.neither) == (40, 0, 8)
    assert found.lower == bound_win_share(40, 0)


def test_verdicts_on_what_would_not_be_changed_are_no_evidence() -> None:
    """The person finds that agreements are wrong and right: nobody would have changed them."""
    judgements = contradicted(40)
    verdicts = dict.fromkeys(range(40, 70), 0) | dict.fromkeys(range(70, 80), 1)
    assert gate(judgements, verdicts) == Gate(0, 0, 0, 0.0, 0.5)


@pytest.mark.parametrize("asked", [10, 20, 40])
def test_a_verdict_does_not_speak_for_itself(asked: int) -> None:
    """Candidates are right by the toss of a coin: a model that had seen each verdict finds two wins for each loss."""
    judgements = make_judgements([0] * (asked + 40), [[0.45, 0.5, 0.05]] * asked + [[0.9, 0.06, 0.04]] * 40)
    wins = losses = 0
    for seed in range(20):
        tosses = np.random.default_rng(seed).random(asked) < 0.5
        found = gate(judgements, {i: int(toss) for i, toss in enumerate(tosses)})
        wins, losses = wins + found.wins, losses + found.losses
    assert losses and wins <= 1.25 * losses  # chance; with its own verdict seen it was two to one


def test_the_counts_are_numbers_that_json_holds() -> None:
    found = gate(contradicted(20), {i: (1, 0, -1)[i % 3] for i in range(20)})
    assert {type(n) for n in (found.wins, found.losses, found.neither)} == {int}


# --- who is asked about --------------------------------------------------------------------------------------


def chosen_from(judgements: Judgements, count: int, seed: int = 0) -> tuple[Suspicion, Ints]:
    evidence = measure_evidence(judgements)
    prior = calibrate(judgements, evidence, {}).beliefs(evidence)
    return evidence, choose_audit(evidence, prior, count, seed)


@pytest.mark.parametrize(
    ("disagreeing", "agreeing", "count", "expected"),
    [
        pytest.param(200, 200, 100, (75, 25), id="three quarters are disagreements"),
        pytest.param(10, 200, 100, (10, 90), id="too few disagreements"),
        pytest.param(200, 10, 100, (90, 10), id="too few agreements"),
        pytest.param(10, 10, 100, (10, 10), id="all"),
        pytest.param(10, 10, 20, (10, 10), id="all, exactly"),
        pytest.param(0, 30, 20, (0, 20), id="nobody disagrees"),
        pytest.param(30, 0, 20, (20, 0), id="all disagree"),
        pytest.param(30, 30, 1, (1, 0), id="one"),
        pytest.param(10, 10, 0, (0, 0), id="none"),
        pytest.param(1, 0, 5, (1, 0), id="one item that disagrees"),
        pytest.param(0, 1, 5, (0, 1), id="one item that agrees"),
    ],
)
def test_shares(disagreeing: int, agreeing: int, count: int, expected: tuple[int, int]) -> None:
    evidence, chosen = chosen_from(contradicted(disagreeing, agreeing), count)
    assert len(set(chosen.tolist())) == len(chosen)
    against = int((evidence.margin[chosen] > 0).sum())
    assert (against, len(chosen) - against) == expected


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(0, 60), st.integers(0, 1000))
def test_the_budget_is_never_exceeded_left_unused_or_spent_twice(items: int, count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.dirichlet([0.3, 0.3, 0.3], size=items)
    _, chosen = chosen_from(make_judgements(rng.integers(3, size=items).tolist(), table), count, seed)
    assert len(chosen) == min(count, items) == len(set(chosen.tolist()))
    assert all(0 <= i < items for i in chosen.tolist())


def test_the_draw_follows_the_seed() -> None:
    judgements = judge_noisy_set(make_noisy_set("human-like", 0.2))
    draws = [chosen_from(judgements, 40, seed)[1].tolist() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_disagreements_are_drawn_from_all_along_their_ratio() -> None:
    evidence, chosen = chosen_from(judge_noisy_set(make_noisy_set("symmetric", 0.4)), 80)
    against = np.flatnonzero(evidence.margin > 0)
    parts = np.array_split(against[np.argsort(evidence.log_ratio[against], kind="stable")], 4)
    drawn = [len(set(part.tolist()) & set(chosen.tolist())) for part in parts]
    assert sum(drawn) == 60 and all(14 <= n <= 16 for n in drawn)


def test_the_doubtful_are_the_first_of_the_agreements() -> None:
    evidence, chosen = chosen_from(judge_noisy_set(make_noisy_set("human-like", 0.1)), 80)
    agreeing = np.flatnonzero(evidence.margin <= 0)
    drawn = [i for i in chosen.tolist() if evidence.margin[i] <= 0]
    assert len(drawn) >= 20
    doubtful = agreeing[evidence.log_ratio[agreeing] > np.quantile(evidence.log_ratio[agreeing], 0.75)]
    # A quarter of them would be drawn by chance; but not none of the others either.
    assert 0.4 * len(drawn) < len(set(drawn) & set(doubtful.tolist())) < len(drawn)


# --- what an answer is worth ---------------------------------------------------------------------------------

BELIEFS = Beliefs(np.array([0.9, 0.3, 0.2, 0.4]), np.array([0.05, 0.65, 0.3, 0.1]), np.array([0.05, 0.05, 0.5, 0.5]))


def test_gain_is_the_probability_that_the_label_it_ends_with_is_wrong() -> None:
    assert expect_gain(BELIEFS, gate_open=False) == pytest.approx([0.1, 0.7, 0.8, 0.6])
    assert expect_gain(BELIEFS, gate_open=True) == pytest.approx([0.1, 0.35, 0.7, 0.6])


def test_the_highest_gain_is_asked_first_and_nothing_twice() -> None:
    gain = np.array([0.1, 0.7, 0.8, 0.6, 0.7])
    assert choose_by_gain(gain, set(), 3).tolist() == [2, 1, 4]
    assert choose_by_gain(gain, {2, 4}, 2).tolist() == [1, 3]
    assert choose_by_gain(gain, {2, 4}, 100).tolist() == [1, 3, 0]
    assert choose_by_gain(gain, {0}, 0).tolist() == []
    assert choose_by_gain(gain, range(5), 2).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.sets(st.integers(0, 11)), st.integers(0, 15))
def test_no_item_left_out_gains_more(gain: list[float], asked: set[int], count: int) -> None:
    chosen = choose_by_gain(np.array(gain), asked, count).tolist()
    free = set(range(len(gain))) - asked
    assert set(chosen) <= free and len(chosen) == min(count, len(free)) == len(set(chosen))
    assert [gain[i] for i in chosen] == sorted((gain[i] for i in free), reverse=True)[:count]


def test_only_verdicts_on_the_audit_count() -> None:
    judgements = contradicted(40)
    verdicts = dict.fromkeys(range(30), 1)
    found = judge_gate(judgements, measure_evidence(judgements), verdicts, 0.5, audit=range(10, 18))
    assert (found.wins, found.losses) == (8, 0)
