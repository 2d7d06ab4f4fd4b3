"""A second model judges reasons. Here a table answers, so these tests are about asking and counting only."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import orjson
import pytest

from tasks.errors import EngineError, PackError, TooManyFailures
from tasks.media import TextPart
from tasks.models.ask import Asker
from tasks.models.engines.engine import Usage
from tasks.models.engines.spec import EngineSpec
from tasks.models.failures import FailureLimit
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings
from tasks.packs.pack import TEMPLATES, load_pack
from tasks.prompts.prompter import Prompter
from tasks.rationales.gate import LabelledReason
from tasks.rationales.judge import (
    ANSWERS,
    Judge,
    choose_threshold,
    draw_sample,
    find_neighbour,
    make_case,
    measure_score,
)
from tasks.rationales.reasoner import Reasons, find_reasons
from tasks.rationales.settings import RationaleSettings
from tasks.records import Generation, LabelAnswer, Request, content_digest
from tasks.review.queue import STORE
from tasks.review.verdicts import import_verdicts
from tests.tasks.making import generation, image, prediction, prompter, sample
from tests.tasks.rationales.test_reasoner import SAMPLES, UNLIKE, Model

GENERATOR, JUDGE = (EngineSpec(engine="scripted", model=f"scripted:{rule}") for rule in ("first", "hash"))
FOUND = "没有红色按钮"


class Critic:
    """Gives the first reasons in UNLIKE these probabilities of `good`, and all other reasons .9; None: no answer."""

    fingerprint = "critic"
    notes = ()

    def __init__(self, scores: Mapping[str, float | None], dies_after: int = 99) -> None:
        self.scores = scores
        self.dies_after = dies_after
        self.asked: list[Request] = []

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        for request in requests:
            if len(self.asked) == self.dies_after:
                raise EngineError("out of memory")
            self.asked.append(request)
            yield self._answer(request)

    def usage(self) -> Usage:
        return Usage()

    def close(self) -> None:
        """Nothing to free."""

    def _answer(self, request: Request) -> Generation:
        constraint = request.constraint
        assert isinstance(constraint, LabelAnswer) and constraint.between is not None
        score = self.scores.get(request.sample_id, 0.9) if UNLIKE[request.sample_id] in request.suffix else 0.9
        if score is None:
            return generation(request.key, texts=("……",))
        answer = "good" if score > 0.5 else "invented"
        text = constraint.opening + FOUND + constraint.between + answer + constraint.closing
        logprobs = {"good": math.log(score), "invented": math.log(1 - score)}
        return generation(request.key, texts=(text,), label_logprobs=logprobs)


def find(
    folder: Path, critic: Critic, model: Model, attempts: int = 2, max_failed_share: float = 1.0
) -> tuple[Reasons, Judge]:
    ask = AskSettings(attempts=attempts)
    judge = Judge(JUDGE, prompter(model="judge"), ask, 0, folder / "review")
    engines = {GENERATOR.model: model, JUDGE.model: critic}
    with Ledger(folder / "ledger.sqlite") as ledger:
        asker = Asker(ledger, lambda spec: engines[spec.model], limit=FailureLimit("rationales", max_failed_share))
        found = find_reasons(
            asker, prompter(), SAMPLES, GENERATOR, RationaleSettings(judge=JUDGE), ask, seed=0, judge=judge
        )
    return found, judge


def test_a_refused_reason_is_asked_again_with_what_the_judge_found(tmp_path: Path) -> None:
    critic, model = Critic({"s1": 0.1}), Model(UNLIKE)
    found, _ = find(tmp_path, critic, model)
    [again] = [r for r in model.asked if r.sampling.temperature > 0]
    assert again.sample_id == "s1"
    assert f"上次写的“{UNLIKE['s1']}”不行" in again.suffix and f"不要编造 “{FOUND}”" in again.suffix
    assert found.kept["s1"].attempt == 1 and found.dropped == {}
    assert [r.sample_id for r in critic.asked] == [*UNLIKE, "s1"]  # all of an attempt together


def test_a_reason_that_is_refused_at_the_last_attempt_is_dropped_with_a_code_of_its_own(tmp_path: Path) -> None:
    found, judge = find(tmp_path, Critic({"s1": 0.1}), Model(UNLIKE), attempts=1)
    assert found.dropped["s1"].reason == "reason_judged_invented"
    assert found.dropped["s1"].detail == f"{UNLIKE['s1']} (the judge: {FOUND})"
    assert found.first_faults == {"reason_judged_invented": 1}
    assert judge.figures() == {"judge: threshold": 0.5, "judge: not judged": 0}


def test_a_judge_that_cannot_be_read_neither_passes_nor_refuses(tmp_path: Path) -> None:
    found, judge = find(tmp_path, Critic({"s1": None}), Model(UNLIKE))
    assert found.kept["s1"].reason == UNLIKE["s1"]
    assert judge.figures()["judge: not judged"] == 1
    assert "s1" not in {case.sample_id for case in judge.cases}


def test_a_judge_that_can_hardly_ever_be_read_fails_the_run(tmp_path: Path) -> None:
    with pytest.raises(TooManyFailures, match=r"5 of 5 questions failed \(judging reasons\)"):
        find(tmp_path, Critic(dict.fromkeys(UNLIKE)), Model(UNLIKE), max_failed_share=0.1)


def test_a_judge_that_dies_ends_the_run_and_what_it_answered_is_not_asked_again(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="out of memory"):
        find(tmp_path, Critic({}, dies_after=3), Model(UNLIKE))
    critic, model = Critic({}), Model(UNLIKE)
    found, _ = find(tmp_path, critic, model)
    assert (len(found.kept), len(critic.asked), model.asked) == (5, 2, [])


def test_the_judge_sees_the_item_the_label_its_neighbour_and_the_reason(tmp_path: Path) -> None:
    critic = Critic({})
    find(tmp_path, critic, Model(UNLIKE))
    asked = critic.asked[0]
    assert isinstance(asked.constraint, LabelAnswer) and asked.constraint.labels == ANSWERS
    assert asked.parts == SAMPLES[0].parts and asked.sampling.label_probabilities
    for text in ("申请退款", find_neighbour(SAMPLES[0], "申请退款", load_pack("demo")), UNLIKE["s0"], *ANSWERS):
        assert text in asked.suffix


def test_the_neighbour_is_the_label_with_the_most_similar_name_and_gloss() -> None:
    pack = load_pack("www2025")
    subject = sample(task="image", labels=tuple(pack.task("image").labels))
    assert find_neighbour(subject, "退款页面", pack) == "换货页面"
    assert find_neighbour(sample(labels=("申请退款",)), "申请退款", pack=load_pack("demo")) == ""


def test_without_probabilities_the_answer_is_the_score() -> None:
    assert measure_score(prediction(label="good", probabilities={"good": 0.7, "invented": 0.3})) == 0.7
    assert [measure_score(prediction(label=label)) for label in ("good", "invented", None)] == [1.0, 0.0, None]


def test_a_pack_without_the_template_is_told_what_to_copy(tmp_path: Path) -> None:
    folder = shutil.copytree(TEMPLATES / "demo", tmp_path / "mine")
    (folder / "judge.jinja").unlink()
    asking = Prompter(load_pack(folder), "m", max_pixels=784, min_pixels=784)
    with pytest.raises(PackError, match=r"judge\.jinja: missing; `rationales\.judge` needs it: copy the one in"):
        Judge(JUDGE, asking, AskSettings(), 0, tmp_path)


# --- people ----------------------------------------------------------------------------------------------------


def test_a_person_sees_item_label_and_reason_but_not_the_judge() -> None:
    subject = sample("s", "用户: 退钱", image())
    case = make_case(LabelledReason(subject, "申请退款", UNLIKE["s0"]), load_pack("demo"))
    assert case.parts[:2] == subject.parts
    turns = [(p.turn, p.text) for p in case.parts[2:] if isinstance(p, TextPart)]
    assert turns == [(1, "\n所属类别: 申请退款"), (2, f"\n理由: {UNLIKE['s0']}")]
    assert (case.blind, case.given, case.candidate, case.reason, case.teacher) == (True, "", None, "", {})
    other = make_case(LabelledReason(subject, "申请退款", UNLIKE["s1"]), load_pack("demo"))
    assert content_digest(case) != content_digest(other)  # a verdict is about these words only


def test_verdicts_show_the_agreement_and_cost_nothing(tmp_path: Path) -> None:
    scores = {"s0": 0.9, "s1": 0.8, "s2": 0.7, "s3": 0.2, "s4": 0.9}
    _, judge = find(tmp_path, Critic(scores), Model(UNLIKE), attempts=1)
    contents = {case.sample_id: content_digest(case) for case in judge.cases}
    assert contents.keys() == UNLIKE.keys()
    verdicts = {"s0": "good", "s1": "bad", "s2": "good", "s3": "bad", "s4": "neither"}
    file = tmp_path / "verdicts.jsonl"
    file.write_bytes(b"\n".join(orjson.dumps({"id": i, "verdict": verdict}) for i, verdict in verdicts.items()))
    import_verdicts(judge.folder / STORE, file, dict.fromkeys(contents, ("good", "bad")), contents, "ann")
    critic, model = Critic(scores), Model(UNLIKE)
    _, judge = find(tmp_path, critic, model, attempts=1)
    assert (critic.asked, model.asked) == ([], [])
    figures = judge.figures()
    assert (figures["judge: verdicts of people"], figures["judge: agreement with people"]) == (4, 0.75)  # one can't say
    assert figures["judge: agreement, lower"] == pytest.approx(0.301, abs=0.001)  # Wilson's interval of 3 in 4
    assert figures["judge: agreement, upper"] == pytest.approx(0.954, abs=0.001)


def test_the_bar_moves_with_enough_verdicts() -> None:
    scores = [0.55 + 0.01 * n for n in range(40)]
    good = [score > 0.75 for score in scores]
    assert choose_threshold(scores[:19], good[:19])[0] == 0.5  # too few
    threshold, agreement = choose_threshold(scores, good)
    assert threshold == pytest.approx(0.755)
    assert agreement is not None and agreement.value >= 0.95 and agreement.low < agreement.value
    assert choose_threshold([0.1 + 0.01 * n for n in range(30)], [True] * 30)[0] == 0  # people find all of them good
    assert choose_threshold([], []) == (0.5, None)


def test_chance_is_not_taken_for_agreement() -> None:
    scores = [(n * 37 % 101) / 101 for n in range(60)]
    good = [n % 2 == 0 for n in range(60)]
    _, agreement = choose_threshold(scores, good)
    assert agreement is not None and agreement.low < 0.5


def test_the_sample_has_both_kinds_and_changes_little_when_items_come() -> None:
    scores = {f"a{n}": 0.9 for n in range(200)} | {f"b{n}": 0.1 for n in range(100)}
    drawn = draw_sample(scores, seed=0)
    assert len(drawn) == 50 and sum(scores[i] < 0.5 for i in drawn) == 25
    more = draw_sample(scores | {f"c{n}": 0.9 for n in range(10)}, seed=0)
    assert len(set(drawn) & set(more)) >= 45
    rare = draw_sample({i: score for i, score in scores.items() if score > 0.5 or i == "b0"}, seed=0)
    assert len(rare) == 50 and "b0" in rare
