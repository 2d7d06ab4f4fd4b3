"""What students can learn from the teacher's answers beside its labels."""

import json

from tasks.dataset.decisions import Decision, make_example
from tasks.dataset.merge import shuffle_examples
from tasks.dataset.merge_plan import plan_merge
from tasks.dataset.sources import Sources
from tasks.dataset.teacher_lessons import add_lessons
from tasks.items.image_hashes import ImageHashes
from tasks.records import Example, Origin, Prediction, Vote
from tests.tasks.making import prediction, prompter, sample

RIGHT, WRONG = "申请退款", "查询物流"
PROMPTER = prompter()
SHARES = {RIGHT: 0.7, WRONG: 0.3}
GOOD, OTHER, BAD, WORSE = "用户想把钱退回来", "用户说要退货的款", "用户在问包裹到哪了", "用户等快递等得很急"


def add(answer: Prediction | None, origin: Origin = Origin.PSEUDO, reason: str = "", label: str = RIGHT) -> Example:
    item = sample("a", given=None)
    example = make_example(item, Decision(label, origin, "w", reason), PROMPTER)
    return add_lessons(example, item, answer, PROMPTER)


def vote(*votes: tuple[str, str], label: str = RIGHT) -> Prediction:
    return prediction("a", label, probabilities=SHARES, answers=tuple(Vote(label=x, reason=r) for x, r in votes))


def list_reasons(example: Example) -> list[tuple[str, str]]:
    """The reason and label of each pair's two sides, as text."""
    sides = [(json.loads(p.messages[-1].content), json.loads(p.rejected)) for p in example.pairs]
    assert all(good["所属类别"] == example.label != bad["所属类别"] for good, bad in sides)
    return [(good["理由"], bad["理由"]) for good, bad in sides]


def test_only_a_pseudo_label_without_a_reason_has_probabilities() -> None:
    assert add(vote()).probabilities == SHARES
    assert add(vote(), Origin.REVIEW).probabilities == {}
    assert add(vote(), reason=GOOD).probabilities == {}
    assert add(None).probabilities == {}
    assert add(prediction("another", probabilities=SHARES)).probabilities == {}


def test_votes_for_the_label_are_paired_with_votes_for_others_each_once() -> None:
    votes = ((RIGHT, GOOD), (WRONG, BAD), (RIGHT, GOOD), (RIGHT, OTHER), (WRONG, WORSE), (WRONG, BAD))
    assert list_reasons(add(vote(*votes))) == [(GOOD, BAD), (OTHER, WORSE)]
    assert list_reasons(add(vote((RIGHT, GOOD), (WRONG, BAD), (WRONG, WORSE)))) == [(GOOD, BAD)]


def test_the_final_label_decides_which_side_is_right() -> None:
    votes = vote((WRONG, BAD), (RIGHT, GOOD), label=WRONG)
    assert list_reasons(add(votes, Origin.REVIEW)) == [(GOOD, BAD)]
    assert list_reasons(add(vote((WRONG, BAD), label=WRONG), Origin.REVIEW)) == []
    assert list_reasons(add(vote((WRONG, BAD), label=WRONG), Origin.REVIEW, reason=GOOD)) == [(GOOD, BAD)]


def test_reasons_that_fail_the_gate_or_stand_on_both_sides_are_in_no_pair() -> None:
    assert add(vote((RIGHT, GOOD), (WRONG, "短"))).pairs == ()
    assert add(vote((RIGHT, GOOD), (WRONG, GOOD))).pairs == ()
    assert add(vote((RIGHT, "短"), (WRONG, BAD))).pairs == ()


def test_a_pair_asks_for_a_reason_even_if_the_example_has_none() -> None:
    example = add(vote((RIGHT, GOOD), (WRONG, BAD)))
    assert example.pairs[0].messages[:-1] == PROMPTER.training_turns(sample("a", given=None), RIGHT, GOOD)[:-1]
    assert example.messages[0] != example.pairs[0].messages[0]


def test_the_merge_gives_each_item_the_answer_about_itself() -> None:
    given, pooled = sample("a"), sample("b", "另一段对话", given=None)
    disputed = vote((RIGHT, GOOD), (WRONG, BAD))
    pseudo = prediction("b", RIGHT, probabilities=SHARES)
    sources = Sources(
        [given],
        [pooled],
        pseudo={"b": Decision(RIGHT, Origin.PSEUDO, "teacher's label")},
        of_labelled={"a": disputed},
        of_pool=[pseudo],
    )
    found = {e.sample_id: e for e in shuffle_examples(plan_merge(sources, ImageHashes(), 0), sources, PROMPTER, 0)}
    assert (len(found["a"].pairs), found["a"].probabilities) == (1, {})
    assert (len(found["b"].pairs), found["b"].probabilities) == (0, SHARES)
