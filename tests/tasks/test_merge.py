import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.merge import merge
from tasks.records import Action, Correction, Dropped, Example, Origin, Prediction, Sample, Sampling
from tasks.stages import check_books
from tests.tasks.making import correction, image, prediction, prompter, sample

GIVEN, OTHER, THIRD = "申请退款", "查询物流", "反馈破损"
PROMPTER = prompter()


def merged(
    labelled: list[Sample],
    pool: list[Sample] | None = None,
    corrections: list[Correction] | None = None,
    pseudo: list[Prediction] | None = None,
    reasons: dict[str, str] | None = None,
    waiting: str = "keep",
) -> tuple[list[Example], list[Dropped]]:
    return merge(
        labelled,
        pool or [],
        {c.sample_id: c for c in corrections or []},
        {p.sample_id: p for p in pseudo or []},
        reasons or {},
        PROMPTER,
        waiting=waiting,  # type: ignore[arg-type]
    )


def relabelled(id: str, label: str = OTHER, **fields: object) -> Correction:
    return correction(id, action=Action.RELABEL, label=label, adjudicated=OTHER, reason="老师的理由", **fields)


def drops(dropped: list[Dropped]) -> dict[str, str]:
    return {d.sample_id: d.reason for d in dropped}


# --- the label, and what it rests on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "label", "origin", "reason"),
    [
        pytest.param(None, GIVEN, Origin.GIVEN, "给定的理由", id="no correction stage"),
        pytest.param(correction("a"), GIVEN, Origin.GIVEN, "给定的理由", id="kept"),
        pytest.param(correction("a", action=Action.REVIEW), GIVEN, Origin.GIVEN, "给定的理由", id="waits"),
        pytest.param(relabelled("a"), OTHER, Origin.CORRECTION, "老师的理由", id="corrected"),
        pytest.param(relabelled("a", reviewed=True), OTHER, Origin.REVIEW, "老师的理由", id="reviewed, as the teacher"),
        pytest.param(relabelled("a", THIRD, reviewed=True), THIRD, Origin.REVIEW, "", id="reviewed, a third label"),
        pytest.param(
            correction("a", adjudicated=OTHER, reason="老师的理由", reviewed=True),
            GIVEN,
            Origin.REVIEW,
            "给定的理由",
            id="reviewed, the given label",
        ),
    ],
)
def test_the_strongest_word_counts_and_a_reason_only_where_it_speaks_for_the_final_label(
    case: Correction | None, label: str, origin: Origin, reason: str
) -> None:
    (example,), dropped = merged([sample("a")], [], [case] if case else [], [], {"a": "给定的理由"})
    assert (example.label, example.origin, example.reason) == (label, origin, reason)
    assert example.why == (case.why if case else "given label")
    spoken = json.loads(example.messages[1].content)
    assert spoken == ({"理由": reason} if reason else {}) | {"所属类别": label}
    assert not dropped


def test_the_student_is_asked_as_it_will_be_asked() -> None:
    subject = sample("a", "用户: ", image("1"), image("2"))
    (with_reason,), _ = merged([subject], reasons={"a": "看图便知"})
    (without,), _ = merged([subject])
    assert [m.role for m in without.messages] == ["user", "assistant"]
    assert with_reason.messages[0].content != without.messages[0].content
    assert without.images == (image("1"), image("2"))
    assert without.messages[0].content.count("<image>") == 2
    prefix = PROMPTER.classify(subject, Sampling(), with_reason=False).prefix
    assert without.messages[0].content.startswith(prefix)
    assert without.source == "train.json"


def test_a_pseudo_label_brings_its_own_reason() -> None:
    judged = prediction("p", OTHER, probabilities={OTHER: 0.987}, reason="问到哪了")
    (example,), _ = merged([], [sample("p", given=None)], pseudo=[judged])
    assert (example.label, example.origin, example.reason) == (OTHER, Origin.PSEUDO, "问到哪了")
    assert "p=0.987" in example.why


# --- what is left out ----------------------------------------------------------------------------------------


def test_the_reviewers_neither_and_the_pools_untrusted_are_left_out() -> None:
    neither = correction("a", action=Action.DROP, label=None, reviewed=True, verdict="neither")
    kept, dropped = merged([sample("a"), sample("b")], [sample("p")], [neither], [])
    assert [e.sample_id for e in kept] == ["b"]
    assert drops(dropped) == {"a": "reviewer_said_neither", "p": "no_trusted_pseudo_label"}


def test_items_that_wait_for_review_can_be_left_out() -> None:
    cases = [correction("a", action=Action.REVIEW), correction("b")]
    kept, dropped = merged([sample("a"), sample("b")], corrections=cases, waiting="drop")
    assert [e.sample_id for e in kept] == ["b"]
    assert drops(dropped) == {"a": "waits_for_review"}


def test_of_equal_items_one_is_taught_the_labelled_one_first() -> None:
    same = "用户: 同"
    kept, dropped = merged(
        [sample("a", same), sample("b", same)],
        [sample("p", same), sample("q", "用户: 异"), sample("r", "用户: 异")],
        pseudo=[prediction("p", OTHER), prediction("q"), prediction("r")],
    )
    assert [e.sample_id for e in kept] == ["a", "q"]
    assert drops(dropped) == {"b": "duplicate", "p": "duplicate", "r": "duplicate"}
    assert {d.sample_id: d.detail for d in dropped} == {
        "b": "same content as a",
        "p": "same content as a",
        "r": "same content as q",
    }


def test_equal_items_with_different_final_labels_are_not_taught() -> None:
    same = "用户: 同"
    labelled = [sample("a", same), sample("b", same, given=OTHER), sample("c")]
    kept, dropped = merged(labelled)
    assert [e.sample_id for e in kept] == ["c"]
    assert drops(dropped) == {"a": "conflicting_duplicate", "b": "conflicting_duplicate"}


def test_of_equal_items_the_strongest_origin_stands() -> None:
    same = "用户: 同"
    labelled = [sample("a", same), sample("b", same, given=OTHER), sample("c")]
    kept, dropped = merged(labelled, corrections=[relabelled("b")])
    assert [e.sample_id for e in kept] == ["b", "c"]
    assert drops(dropped) == {"a": "overruled_duplicate"}


@pytest.mark.parametrize("why", ["neither", "conflict", "waiting"])
def test_what_was_refused_does_not_come_back_by_the_pool(why: str) -> None:
    same = "用户: 同"
    labelled = [sample("a", same), *([sample("b", same, given=OTHER)] if why == "conflict" else [])]
    actions = {"neither": Action.DROP, "conflict": Action.KEEP, "waiting": Action.REVIEW}
    case = correction("a", action=actions[why], label=None if why == "neither" else GIVEN)
    kept, dropped = merged(labelled, [sample("p", same)], [case], [prediction("p", THIRD)], waiting="drop")
    assert kept == []
    assert drops(dropped)["p"] == "duplicate"


# --- the books -----------------------------------------------------------------------------------------------


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Sample], list[Sample], list[Correction], list[Prediction], dict[str, str], str]:
    labels, texts = st.sampled_from((GIVEN, OTHER, THIRD)), st.sampled_from("甲乙丙丁戊己")
    labelled = [sample(f"l{i}", draw(texts), given=draw(labels)) for i in range(draw(st.integers(0, 6)))]
    pool = [sample(f"p{i}", draw(texts), given=None) for i in range(draw(st.integers(0, 6)))]
    corrections: list[Correction] = []
    for s in labelled:
        action = draw(st.none() | st.sampled_from(Action))
        if action is not None:
            label = {Action.DROP: None, Action.RELABEL: draw(labels)}.get(action, s.given)
            reviewed = action is Action.DROP or draw(st.booleans())
            corrections.append(
                correction(s.id, given=s.given, action=action, label=label, reviewed=reviewed, adjudicated=draw(labels))
            )
    pseudo = [
        prediction(s.id, draw(labels), reason=draw(st.sampled_from(["", "因为"]))) for s in pool if draw(st.booleans())
    ]
    reasons = {s.id: "理由" for s in labelled if draw(st.booleans())}
    return labelled, pool, corrections, pseudo, reasons, draw(st.sampled_from(["keep", "drop"]))


@settings(deadline=None)
@given(runs())
def test_every_item_is_kept_once_or_dropped_once_and_no_content_is_taught_twice(run) -> None:  # type: ignore[no-untyped-def]
    labelled, pool, corrections, pseudo, reasons, waiting = run
    kept, dropped = merged(labelled, pool, corrections, pseudo, reasons, waiting)
    check_books("emit", [e.sample_id for e in kept], [d.sample_id for d in dropped], [s.id for s in labelled + pool])
    taught = Counter(e.messages[0].content.split("只输出")[0].split("先写")[0] for e in kept)
    assert set(taught.values()) <= {1}
    given_label = {s.id: s.given for s in labelled}
    decided = {c.sample_id: c for c in corrections}
    for e in kept:
        if e.label != given_label.get(e.sample_id, e.label):
            assert decided[e.sample_id].action in (Action.RELABEL, Action.DROP) or decided[e.sample_id].label == e.label
        if e.reason == "理由":
            assert e.label == given_label[e.sample_id]
