from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from tasks.correction.calibration import (
    Beliefs,
    Values,
    calibrate,
    fit_logistic,
    flag_at_precision,
    flag_for_best_f1,
    resample_beliefs,
)
from tasks.correction.gate import choose_audit
from tasks.correction.judgements import Judgements
from tasks.correction.suspicion import measure_suspicion, temper
from tests.tasks.correction.judging import judge_noisy_set, make_judgements, make_noisy_set, measure_evidence

shares = st.lists(st.floats(0.001, 0.999), min_size=1, max_size=9).map(lambda p: np.array(p))


def subsets(count: int) -> list[list[int]]:
    return [list(c) for size in range(count + 1) for c in combinations(range(count), size)]


def beliefs_after(judgements: Judgements, verdicts: dict[int, int]) -> Beliefs:
    evidence = measure_evidence(judgements)
    return calibrate(judgements, evidence, verdicts).beliefs(evidence)


# --- where to cut --------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(shares)
def test_no_subset_has_a_higher_expected_f1(p_wrong: Values) -> None:
    def expected(chosen: list[int]) -> float:
        return 2 * p_wrong[chosen].sum() / (len(chosen) + p_wrong.sum())

    flagged = np.flatnonzero(flag_for_best_f1(p_wrong)).tolist()
    assert expected(flagged) == pytest.approx(max(expected(chosen) for chosen in subsets(len(p_wrong))))


@settings(max_examples=60, deadline=None)
@given(shares, st.floats(0.05, 1))
def test_no_larger_subset_is_as_precise_as_asked(p_wrong: Values, target: float) -> None:
    flagged = flag_at_precision(p_wrong, target)
    assert not flagged.any() or p_wrong[flagged].mean() >= target - 1e-12
    precise = [len(c) for c in subsets(len(p_wrong)) if not c or p_wrong[c].mean() >= target + 1e-12]
    assert flagged.sum() >= max(precise)


def test_the_most_doubtful_are_flagged() -> None:
    p_wrong = np.array([0.1, 0.9, 0.2, 0.8, 0.05])
    for flagged in (flag_for_best_f1(p_wrong), flag_at_precision(p_wrong, 0.85)):
        assert np.flatnonzero(flagged).tolist() == [1, 3]
    assert flag_at_precision(p_wrong, 0.6).sum() == 3 and not flag_at_precision(p_wrong, 0.95).any()
    assert flag_at_precision(p_wrong, 0.0).all()


# --- what verdicts teach -------------------------------------------------------------------------------------


def test_without_verdicts_the_prior_speaks() -> None:
    """An agreement is likely right, a clear disagreement likely wrong, and the candidate likely the truth then."""
    judgements = make_judgements([0] * 21, [[1 - p, 0.8 * p, 0.2 * p] for p in np.linspace(0.02, 0.98, 21)])
    beliefs = beliefs_after(judgements, {})
    assert (np.diff(beliefs.p_wrong) >= 0).all()
    assert beliefs.p_given[0] > 0.9 and beliefs.p_wrong[-1] > 0.7 and beliefs.p_candidate[-1] > beliefs.p_neither[-1]


def test_verdicts_move_the_beliefs_towards_what_was_said() -> None:
    judgements = judge_noisy_set(make_noisy_set("human-like", 0.2))
    asked = np.flatnonzero(measure_evidence(judgements).margin > 0)[:60].tolist()
    candidate = measure_evidence(judgements).candidate
    verdicts_by_kind = {
        "given": {i: int(judgements.given[i]) for i in asked},
        "candidate": {i: int(candidate[i]) for i in asked},
        "neither": dict.fromkeys(asked, -1),
    }
    believed = {name: beliefs_after(judgements, verdicts) for name, verdicts in verdicts_by_kind.items()}
    for name, beliefs in believed.items():
        best = max(verdicts_by_kind, key=lambda other: getattr(beliefs, f"p_{other}")[asked].mean())
        assert best == name and getattr(beliefs, f"p_{name}")[asked].mean() > 0.6


def test_a_third_label_counts_like_neither() -> None:
    judgements = make_judgements([0] * 40, [[0.2, 0.7, 0.1]] * 20 + [[0.8, 0.1, 0.1]] * 20)
    third, neither = (beliefs_after(judgements, dict.fromkeys(range(20), verdict)) for verdict in (2, -1))
    assert (third.p_neither == neither.p_neither).all() and third.p_neither[0] > 0.6


@pytest.mark.parametrize("verdict", ["truth", "given", "neither"])
@pytest.mark.parametrize("count", [0, 1, 3, 600])
def test_beliefs_add_up_to_one(verdict: str, count: int) -> None:
    made = make_noisy_set("human-like", 0.2, unusable=0.05)
    judgements = judge_noisy_set(made)
    labels = {"truth": made.truth, "given": made.given, "neither": np.full(600, -1)}[verdict]
    beliefs = beliefs_after(judgements, dict(enumerate(labels[:count].tolist())))
    for p in (beliefs.p_given, beliefs.p_candidate, beliefs.p_neither):
        assert np.isfinite(p).all() and (p >= 0).all() and (p <= 1).all()
    assert beliefs.p_given + beliefs.p_candidate + beliefs.p_neither == pytest.approx(np.ones(600))
    assert beliefs.p_wrong == pytest.approx(1 - beliefs.p_given)


def test_with_many_verdicts_beliefs_are_calibrated() -> None:
    made = make_noisy_set("human-like", 0.3, items=2000)
    judgements = judge_noisy_set(made)
    beliefs = beliefs_after(judgements, dict(enumerate(made.truth[:1000].tolist())))
    unseen = np.arange(1000, 2000)
    candidate = measure_evidence(judgements).candidate
    for p, hit in (
        (beliefs.p_wrong, made.truth != made.given),
        (beliefs.p_candidate, made.truth == candidate),
        (beliefs.p_given, made.truth == made.given),
    ):
        for part in np.array_split(unseen[np.argsort(p[unseen])], 5):
            assert p[part].mean() == pytest.approx(hit[part].mean(), abs=0.12)


def test_where_there_is_no_other_label_there_is_no_candidate_to_be_right() -> None:
    judgements = make_judgements([0, 0, 1], [[1, 0], [0.5, 0.5], [0, 1]])
    beliefs = beliefs_after(judgements, {0: -1, 2: 0})
    assert beliefs.p_candidate[[0, 2]].tolist() == [0, 0] and beliefs.p_candidate[1] > 0


def test_chosen_items_are_fitted_and_repetitions_count() -> None:
    judgements = make_judgements([0] * 4, [[0.2, 0.8]] * 4)
    evidence, verdicts = measure_evidence(judgements), {0: 1, 1: 0}
    wrong, right, once = (calibrate(judgements, evidence, verdicts, chosen) for chosen in ([0] * 9, [1] * 9, [0]))
    p = [c.beliefs(evidence).p_wrong[3] for c in (wrong, once, right)]
    assert p[0] > p[1] > p[2]
    everything = calibrate(judgements, evidence, verdicts)
    assert everything.wrong == pytest.approx(calibrate(judgements, evidence, verdicts, [0, 1]).wrong)


def test_the_teacher_is_believed_as_far_as_verdicts_bear_it_out() -> None:
    rng = np.random.default_rng(0)
    # The student knows nothing about these; the teacher says a on one half of them and b on the other.
    judgements = make_judgements([0] * 200, np.full((200, 2), 0.5))
    says_b = rng.random(200) < 0.5
    table = np.where(says_b[:, None], [0.1, 0.9], [0.9, 0.1]).astype(np.float32)
    evidence = measure_suspicion(judgements, temper(judgements), [table])
    apart: list[float] = []
    for truth in (says_b, rng.random(200) < 0.5):
        verdicts = {i: int(truth[i]) for i in range(100)}
        p = calibrate(judgements, evidence, verdicts).beliefs(evidence).p_wrong
        apart.append(float(p[says_b].mean() - p[~says_b].mean()))
    assert apart[0] > 0.85 and abs(apart[1]) < 0.3


# --- how sure that is ----------------------------------------------------------------------------------------


def test_bootstrap_rounds_follow_the_seed() -> None:
    made = make_noisy_set()
    judgements, verdicts = judge_noisy_set(made), dict(enumerate(made.truth[:60].tolist()))
    evidence = measure_evidence(judgements)

    def drawn(seed: int) -> list[float]:
        return [float(b.p_wrong.mean()) for b in resample_beliefs(judgements, evidence, verdicts, 5, seed)]

    assert drawn(1) == drawn(1) != drawn(2)
    assert len(set(drawn(1))) == 5


def test_more_verdicts_leave_less_doubt() -> None:
    made = make_noisy_set("human-like", 0.2)
    judgements = judge_noisy_set(made)
    evidence = measure_evidence(judgements)

    def spread(count: int) -> float:
        verdicts = dict(enumerate(made.truth[:count].tolist()))
        return float(np.std([b.p_wrong.mean() for b in resample_beliefs(judgements, evidence, verdicts, 60, 0)]))

    assert spread(400) < 0.6 * spread(50)


@pytest.mark.parametrize(("noise", "rate"), [("symmetric", 0.2), ("human-like", 0.1), ("human-like", 0.3)])
def test_the_interval_holds_the_true_share_in_most_sets(noise: str, rate: float) -> None:
    held = 0
    for seed in range(12):
        made = make_noisy_set(noise, rate, seed=seed)
        judgements = judge_noisy_set(made)
        evidence = measure_evidence(judgements)
        prior = calibrate(judgements, evidence, {}).beliefs(evidence)
        verdicts = {i: int(made.truth[i]) for i in choose_audit(evidence, prior, 100, seed).tolist()}
        rounds = [float(b.p_wrong.mean()) for b in resample_beliefs(judgements, evidence, verdicts, 100, seed)]
        low, high = np.quantile(rounds, [0.025, 0.975])
        held += low <= (made.given != made.truth).mean() <= high
    assert held >= 9, f"{held} of 12"


def test_the_fit_is_the_optimum_that_scipy_finds_within_the_bounds() -> None:
    rng = np.random.default_rng(4)
    features, spread = rng.normal(size=(200, 4)), np.array([2.0, 1.0, 0.5, 1.0])
    hits, mean = rng.random(200) < expit(features @ [1.0, -2.0, 0.5, -1.0]), np.array([0.0, 1.0, 0.2, 0.0])
    weights, bounded = rng.exponential(size=200), np.array([False, True, True, False])

    def loss(at: Values) -> float:
        z = features @ at
        return float(weights @ (np.logaddexp(0, z) - hits * z) + 0.5 * np.sum(((at - mean) / spread) ** 2))

    found = fit_logistic(features, hits, mean, spread, weights=weights, bounded=bounded)
    best = minimize(loss, mean, method="L-BFGS-B", bounds=[(0, None) if b else (None, None) for b in bounded])
    assert found[1] == 0 and found == pytest.approx(best.x, abs=1e-4)
    assert loss(found) <= best.fun + 1e-9
