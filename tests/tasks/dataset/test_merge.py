import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tasks.dataset.conflicts import find_conflicts
from tasks.dataset.decisions import decide_pseudo_labelled
from tasks.dataset.general_mix import MixRow
from tasks.dataset.merge import list_dropped, list_input_ids, shuffle_examples
from tasks.dataset.merge_plan import Plan, plan_merge
from tasks.dataset.settings import EmitSettings, MixSettings
from tasks.dataset.sources import Sources
from tasks.items.duplicates import is_near, is_same_question, make_comparable_item
from tasks.items.image_hashes import ImageHashes
from tasks.media import ImageRef, TextPart
from tasks.records import (
    Action,
    Correction,
    Dropped,
    Example,
    Message,
    Origin,
    Prediction,
    ReviewCase,
    Sample,
    Sampling,
    Split,
    Subset,
    content_digest,
)
from tasks.review.verdicts import Verdict
from tasks.storage.stages import check_item_counts
from tests.tasks.making import correction, draw_numbered_video, image, prediction, prompter, sample

GIVEN, OTHER, THIRD = "申请退款", "查询物流", "反馈破损"
PROMPTER = prompter()


def merge_sets(
    labelled: list[Sample],
    pool: list[Sample] | None = None,
    corrections: list[Correction] | None = None,
    pseudo: list[Prediction] | None = None,
    reasons: dict[str, str] | None = None,
    waiting: str = "keep",
) -> tuple[list[Example], list[Dropped]]:
    sources = Sources(
        labelled,
        pool or [],
        corrections={c.sample_id: c for c in corrections or []},
        pseudo={p.sample_id: decide_pseudo_labelled(p) for p in pseudo or []},
        reasons={i: prediction(i, reason=reason) for i, reason in (reasons or {}).items()},
        settings=EmitSettings.model_validate({"waiting": waiting}),
    )
    plan = plan_merge(sources, ImageHashes(), seed=0)
    return sort_examples(plan, sources), list(list_dropped(plan, sources))


def sort_examples(plan: Plan, sources: Sources) -> list[Example]:
    """The examples, in the order of the items."""
    examples = shuffle_examples(plan, sources, PROMPTER, seed=0)
    return sorted(examples, key=lambda e: list_input_ids(plan, sources).index(e.sample_id))


def relabel(id: str, label: str = OTHER, **fields: object) -> Correction:
    return correction(id, action=Action.RELABEL, label=label, adjudicated=OTHER, reason="老师的理由", **fields)


def list_reasons(dropped: list[Dropped]) -> dict[str, str]:
    return {d.sample_id: d.reason for d in dropped}


# --- the label, and what it rests on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "label", "origin", "reason"),
    [
        pytest.param(None, GIVEN, Origin.GIVEN, "给定的理由", id="no correction stage"),
        pytest.param(correction("a"), GIVEN, Origin.GIVEN, "给定的理由", id="kept"),
        pytest.param(correction("a", action=Action.REVIEW), GIVEN, Origin.GIVEN, "给定的理由", id="waits"),
        pytest.param(relabel("a"), OTHER, Origin.CORRECTION, "老师的理由", id="corrected"),
        pytest.param(relabel("a", reviewed=True), OTHER, Origin.REVIEW, "老师的理由", id="reviewed, as the teacher"),
        pytest.param(relabel("a", THIRD, reviewed=True), THIRD, Origin.REVIEW, "", id="reviewed, a third label"),
        pytest.param(
            correction("a", adjudicated=OTHER, reason="老师的理由", reviewed=True),
            GIVEN,
            Origin.REVIEW,
            "给定的理由",
            id="reviewed, the given label",
        ),
    ],
)
def test_the_strongest_origin_counts_and_a_reason_only_for_the_final_label(
    case: Correction | None, label: str, origin: Origin, reason: str
) -> None:
    (example,), dropped = merge_sets([sample("a")], [], [case] if case else [], [], {"a": "给定的理由"})
    assert (example.label, example.origin, example.reason) == (label, origin, reason)
    assert example.why == (case.why if case else "given label")
    spoken = json.loads(example.messages[1].content)
    assert spoken == ({"理由": reason} if reason else {}) | {"所属类别": label}
    assert not dropped


def test_the_training_prompt_is_the_prompt_that_is_asked() -> None:
    subject = sample("a", "用户: ", image("1"), image("2"))
    (with_reason,), _ = merge_sets([subject], reasons={"a": "看图便知"})
    (without,), _ = merge_sets([subject])
    assert [m.role for m in without.messages] == ["user", "assistant"]
    assert with_reason.messages[0].content != without.messages[0].content
    assert without.images == (image("1"), image("2"))
    assert without.messages[0].content.count("<image>") == 2
    prefix = PROMPTER.classify(subject, Sampling(), with_reason=False).prefix
    assert without.messages[0].content.startswith(prefix)
    assert without.source == "train.json"


def test_a_pseudo_label_has_its_own_reason() -> None:
    judged = prediction("p", OTHER, probabilities={OTHER: 0.987}, reason="问到哪了")
    (example,), _ = merge_sets([], [sample("p", given=None)], pseudo=[judged])
    assert (example.label, example.origin, example.reason) == (OTHER, Origin.PSEUDO, "问到哪了")
    assert "p=0.987" in example.why


# --- what is left out ----------------------------------------------------------------------------------------


def test_unusable_and_untrusted_items_are_left_out() -> None:
    neither = correction("a", action=Action.DROP, label=None, reviewed=True, verdict="neither")
    kept, dropped = merge_sets([sample("a"), sample("b")], [sample("p")], [neither], [])
    assert [e.sample_id for e in kept] == ["b"]
    assert list_reasons(dropped) == {"a": "reviewer_said_neither", "p": "no_trusted_pseudo_label"}


def test_items_that_wait_for_review_can_be_left_out() -> None:
    cases = [correction("a", action=Action.REVIEW), correction("b")]
    kept, dropped = merge_sets([sample("a"), sample("b")], corrections=cases, waiting="drop")
    assert [e.sample_id for e in kept] == ["b"]
    assert list_reasons(dropped) == {"a": "waits_for_review"}


def test_of_equal_items_the_labelled_one_is_kept() -> None:
    same = "用户: 同"
    kept, dropped = merge_sets(
        [sample("a", same), sample("b", same)],
        [sample("p", same), sample("q", "用户: 异"), sample("r", "用户: 异")],
        pseudo=[prediction("p", OTHER), prediction("q"), prediction("r")],
    )
    assert [e.sample_id for e in kept] == ["a", "q"]
    assert list_reasons(dropped) == {"b": "duplicate", "p": "duplicate", "r": "duplicate"}
    assert {d.sample_id: d.detail for d in dropped} == {
        "b": "same content as a",
        "p": "same content as a",
        "r": "same content as q",
    }


def test_equal_items_with_different_final_labels_are_left_out() -> None:
    same = "用户: 同"
    labelled = [sample("a", same), sample("b", same, given=OTHER), sample("c")]
    kept, dropped = merge_sets(labelled)
    assert [e.sample_id for e in kept] == ["c"]
    assert list_reasons(dropped) == {"a": "conflicting_duplicate", "b": "conflicting_duplicate"}


def test_a_recording_with_two_labels_is_a_conflict_and_with_one_a_duplicate(tmp_path: Path) -> None:
    clip, other = draw_numbered_video(tmp_path), draw_numbered_video(tmp_path, first=40)
    labelled = [sample("a", clip), sample("b", clip, given=OTHER), sample("c", "看", other), sample("d", "看", other)]
    kept, dropped = merge_sets(labelled)
    assert [(e.sample_id, e.videos) for e in kept] == [("c", (other,))]
    assert kept[0].messages[0].content.count("<video>") == 1
    assert list_reasons(dropped) == dict.fromkeys("ab", "conflicting_duplicate") | {"d": "duplicate"}


def test_of_equal_items_the_strongest_origin_is_kept() -> None:
    same = "用户: 同"
    labelled = [sample("a", same), sample("b", same, given=OTHER), sample("c")]
    kept, dropped = merge_sets(labelled, corrections=[relabel("b")])
    assert [e.sample_id for e in kept] == ["b", "c"]
    assert list_reasons(dropped) == {"a": "overruled_duplicate"}


ASKS = "用户: 上周买的这件外套我穿着有点小，想换大一号的，可是页面上找不到换货的入口，请问我要怎么申请才好？订单{}"


def test_of_near_duplicates_one_is_kept() -> None:
    kept, dropped = merge_sets(
        [sample("a", ASKS.format(1)), sample("b", ASKS.format(2))],
        [sample("p", ASKS.format(3)), sample("q", "用户: 什么时候发货")],
        pseudo=[prediction("p", OTHER), prediction("q")],
    )
    assert [e.sample_id for e in kept] == ["a", "q"]
    assert {d.sample_id: (d.reason, d.detail) for d in dropped} == {
        "b": ("near_duplicate", "nearly the same as a"),
        "p": ("near_duplicate", "nearly the same as a"),
    }


def test_near_duplicates_with_different_labels_are_different_questions() -> None:
    kept, dropped = merge_sets(
        [sample("a", ASKS.format(1)), sample("b", ASKS.format(2), given=OTHER)],
        [sample("p", "用户: 在吗"), sample("q", "用户: 在吗")],
        pseudo=[prediction("p", OTHER), prediction("q")],
    )
    assert [(e.sample_id, e.label) for e in kept] == [("a", GIVEN), ("b", OTHER)]
    assert list_reasons(dropped) == {"p": "conflicting_duplicate", "q": "conflicting_duplicate"}
    assert dropped[0].detail == f"items with the same content, such as q, have labels ['{OTHER}', '{GIVEN}']"


def test_of_near_duplicates_with_one_label_the_strongest_origin_is_kept() -> None:
    labelled = [sample("a", ASKS.format(1)), sample("b", ASKS.format(2), given=OTHER)]
    kept, dropped = merge_sets(labelled, corrections=[relabel("b", GIVEN)])
    assert [(e.sample_id, e.label) for e in kept] == [("b", GIVEN)]
    assert list_reasons(dropped) == {"a": "overruled_duplicate"}
    kept, dropped = merge_sets(labelled, corrections=[relabel("b", THIRD)])
    assert [(e.sample_id, e.label) for e in kept] == [("a", GIVEN), ("b", THIRD)]


HISTORY = "用户: 我昨天在你们店里买了一件外套，订单还没有动静\n客服: 您好，请发一下订单的截图，这边帮您看看\n用户: "


@pytest.fixture
def screenshot(tmp_path: Path) -> ImageRef:
    Image.effect_noise((56, 84), 90).save(tmp_path / "screen.png")
    return ImageRef(path=str(tmp_path / "screen.png"), sha256="5" * 64, width=56, height=84)


@pytest.mark.parametrize("labels", [(GIVEN, OTHER), (GIVEN, GIVEN)])
def test_different_questions_about_one_screenshot_are_all_taught(screenshot: ImageRef, labels: tuple[str, str]) -> None:
    questions = "\n用户: 能不能退款", "\n用户: 什么时候发货"
    labelled = [sample(q, HISTORY, screenshot, q, given=label) for q, label in zip(questions, labels, strict=True)]
    assert is_near(*map(make_comparable_item, labelled))
    kept, dropped = merge_sets(labelled)
    assert [e.label for e in kept] == list(labels) and not dropped


def test_a_screenshot_with_nearly_the_same_question_is_a_duplicate(screenshot: ImageRef) -> None:
    questions = "\n用户: 请问什么时候能发货呀", "\n用户: 请问什么时候能发货"
    kept, dropped = merge_sets([sample(q, HISTORY, screenshot, q) for q in questions])
    assert len(kept) == 1 and list_reasons(dropped) == {questions[1]: "near_duplicate"}


def test_a_dialogue_with_one_row_per_turn_survives_whole() -> None:
    lines = [f"用户: {ASKS.format('一')}", "客服: 好的", "用户: 在吗", "客服: 在的", "用户: 在吗", "客服: 请讲"]
    rows = [sample(f"{n}", "\n".join(lines[:n])) for n in range(1, len(lines) + 1)]
    kept, dropped = merge_sets(rows)
    assert [e.sample_id for e in kept] == [r.id for r in rows] and not dropped


def test_a_held_out_question_about_the_same_screenshot_still_contaminates(screenshot: ImageRef) -> None:
    one, other = (sample(q, HISTORY, screenshot, f"\n用户: {q}") for q in ("能不能退款", "什么时候发货"))
    assert settle(Sources(labelled=[one], evaluation=[other]))[0] == {one.id: "contaminates_evaluation"}


def test_the_latest_user_turn_counts_even_if_the_service_answers_last() -> None:
    turns = [TextPart(text=HISTORY, turn=1), TextPart(text="\n客服: 请稍等", turn=3)]
    pair = [
        sample(q, user_turn=2).model_copy(update={"parts": (turns[0], TextPart(text=f"\n用户: {q}", turn=2), turns[1])})
        for q in ("能不能退款", "什么时候发货")
    ]
    one, other = map(make_comparable_item, pair)
    assert (one.question, other.question) == ("用户: 能不能退款", "用户: 什么时候发货")
    assert not is_same_question(one, other)


def settle(sources: Sources) -> tuple[dict[str, str], list[ReviewCase]]:
    plan = plan_merge(sources, ImageHashes(), seed=0)
    taught = [e.sample_id for e in sort_examples(plan, sources)]
    reasons = {d.sample_id: str(d.reason) for d in list_dropped(plan, sources)}
    check_item_counts("emit", taught, list(reasons), list_input_ids(plan, sources))
    return reasons | dict.fromkeys(taught, "taught"), find_conflicts(plan, sources, 50)


def use_mix(share: float, **settings: bool) -> EmitSettings:
    return EmitSettings(mix=MixSettings(file=Path("mix.jsonl"), share=share), **settings)


def judge(of: Sample, verdict: str) -> list[Verdict]:
    return [Verdict(id=of.id, content=content_digest(of), verdict=verdict, given=GIVEN, at="", by="Ann")]


@pytest.mark.parametrize(
    ("verdicts", "outcome"),
    [
        pytest.param({}, {"a": "conflicting_duplicate", "b": "conflicting_duplicate"}, id="nobody"),
        pytest.param({"a": GIVEN}, {"a": "taught", "b": "overruled_duplicate"}, id="one"),
        pytest.param({"a": OTHER, "b": OTHER}, {"a": "taught", "b": "duplicate"}, id="both, the same"),
        pytest.param({"a": GIVEN, "b": OTHER}, dict.fromkeys("ab", "conflicting_duplicate"), id="both, different"),
        pytest.param({"a": "neither"}, {"a": "reviewer_said_neither", "b": "overruled_duplicate"}, id="neither"),
    ],
)
def test_conflicts_are_reviewed_and_verdicts_settle_them(verdicts: dict[str, str], outcome: dict[str, str]) -> None:
    pair = [sample("a", ASKS.format(1)), sample("b", ASKS.format(1), given=OTHER)]
    answers = {s.id: judge(s, verdicts[s.id]) for s in pair if s.id in verdicts}
    found, cases = settle(Sources(labelled=pair, verdicts=answers))
    assert found == outcome
    asked = {"a", "b"} if "conflicting_duplicate" in outcome.values() else set(verdicts)
    assert {c.sample_id: c.given for c in cases} == {s.id: s.given for s in pair if s.id in asked}
    if not verdicts:
        assert [c.candidate for c in cases] == [OTHER, GIVEN]


def test_conflicts_of_a_labelled_and_a_pool_item_with_one_id_are_told_apart() -> None:
    labelled = [sample("1", "用户: 甲"), sample("2", "用户: 甲", given=OTHER)]
    pool = [sample(i, "用户: 乙", given=None, split=Split.UNLABELLED, source="pool.json") for i in ("1", "2")]
    trusted = {"1": decide_pseudo_labelled(prediction("1", OTHER)), "2": decide_pseudo_labelled(prediction("2", THIRD))}
    sources = Sources(labelled=labelled, pool=pool, pseudo=trusted)
    plan = plan_merge(sources, ImageHashes(), seed=0)
    cases = find_conflicts(plan, sources, 50)
    assert {c.sample_id: c.given for c in cases} == {
        "labelled/1": GIVEN, "labelled/2": OTHER, "unlabelled/1": OTHER, "unlabelled/2": THIRD,
    }  # fmt: skip
    assert {(d.source, d.sample_id) for d in list_dropped(plan, sources)} == {
        (source, i) for source in ("train.json", "pool.json") for i in "12"
    }
    answers = {f"{s.split}/{s.id}": judge(s, THIRD) for s in (labelled[0], pool[0])}
    judged = replace(sources, verdicts=answers)
    taught = sort_examples(plan_merge(judged, ImageHashes(), seed=0), judged)
    assert [(e.source, e.sample_id, e.label) for e in taught] == [("train.json", "1", THIRD), ("pool.json", "1", THIRD)]
    assert {c.sample_id for c in find_conflicts(plan, judged, 0)} == set(answers)


def test_the_other_item_of_the_same_id_is_named_with_its_manifest() -> None:
    pool = [sample("1", "用户: 甲", given=None, split=Split.UNLABELLED, source="/data/pool.json")]
    _, dropped = merge_sets([sample("1", "用户: 甲", source="/data/train.json")], pool, pseudo=[prediction("1")])
    assert [(d.source, d.detail) for d in dropped] == [("/data/pool.json", "same content as 1 of train.json")]


def test_the_number_of_open_conflicts_is_limited_and_judged_ones_stay() -> None:
    rivals = [sample(f"{i}{side}", f"用户: {i}号", given=side) for i in "一二三" for side in (GIVEN, OTHER)]
    answers = {rivals[5].id: judge(rivals[5], THIRD)}
    sources = Sources(labelled=rivals, verdicts=answers)
    cases = find_conflicts(plan_merge(sources, ImageHashes(), seed=0), sources, 3)
    assert [c.sample_id for c in cases] == [rivals[i].id for i in (1, 0, 3, 5)]
    assert cases[0].gain == 0.5


def test_a_verdict_on_changed_content_does_not_count() -> None:
    now, before = sample("a", ASKS.format(1)), sample("a", ASKS.format(7))
    pair = [now, sample("b", ASKS.format(1), given=OTHER)]
    found, _ = settle(Sources(labelled=pair, verdicts={"a": judge(before, OTHER)}))
    assert found == dict.fromkeys("ab", "conflicting_duplicate")


def test_a_verdict_for_a_removed_label_does_not_count() -> None:
    pair = [sample("a", ASKS.format(1)), sample("b", ASKS.format(1), given=OTHER)]
    pool = [sample("p", "用户: 在吗", given=None)]
    answers = {s.id: judge(s, "改名前的类别") for s in (pair[0], pool[0])}
    found, _ = settle(Sources(labelled=pair, pool=pool, verdicts=answers))
    assert found == dict.fromkeys("ab", "conflicting_duplicate") | {"p": "no_trusted_pseudo_label"}


def test_a_changed_item_is_reviewed_again_if_it_conflicts() -> None:
    rivals = [sample(f"{i}{side}", f"用户: {i}号", given=side) for i in "一二" for side in (GIVEN, OTHER)]
    settled = sample("x", "用户: 别的")
    answers = {
        rivals[0].id: judge(settled, GIVEN),
        rivals[3].id: judge(rivals[3], "改名前的类别"),
        "x": judge(rivals[0], OTHER),
    }
    sources = Sources(labelled=[*rivals, settled], verdicts=answers)
    plan = plan_merge(sources, ImageHashes(), seed=0)
    assert [c.sample_id for c in find_conflicts(plan, sources, 2)] == [rivals[1].id, rivals[0].id]
    assert len(find_conflicts(plan, sources, 50)) == 4


def test_items_of_two_tasks_over_the_same_dialogues_do_not_compete() -> None:
    def asked(task: str, i: int, given: str) -> Sample:
        return sample(f"{task}{i}", ASKS.format(i), task=task, labels=(given, "其他"), given=given)

    labelled = [asked("dialogue", 1, "换货"), asked("image", 1, "生气"), asked("dialogue", 2, "换货")]
    pool = [asked("image", 2, "生气")]
    trusted = {"image2": decide_pseudo_labelled(prediction("image2", "生气"))}
    found, cases = settle(Sources(labelled=labelled, pool=pool, pseudo=trusted))
    yielding = {"dialogue2": "near_duplicate", "image2": "near_duplicate"}
    assert found == {"dialogue1": "taught", "image1": "taught"} | yielding
    assert cases == []


def test_two_tasks_without_label_sets_may_have_the_same_text_for_a_picture() -> None:
    def caption(id: str, task: str) -> Sample:
        return sample(id, image("1"), labels=(), given="红鞋", task=task)

    sources = Sources(labelled=[caption("a", "title"), caption("b", "alt"), caption("c", "alt")])
    plan = plan_merge(sources, ImageHashes(), seed=0)
    assert [outcome.reason for outcome in plan.outcomes] == [None, None, "duplicate"]


def test_content_of_the_evaluation_split_is_left_out_in_every_task() -> None:
    labelled = [sample("a", ASKS.format(1), task="mood"), sample("b")]
    sources = Sources(labelled=labelled, evaluation=[sample("e", ASKS.format(1), task="intent")])
    assert settle(sources)[0] == {"a": "contaminates_evaluation", "b": "taught"}


BESIDE = ASKS.replace("申请", "办理")
BEYOND = BESIDE.replace("外套", "衬衫")
"""Near the one before, and no longer near the first."""


@pytest.mark.parametrize(
    ("given", "refused", "outcome"),
    [
        pytest.param(GIVEN, False, "taught", id="the same label"),
        pytest.param(OTHER, False, "taught", id="another label"),
        pytest.param(GIVEN, True, "near_duplicate", id="that was refused"),
    ],
)
def test_a_contaminating_item_displaces_no_other_unless_refused(given: str, refused: bool, outcome: str) -> None:
    held_out, beside, beyond = sample("e", ASKS), sample("a", BESIDE, given=given), sample("p", BEYOND, given=None)
    one, other, third = map(make_comparable_item, (held_out, beside, beyond))
    assert (is_near(one, other), is_near(other, third), is_near(one, third)) == (True, True, False)
    neither = correction("a", action=Action.DROP, label=None, reviewed=True, verdict="neither")
    sources = Sources(
        labelled=[beside],
        pool=[beyond],
        evaluation=[held_out],
        corrections={"a": neither} if refused else {},
        pseudo={"p": decide_pseudo_labelled(prediction("p"))},
    )
    assert settle(sources)[0] == {"a": "contaminates_evaluation", "p": outcome}


def test_near_duplicates_can_all_be_kept_and_stay_on_one_side() -> None:
    labelled = [sample(f"{i}", ASKS.format(i)) for i in range(6)]
    labelled += [sample(f"x{i}", f"用户: 第{'一二三四五六'[i]}个问题") for i in range(6)]
    sources = Sources(labelled=labelled, settings=EmitSettings(near_duplicates="keep", validation_share=0.3))
    kept = sort_examples(plan_merge(sources, ImageHashes(), seed=0), sources)
    assert len(kept) == 12
    assert len({e.subset for e in kept[:6]}) == 1
    assert Subset.VALIDATION in {e.subset for e in kept}


def test_items_without_a_good_reason_can_be_left_out() -> None:
    sources = Sources(
        labelled=[sample("a"), sample("b"), sample("c"), sample("d")],
        corrections={"c": relabel("c"), "d": correction("d", action=Action.DROP, label=None, reviewed=True)},
        reasons={"a": prediction("a", reason="看图便知")},
        unreasoned={"b", "c", "d"},
    )
    assert settle(sources)[0] == {"a": "taught", "b": "no_good_reason", "c": "taught", "d": "reviewer_said_neither"}


def test_a_label_that_was_changed_or_confirmed_needs_no_reason() -> None:
    ids = ("changed", "chosen", "confirmed", "judged", "kept", "waits")
    labelled = [sample(i) for i in ids]
    cases = [
        relabel("changed"),
        relabel("chosen", THIRD, reviewed=True),
        correction("confirmed", reviewed=True),
        correction("kept"),
        correction("waits", action=Action.REVIEW),
    ]
    sources = Sources(
        labelled=labelled,
        corrections={c.sample_id: c.model_copy(update={"reason": ""}) for c in cases},
        unreasoned=set(ids),
        verdicts={"judged": judge(labelled[3], OTHER)},
    )
    left_out = {"kept": "no_good_reason", "waits": "no_good_reason"}
    assert settle(sources)[0] == dict.fromkeys(ids, "taught") | left_out


def test_several_captions_of_one_picture_do_not_conflict() -> None:
    def caption(id: str, text: str) -> Sample:
        return sample(id, image("1"), labels=(), given=text)

    sources = Sources(labelled=[caption("a", "红鞋"), caption("b", "一双鞋"), caption("c", "红鞋")])
    plan = plan_merge(sources, ImageHashes(), seed=0)
    assert [outcome.reason for outcome in plan.outcomes] == [None, None, "duplicate"]
    assert find_conflicts(plan, sources, 50) == []


def test_contamination_is_checked_first_and_in_the_mix_too() -> None:
    held_out = [sample("e", ASKS.format(1)), sample("f", "用户: 在吗")]
    spoken = (Message(role="user", content=ASKS.format(5)), Message(role="assistant", content="好"))
    row = Example(sample_id="m", messages=spoken, images=(), label="", origin=Origin.MIX, why="", source="mix.jsonl")
    sources = Sources(
        labelled=[sample("a", ASKS.format(2)), sample("b")],
        pool=[sample("p", "用户: 在吗"), sample("q", "用户: 在么")],
        evaluation=held_out,
        pseudo={"q": decide_pseudo_labelled(prediction("q"))},
        mix=[MixRow("m", row)],
        settings=use_mix(0.4),
    )
    stopped = {"a": "contaminates_evaluation", "p": "contaminates_evaluation", "m": "contaminates_evaluation"}
    assert settle(sources)[0] == {"b": "taught", "q": "taught"} | stopped
    allowed = {"a": "taught", "p": "no_trusted_pseudo_label", "m": "taught"}
    transductive = replace(sources, settings=use_mix(0.4, transductive=True))
    assert settle(transductive)[0] == {"b": "taught", "q": "taught"} | allowed


def test_a_mix_row_with_a_picture_of_the_evaluation_split_is_left_out() -> None:
    spoken = (Message(role="user", content="<image>画里有什么"), Message(role="assistant", content="鞋"))
    shown = Example(
        sample_id="m", messages=spoken, images=(image("1"),), label="", origin=Origin.MIX, why="", source="mix.jsonl"
    )
    other = shown.model_copy(update={"sample_id": "n", "images": (image("2"),)})
    mix = [MixRow("m", shown), MixRow("n", other)]
    held_out = [sample("e", "用户: 看", image("1"))]
    sources = Sources(labelled=[sample("a")], mix=mix, evaluation=held_out, settings=use_mix(0.5))
    assert settle(sources)[0] == {"a": "taught", "m": "contaminates_evaluation", "n": "taught"}
    kept, _ = settle(replace(sources, settings=use_mix(0.5, transductive=True)))
    assert kept == {"a": "taught", "m": "taught"}


def mix_row(i: int) -> MixRow:
    spoken = (Message(role="user", content=f"第{'一二三四五六七八'[i]}问"), Message(role="assistant", content="好"))
    example = Example(
        sample_id=f"m{i}", messages=spoken, images=(), label="", origin=Origin.MIX, why="", source="mix.jsonl"
    )
    return MixRow(f"m{i}", example)


def test_rows_of_the_mix_are_used_in_order_until_its_share_is_reached() -> None:
    again = mix_row(0).example
    assert again is not None
    twice = MixRow("again", again.model_copy(update={"sample_id": "again"}))
    good = [mix_row(i) for i in range(4)]
    rows = [good[0], MixRow("bad", None, "mix_malformed"), twice, *good[1:]]
    found, _ = settle(Sources(labelled=[sample(i) for i in "abcdef"], mix=rows, settings=use_mix(0.25)))
    of_mix = {i: outcome for i, outcome in found.items() if i not in "abcdef"}
    assert of_mix == {"m0": "taught", "bad": "mix_malformed", "again": "duplicate", "m1": "taught"}


@pytest.mark.parametrize("why", ["neither", "conflict", "waiting"])
def test_a_refused_item_does_not_come_back_through_the_pool(why: str) -> None:
    same = "用户: 同"
    labelled = [sample("a", same), *([sample("b", same, given=OTHER)] if why == "conflict" else [])]
    actions = {"neither": Action.DROP, "conflict": Action.KEEP, "waiting": Action.REVIEW}
    case = correction("a", action=actions[why], label=None if why == "neither" else GIVEN)
    kept, dropped = merge_sets(labelled, [sample("p", same)], [case], [prediction("p", THIRD)], waiting="drop")
    assert kept == []
    assert list_reasons(dropped)["p"] == "duplicate"


# --- the order -----------------------------------------------------------------------------------------------


LETTERS = "abcdefghijkl"


def order(seed: int, count: int = 12) -> list[str]:
    mix = [mix_row(i) for i in range(4)]
    sources = Sources(labelled=[sample(i) for i in LETTERS[:count]], mix=mix, settings=use_mix(0.25))
    return [e.sample_id for e in shuffle_examples(plan_merge(sources, ImageHashes(), seed), sources, PROMPTER, seed)]


def test_the_seed_decides_the_order() -> None:
    first = order(1)
    assert sorted(first) == sorted([*LETTERS, *(f"m{i}" for i in range(4))])
    assert first == order(1) != order(2)
    assert order(1, count=0) == []


def test_the_order_does_not_depend_on_the_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    first = order(1)
    monkeypatch.setattr("tasks.dataset.merge._HELD", 3)
    assert order(1) == first


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
def test_every_item_is_kept_or_dropped_once_and_no_content_is_kept_twice(run) -> None:  # type: ignore[no-untyped-def]
    labelled, pool, corrections, pseudo, reasons, waiting = run
    kept, dropped = merge_sets(labelled, pool, corrections, pseudo, reasons, waiting)
    check_item_counts(
        "emit", [e.sample_id for e in kept], [d.sample_id for d in dropped], [s.id for s in labelled + pool]
    )
    taught = Counter(e.messages[0].content.split("只输出")[0].split("先写")[0] for e in kept)
    assert set(taught.values()) <= {1}
    given_label = {s.id: s.given for s in labelled}
    decided = {c.sample_id: c for c in corrections}
    for e in kept:
        if e.label != given_label.get(e.sample_id, e.label):
            assert decided[e.sample_id].action in (Action.RELABEL, Action.DROP) or decided[e.sample_id].label == e.label
        if e.reason == "理由":
            assert e.label == given_label[e.sample_id]
