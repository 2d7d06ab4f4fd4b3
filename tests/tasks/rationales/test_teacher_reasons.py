"""Reasons that teachers gave together with labels: bad ones go, labels stay, and nothing is asked twice."""

from pathlib import Path

from tasks.media import Box
from tasks.models.ask import Asker
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings
from tasks.rationales.judge import Judge
from tasks.rationales.teacher_reasons import remove_bad_reasons
from tasks.rationales.words import BadReason
from tasks.records import Vote
from tests.tasks.making import prediction, prompter
from tests.tasks.rationales.test_gate import CHINESE, screen
from tests.tasks.rationales.test_grounding import ITEM, PACK, REFUNDED, SAID, TOTAL, find_lines
from tests.tasks.rationales.test_judge import JUDGE, Critic
from tests.tasks.rationales.test_reasoner import SAMPLES, UNLIKE


def test_a_teacher_keeps_its_label_when_its_reason_is_bad() -> None:
    good = prediction("s", "退款页", reason="有三个节点的进度条和35.9元")
    leaking = prediction("s", "退款页", reason="给定标签说明它有金额")
    silent, unread = prediction("s", "退款页"), prediction("s", None)
    for each, fault in ((good, None), (leaking, BadReason.LEAKS_LABEL), (silent, None), (unread, None)):
        checked, faults = remove_bad_reasons([each], {"s": screen()}, CHINESE)
        assert checked == [each if fault is None else each.model_copy(update={"reason": ""})]
        assert faults == ({} if fault is None else {fault: 1})


def test_a_bad_reason_is_in_no_pair_either() -> None:
    votes = tuple(Vote(label="退款页", reason=reason) for reason in ("给定标签说明它有金额", "有三个节点的进度条"))
    answer = prediction("s", "退款页", reason=votes[0].reason, answers=votes)
    [checked], _ = remove_bad_reasons([answer], {"s": screen()}, CHINESE)
    assert checked.answers == votes[1:]


def test_a_teacher_s_reason_goes_with_its_boxes() -> None:
    good, bad = (prediction("s", reason=SAID, boxes=(Box(corners=corners),)) for corners in (REFUNDED, TOTAL))
    assert remove_bad_reasons([good], {"s": ITEM}, PACK, find_lines) == ([good], {})
    checked, faults = remove_bad_reasons([bad], {"s": ITEM}, PACK, find_lines)
    assert checked == [bad.model_copy(update={"reason": "", "boxes": ()})]
    assert faults == {BadReason.BOX_ELSEWHERE: 1}


def test_a_judge_sees_only_what_passed_the_gate_and_people_are_not_asked(tmp_path: Path) -> None:
    """At a threshold of 0.95, found on the labelled set, answers of .9 are refused too; unreadable ones are not."""
    answers = [prediction(s.id, s.given, reason=UNLIKE[s.id]) for s in SAMPLES]
    answers[2] = answers[2].model_copy(update={"reason": "给定标签说明它有金额"})
    critic = Critic({"s0": 0.97, "s3": None})
    judge = Judge(JUDGE, prompter(model="judge"), AskSettings(attempts=1), 0, None, threshold=0.95)
    samples = {s.id: s for s in SAMPLES}
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        asker = Asker(ledger, lambda spec: critic)
        checked, faults = remove_bad_reasons(answers, samples, prompter().pack, judge=judge, asker=asker)
        assert remove_bad_reasons(answers, samples, prompter().pack, judge=judge, asker=asker) == (checked, faults)
    assert [p.sample_id for p in checked] == list(samples) and all(p.label for p in checked)
    assert {p.sample_id for p in checked if p.reason} == {"s0", "s3"}
    assert faults == {BadReason.LEAKS_LABEL: 1, BadReason.JUDGED_INVENTED: len(SAMPLES) - 3}
    assert sorted(r.sample_id for r in critic.asked) == sorted(s.id for s in SAMPLES if s.id != "s2")
    assert judge.threshold == 0.95 and judge.cases == []
