import pytest

from tasks.evaluation.results import Results
from tasks.evaluation.variants import FROM_FOLDS, Phase, Variant, plan_phases
from tasks.media import TextPart
from tasks.records import Action, Correction, Example, Message, Origin, Outcome, Prediction, Sample, Split, Subset


def sample(name: str, given: str | None) -> Sample:
    split = Split.LABELLED if given else Split.UNLABELLED
    return Sample(
        id=name, task="t", parts=(TextPart(text=name),), labels=("x", "y"), given=given, split=split, source="s"
    )


def example(name: str, label: str, origin: Origin, reason: str = "", subset: Subset = Subset.TRAIN) -> Example:
    turns = (Message(role="user", content=name), Message(role="assistant", content=label))
    return Example(
        sample_id=name, messages=turns, images=(), label=label, reason=reason, origin=origin, why="", source="s",
        subset=subset,
    )  # fmt: skip


def corrected(name: str, label: str | None) -> Correction:
    action = Action.DROP if label is None else Action.RELABEL
    return Correction(
        sample_id=name, given="x", predicted=None, adjudicated=None, candidate=label, action=action, label=label, why=""
    )


RESULTS = Results(
    labelled={n: sample(n, "x") for n in ("a", "b", "c")},
    pool={n: sample(n, None) for n in ("p", "q")},
    reasons={"a": "because"},
    pseudo={"p": Prediction(sample_id="p", source="teacher", outcome=Outcome.OK, label="y")},
    corrections={"b": corrected("b", "y"), "c": corrected("c", None)},
    emitted=(
        example("a", "x", Origin.GIVEN, "because"),
        example("b", "y", Origin.CORRECTION),
        example("p", "y", Origin.PSEUDO).model_copy(update={"probabilities": {"x": 0.2, "y": 0.8}}),
        example("q", "x", Origin.PSEUDO, subset=Subset.VALIDATION),
        example("m", "", Origin.MIX),
    ),
)
TRUTH = dict.fromkeys("abcpqm", "y")


def taught(variant: Variant, results: Results = RESULTS) -> list[dict[str, str | None]]:
    return [{s.id: s.given for s in phase.items} for phase in plan_phases(variant, results, TRUTH)]


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        (Variant.RAW, [{"a": "x", "b": "x", "c": "x"}]),
        (Variant.RATIONALES, [{"a": "x", "b": "x", "c": "x"}]),
        (Variant.PSEUDO, [{"a": "x", "b": "x", "c": "x", "p": "y"}]),
        (Variant.CORRECTED, [{"a": "x", "b": "y"}]),
        (Variant.ALL, [{"a": "x", "b": "y", "p": "y"}]),
        (Variant.PHASED, [{"a": "x", "b": "y", "p": "y"}, {"p": "y"}]),
        (Variant.CEILING, [{"a": "y", "b": "y", "p": "y"}]),
    ],
)
def test_each_variant_teaches_its_items_with_its_labels(variant: Variant, expected: list[dict[str, str]]) -> None:
    assert taught(variant) == expected


def test_reasons_go_only_where_the_variant_has_them() -> None:
    assert [p.reasons for p in plan_phases(Variant.RATIONALES, RESULTS)] == [{"a": "because"}]
    assert [p.reasons for p in plan_phases(Variant.ALL, RESULTS)] == [{"a": "because"}]
    assert [p.reasons for p in plan_phases(Variant.RAW, RESULTS)] == [{}]
    assert [p.reasons for p in plan_phases(Variant.CEILING, RESULTS, TRUTH | {"a": "x"})] == [{"a": "because"}]
    assert [p.reasons for p in plan_phases(Variant.CEILING, RESULTS, TRUTH)] == [{}]  # it spoke for another label


def test_the_phases_share_the_steps() -> None:
    for variant in set(Variant) - FROM_FOLDS:
        assert sum(p.share for p in plan_phases(variant, RESULTS, TRUTH)) == pytest.approx(1)


def test_only_pseudo_labels_are_taught_as_probabilities() -> None:
    (phase,) = plan_phases(Variant.SOFT, RESULTS)
    assert phase.soft == {"p": {"x": 0.2, "y": 0.8}}
    assert taught(Variant.SOFT) == taught(Variant.ALL)
    assert not any(phase.soft for variant in set(Variant) - {Variant.SOFT} for phase in plan_phases(variant, RESULTS))


def test_what_is_too_near_to_the_evaluation_set_is_taught_in_no_variant() -> None:
    barred = Results(**{**vars(RESULTS), "barred": frozenset({("s", "a"), ("s", "p")})})
    assert taught(Variant.RAW, barred) == [{"b": "x", "c": "x"}]
    assert taught(Variant.PSEUDO, barred) == []


def test_a_variant_for_which_the_run_left_nothing_has_no_phases() -> None:
    bare = Results(RESULTS.labelled, {}, {}, {}, {}, ())
    assert {v for v in Variant if plan_phases(v, bare)} == {Variant.RAW}
    assert plan_phases(Variant.CEILING, RESULTS, None) == ()


def test_two_items_of_one_id_are_taught_each_as_itself() -> None:
    pooled = sample("a", None).model_copy(update={"parts": (TextPart(text="the pool's"),), "source": "pool"})
    emitted = (
        example("a", "y", Origin.PSEUDO).model_copy(update={"source": "pool"}),
        example("a", "x", Origin.GIVEN, "because"),
    )
    shared = Results(**{**vars(RESULTS), "pool": {"a": pooled}, "pseudo": {}, "emitted": emitted})

    def list_items(phase: Phase) -> list[tuple[str, str | None, str | None]]:
        texts = ["".join(p.text for p in s.parts if isinstance(p, TextPart)) for s in phase.items]
        return [(text, s.given, phase.reasons.get(s.id)) for text, s in zip(texts, phase.items, strict=True)]

    (everything,) = plan_phases(Variant.ALL, shared)
    assert list_items(everything) == [("the pool's", "y", None), ("a", "x", "because")]
    first, second = plan_phases(Variant.PHASED, shared)
    assert list_items(first) == list_items(everything)
    assert list_items(second) == [("the pool's", "y", None)]
