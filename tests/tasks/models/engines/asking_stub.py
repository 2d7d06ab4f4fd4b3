"""Requests for the stub server, an engine that asks it, and a check of the answers."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.models.engines.engine import Engine, Workplace
from tasks.models.engines.server.engine import ServerEngine
from tasks.models.engines.server.pacing import Patience
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.records import Generation, Outcome, Request, Sampling
from tests.stub_server import Fault
from tests.tasks.making import prompter, sample

VOTES = Sampling(n=3, temperature=0.7)

# The outcomes of an item that always meets one fault. With `ignored_fields` the answer is OK; the parser rejects it.
# More choices than asked for contain the right ones.
EXPECTED: dict[Fault, set[Outcome]] = {fault: {Outcome.FAILED} for fault in Fault} | {
    Fault.EMPTY_CHOICES: {Outcome.EMPTY, Outcome.FAILED},
    Fault.NULL_CONTENT: {Outcome.EMPTY, Outcome.FAILED},
    Fault.EXTRA_CHOICES: {Outcome.OK},
    Fault.IGNORED_FIELDS: {Outcome.OK},
    Fault.TOO_LONG: {Outcome.TOO_LONG},
}


def make_requests(count: int, sampling: Sampling | None = None, start: int = 0) -> Iterator[Request]:
    """Yield label requests whose texts name the stub's items from `item-<start>` on."""
    prompts = prompter()
    for number in range(start, start + count):
        text = f"用户: 订单 item-{number} 还没有收到，可以退款吗？"
        yield prompts.classify(sample(f"s{number}", text), sampling or Sampling())


@contextmanager
def open_engine_on(folder: Path, *urls: str, silence: float = 60.0, **fields: Any) -> Iterator[Engine]:
    """Open a server engine that asks the servers at `urls`; a silence of so many seconds is too long."""
    spec = EngineSpec(engine="server", model="stub", base_urls=urls, **fields)
    place = Workplace(images=ImageCache(folder / "images"), logs=folder)
    engine = ServerEngine(spec, place, patience=Patience(silence=silence))
    try:
        yield engine
    finally:
        engine.close()


def check_answers(
    requests: Sequence[Request], answers: Sequence[Generation], always: dict[str, Fault], unlucky: int = 0
) -> Counter[Outcome]:
    """Check that each request has one answer, and failed with a reason only where it had to; count the outcomes.

    `always` names the stub's items that are never answered rightly; request number i asks about `item-i`. At most
    `unlucky` others may have failed: those whose every try a crash cut short.
    """
    by_key = {answer.key: answer for answer in answers}
    assert len(by_key) == len(answers), "an item was answered twice"
    assert by_key.keys() == {request.key for request in requests}, "an item was lost, or made up"
    failed = 0
    for number, request in enumerate(requests):
        answer, fault = by_key[request.key], always.get(f"item-{number}")
        if fault is None and answer.outcome is Outcome.FAILED:
            failed += 1
            assert failed <= unlucky, (number, answer)
        else:
            assert answer.outcome in (EXPECTED[fault] if fault else {Outcome.OK}), (number, fault, answer)
        if answer.outcome is Outcome.OK:
            assert len(answer.texts) == request.sampling.n or fault is Fault.IGNORED_FIELDS, answer
        else:
            assert answer.detail, f"dropped without a reason: {answer}"
    return Counter(answer.outcome for answer in answers)
