"""The stub itself: what later tests and figures rest on must do what it says."""

import asyncio
import base64
import http.client
import json
import time
import urllib.error
import urllib.request
from collections import Counter
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.stub_server import Fault, Gap, Options, Running, running

SCHEMA = {
    "type": "object",
    "properties": {"reason": {"type": "string", "maxLength": 5}, "intent": {"enum": ["a", "b", "c"]}},
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 50).decode()


def ask(stub: Running, text: str = "item-1", headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    body = {"model": "stub", "messages": [{"role": "user", "content": text}], **fields}
    request = urllib.request.Request(f"{stub.url}/chat/completions", json.dumps(body).encode(), headers or {})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read())


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["message"]["content"] for choice in answer["choices"]]


def refusal(stub: Running, *args: Any, **fields: Any) -> urllib.error.HTTPError:
    with pytest.raises(urllib.error.HTTPError) as raised:
        ask(stub, *args, **fields)
    return raised.value


def test_every_field_is_obeyed() -> None:
    with running() as stub:
        answer = json.loads(texts(ask(stub, response_format=FORMAT))[0])
        assert answer["intent"] in "abc" and len(answer["reason"]) == 5
        assert set(texts(ask(stub, n=40, temperature=1, structured_outputs={"choice": ["x", "y"]}))) == {"x", "y"}
        ids = ask(stub, logprobs=True, logprob_token_ids=[7, 9])["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        assert [i["token"] for i in ids] == ["token_id:7", "token_id:9"]
        assert ask(stub)["usage"]["prompt_tokens"] > 0
        assert texts(ask(stub, seed=1, temperature=1)) != texts(ask(stub, seed=2, temperature=1))
        assert refusal(stub, n=2, temperature=0).code == 400
        with urllib.request.urlopen(f"{stub.url}/models") as models:
            assert json.loads(models.read())["data"][0]["id"] == "stub"


def test_gaps() -> None:
    gaps = frozenset({Gap.SCHEMA, Gap.CHOICE, Gap.LOGPROB_IDS, Gap.N_REFUSED})
    with running(Options(gaps=gaps, unguided="Sure!", api_key="k")) as stub:
        assert refusal(stub).code == 401
        headers = {"Authorization": "Bearer k"}
        wanted = {"response_format": FORMAT, "structured_outputs": {"choice": ["x"]}}
        answer = ask(stub, headers=headers, logprobs=True, logprob_token_ids=[7], **wanted)
        assert texts(answer) == ["Sure!"] and answer["choices"][0]["logprobs"] is None
        assert refusal(stub, headers=headers, n=2, temperature=1).code == 400
    with running(Options(gaps=frozenset({Gap.N_IGNORED}))) as stub:
        assert len(texts(ask(stub, n=2, temperature=1))) == 1


def test_images_and_length(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(base64.b64decode(PNG))
    with running(Options(media=str(tmp_path), most_characters=10)) as stub:

        def look(url: str) -> Any:
            return ask(stub, [{"type": "image_url", "image_url": {"url": url}}])  # type: ignore[arg-type]

        assert texts(look(f"file://{tmp_path}/a.png")) and texts(look(f"data:image/png;base64,{PNG}"))
        with pytest.raises(urllib.error.HTTPError, match="400"):
            look("file:///etc/hostname")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            look("data:image/png;base64,AAAA")
        long = refusal(stub, "item-1 is far too long")
        assert json.loads(long.read())["error"]["param"] == "input_tokens"


@pytest.mark.parametrize("fault", list(Fault))
def test_each_fault_passes_after_the_most_times(fault: Fault) -> None:
    with running(Options(faults={fault: 1.0}, most_faults=1, stall_seconds=0.3, retry_after_seconds=0.1)) as stub:
        started, right = time.monotonic(), None
        try:
            right = ask(stub, n=2, temperature=1, response_format=FORMAT)
        except urllib.error.HTTPError as error:
            assert error.code == {"error_500": 500, "busy_429": 429}.get(fault, 503 if "503" in fault else 400)
            if fault is Fault.BUSY_503_DATE:
                assert parsedate_to_datetime(error.headers["Retry-After"]).timestamp() > time.time() - 2
        except ConnectionResetError:
            assert fault is Fault.RESET
        except http.client.IncompleteRead:
            assert fault is Fault.HALF_BODY
        except json.JSONDecodeError:
            assert fault is Fault.GARBAGE
        else:
            assert fault not in {Fault.RESET, Fault.HALF_BODY, Fault.GARBAGE}
            assert fault is not Fault.STALL or time.monotonic() - started > 0.3
        if right is not None and fault is not Fault.STALL:
            said = [choice["message"]["content"] for choice in right.get("choices", ())]
            assert {
                Fault.NO_CHOICES_KEY: "choices" not in right,
                Fault.EMPTY_CHOICES: right.get("choices") == [],
                Fault.NULL_CONTENT: said == [None, None],
                Fault.EXTRA_CHOICES: len(said) == 4 and len(set(said)) == 2,
                Fault.IGNORED_FIELDS: len(said) == 1 and "{" not in str(said[0]),
            }[fault]
        assert len(texts(ask(stub, n=2, temperature=1, response_format=FORMAT))) == 2
        assert ask(stub, "a probe")["choices"]
        figures = stub.stats()
        assert figures["faults"] == {fault: 1}
        assert (figures["received"], figures["items"], figures["more_than_once"], figures["unnamed"]) == (2, 1, 1, 1)
        assert figures["too_early"] == (fault in {Fault.BUSY_429, Fault.BUSY_503_DATE})


def test_some_items_never_get_through() -> None:
    with running(Options(always={"item-7": Fault.ERROR_500})) as stub:
        assert [refusal(stub, "item-7").code for _ in range(4)] == [500] * 4
        assert texts(ask(stub, "item-77"))


def test_crash_and_return_with_the_same_books(tmp_path: Path) -> None:
    with running(Options(crash_every=3, journal=str(tmp_path / "journal"))) as stub:
        outcomes: Counter[str] = Counter()
        for number in range(7):
            try:
                ask(stub, f"item-{number}")
                outcomes["answered"] += 1
            except (ConnectionError, http.client.RemoteDisconnected):
                outcomes["cut"] += 1
                with pytest.raises(OSError):
                    ask(stub, "item-0")
                stub.stats()  # waits until it is back
        figures = stub.stats()
        assert outcomes == {"answered": 5, "cut": 2} and figures["received"] == figures["items"] == 7
        stub.mark()
        ask(stub, "item-0")
        assert stub.stats()["again"] == 1


def test_latency_and_what_is_in_flight() -> None:
    async def many(stub: Running, count: int, at_once: int) -> None:
        gate = asyncio.Semaphore(at_once)
        async with aiohttp.ClientSession() as session:

            async def one(number: int) -> None:
                body = {"model": "stub", "messages": [{"role": "user", "content": f"item-{number}"}]}
                async with gate, session.post(f"{stub.url}/chat/completions", json=body) as answer:
                    await answer.read()

            await asyncio.gather(*(one(i) for i in range(count)))

    with running(Options(median_seconds=0.1, sigma=0.5)) as stub:
        asyncio.run(many(stub, 200, 20))
        figures = stub.stats(target=20)
    assert figures["in_flight_most"] == 20 and figures["in_flight_now"] == 0
    assert 18 < figures["in_flight_mean"] <= 20
    # 20 in flight at a mean of 0.1 * exp(0.125) seconds are 176 a second
    assert 120 < figures["goodput"] < 220
