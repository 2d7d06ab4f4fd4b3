from collections import Counter

import numpy as np

from tasks.pseudo_labels.evidence import Evidence
from tasks.pseudo_labels.trust import fit_trust
from tests.tasks.pseudo_labels.drawn_sets import World, draw


def test_stronger_evidence_never_lowers_the_expected_precision() -> None:
    model = fit_trust(draw(World(), 2).targets, 0, 40)
    least = Evidence(probability=0.5, margin=0.1, vote_share=0.4, described=-2, students=-2, teachers=(-2, -2))
    rungs = [least]
    steps = {"probability": 0.8, "margin": 0.7, "vote_share": 1.0, "described": 2, "students": 2, "teachers": (-2, 2)}
    for name, value in steps.items():
        rungs.append(rungs[-1].model_copy(update={name: value}))
    expected = model.expect_precision(rungs, ["class-0"] * len(rungs))
    assert np.all(np.diff(expected) >= 0) and expected[-1] > expected[0] + 0.1


def test_a_class_that_is_always_wrong_is_left_out_and_a_rare_one_is_shrunk() -> None:
    drawn = draw(World(spread=0.0, accuracy=3.0, students=False), 3)
    t = drawn.targets
    wrong = np.array([label == "class-1" for label in t.labels])
    spoilt = type(t)(t.evidence, t.labels, np.where(wrong, 0.0, t.right), t.certain | wrong, t.shift)
    model = fit_trust(spoilt, 0, 60)
    same = [Evidence(probability=0.97, margin=0.94, vote_share=1.0)] * 3
    often, never, unknown = model.expect_precision(same, ["class-0", "class-1", "class-not-seen"]).tolist()
    assert never < 0.6 < unknown < often
    place = {c: i for i, c in enumerate(model.classes)}
    sizes = Counter(t.labels)
    spread = {c: model.intercepts[:, i].std() for c, i in place.items()}
    rare = min(sizes, key=lambda c: sizes[c])
    assert spread["class-0"] < spread[rare]


def test_classes_may_come_in_any_order() -> None:
    model = fit_trust(draw(World(), 6).targets, 0, 20)
    found = [Evidence(probability=0.9)] * 2
    one, other = (
        model.expect_precision(found, ["class-0", "class-5"]),
        model.expect_precision(found, ["class-5", "class-0"]),
    )
    assert one.tolist() == other.tolist()[::-1]
