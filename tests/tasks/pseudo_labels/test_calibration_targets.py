import pytest

from tasks.pseudo_labels.calibration_targets import Checked, build_targets, find_checked
from tasks.pseudo_labels.evidence import Evidence
from tasks.records import NEITHER, Correction, Prediction, Sample
from tests.tasks.making import correction, prediction, sample

GIVEN, CANDIDATE, THIRD = "申请退款", "查询物流", "反馈破损"


def rate(label: str, of: Correction | None, verdict: str | None = None, **others: Correction) -> tuple[float, bool]:
    """How surely the teacher's `label` is right, and whether that is certain; `others` are beside it."""
    items = [Checked(sample(), prediction(label=label), Evidence(), of, verdict)]
    found = build_targets([*items, *(Checked(sample(i), prediction(i), Evidence(), c) for i, c in others.items())])
    return float(found.right[0]), bool(found.certain[0])


@pytest.mark.parametrize(("verdict", "truth"), [(GIVEN, 0.0), (CANDIDATE, 1.0), (NEITHER, 0.0)])
def test_a_verdict_is_certain_with_or_without_a_correction(verdict: str, truth: float) -> None:
    said = correction(candidate=CANDIDATE, reviewed=True, verdict=verdict, p_given=0.99, p_candidate=0.01, p_neither=0)
    assert rate(CANDIDATE, said) == (truth, True)
    assert rate(CANDIDATE, None, verdict) == (truth, True)


def test_without_a_correction_the_given_label_counts_as_correct() -> None:
    assert rate(GIVEN, None) == (1.0, True)
    assert rate(CANDIDATE, None) == (0.0, True)
    assert build_targets([Checked(sample(), prediction(), Evidence())]).shift == (0.0, 0.0)


def test_probabilities_of_correction_are_used_as_uncertain() -> None:
    heard = correction(candidate=CANDIDATE, adjudicated=CANDIDATE, p_given=0.2, p_candidate=0.7, p_neither=0.1)
    assert rate(GIVEN, heard) == (pytest.approx(0.2), False)
    assert rate(CANDIDATE, heard) == (pytest.approx(0.7), False)
    assert rate(THIRD, heard) == (pytest.approx(0.1), False)  # the only label left of three


def test_a_blind_teacher_that_agrees_with_the_given_label_raises_its_probability() -> None:
    unheard = correction(candidate=CANDIDATE, p_given=0.9, p_candidate=0.08, p_neither=0.02)
    p, certain = rate(GIVEN, unheard)
    assert 0.9 < p < 1 and not certain
    assert rate(CANDIDATE, unheard)[0] == pytest.approx(0.08)  # its dissent is weighed by the evidence alone
    good = {f"g{i}": correction(f"g{i}", p_given=0.999, p_candidate=0, p_neither=0.001) for i in range(9)}
    assert rate(GIVEN, unheard, **good)[0] > p  # the better the teacher is, the more its word says


def test_reviewed_items_give_the_common_error_of_probabilities() -> None:
    def shift(verdict: str, count: int) -> tuple[float, float]:
        said = correction(reviewed=True, verdict=verdict, p_given=0.5, p_candidate=0.4, p_neither=0.1)
        return build_targets([Checked(sample(), prediction(), Evidence(), said)] * count).shift

    assert shift(GIVEN, 40)[0] > 0.5 > 0 > -0.5 > shift(CANDIDATE, 40)[0]
    assert shift(GIVEN, 40)[1] < shift(GIVEN, 4)[1] < 1.0
    believed = correction(p_given=0.5, p_candidate=0.4, p_neither=0.1)
    assert build_targets([Checked(sample(), prediction(), Evidence(), believed)]).shift == (0.0, 1.0)


def test_only_items_that_can_be_checked_count() -> None:
    samples: list[Sample] = [sample("a"), sample("b", given=None), sample("c", given=None), sample("d")]
    told: dict[str, Prediction] = {s.id: prediction(s.id) for s in samples}
    found = {i: Evidence(probability=0.9) for i in "abc"}  # d gave no usable answer
    items = find_checked(samples, told, found, {"a": correction("a")}, {"c": GIVEN})
    assert [(i.sample.id, i.correction is not None, i.verdict) for i in items] == [
        ("a", True, None),
        ("c", False, GIVEN),
    ]


def test_an_empty_set_has_no_targets() -> None:
    found = build_targets([])
    assert found.labels == () and found.right.shape == (0,)
