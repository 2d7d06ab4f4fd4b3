"""Find out by tiny requests what a server can do, since servers silently ignore fields that they do not know."""

import asyncio
from pathlib import Path
from typing import Any, cast

import orjson
from PIL import Image

from tasks.errors import AccountError, EngineError
from tasks.models.engines.server.chat import (
    Capabilities,
    Thinking,
    build_probe_fields,
    get_path,
    make_image_url,
    read_reply,
    read_token_logprobs,
    read_usage,
    switch_thinking,
)
from tasks.models.engines.server.client import Client
from tasks.models.engines.spec import EngineSpec
from tasks.models.qwen_vl import find_served_model
from tasks.models.unanswered import Unanswered
from tasks.prompts.thinking import cut_thinking, read_thoughts
from tasks.records import Outcome

_WORD = "zq-41"
"""No model writes this by itself, so an answer with this word was forced by the server."""
_ANSWER = orjson.dumps({"w": _WORD}).decode()
_ANSWER_TOKENS = 48


async def find_capabilities(client: Client, spec: EngineSpec, model: str, tokenizer: Any, images: Path) -> Capabilities:
    """Send tiny requests to find out what the server can do with `model`.

    Without a `tokenizer` (None), log-probabilities are not tested and count as missing. `images` is the folder from
    which the server may read images by `file://`. Raises EngineError when the server lacks the model or adapter.
    """
    served = find_served_model(spec)
    context_length = await _read_context_length(client, spec, model)
    schema, token_logprobs_, several, local_files, _ = await asyncio.gather(
        _probe_schema(client, model, thinks=spec.thinking_tokens > 0 or (served is not None and served.thinks)),
        _probe_token_logprobs(client, model, tokenizer),
        _probe_several_answers(client, model),
        _probe_local_files(client, model, images),
        _check_model_names(client, spec, model),
    )
    thinking = Thinking.NOT_ASKED
    if spec.thinking_tokens:
        thinking = await _probe_thinking(client, model, spec.thinking_tokens)
    limit = min((n for n in (context_length, spec.context_length) if n is not None), default=None)
    return Capabilities(schema, token_logprobs_, several, local_files, context_length=limit, thinking=thinking)


def describe_gaps(can: Capabilities, spec: EngineSpec, *, tokenizer: bool, videos: bool) -> tuple[str, ...]:
    """Return one sentence per missing capability that says what is missing and what is done instead.

    `videos` says whether the run has recordings.
    """
    notes: list[str] = []
    if not can.schema:
        notes.append(
            "the server ignores JSON schemas: the prompt asks for the format, and answers are checked afterwards"
        )
    if can.thinking is Thinking.WITHOUT_SCHEMA:
        notes.append(
            "the server cannot enforce a JSON schema while the model thinks: the model answers freely after thinking, "
            "and an unreadable answer is sent back once to be put into the required format"
        )
    if can.thinking is Thinking.NEVER:
        notes.append(
            "the model does not think although `thinking_tokens` is set: remove it, or use a model and a server that "
            "understand `enable_thinking`"
        )
    if not can.token_logprobs:
        why = "" if tokenizer else " (no tokenizer found; set `tokenizer`)"
        notes.append(f"the server does not report log-probabilities of given tokens{why}: vote shares are used instead")
    if not can.several:
        notes.append("the server returns only one answer per request: each vote is a separate request")
    if not can.local_files:
        notes.append("the server cannot read our image folder: images are sent in base64")
    if videos and not can.videos:
        why = "the server's model does not see recordings as they are sent"
        fix = "vLLM takes them if it is started with the options that `labelstill check` prints"
        if not tokenizer:
            why, fix = "whether the server takes recordings is not known", "no tokenizer found; set `tokenizer`"
        notes.append(f"{why}: each of their frames is sent as an image ({fix})")
    if can.context_length is None:
        notes.append("the server does not report its context length: set `context_length`")
    if find_served_model(spec) is None:
        notes.append(
            f"cannot tell which Qwen-VL model `{spec.adapter or spec.model}` is: images are resized as for "
            "Qwen2-VL; if it is another one, set `tokenizer` to its folder or its name on the hub"
        )
    return tuple(notes)


async def _read_context_length(client: Client, spec: EngineSpec, model: str) -> int | None:
    status, answer = await client.get("/models")
    if status in (401, 403):
        raise AccountError(
            f"{spec.base_urls[0] if spec.base_urls else 'the server'} rejects our API key (HTTP {status}); "
            "set `api_key_env` to the environment variable that contains it"
        )
    entries = get_path(answer, "data")
    if status != 200 or not isinstance(entries, list):
        return None
    served = {str(get_path(entry, "id")): entry for entry in cast("list[Any]", entries)}
    if served and model not in served:
        what = "adapter" if spec.adapter else "model"
        raise EngineError(
            f"the server has no {what} `{model}`; it serves: {', '.join(sorted(served))}; set `{what}` to one of these"
        )
    # vLLM 0.32 reports it for a model, not for its adapters
    named = (model, get_path(served, model, "parent"))
    return next((n for name in named if isinstance(n := get_path(served, name, "max_model_len"), int)), None)


async def _probe_schema(client: Client, model: str, *, thinks: bool) -> bool:
    fields = _want_schema() | {"max_tokens": _ANSWER_TOKENS}
    # the tokens are too few for thoughts; a server that refuses to be told so is asked as it is
    for more in (switch_thinking(False), {}) if thinks else ({},):
        text, answer = await _ask(client, model, fields | more)
        if answer:
            return _obeys(text)
    return False


async def _probe_thinking(client: Client, model: str, most: int) -> Thinking:
    """Find out whether the model can think, in at most `most` tokens, and whether its answer then obeys a schema."""
    fields = switch_thinking(True) | {"max_tokens": most + _ANSWER_TOKENS}
    for more in (_want_schema(), {}):
        answer = (await _ask(client, model, fields | more))[1]
        reply = read_reply(answer, "", 1) if answer else None
        if reply is None:
            continue
        # while it was still thinking when it was cut, it was not held to the schema
        unended = reply.outcome is Outcome.TRUNCATED and not _obeys(reply.texts[0])
        if unended or any(read_thoughts(reply)):
            formed = bool(more) and (unended or _obeys(cut_thinking(reply.texts[0])))
            return Thinking.WITH_SCHEMA if formed else Thinking.WITHOUT_SCHEMA
    return Thinking.NEVER


def _want_schema() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"w": {"enum": [_WORD]}}, "required": ["w"]}
    wanted = {"name": "probe", "strict": True, "schema": {**schema, "additionalProperties": False}}
    return {"response_format": {"type": "json_schema", "json_schema": wanted}}


def _obeys(text: str) -> bool:
    # a weak model may write white space until it is cut off, but never violates the schema
    bare = "".join(text.split())
    return bare.startswith("{") and _ANSWER.startswith(bare)


async def _probe_several_answers(client: Client, model: str) -> bool:
    fields = {"n": 2, "temperature": 1.0, "seed": 1, "max_tokens": 1}
    return len((await _ask(client, model, fields))[1].get("choices", ())) == 2


async def _probe_token_logprobs(client: Client, model: str, tokenizer: Any) -> bool:
    if tokenizer is None:
        return False
    tokens = [tokenizer(letter, add_special_tokens=False)["input_ids"][0] for letter in "AZ"]
    messages = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "A: A, Z:"}]
    answer = (await _ask(client, model, {"messages": messages, **build_probe_fields(tokens)}))[1]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, continue_final_message=True)
    length = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    # for a server that ignores the continuation the prompt is longer: it closes the turn and opens another
    return set(tokens) <= read_token_logprobs(answer).keys() and read_usage(answer)[0] in (0, length)


async def _probe_local_files(client: Client, model: str, images: Path) -> bool:
    images.mkdir(parents=True, exist_ok=True)
    file = images.resolve() / "probe.png"
    if not file.exists():
        Image.new("RGB", (56, 56), "white").save(file)
    url = {"url": make_image_url(file, local=True).decode()}
    text = {"type": "text", "text": "Hello"}
    alone, both = [
        [{"role": "user", "content": content}] for content in ([text], [{"type": "image_url", "image_url": url}, text])
    ]
    with_image = await _ask(client, model, {"messages": both, "max_tokens": 1})
    without = await _ask(client, model, {"messages": alone, "max_tokens": 1})
    # a server may skip an image that it cannot read; its prompt then has no tokens for it
    return bool(with_image[1]) and read_usage(with_image[1])[0] > read_usage(without[1])[0]


async def _check_model_names(client: Client, spec: EngineSpec, model: str) -> None:
    if spec.adapter is None:
        return
    try:
        answered = bool((await _ask(client, f"no-such-model-{_WORD}", {"max_tokens": 1}))[1])
    except EngineError:  # HTTP 404, as expected
        return
    if answered:
        raise EngineError(
            f"the server accepts any model name, so it would not report a missing `{model}`; use a server that checks "
            "names, such as vLLM, or merge the adapter into its model and serve that"
        )


async def _ask(client: Client, model: str, fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the first choice's text and the whole answer; both empty when the request fails."""
    messages = [{"role": "user", "content": "Hello"}]
    body = {"model": model, "messages": messages, "temperature": 0.0, **fields}
    try:
        answer = await client.post(orjson.dumps(body), fields.get("max_tokens", 0))
    except Unanswered:
        return "", {}
    return str(get_path(answer, "choices", 0, "message", "content") or ""), answer
