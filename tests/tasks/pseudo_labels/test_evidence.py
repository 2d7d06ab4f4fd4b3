from math import log

import numpy as np
import pytest

from tasks.pseudo_labels.evidence import (
    FEATURES,
    LEAST,
    Evidence,
    collect_evidence,
    compute_log_ratio,
    encode_evidence,
)
from tasks.records import Outcome
from tests.tasks.making import prediction

LABEL, OTHER = "申请退款", "查询物流"


def test_confidence_is_the_probability_or_the_share_of_votes() -> None:
    both = collect_evidence(prediction(probabilities={LABEL: 0.6, OTHER: 0.4}, votes={LABEL: 1, OTHER: 2}))
    assert both.confidence == 0.6
    assert collect_evidence(prediction(votes={LABEL: 1, OTHER: 3})).confidence == 0.25
    assert collect_evidence(prediction()).confidence is None
    assert collect_evidence(prediction(label="y", probabilities={LABEL: 1.0})).confidence == 0.0


def test_evidence_of_the_teacher() -> None:
    found = collect_evidence(prediction(probabilities={LABEL: 0.7, OTHER: 0.2, "z": 0.1}, votes={LABEL: 2, OTHER: 1}))
    assert (found.probability, found.margin, found.vote_share) == (0.7, pytest.approx(0.5), pytest.approx(2 / 3))
    assert (found.described, found.students, found.teachers) == (None, None, ())
    bare = collect_evidence(prediction(votes={LABEL: 3}))
    assert (bare.probability, bare.margin, bare.vote_share) == (None, None, 1.0)


def test_evidence_of_other_models() -> None:
    mine, theirs = {LABEL: 0.8, OTHER: 0.2}, {LABEL: 0.2, OTHER: 0.8}
    found = collect_evidence(
        prediction(),
        direct=prediction(probabilities=mine),
        students=[prediction(label=OTHER, probabilities=theirs)],
        teachers=[prediction(), prediction(label=OTHER), None],
    )
    assert found.described == pytest.approx(log(4)) and found.students == pytest.approx(-log(4))
    assert found.teachers == (pytest.approx(-log(LEAST)), pytest.approx(log(LEAST)), None)  # sure of another label


def test_repeats_are_averaged_before_they_are_compared() -> None:
    runs = [prediction(probabilities={LABEL: 0.9, OTHER: 0.1}), prediction(probabilities={LABEL: 0.3, OTHER: 0.7})]
    assert compute_log_ratio(runs, LABEL) == pytest.approx(log(0.6 / 0.4))
    assert compute_log_ratio([prediction(label=None, outcome=Outcome.FAILED)], LABEL) is None
    assert compute_log_ratio([], LABEL) is None


def test_unknown_evidence_is_neutral() -> None:
    names = dict(zip((*FEATURES, "teacher 2", "asked"), encode_evidence([Evidence()])[0].tolist(), strict=True))
    assert {n for n, v in names.items() if v} == {"confidence"} and names["confidence"] == pytest.approx(
        log(LEAST), 0.01
    )
    low = Evidence(probability=0.4, margin=0.1, vote_share=0.6, described=-1, students=-1, teachers=(-1, -1))
    high = Evidence(probability=0.9, margin=0.8, vote_share=1.0, described=1, students=1, teachers=(1, 1))
    below, above = encode_evidence([low, high])
    assert np.all(below[:-1] < above[:-1]) and below[-1] == above[-1] == 1
    sure = encode_evidence([Evidence(probability=1.0), Evidence(probability=1 - LEAST)])
    assert sure[0, 0] == sure[1, 0]
