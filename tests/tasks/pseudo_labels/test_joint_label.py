import numpy as np
import pytest

from tasks.pseudo_labels.calibration_targets import Checked
from tasks.pseudo_labels.evidence import Evidence
from tasks.pseudo_labels.joint_label import fit_weights, join_all, join_answers
from tasks.records import Outcome, Prediction
from tests.tasks.making import prediction, sample

LABEL, OTHER = "申请退款", "查询物流"
EQUAL = np.array([0.5, 0.5])


def answer(p: float, **fields: object) -> Prediction:
    label = LABEL if p > 0.5 else OTHER
    return prediction(label=label, probabilities={LABEL: p, OTHER: 1 - p}, **fields)


def test_a_single_usable_answer_is_taken_as_it_is() -> None:
    failed = prediction(label=None, outcome=Outcome.FAILED)
    only = answer(0.7)
    assert join_answers([only, None], EQUAL) is only
    assert join_answers([failed, only], EQUAL) is only
    assert join_answers([failed, None], EQUAL) is failed


def test_the_surer_teacher_decides_and_the_reason_fits_the_label() -> None:
    weak, strong = answer(0.6, reason="弱", votes={LABEL: 2, OTHER: 1}), answer(0.05, reason="强", votes={OTHER: 3})
    joint = join_answers([weak, strong], EQUAL)
    assert (joint.label, joint.reason, joint.votes) == (OTHER, "强", {LABEL: 2, OTHER: 4})
    assert sum(joint.probabilities.values()) == pytest.approx(1) and joint.probabilities[OTHER] > 0.7
    assert join_answers([weak, strong], np.array([3.0, 0.2])).label == LABEL


def test_a_label_that_no_teacher_put_first_has_no_reason() -> None:
    rows = [{"a": 0.5, "b": 0.45, "c": 0.05}, {"c": 0.5, "b": 0.45, "a": 0.05}]
    answers = [prediction(label=label, probabilities=row, reason="因为") for label, row in zip("ac", rows, strict=True)]
    joint = join_answers(answers, EQUAL)
    assert (joint.label, joint.reason) == ("b", "")


def test_weights_follow_who_is_right_on_the_labelled_set() -> None:
    rng = np.random.default_rng(0)
    items: list[Checked] = []
    right: dict[str, Prediction] = {}
    guessing: dict[str, Prediction] = {}
    for n in range(60):
        label = LABEL if n % 2 else OTHER
        one = sample(f"{n}", given=label, labels=(LABEL, OTHER))
        right[one.id] = answer(0.8 if label == LABEL else 0.2)
        guessing[one.id] = answer(float(rng.choice([0.1, 0.9])))
        items.append(Checked(one, right[one.id], Evidence()))
    weights = fit_weights(items, [guessing, right])
    assert weights[1] > 1 > 0.2 > weights[0]
    joint = join_all([guessing, right], weights)
    assert all(joint[item.sample.id].label == item.sample.given for item in items)
    assert fit_weights(items, [right]).tolist() == [1.0]
    assert fit_weights([], [right, guessing]).tolist() == [0.5, 0.5]
