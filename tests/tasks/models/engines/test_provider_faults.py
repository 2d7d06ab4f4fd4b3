"""Errors of a provider or a server are never kept as an item's, and those of the account end the run."""

from pathlib import Path
from typing import Any

import pytest

from tasks.errors import AccountError
from tasks.media import ImageRef
from tasks.models.ask import stream_answers
from tasks.models.costs import Tally
from tasks.models.engines.server.retries import is_account_fault
from tasks.models.ledger.ledger import Ledger
from tasks.records import Generation, Outcome, Request, Sampling
from tests.tasks.making import prompter, sample
from tests.tasks.models.engines.asking_stub import make_requests, open_engine_on
from tests.tasks.models.engines.small_provider import completion, serving

LABEL = completion(message={"content": '{"理由": "见图", "所属类别": "查询物流"}'})


def ask(folder: Path, url: str, request: Request) -> Generation:
    """Ask through the ledger in `folder`, as a run does."""
    with open_engine_on(folder, url) as engine, Ledger(folder / "ledger.sqlite") as ledger:
        ((_, answer),) = stream_answers(lambda: engine, ledger, [request], Tally())
        return answer


@pytest.mark.parametrize(
    "message",
    [
        "At most 0 image(s) may be provided in one request.",
        "stub is not a multimodal model",
        "Failed to load media: connection refused",
        "max_pixels must be at most 1003520",
    ],
)
def test_a_refusal_that_names_images_is_asked_again_once_the_server_is_repaired(
    message: str, tmp_path: Path, images: list[ImageRef]
) -> None:
    request = prompter().classify(sample("s", "图：", images[0]), Sampling())
    with serving(400, {"error": {"message": message, "code": 400}}) as provider:
        assert ask(tmp_path, provider.url, request).outcome is Outcome.FAILED
        provider.status, provider.answer = 200, LABEL
        assert ask(tmp_path, provider.url, request).outcome is Outcome.OK


def test_an_image_that_cannot_be_read_now_is_asked_again_once_it_is_back(
    tmp_path: Path, images: list[ImageRef]
) -> None:
    away = tmp_path / "share" / "image.png"
    image = images[0].model_copy(update={"path": str(away)})
    request = prompter().classify(sample("s", "图：", image), Sampling())
    with serving(200, LABEL) as provider:
        assert ask(tmp_path, provider.url, request).outcome is Outcome.FAILED
        away.parent.mkdir()
        away.write_bytes(Path(images[0].path).read_bytes())
        assert ask(tmp_path, provider.url, request).outcome is Outcome.OK


@pytest.mark.parametrize("finish_reason", ["error", "abort"])
def test_an_answer_that_the_server_broke_off_is_not_kept(finish_reason: str, tmp_path: Path) -> None:
    broken = completion(message={"content": '{"理由": "见'}, finish_reason=finish_reason)
    (request,) = make_requests(1)
    with serving(200, broken) as provider:
        assert ask(tmp_path, provider.url, request).outcome is Outcome.FAILED


ACCOUNT_FAULTS: list[tuple[int, dict[str, Any]]] = [
    (402, {"error": {"message": "Insufficient Balance", "type": "unknown_error"}}),
    (402, {"detail": "Payment needed"}),
    (400, {"error": {"code": "Arrearage", "message": "Access denied, make sure your account is in good standing."}}),
    (400, {"error": {"message": "Your credit balance is too low to access the API", "type": "invalid_request_error"}}),
    (400, {"error": {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}}),
    (403, {"code": 30001, "message": "Sorry, your account balance is insufficient"}),
    (429, {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}),
    (429, {"error": {"code": "1113", "message": "您的账户已欠费，请充值后重试"}}),
    (200, {"error": {"message": "Insufficient credits", "code": 402}}),
]


@pytest.mark.parametrize(("status", "answer"), ACCOUNT_FAULTS)
def test_an_account_that_must_be_paid_ends_the_run_at_once(status: int, answer: dict[str, Any], tmp_path: Path) -> None:
    message = (answer.get("error") or answer).get("message") or answer["detail"]
    with serving(status, answer) as provider:
        with pytest.raises(AccountError, match=r"account.*top up") as error:
            ask(tmp_path, provider.url, next(make_requests(1)))
        assert message in str(error.value)
        assert len(provider.bodies) < 10, "asked again although nothing will be answered"


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (429, "Rate limit reached on tokens per min. Add a payment method: https://example.com/account/billing"),
        (429, "You exceeded your current quota. Please retry in 32.5s."),
        (400, "1 validation error for the request: " + "x" * 200 + "用户: 我的余额不足"),
        (503, "Server overloaded"),
    ],
)
def test_a_busy_server_or_a_quoted_prompt_is_no_account_fault(status: int, message: str) -> None:
    assert not is_account_fault(status, {"error": {"message": message, "code": "rate_limit_exceeded"}}, message)


def test_an_account_fault_during_a_run_keeps_the_answers_before_it(tmp_path: Path) -> None:
    requests = list(make_requests(2))
    with serving(200, LABEL) as provider:
        ask(tmp_path, provider.url, requests[0])
        with open_engine_on(tmp_path, provider.url) as engine, Ledger(tmp_path / "ledger.sqlite") as ledger:
            provider.status, provider.answer = ACCOUNT_FAULTS[0]
            with pytest.raises(AccountError, match="Insufficient Balance"):
                list(stream_answers(lambda: engine, ledger, requests, Tally()))
            assert set(ledger.get([r.key for r in requests])) == {requests[0].key}
