"""Asking, judging and asking again, with an engine of a few lines."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tasks.errors import TooManyFailures
from tasks.media import TextPart
from tasks.models.ask import Asker
from tasks.models.engines.engine import Usage
from tasks.models.engines.spec import EngineSpec
from tasks.models.failures import FailureLimit
from tasks.models.ledger.ledger import Ledger
from tasks.models.settings import AskSettings
from tasks.rationales.reasoner import NO_THOUGHTS, Reasons, find_reasons
from tasks.rationales.settings import RationaleSettings, Support
from tasks.records import FreeText, Generation, LabelAnswer, Outcome, Request, Sample
from tests.tasks.making import generation, prompter, sample

SAMPLES = [sample(f"s{i}", f"用户: 我要退{i}号的货") for i in range(5)]
LEAK, GOOD = "给定标签是申请退款", "用户说要退这一件的货，编号"


class Model:
    """Gives bad first answers about the items `bad`, and good ones after a complaint."""

    def __init__(
        self,
        bad: Mapping[str, str],
        *,
        heeds_complaints: bool = True,
        concludes: str = "",
        gives_probabilities: bool = True,
    ) -> None:
        self.bad = bad
        self.heeds_complaints = heeds_complaints
        self.concludes = concludes
        self.gives_probabilities = gives_probabilities
        self.asked: list[Request] = []

    fingerprint = "model"
    notes = ()
    max_failed_share = 1.0

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        return (self._answer(request) for request in requests)

    def usage(self) -> Usage:
        return Usage()

    def close(self) -> None:
        """Nothing to free."""

    def find(
        self, attempts: int = 2, support: Support = Support.NO, thoughts: Mapping[str, str] = NO_THOUGHTS
    ) -> Reasons:
        settings, ask = RationaleSettings(support=support), AskSettings(attempts=attempts)
        spec = EngineSpec(engine="scripted", model="scripted:")
        with tempfile.TemporaryDirectory() as folder, Ledger(Path(folder) / "ledger.sqlite") as ledger:
            asker = Asker(ledger, lambda _: self, limit=FailureLimit("rationales", self.max_failed_share))
            return find_reasons(asker, prompter(), SAMPLES, spec, settings, ask, seed=0, thoughts=thoughts)

    def _answer(self, request: Request) -> Generation:
        self.asked.append(request)
        constraint = request.constraint
        if isinstance(constraint, LabelAnswer):
            label = self.concludes or "申请退款"
            logprobs = {name: -0.1 if name == label else -4.0 for name in constraint.labels}
            text = constraint.opening + label + constraint.closing
            return generation(request.key, texts=(text,), label_logprobs=logprobs if self.gives_probabilities else None)
        complained = "不行" in request.suffix
        bad = self.bad.get(request.sample_id)
        if bad is not None and not (self.heeds_complaints and complained):
            return generation(request.key, texts=(bad,))
        return generation(request.key, texts=(f"{GOOD[:7]}{int(request.sample_id[1:]) * 1111}号红色外衣",))


class CutOff(Model):
    """Gives cut-off answers in the first `rounds` rounds."""

    max_failed_share = 0.1
    rounds = 2

    def _answer(self, request: Request) -> Generation:
        if request.sampling.seed < self.rounds:
            return generation(request.key, outcome=Outcome.TRUNCATED, texts=("用户说",))
        return super()._answer(request)


def test_reasons_that_are_cut_off_at_the_last_attempt_fail_the_stage() -> None:
    with pytest.raises(TooManyFailures, match=r"rationales: 5 of 5 questions failed \(reasons\).*truncated, 5 times"):
        CutOff({}).find(attempts=2)


def test_reasons_that_are_cut_off_once_do_not() -> None:
    found = CutOff({}).find(attempts=3)
    assert not list(found.list_failures())


UNLIKE = {
    "s0": "用户说收到的杯子是裂开的",
    "s1": "追问押金几时回到银行卡",
    "s2": "尺码偏小穿不进，想寄走",
    "s3": "颜色与照片差得远，不愿留",
    "s4": "下单多拍一双袜子要撤掉",
}


def list_reasons(found: Reasons) -> dict[str, str]:
    return {i: p.reason for i, p in found.kept.items()}


def test_every_item_is_kept_or_dropped() -> None:
    model = Model(UNLIKE | {"s1": LEAK, "s2": LEAK}, heeds_complaints=False)
    found = model.find(attempts=2)
    assert set(found.kept) == {"s0", "s3", "s4"}
    assert {i: d.reason for i, d in found.dropped.items()} == dict.fromkeys(
        ("s1", "s2"), "reason_says_the_label_was_given"
    )
    assert found.dropped["s1"].detail == LEAK
    assert found.first_faults == {"reason_says_the_label_was_given": 2}


def test_the_complaint_reaches_the_model_and_mends() -> None:
    model = Model(UNLIKE | {"s1": LEAK})
    found = model.find(attempts=2)
    again = [r for r in model.asked if r.sampling.temperature > 0]
    assert [r.sample_id for r in again] == ["s1"]
    assert f"上次写的“{LEAK}”不行" in again[0].suffix
    assert found.kept["s1"].attempt == 1
    assert found.kept["s0"].attempt == 0
    assert found.dropped == {}


def test_thoughts_are_shown_to_be_shortened_and_the_gate_judges_what_comes_of_them() -> None:
    model = Model(UNLIKE | {"s1": LEAK})
    found = model.find(thoughts={s.id: f"先看{s.id}，" + "很长" * 5000 + s.id for s in SAMPLES})
    assert {r.purpose for r in model.asked} == {"shorten"}
    shown = [r.parts[-1] for r in model.asked if r.sample_id == "s0"]
    assert isinstance(shown[0], TextPart) and "思考过程" in shown[0].text
    assert shown[0].text.strip().endswith("很长s0") and len(shown[0].text) < 4100
    assert [r.sample_id for r in model.asked[5:]] == ["s1"] and LEAK in model.asked[5].suffix
    assert set(found.kept) == set(UNLIKE)


def test_one_attempt_asks_nothing_again() -> None:
    model = Model(UNLIKE | {"s1": LEAK})
    assert set(model.find(attempts=1).dropped) == {"s1"}
    assert len(model.asked) == len(SAMPLES)


def test_items_all_alike_are_asked_for_something_of_their_own() -> None:
    model = Model(dict.fromkeys(UNLIKE, "用户说东西不合适要退回去"), heeds_complaints=False)
    found = model.find(attempts=2)
    assert found.first_faults == {"reason_like_others": 5}
    assert list_reasons(found) == {"s0": "用户说东西不合适要退回去"}
    before, after = found.diversity(0.7)
    assert (before.near_duplicates, after.near_duplicates) == (1.0, 0.0)


def test_support_is_asked_blind_and_only_for_what_passed() -> None:
    model = Model(UNLIKE | {"s1": LEAK}, heeds_complaints=False)
    found = model.find(attempts=1, support=Support.WITH_ITEM)
    asked = [r for r in model.asked if not isinstance(r.constraint, FreeText)]
    assert {r.sample_id for r in asked} == {"s0", "s2", "s3", "s4"}
    for request in asked:
        assert isinstance(request.constraint, LabelAnswer)
        assert UNLIKE[request.sample_id] in request.constraint.opening
        assert UNLIKE[request.sample_id] not in request.suffix
        assert "属于“申请退款”" not in request.suffix
        assert request.sampling.label_probabilities
        assert request.parts
    assert found.kept["s0"].probabilities["申请退款"] == pytest.approx(0.905, abs=0.001)


def test_a_reason_that_leads_elsewhere_is_refused() -> None:
    found = Model(UNLIKE, heeds_complaints=False, concludes="查询物流").find(1, Support.WITH_ITEM)
    assert found.kept == {}
    assert {d.reason for d in found.dropped.values()} == {"reason_does_not_lead_to_the_label"}


def test_a_server_without_probabilities_can_not_tell() -> None:
    found = Model(UNLIKE, heeds_complaints=False, concludes="查询物流", gives_probabilities=False).find(
        1, Support.WITH_ITEM
    )
    assert len(found.kept) == found.unsure == len(SAMPLES)


def test_a_reason_alone_is_asked_about_without_the_item() -> None:
    model = Model(UNLIKE, heeds_complaints=False)
    assert len(model.find(1, Support.REASON_ALONE).kept) == len(SAMPLES)
    asked = [r for r in model.asked if isinstance(r.constraint, LabelAnswer)]
    assert [r.parts for r in asked] == [()] * len(SAMPLES)


def test_no_support_asks_no_label() -> None:
    model = Model(UNLIKE)
    found = model.find()
    assert all(isinstance(r.constraint, FreeText) for r in model.asked)
    assert found.kept["s0"].probabilities == {}


def test_what_the_engine_could_not_answer_is_dropped_as_such() -> None:
    class Broken(Model):
        def _answer(self, request: Request) -> Generation:
            self.asked.append(request)
            outcomes = {"s0": Outcome.BAD_MEDIA, "s1": Outcome.FAILED}
            if request.sample_id in outcomes:
                return generation(request.key, outcome=outcomes[request.sample_id], texts=(), detail="broken")
            return generation(request.key, texts=(UNLIKE[request.sample_id],))

    model = Broken({})
    found = model.find()
    assert {i: (d.reason, d.detail) for i, d in found.dropped.items()} == {
        "s0": ("bad_media", "broken"),
        "s1": ("failed", "broken"),
    }
    assert [r.sample_id for r in model.asked[len(SAMPLES) :]] == ["s1"]  # nothing cures a broken image


def test_first_questions_are_what_they_were_without_complaints() -> None:
    model = Model(UNLIKE)
    model.find(attempts=1)
    subject: Sample = SAMPLES[0]
    plain = prompter().rationale(subject, "申请退款", AskSettings().sample_reason(0, seed=0))
    assert model.asked[0].key == plain.key
