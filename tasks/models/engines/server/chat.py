"""Convert requests to bodies of OpenAI-compatible chat completions, and replies to texts."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pybase64

from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import Generation, LabelAnswer, Outcome, Request

TOKEN_COUNTS = ("tokens_in", "tokens_cached", "tokens_out")
"""The fields of a Generation that `read_usage` returns, in its order."""

ANSWER_TOKENS = 64
"""Tokens allowed besides the reason: keys, label, and the white space that weak models pad JSON with."""

_MARK = f"labelstill-image-{secrets.token_hex(8)}-"
"""Placeholder for an image while the body is serialised: a megabyte of base64 is then not escaped or copied twice."""


@dataclass(frozen=True)
class Capabilities:
    """What a server can do. Made by capabilities.py from tiny test requests."""

    schema: bool = True
    """It enforces JSON schemas."""
    token_logprobs: bool = True
    """It reports log-probabilities of given tokens after the beginning of an answer."""
    several: bool = True
    """It returns several answers to one request."""
    local_files: bool = False
    """It reads images from our cache folder by `file://`."""
    context_length: int | None = None
    """Maximum tokens of prompt and answer together; None if not known."""


def make_image_url(file: Path, *, local: bool) -> bytes:
    """Return the URL of a cached image: `file://` when `local`, else a data URL with its bytes in base64."""
    if local:
        return b"file://" + str(file).encode()
    kind = b"jpeg" if file.suffix == ".jpg" else file.suffix[1:].encode()
    return b"data:image/" + kind + b";base64," + pybase64.b64encode(file.read_bytes())


def build_chat_body(
    request: Request, model: str, images: Sequence[bytes], can: Capabilities, *, n: int, seed: int
) -> bytes:
    """Return the body that asks for `n` answers to `request`; `images` are the URLs of its images, in order."""
    sampling, constraint = request.sampling, request.constraint
    fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}
    fields["max_tokens"] = sampling.max_tokens
    if n > 1:
        fields["n"] = n
    if isinstance(constraint, LabelAnswer):
        fields["max_tokens"] += ANSWER_TOKENS
        if can.schema:
            schema = {"name": "answer", "strict": True, "schema": build_answer_schema(constraint, sampling.max_tokens)}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return _insert_images({"model": model, "messages": _build_turns(request), **fields}, images)


def build_probe_body(request: Request, model: str, images: Sequence[bytes], stem: str, tokens: Sequence[int]) -> bytes:
    """Return the body that asks for the log-probabilities of `tokens` as the next token after the answer `stem`."""
    messages = [*_build_turns(request), {"role": "assistant", "content": stem}]
    return _insert_images({"model": model, "messages": messages, **build_probe_fields(tokens)}, images)


def build_probe_fields(tokens: Sequence[int]) -> dict[str, Any]:
    """Return the fields with which vLLM 0.32 continues the last message by one token and reports `tokens`."""
    return {
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "logprob_token_ids": list(tokens),
        "return_tokens_as_token_ids": True,
    }


def build_answer_schema(constraint: LabelAnswer, longest: int) -> dict[str, Any]:
    """Return the JSON schema of the answer, reason first; the reason has at most `longest` characters."""
    properties: dict[str, Any] = {}
    if constraint.reason_key is not None:
        properties[constraint.reason_key] = {"type": "string", "maxLength": longest}
    properties[constraint.label_key] = {"type": "string", "enum": list(constraint.labels)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_reply(answer: dict[str, Any], key: str, wanted: int) -> Generation | None:
    """Return the texts of a chat completion, at most `wanted`, complete ones first; None when it contains no text.

    `key` is the key of the request.
    """
    texts: dict[int, tuple[bool, str]] = {}
    for place, choice in enumerate(answer["choices"]):
        content = get_path(choice, "message", "content")
        text = content or get_path(choice, "message", "refusal") or content
        numbered = get_path(choice, "index")
        index = place if numbered is None else numbered
        if isinstance(text, str) and isinstance(index, int) and index not in texts:  # some servers repeat an answer
            texts[index] = (get_path(choice, "finish_reason") == "length", text)
    if not texts:
        return None
    ordered = sorted(list(texts.values())[:wanted], key=lambda t: (not t[1].strip(), t[0]))
    cut, first = ordered[0]
    outcome = Outcome.EMPTY if not first.strip() else Outcome.TRUNCATED if cut else Outcome.OK
    tokens = dict(zip(TOKEN_COUNTS, read_usage(answer), strict=True))
    return Generation(key=key, outcome=outcome, texts=tuple(t for _, t in ordered), **tokens)


def read_usage(answer: dict[str, Any]) -> list[int]:
    """Return the tokens of the prompt, the cached ones among them, and the tokens of the answers; 0 if not reported."""
    paths = (("prompt_tokens",), ("prompt_tokens_details", "cached_tokens"), ("completion_tokens",))
    counts = [get_path(answer, "usage", *path) for path in paths]
    return [count if isinstance(count, int) and count > 0 else 0 for count in counts]


def read_token_logprobs(answer: dict[str, Any]) -> dict[int, float]:
    """Return the log-probability by token id at the first generated position; empty when none is reported."""
    try:
        content = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(str(entry["token"]), float(entry["logprob"])) for entry in content]
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
    return {int(t.removeprefix("token_id:")): p for t, p in pairs if t.removeprefix("token_id:").isdecimal()}


def get_path(value: Any, *path: str | int) -> Any:
    """Return the element of a JSON value at `path`; None if there is none."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _build_turns(request: Request) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    images = 0
    for element in make_user_content(request):
        if element["type"] == "image":
            content.append({"type": "image_url", "image_url": {"url": f"{_MARK}{images}!"}})
            images += 1
        else:
            content.append(dict(element))
    return [*make_system_turn(request), {"role": "user", "content": content}]


def _insert_images(body: dict[str, Any], images: Sequence[bytes]) -> bytes:
    text = orjson.dumps(body)
    pieces = list[bytes]()
    at = 0
    for number, url in enumerate(images):
        mark = f"{_MARK}{number}!".encode()
        found = text.index(mark, at)
        pieces += (text[at:found], url)
        at = found + len(mark)
    return b"".join((*pieces, text[at:]))  # copies the images only once
