"""Requests as bodies of OpenAI-compatible chat completions, and their replies as texts."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import orjson
import pybase64

from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json

ANSWER_TOKENS = 64
"""Room for keys, label and the white space that JSON-schema output of weak models pads with, beside the reason."""

_MARK = f"labelstill-image-{secrets.token_hex(8)}-"
"""Stands for an image while the body is serialised, so that a megabyte of base64 is never escaped or copied twice."""


@dataclass(frozen=True)
class Capabilities:
    """What a server really does, as found out by tiny requests (tasks/models/engines/server/capabilities.py)."""

    schema: bool = True
    """JSON schema is enforced."""
    choice: bool = True
    """A choice among texts is enforced."""
    token_logprobs: bool = True
    """Log-probabilities of chosen tokens after a begun answer."""
    several: bool = True
    """n answers in one request."""
    local_files: bool = False
    """Images under our cache folder by `file://`."""
    context_length: int | None = None
    """Most tokens of prompt and answer."""


@dataclass(frozen=True)
class Probe:
    """A begun answer and the tokens whose log-probability at its end is wanted."""

    stem: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Reply:
    """What one request brought: texts in order, whole ones first."""

    texts: tuple[str, ...]
    outcome: Outcome
    tokens_in: int
    tokens_cached: int
    tokens_out: int


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
        elif can.choice and constraint.between is None:
            texts = [constraint.opening + escape_json(label) + constraint.closing for label in constraint.labels]
            fields["structured_outputs"] = {"choice": texts}
    return _with_images({"model": model, "messages": _turns(request), **fields}, images)


def probe_body(request: Request, model: str, images: Sequence[bytes], probe: Probe) -> bytes:
    """The body that asks for the log-probabilities of `probe.tokens` right after the begun answer `probe.stem`."""
    messages = [*_turns(request), {"role": "assistant", "content": probe.stem}]
    return _with_images({"model": model, "messages": messages, **probe_fields(probe.tokens)}, images)


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


def read_reply(answer: dict[str, Any], wanted: int) -> Reply | None:
    """The texts of a chat completion, at most `wanted`; None when it holds none that can be read."""
    texts: dict[int, tuple[bool, str]] = {}
    for place, choice in enumerate(cast("list[Any]", answer["choices"])):
        if isinstance(choice, dict):
            found = cast("dict[str, Any]", choice)
            text = _text(found.get("message"))
            index = found.get("index", place)
            if text is not None and isinstance(index, int) and index not in texts:  # doubled answers count once
                texts[index] = (found.get("finish_reason") == "length", text)
    if not texts:
        return None
    ordered = sorted(list(texts.values())[:wanted], key=lambda t: (not t[1].strip(), t[0]))
    cut, first = ordered[0]
    outcome = Outcome.EMPTY if not first.strip() else Outcome.TRUNCATED if cut else Outcome.OK
    tokens = usage_of(answer)
    return Reply(tuple(t for _, t in ordered), outcome, *tokens)


def usage_of(answer: dict[str, Any]) -> tuple[int, int, int]:
    """Tokens of the prompt, of these cached, and of the answers; 0 where the server does not say."""
    usage = answer.get("usage")
    if not isinstance(usage, dict):
        return 0, 0, 0
    found = cast("dict[str, Any]", usage)
    details = found.get("prompt_tokens_details")
    cached = cast("dict[str, Any]", details).get("cached_tokens") if isinstance(details, dict) else 0
    return _count(found.get("prompt_tokens")), _count(cached), _count(found.get("completion_tokens"))


def token_logprobs(answer: dict[str, Any]) -> dict[int, float]:
    """Log-probability by token id at the first generated position; empty when the server reports none."""
    try:
        content = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(str(entry["token"]), float(entry["logprob"])) for entry in content]
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
    return {int(t.removeprefix("token_id:")): p for t, p in pairs if t.removeprefix("token_id:").isdecimal()}


def _turns(request: Request) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    images = 0
    for element in make_user_content(request):
        if element["type"] == "image":
            content.append({"type": "image_url", "image_url": {"url": f"{_MARK}{images}!"}})
            images += 1
        else:
            content.append(dict(element))
    return [*make_system_turn(request), {"role": "user", "content": content}]


def _with_images(body: dict[str, Any], images: Sequence[bytes]) -> bytes:
    text, pieces, at = orjson.dumps(body), list[bytes](), 0
    for number, url in enumerate(images):
        mark = f"{_MARK}{number}!".encode()
        found = text.index(mark, at)
        pieces += (text[at:found], url)
        at = found + len(mark)
    return b"".join((*pieces, text[at:]))  # one copy, however many images


def _text(message: object) -> str | None:
    if not isinstance(message, dict):
        return None
    found = cast("dict[str, Any]", message)
    text = found.get("content") or found.get("refusal")
    return text if isinstance(text, str) else "" if found.get("content") == "" else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
