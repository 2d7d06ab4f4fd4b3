"""What the stub server says: right answers to whatever was asked, and the wrong ones that it is told to give."""

import hashlib
import math
from enum import StrEnum
from typing import Any

import orjson

THOUGHT = "想一想"
"""How all thoughts begin."""


class Gap(StrEnum):
    """What a server may lack; it ignores the field silently unless the name says otherwise."""

    SCHEMA = "schema"
    CHOICE = "choice"
    LOGPROB_IDS = "logprob_ids"
    N_REFUSED = "n_refused"
    """A 400 for n above 1."""
    N_IGNORED = "n_ignored"
    THINKING_REFUSED = "thinking_refused"
    """A 400 for the fields that switch thinking on or off."""


class Thinks(StrEnum):
    """What comes of thinking where a request switches it on. In its thoughts the model drafts a wrong answer."""

    NEVER = ""
    APART = "apart"
    """The thoughts are in a field of their own."""
    IN_TEXT = "in_text"
    """They are in the text, whose opening marker the chat template has written; not beside a schema."""
    NOT_WITH_SCHEMA = "not_with_schema"
    """Beside a schema there are none."""
    ALONE_WITH_SCHEMA = "alone_with_schema"
    """Beside a schema there is nothing else."""
    ENDLESS = "endless"
    """They take all tokens."""


class Fault(StrEnum):
    """One way to misbehave."""

    ERROR_500 = "error_500"
    BUSY_503 = "busy_503"
    """An HTML page, as a proxy writes it, and no Retry-After."""
    BUSY_503_DATE = "busy_503_date"
    """Retry-After as an HTTP date, the form that is easily forgotten."""
    BUSY_429 = "busy_429"
    """Retry-After in seconds."""
    RESET = "reset"
    HALF_BODY = "half_body"
    GARBAGE = "garbage"
    """Status 200 and no JSON."""
    NO_CHOICES_KEY = "no_choices_key"
    EMPTY_CHOICES = "empty_choices"
    NULL_CONTENT = "null_content"
    EXTRA_CHOICES = "extra_choices"
    """Each choice twice."""
    IGNORED_FIELDS = "ignored_fields"
    """Neither schema, choice nor n are heeded this time."""
    STALL = "stall"
    TOO_LONG = "too_long"
    BAD_REQUEST = "bad_request"


class Refused(Exception):
    """The request itself is wrong; carries the 400's message and the field that it names."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def hashed(*words: object) -> int:
    """A number that depends on the words and on nothing else."""
    return int.from_bytes(hashlib.blake2b("/".join(map(str, words)).encode(), digest_size=8).digest(), "big")


def instance(schema: dict[str, Any], salt: object) -> Any:
    """A valid instance of a JSON schema of the plain kind: objects, arrays, enums, strings, numbers."""
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][hashed(salt) % len(schema["enum"])]
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return instance(options[0], salt)
    kind = schema.get("type", "string")
    if kind == "object":
        return {name: instance(value, f"{salt}.{name}") for name, value in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items", {}), f"{salt}.{i}") for i in range(schema.get("minItems", 1))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 0)
    if kind in ("boolean", "null"):
        return {"boolean": True, "null": None}[kind]
    text = f"依据{hashed(salt) % 10**6:06d}判断"[: schema.get("maxLength")]
    return text.ljust(schema.get("minLength", 0), "。")


def check(body: dict[str, Any], gaps: frozenset[Gap], media: str | None, most_characters: int) -> None:
    """Raise Refused for what vLLM refuses: greedy n, an image it may not read, a prompt that is too long.

    `media` is the folder below which `file://` images are read; None: nowhere.
    """
    n = body.get("n") or 1
    if Gap.THINKING_REFUSED in gaps and "enable_thinking" in body:
        raise Refused("Unrecognized request argument supplied: enable_thinking")
    if n > 1 and Gap.N_REFUSED in gaps:
        raise Refused("n must be 1", "n")
    if n > 1 and not body.get("temperature", 1):
        raise Refused("n must be 1 when using greedy sampling", "n")
    characters = 0
    for message in body["messages"]:
        content = message["content"]
        parts: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        for part in parts:
            if part["type"] == "text":
                characters += len(part["text"])
            else:
                _check_image(part["image_url"]["url"], media)
    if most_characters and characters > most_characters:
        raise too_long(characters, most_characters)


def too_long(length: int, limit: int) -> Refused:
    """vLLM 0.32's refusal of an over-long prompt."""
    message = f"The decoder prompt (length {length}) is longer than the maximum model length of {limit}."
    return Refused(message, "input_tokens")


def _check_image(url: str, media: str | None) -> None:
    if url.startswith("file://"):
        path = url.removeprefix("file://")
        if media is None or not path.startswith(media.rstrip("/") + "/"):
            raise Refused("Cannot load local files without `--allowed-local-media-path`.")
        with open(path, "rb") as file:
            if not file.read(4).startswith((b"\x89PNG", b"\xff\xd8\xff")):
                raise Refused(f"cannot identify image file {path}")
    elif not url.startswith(("data:image/png;base64,iVBOR", "data:image/jpeg;base64,/9j/")):
        raise Refused(f"cannot read an image from {url[:40]}")


def completion(
    body: dict[str, Any], item: str, gaps: frozenset[Gap], unguided: str, thinks: Thinks = Thinks.NEVER
) -> dict[str, Any]:
    """A chat completion in OpenAI's form, obeying every field that is no gap.

    `unguided` is what the model says when nothing constrains it; the n answers differ where they may.
    """
    texts: list[str] = []
    for number in range(1 if Gap.N_IGNORED in gaps else body.get("n") or 1):
        salt = f"{item}.{body.get('seed')}.{number}" if body.get("temperature") else item
        schema, choices = _constraint(body, gaps)
        if choices:
            texts.append(choices[hashed(salt) % len(choices)])
        elif schema is not None:
            texts.append(orjson.dumps(instance(schema, salt)).decode())
        else:
            texts.append(unguided or f"因为{hashed(salt) % 10**6:06d}。")
    choice_list = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": None}
        for i, text in enumerate(texts)
    ]
    if (ids := body.get("logprob_token_ids")) and body.get("logprobs") and Gap.LOGPROB_IDS not in gaps:
        for choice in choice_list:
            choice["logprobs"] = _logprobs(ids, item)
    thinking = 0
    if (body.get("chat_template_kwargs") or {}).get("enable_thinking"):
        thinking = sum(
            _think(choice, item, thinks, guided=_constraint(body, gaps)[0] is not None) for choice in choice_list
        )
    # text at a guess; an image is told from none, as by any server that looks at it
    contents = [m.get("content") for m in body.get("messages", ()) if isinstance(m, dict)]
    images = sum(part.get("type") == "image_url" for c in contents if isinstance(c, list) for part in c)
    prompt = 300 + 100 * images
    out = sum(len(text) for text in texts) + thinking
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": out, "total_tokens": prompt + out}
    if thinking:
        usage["completion_tokens_details"] = {"reasoning_tokens": thinking}
    return {
        "id": f"chatcmpl-{item}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body.get("model", ""),
        "choices": choice_list,
        "usage": usage,
    }


def _think(choice: dict[str, Any], item: str, thinks: Thinks, *, guided: bool) -> int:
    """Put thoughts before a choice's text; return their number of tokens."""
    if thinks is Thinks.NEVER or (guided and thinks in (Thinks.IN_TEXT, Thinks.NOT_WITH_SCHEMA)):
        return 0
    thoughts = f'{THOUGHT}{item}，先写草稿{{"理由": "草稿", "所属类别": "反馈破损"}}，不对。'
    message = choice["message"]
    if thinks is Thinks.IN_TEXT:
        message["content"] = f"{thoughts}</think>\n\n{message['content']}"
        return len(thoughts)
    message["reasoning_content"] = thoughts
    if thinks is Thinks.ENDLESS or (guided and thinks is Thinks.ALONE_WITH_SCHEMA):
        message["content"] = None
        choice["finish_reason"] = "length" if thinks is Thinks.ENDLESS else "stop"
    return len(thoughts)


def _constraint(body: dict[str, Any], gaps: frozenset[Gap]) -> tuple[dict[str, Any] | None, list[str]]:
    """The schema asked for, if any, and the choices asked for."""
    guided = body.get("structured_outputs") or {}
    choices = [] if Gap.CHOICE in gaps else guided.get("choice") or []
    if Gap.SCHEMA in gaps:
        return None, choices
    wanted = body.get("response_format") or {}
    schema = wanted["json_schema"]["schema"] if wanted.get("type") == "json_schema" else guided.get("json")
    return schema, choices


def _logprobs(ids: list[int], item: str) -> dict[str, Any]:
    """The asked tokens' log-probabilities at the first place, and nothing else, as vLLM gives them."""
    chosen = ids[hashed(item) % len(ids)]
    rest = max(len(ids) - 1, 1)
    top = [
        {"token": f"token_id:{i}", "logprob": math.log(0.9 if i == chosen else 0.1 / rest), "bytes": None} for i in ids
    ]
    return {"content": [{**next(t for t in top if t["token"] == f"token_id:{chosen}"), "top_logprobs": top}]}
