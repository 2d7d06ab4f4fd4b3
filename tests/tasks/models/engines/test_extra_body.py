"""`extra_body` is part of each chat request and of the model's identity."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tasks.models.engines.identity import identify_model
from tasks.models.engines.spec import EngineSpec
from tests.tasks.models.engines.asking_stub import make_requests, open_engine_on
from tests.tasks.models.engines.small_provider import completion, serving

QUIET: dict[str, Any] = {"chat_template_kwargs": {"enable_thinking": False}}
ADDRESS = "http://127.0.0.1:1/v1"


def test_every_chat_request_has_the_fields(tmp_path: Path) -> None:
    answer = completion(message={"content": "答案"})
    with serving(200, answer) as provider, open_engine_on(tmp_path, provider.url, extra_body=QUIET) as engine:
        list(engine.generate(make_requests(1)))
    assert len(provider.bodies) > 1
    assert all(QUIET.items() <= body.items() for body in provider.bodies)


def test_another_extra_body_is_another_model() -> None:
    others: list[dict[str, Any]] = [{}, QUIET, {"chat_template_kwargs": {"enable_thinking": True}}]
    specs = [EngineSpec(engine="server", model="m", base_urls=(ADDRESS,), extra_body=extra) for extra in others]
    names = [identify_model(spec) for spec in specs]
    assert names[0] == "m@main"
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"engine": "server", "base_urls": [ADDRESS], "extra_body": {"temperature": 1, "n": 2}}, "n, temperature"),
        ({"engine": "local", "extra_body": QUIET}, "engine `local` cannot use `extra_body`"),
    ],
)
def test_fields_that_labelstill_sets_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EngineSpec.model_validate({"model": "m", **fields})
