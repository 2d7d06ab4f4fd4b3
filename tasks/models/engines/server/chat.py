"""Requests as bodies of OpenAI-compatible chat completions, and their replies as texts."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pybase64

from tasks.prompts.turns import system_turn, user_content
from tasks.records import Generation, LabelAnswer, Outcome, Request

TOKEN_COUNTS = ("tokens_in", "tokens_cached", "tokens_out")
"""The fields of a Generation that `usage_of` fills."""

ANSWER_TOKENS = 64
"""Room for keys, label and the white space that JSON-schema output of weak models pads with, beside the reason."""

_MARK = f"labelstill-image-{secrets.token_hex(8)}-"
"""Stands for an image while the body is serialised, so that a megabyte of base64 is never escaped or copied twice."""


@dataclass(frozen=True)
class Capabilities:
    """What a server really does, as found out by tiny requests (tasks/models/engines/server/capabilities.py)."""

    schema: bool = True
    """JSON schema is enforced."""
    token_logprobs: bool = True
    """Log-probabilities of chosen tokens after a begun answer."""
    several: bool = True
    """n answers in one request."""
    local_files: bool = False
    """Images under our cache folder by `file://`."""
    context_length: int | None = None
    """Most tokens of prompt and answer."""


def image_url(file: Path, *, local: bool) -> bytes:
    """The URL of a cached image: `file://` where the server reads our folder, else its bytes in base64."""
    if local:
        return b"file://" + str(file).encode()
    kind = b"jpeg" if file.suffix == ".jpg" else file.suffix[1:].encode()
    return b"data:image/" + kind + b";base64," + pybase64.b64encode(file.read_bytes())


def chat_body(request: Request, model: str, images: Sequence[bytes], can: Capabilities, *, n: int, seed: int) -> bytes:
    """The body that asks `request` for `n` answers; `images` are URLs in the order of the request's images."""
    sampling, constraint = request.sampling, request.constraint
    fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}
    fields["max_tokens"] = sampling.max_tokens
    if n > 1:
        fields["n"] = n
    if isinstance(constraint, LabelAnswer):
        fields["max_tokens"] += ANSWER_TOKENS
        if can.schema:
            schema = {"name": "answer", "strict": True, "schema": answer_schema(constraint, sampling.max_tokens)}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return _with_images({"model": model, "messages": _turns(request), **fields}, images)


def probe_body(request: Request, model: str, images: Sequence[bytes], stem: str, tokens: Sequence[int]) -> bytes:
    """The body that asks for the log-probabilities of `tokens` right after the begun answer `stem`."""
    messages = [*_turns(request), {"role": "assistant", "content": stem}]
    return _with_images({"model": model, "messages": messages, **probe_fields(tokens)}, images)


def probe_fields(tokens: Sequence[int]) -> dict[str, Any]:
    """The fields of vLLM 0.32 that continue the last message by one token and report those asked for."""
    return {
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "logprob_token_ids": list(tokens),
        "return_tokens_as_token_ids": True,
    }


def answer_schema(constraint: LabelAnswer, longest: int) -> dict[str, Any]:
    """JSON schema of the answer, reason first; a reason of at most `longest` characters leaves room for the label."""
    properties: dict[str, Any] = {}
    if constraint.reason_key is not None:
        properties[constraint.reason_key] = {"type": "string", "maxLength": longest}
    properties[constraint.label_key] = {"type": "string", "enum": list(constraint.labels)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def read_reply(answer: dict[str, Any], key: str, wanted: int) -> Generation | None:
    """Return at most `wanted` texts of a chat completion, whole ones first; None when none can be read.

    `key` is the request's.
    """
    texts: dict[int, tuple[bool, str]] = {}
    for place, choice in enumerate(answer["choices"]):
        content = dig(choice, "message", "content")
        text = content or dig(choice, "message", "refusal") or content
        numbered = dig(choice, "index")
        index = place if numbered is None else numbered
        if isinstance(text, str) and isinstance(index, int) and index not in texts:  # doubled answers count once
            texts[index] = (dig(choice, "finish_reason") == "length", text)
    if not texts:
        return None
    ordered = sorted(list(texts.values())[:wanted], key=lambda t: (not t[1].strip(), t[0]))
    cut, first = ordered[0]
    outcome = Outcome.EMPTY if not first.strip() else Outcome.TRUNCATED if cut else Outcome.OK
    tokens = dict(zip(TOKEN_COUNTS, usage_of(answer), strict=True))
    return Generation(key=key, outcome=outcome, texts=tuple(t for _, t in ordered), **tokens)


def usage_of(answer: dict[str, Any]) -> list[int]:
    """Tokens of the prompt, of these cached, and of the answers; 0 where the server does not say."""
    paths = (("prompt_tokens",), ("prompt_tokens_details", "cached_tokens"), ("completion_tokens",))
    counts = [dig(answer, "usage", *path) for path in paths]
    return [count if isinstance(count, int) and count > 0 else 0 for count in counts]


def token_logprobs(answer: dict[str, Any]) -> dict[int, float]:
    """Log-probability by token id at the first generated position; empty when the server reports none."""
    try:
        content = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(str(entry["token"]), float(entry["logprob"])) for entry in content]
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
    return {int(t.removeprefix("token_id:")): p for t, p in pairs if t.removeprefix("token_id:").isdecimal()}


def dig(value: Any, *path: str | int) -> Any:
    """Return what a JSON value holds at `path`; None where it holds nothing there."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _turns(request: Request) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    images = 0
    for element in user_content(request):
        if element["type"] == "image":
            content.append({"type": "image_url", "image_url": {"url": f"{_MARK}{images}!"}})
            images += 1
        else:
            content.append(dict(element))
    return [*system_turn(request), {"role": "user", "content": content}]


def _with_images(body: dict[str, Any], images: Sequence[bytes]) -> bytes:
    text, pieces, at = orjson.dumps(body), list[bytes](), 0
    for number, url in enumerate(images):
        mark = f"{_MARK}{number}!".encode()
        found = text.index(mark, at)
        pieces += (text[at:found], url)
        at = found + len(mark)
    return b"".join((*pieces, text[at:]))  # one copy, however many images
