"""What a server really does: found out by tiny requests, because servers silently ignore fields they don't know."""

import asyncio
from pathlib import Path
from typing import Any, cast

import orjson
from PIL import Image

from tasks.errors import EngineError
from tasks.models.engines.server.chat import Capabilities, dig, image_url, probe_fields, token_logprobs, usage_of
from tasks.models.engines.server.client import Client
from tasks.models.engines.spec import EngineSpec
from tasks.models.unanswered import Unanswered

_WORD = "zq-41"
"""No model says this of itself, so an answer that is this word was forced to be."""


async def find_capabilities(client: Client, spec: EngineSpec, model: str, tokenizer: Any, images: Path) -> Capabilities:
    """Ask the server for `model` what it does, with tiny requests.

    `tokenizer` (or None) names tokens for the log-probability probe; `images` is the folder the server may read
    `file://` images from. Raises EngineError where the model or adapter is not served.
    """
    context_length = await _context_length(client, spec, model)
    schema, token_logprobs_, several, local_files, _ = await asyncio.gather(
        _enforces_schema(client, model),
        _reports_tokens(client, model, tokenizer),
        _answers_several(client, model),
        _reads_files(client, model, images),
        _tells_models_apart(client, spec, model),
    )
    limits = [n for n in (context_length, spec.context_length) if n is not None]
    return Capabilities(schema, token_logprobs_, several, local_files, min(limits) if limits else None)


def describe(can: Capabilities, *, tokenizer: bool) -> tuple[str, ...]:
    """What people should know of missing capabilities, and what is done without them."""
    notes: list[str] = []
    if not can.schema:
        notes.append("the server ignores JSON schemas: answers are asked for in words and validated on our side")
    if not can.token_logprobs:
        why = "" if tokenizer else " (no tokenizer found: set `tokenizer`)"
        notes.append(f"the server gives no log-probabilities of chosen tokens{why}: shares of votes stand in for them")
    if not can.several:
        notes.append("the server gives one answer a request: n votes are n requests")
    if not can.local_files:
        notes.append("the server does not read our image folder: images travel as base64")
    if can.context_length is None:
        notes.append("the server does not say how long prompts may be: set `context_length`")
    return tuple(notes)


async def _context_length(client: Client, spec: EngineSpec, model: str) -> int | None:
    status, answer = await client.get("/models")
    if status in (401, 403):
        raise EngineError(
            f"{spec.base_urls[0] if spec.base_urls else 'the server'} refuses us (HTTP {status}); "
            "set `api_key_env` to the variable that holds its key"
        )
    entries = dig(answer, "data")
    if status != 200 or not isinstance(entries, list):
        return None
    served = {str(dig(entry, "id")): entry for entry in cast("list[Any]", entries)}
    if served and model not in served:
        what = "adapter" if spec.adapter else "model"
        raise EngineError(f"the server has no {what} `{model}`; it serves: {', '.join(sorted(served))}; set `{what}`")
    # vLLM 0.32 says it of a model, not of its adapters
    named = (model, dig(served, model, "parent"))
    return next((n for name in named if isinstance(n := dig(served, name, "max_model_len"), int)), None)


async def _enforces_schema(client: Client, model: str) -> bool:
    schema = {"type": "object", "properties": {"w": {"enum": [_WORD]}}, "required": ["w"]}
    wanted = {"name": "probe", "strict": True, "schema": {**schema, "additionalProperties": False}}
    fields = {"response_format": {"type": "json_schema", "json_schema": wanted}, "max_tokens": 48}
    text = "".join((await _ask(client, model, fields))[0].split())
    # a weak model pads with white space until it is cut off, but never leaves the schema
    return text.startswith("{") and orjson.dumps({"w": _WORD}).decode().startswith(text)


async def _answers_several(client: Client, model: str) -> bool:
    fields = {"n": 2, "temperature": 1.0, "seed": 1, "max_tokens": 1}
    return len((await _ask(client, model, fields))[1].get("choices", ())) == 2


async def _reports_tokens(client: Client, model: str, tokenizer: Any) -> bool:
    if tokenizer is None:
        return False
    tokens = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AZ"]
    messages = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "A: A, Z:"}]
    answer = (await _ask(client, model, {"messages": messages, **probe_fields(tokens)}))[1]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    # a server that ignores the continuation has a longer prompt: end of turn, and a new one opened
    return set(tokens) <= token_logprobs(answer).keys() and usage_of(answer)[0] in (0, length)


async def _reads_files(client: Client, model: str, images: Path) -> bool:
    images.mkdir(parents=True, exist_ok=True)
    file = images.resolve() / "probe.png"
    if not file.exists():
        Image.new("RGB", (56, 56), "white").save(file)
    url = {"url": image_url(file, local=True).decode()}
    text = {"type": "text", "text": "Hello"}
    alone, both = [
        [{"role": "user", "content": content}] for content in ([text], [{"type": "image_url", "image_url": url}, text])
    ]
    with_image = await _ask(client, model, {"messages": both, "max_tokens": 1})
    without = await _ask(client, model, {"messages": alone, "max_tokens": 1})
    # one that skips what it can't read answers as well, but its prompt is no longer for the image
    return bool(with_image[1]) and usage_of(with_image[1])[0] > usage_of(without[1])[0]


async def _tells_models_apart(client: Client, spec: EngineSpec, model: str) -> None:
    if spec.adapter is None:
        return
    try:
        answered = bool((await _ask(client, f"no-such-model-{_WORD}", {"max_tokens": 1}))[1])
    except EngineError:  # HTTP 404, as it should be
        return
    if answered:
        raise EngineError(
            f"the server answers for any model name, so `{model}` may not be what answers; use a server that "
            "checks names"
        )


async def _ask(client: Client, model: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Text of the first choice and the whole answer; empty when the server refuses."""
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": model, "messages": messages, "temperature": 0.0, **fields}
    try:
        answer = await client.post(orjson.dumps(body))
    except Unanswered:
        return "", {}
    return str(dig(answer, "choices", 0, "message", "content") or ""), answer
