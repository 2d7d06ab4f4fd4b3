"""The batch engine beside a small provider that misbehaves on purpose: what is sent, taken, said and kept."""

import hashlib
import logging
import multiprocessing
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from tasks.errors import AccountError, AnswersPending
from tasks.media import ImageRef
from tasks.models.engines.batch import sending
from tasks.models.engines.batch.engine import BatchEngine
from tasks.models.engines.batch.provider import Provider, Rejected
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.spec import EngineSpec, Prices
from tasks.models.image_cache import ImageCache
from tasks.records import Generation, Outcome, Request, Sampling
from tests.batch_stub import BatchOptions, RunningBatchStub, running
from tests.stub_answers import Gap
from tests.tasks.making import prompter, sample
from tests.tasks.models.engines.asking_stub import VOTES, make_requests
from tests.tasks.models.engines.batch_run import look, run

ADDRESS = "http://127.0.0.1:1/v1"


def finish(folder: Path, stub: RunningBatchStub, requests: list[Request]) -> list[Generation]:
    """Look until everything is answered."""
    said = ""
    for _ in range(20):
        answers, said = look(folder, stub.url, requests)
        if not said:
            return answers
    raise AssertionError(said)


@pytest.fixture(scope="module")
def flawless() -> Iterator[RunningBatchStub]:
    with running() as stub:
        yield stub


def test_a_run_submits_says_so_and_a_later_one_takes_the_answers(tmp_path: Path, flawless: RunningBatchStub) -> None:
    requests = list(make_requests(30, VOTES))
    prices = Prices(prompt=1.0, output=2.0)
    answers, said = look(tmp_path, flawless.url, requests, prices=prices)
    assert not answers
    assert "submitted 30 questions in 1 file, for about 0.0" in said
    assert "at half of `prices`; answers come within 24h" in said
    answers, said = look(tmp_path, flawless.url, requests)
    assert not answers
    assert "30 submitted earlier are not answered yet; 1 batch in progress, 0 of 30 questions done" in said
    answers, said = look(tmp_path, flawless.url, requests)
    assert not said
    assert {a.key for a in answers} == {r.key for r in requests}
    assert {(a.outcome, len(a.texts), a.engine) for a in answers} == {(Outcome.OK, 3, "batch/stub@main")}
    calls = flawless.stats()["calls"]
    assert len(look(tmp_path, flawless.url, requests)[0]) == 30
    assert flawless.stats()["calls"] == calls, "the ledger has all answers, so nothing is asked"


def test_what_was_accepted_is_not_sent_again_when_the_reply_is_lost(tmp_path: Path) -> None:
    requests = list(make_requests(5))
    with running(BatchOptions(lose_reply=1.0, looks=0)) as stub:
        assert "submitted 5 questions in 1 file" in look(tmp_path, stub.url, requests)[1]
        assert len(finish(tmp_path, stub, requests)) == 5
        bill = stub.stats()
    assert (bill["uploads"], bill["batches"], bill["accepted"]) == (1, 1, 5)


@pytest.mark.parametrize("known", ["uploading", "creating"])
def test_what_was_accepted_is_not_sent_again_when_its_record_is_missing(tmp_path: Path, known: str) -> None:
    """As after kill -9 between the server's reply and the note of it."""
    requests = list(make_requests(5))
    with running(BatchOptions(looks=0)) as stub:
        look(tmp_path, stub.url, requests)
        with closing(sqlite3.connect(tmp_path / "ledger.sqlite.batches" / "batches.sqlite")) as book:
            file_id = "file_id" if known == "creating" else "''"
            book.execute(f"UPDATE batches SET state = '{known}', batch_id = '', file_id = {file_id}")
            book.commit()
        assert len(finish(tmp_path, stub, requests)) == 5
        bill = stub.stats()
    assert (bill["uploads"], bill["batches"], bill["accepted"]) == (1, 1, 5)


def test_damaged_files_are_read_and_what_is_missing_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bad = BatchOptions(
        lose=0.1, double=0.2, damage=0.1, foreign=0.1, expire=0.3, cancel=0.2, fail_half=0.4, spare_later=True, looks=0
    )
    requests = list(make_requests(100))
    with caplog.at_level(logging.INFO, "labelstill"), running(bad) as stub:
        answers = finish(tmp_path, stub, requests)
        bill = stub.stats()
    assert {a.outcome for a in answers} == {Outcome.OK}
    assert (len(answers), bill["billed"], bill["twice"]) == (100, 100, 0)
    for oddity in ("damaged lines", "doubled lines", "lines about questions that this batch does not have"):
        assert oddity in caplog.text
    assert "questions without an answer, which are sent again" in caplog.text


def test_questions_that_an_expired_batch_did_not_come_to_are_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    requests = list(make_requests(10))
    with caplog.at_level(logging.INFO, "labelstill"), running(BatchOptions(expire=1.0, looks=0)) as stub:
        look(tmp_path, stub.url, requests)
        answers, said = look(tmp_path, stub.url, requests)
    assert len(answers) == 5
    assert "submitted 5 questions in 1 file" in said
    assert "batch batch_1 expired: 5 of 10 questions answered" in caplog.text


def test_a_question_that_always_fails_is_given_up_after_three_batches(tmp_path: Path) -> None:
    requests = list(make_requests(2))
    with running(BatchOptions(lose=1.0, looks=0)) as stub:
        answers = finish(tmp_path, stub, requests)
        assert stub.stats()["accepted"] == 6
    assert {a.outcome for a in answers} == {Outcome.FAILED}
    assert "failed 3 times at this question" in answers[0].detail


def test_a_refused_question_fails_alone_and_is_asked_again_by_a_later_run(tmp_path: Path) -> None:
    requests = list(make_requests(5))
    with running(BatchOptions(refuse=("item-3",), looks=0)) as stub:
        answers = finish(tmp_path, stub, requests)
        failed = [a for a in answers if a.outcome is Outcome.FAILED]
        assert [a.key for a in failed] == [requests[3].key]
        assert "HTTP 400: this question is not allowed" in failed[0].detail
        assert "submitted 1 questions" in look(tmp_path, stub.url, requests)[1]


def test_a_refused_file_stops_the_run_and_the_next_one_sends_it_again(tmp_path: Path) -> None:
    requests = list(make_requests(5))
    with running(BatchOptions(refused_files=1, looks=0)) as stub:
        with pytest.raises(Rejected, match="HTTP 400: Invalid file format"):
            look(tmp_path, stub.url, requests)
        assert len(finish(tmp_path, stub, requests)) == 5
        assert stub.stats()["accepted"] == 5


def test_an_invalid_batch_stops_the_run_with_the_provider_s_reason(tmp_path: Path) -> None:
    requests = list(make_requests(5))
    with running(BatchOptions(invalid_batches=1, looks=0)) as stub:
        assert "submitted 5 questions" in look(tmp_path, stub.url, requests)[1]
        with pytest.raises(Rejected, match="batch_1: The model does not support batches; correct `model`"):
            look(tmp_path, stub.url, requests)
        assert len(finish(tmp_path, stub, requests)) == 5


def test_more_than_the_provider_s_queue_takes_is_sent_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sending, "MOST_QUESTIONS", 20)
    requests = list(make_requests(60))
    with running(BatchOptions(queue_tokens=2_000, looks=0)) as stub:  # 100 per question by the stub's count
        assert "submitted 60 questions in 3 files" in look(tmp_path, stub.url, requests)[1]
        said = look(tmp_path, stub.url, requests)[1]
        assert "wait until the provider accepts more questions" in said
        assert len(finish(tmp_path, stub, requests)) == 60
        assert stub.stats()["twice"] == 0


def test_two_runs_with_one_ledger_send_no_question_twice(tmp_path: Path, flawless: RunningBatchStub) -> None:
    before = flawless.stats()["accepted"]
    spawn = multiprocessing.get_context("spawn")
    runs = [spawn.Process(target=run, args=(tmp_path, flawless.url, 40, 10)) for _ in range(2)]
    for process in runs:
        process.start()
    for process in runs:
        process.join()
    assert [process.exitcode for process in runs] == [5, 5]
    assert flawless.stats()["accepted"] - before == 40


def test_an_answer_that_did_not_reach_the_ledger_is_taken_again(tmp_path: Path, flawless: RunningBatchStub) -> None:
    requests = list(make_requests(4, start=500))
    spec = EngineSpec(engine="server", model="stub", base_urls=(flawless.url,), batch=True)
    place = Workplace(images=ImageCache(tmp_path / "images"), logs=tmp_path, ledger=tmp_path / "ledger.sqlite")
    for _ in range(2):
        look(tmp_path, flawless.url, requests)
    with closing(BatchEngine(spec, place)) as engine:
        assert len(list(engine.generate(requests))) == 4  # as in a run that is killed before the ledger has written
    answers, said = look(tmp_path, flawless.url, requests)
    assert (len(answers), said) == (4, "")


def test_votes_are_separate_questions_if_the_server_gives_one_answer(tmp_path: Path) -> None:
    requests = list(make_requests(4, VOTES))
    with running(BatchOptions(gaps=frozenset({Gap.N_REFUSED}), lose=0.3, spare_later=True, looks=0)) as stub:
        assert "submitted 12 questions" in look(tmp_path, stub.url, requests)[1]
        answers = finish(tmp_path, stub, requests)
        assert stub.stats()["billed"] == 12
    assert {(a.outcome, len(a.texts)) for a in answers} == {(Outcome.OK, 3)}


def test_the_votes_of_a_question_go_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a kill between two files would leave a question with one vote, which would count as all of them."""
    requests = list(make_requests(4, VOTES))
    monkeypatch.setattr(sending, "MOST_QUESTIONS", 7)
    upload = sending._upload_and_create  # pyright: ignore[reportPrivateUsage]
    names: list[str] = []

    def fail_at_second(book: Any, provider: Any, name: str, file_id: str) -> dict[str, Any]:
        names.append(name)
        if len(names) == 2:
            raise KeyboardInterrupt
        return upload(book, provider, name, file_id)

    with running(BatchOptions(gaps=frozenset({Gap.N_REFUSED}), looks=0)) as stub:
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(sending, "_upload_and_create", fail_at_second)
            look(tmp_path, stub.url, requests)
        answers = finish(tmp_path, stub, requests)
        bill = stub.stats()
    assert {(a.outcome, len(a.texts)) for a in answers} == {(Outcome.OK, 3)}
    assert (bill["billed"], bill["twice"], bill["uploads"]) == (12, 0, 2)


def test_a_file_that_waits_is_kept_while_another_model_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    *requests, of_other = make_requests(4)
    with running(BatchOptions(looks=0)) as stub, running(BatchOptions(looks=0)) as other:
        with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
            killed.setattr(sending, "_upload_and_create", _raise_interrupt)
            look(tmp_path, stub.url, requests)
        finish(tmp_path, other, [of_other])
        assert len(finish(tmp_path, stub, requests)) == 3
        assert stub.stats()["uploads"] == 1


def test_answers_that_the_provider_has_deleted_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise Rejected("HTTP 404")

    requests = list(make_requests(2))
    with running(BatchOptions(looks=0)) as stub:
        look(tmp_path, stub.url, requests)
        monkeypatch.setattr(Provider, "download", refuse)
        with pytest.raises(Rejected, match="HTTP 404: batch batch_1 was sent earlier and may be paid for already; use"):
            look(tmp_path, stub.url, requests)


def _raise_interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_label_probabilities_come_from_the_reported_alternatives(tmp_path: Path) -> None:
    requests = list(make_requests(3, Sampling(label_probabilities=True)))
    with running(BatchOptions(alternatives=True, looks=0)) as stub:
        answers = finish(tmp_path, stub, requests)
    for answer in answers:
        assert answer.label_logprobs is not None
        best = max(answer.label_logprobs, key=lambda label: answer.label_logprobs[label])  # pyright: ignore
        assert f'"{best}"' in answer.texts[0]


def test_images_go_into_the_file(tmp_path: Path, flawless: RunningBatchStub) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (112, 168), "red").save(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    item = sample("s", "用户: item-1", ImageRef(path=str(path), sha256=digest, width=112, height=168))
    requests = [prompter().classify(item, Sampling())]
    [answer] = finish(tmp_path, flawless, requests)
    assert (answer.outcome, answer.tokens_in) == (Outcome.OK, 400)  # 100 more than without an image


def test_the_key_is_in_no_file_and_a_wrong_key_stops_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    requests = list(make_requests(3))
    with caplog.at_level(logging.DEBUG), running(BatchOptions(api_key="sk-right", looks=0)) as stub:
        monkeypatch.setenv("BATCH_KEY", "sk-right")
        look(tmp_path, stub.url, requests, api_key_env="BATCH_KEY")
        monkeypatch.setenv("BATCH_KEY", "sk-wrong")
        with pytest.raises(AccountError, match="HTTP 401: Incorrect API key provided: Bearer \\(key\\)"):
            look(tmp_path, stub.url, requests, api_key_env="BATCH_KEY")
    written = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"sk-" not in written
    assert "sk-" not in caplog.text


def test_a_batch_costs_half() -> None:
    prices = Prices(prompt=1.0, cached=0.5, output=4.0)
    spec = EngineSpec(engine="server", model="m", base_urls=(ADDRESS,), batch=True, prices=prices)
    assert spec.charged == Prices(prompt=0.5, cached=0.25, output=2.0)
    assert spec.model_copy(update={"batch": False}).charged == prices


@pytest.mark.parametrize("fields", [{"engine": "vllm"}, {"engine": "server", "base_urls": (ADDRESS, ADDRESS)}])
def test_a_batch_needs_one_server(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="`batch` needs `engine: server` and exactly one of `base_urls`"):
        EngineSpec(model="m", batch=True, **fields)


def test_open_engine_opens_it(tmp_path: Path, flawless: RunningBatchStub) -> None:
    spec = EngineSpec(engine="server", model="stub", base_urls=(flawless.url,), batch=True)
    place = Workplace(images=ImageCache(tmp_path / "images"), logs=tmp_path, ledger=tmp_path / "ledger.sqlite")
    with closing(open_engine(spec, place)) as engine, pytest.raises(AnswersPending):
        list(engine.generate(make_requests(1)))
