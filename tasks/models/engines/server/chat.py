"""Convert requests to the bodies of OpenAI-compatible chat completions, and replies to texts."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson
import pybase64

from tasks.media import BoxForm
from tasks.prompts.parsing import MOST_LOGPROB
from tasks.prompts.recordings import describe_times
from tasks.prompts.thinking import ADVICE
from tasks.prompts.turns import escape_placeholder, make_draft_turns, make_system_turn, make_user_content
from tasks.records import Generation, LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json

TOKEN_COUNTS = ("tokens_in", "tokens_cached", "tokens_out", "tokens_thinking")
"""The names of the Generation fields whose values `read_usage` returns, in the same order."""

ANSWER_TOKENS = 64
"""Tokens allowed in addition to the reason, for keys, label and the white space with which weak models pad JSON."""

_BROKEN_OFF = ("error", "abort", "insufficient_system_resource")
"""What servers give as `finish_reason` when they, not the model, ended an answer. The request is sent again."""

_MARK = f"labelstill-image-{secrets.token_hex(8)}-"
"""Placeholder for an image or a recording while the body is serialised, so that megabytes of base64 are neither
escaped nor copied."""

_BOX_RULES = r"""
box: (<|object_ref_start|> TEXT <|object_ref_end|>)? <|box_start|> POINTS <|box_end|>
TEXT: /([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u[0-9a-fA-F]{4})+/
POINTS: /\([0-9]{1,4},[0-9]{1,4}\),\([0-9]{1,4},[0-9]{1,4}\)/
"""
"""The text within a JSON string, and a box, in llguidance's syntax of Lark."""


class Thinking(StrEnum):
    """How a server handles requests that switch thinking on."""

    NOT_ASKED = "not asked"
    """`thinking_tokens` is not set."""
    WITH_SCHEMA = "formed"
    """The model thinks, and its answer follows the schema."""
    WITHOUT_SCHEMA = "free"
    """The schema is left out, because the model thinks only without one."""
    NEVER = "never"
    """The model does not think, or the server refuses the fields that switch it on. They are left out from then on."""


@dataclass(frozen=True)
class Capabilities:
    """What a server can do; capabilities.py finds it out by tiny requests."""

    schema: bool = True
    """Whether the server enforces JSON schemas."""
    token_logprobs: bool = True
    """Whether it reports the log-probabilities of given tokens after a given beginning of an answer."""
    several: bool = True
    """Whether it returns several answers to one request."""
    local_files: bool = False
    """Whether it reads images from our cache folder by `file://`."""
    videos: bool = False
    """Whether its model sees all frames of a recording, as they are sent, and is told their times."""
    surplus: int = 0
    """Prompt tokens that it reports beyond ours, because its chat template begins the answer in another way."""
    context_length: int | None = None
    """Maximum number of tokens of prompt and answer combined; None if not known."""
    thinking: Thinking = Thinking.NOT_ASKED


def make_image_url(file: Path, *, local: bool) -> bytes:
    """Return the URL of a cached image: `file://` when `local`, else a data URL with its bytes in base64."""
    if local:
        return b"file://" + str(file).encode()
    kind = b"jpeg" if file.suffix == ".jpg" else file.suffix[1:].encode()
    return b"data:image/" + kind + b";base64," + pybase64.b64encode(file.read_bytes())


def make_video_url(frames: Sequence[Path]) -> bytes:
    """Return the data URL of a recording's frames, which vLLM 0.32 takes as they are.

    It calls them JPEG files, but reads what they are. Of a video file it would choose frames itself.
    """
    return b"data:video/jpeg;base64," + b",".join(pybase64.b64encode(frame.read_bytes()) for frame in frames)


def switch_thinking(on: bool) -> dict[str, Any]:
    """Return the fields that switch thinking on or off: for chat templates (vLLM, SGLang) and for DashScope."""
    return {"chat_template_kwargs": {"enable_thinking": on}, "enable_thinking": on}


def write_thoughts(thoughts: str) -> str:
    """Return how an answer begins after these thoughts, as Qwen's chat templates write it; empty without any."""
    return f"<think>\n{escape_placeholder(thoughts).strip()}\n</think>\n\n" if thoughts else ""


def build_chat_body(
    request: Request, model: str, media: Sequence[bytes], can: Capabilities, *, n: int, seed: int, draft: str = ""
) -> bytes:
    """Return the body that asks for `n` answers to `request`.

    `media` are the URLs of its images and recordings in the order of its parts; without `can.videos` there is one for
    each frame. `draft` is one of the request's drafts.
    """
    sampling, constraint = request.sampling, request.constraint
    fields: dict[str, Any] = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": seed}
    fields["max_tokens"] = sampling.max_tokens + request.thinking
    if n > 1:
        fields["n"] = n
    if request.boxes and can.token_logprobs:  # as only vLLM does, which also knows this option of its own
        fields["skip_special_tokens"] = False
    if isinstance(constraint, LabelAnswer):
        fields["max_tokens"] += ANSWER_TOKENS
        free = request.thinking > 0 and can.thinking is Thinking.WITHOUT_SCHEMA
        if request.boxes is BoxForm.QWEN2 and can.token_logprobs and constraint.between is not None and not free:
            fields["structured_outputs"] = {"grammar": build_box_grammar(constraint)}
        elif can.schema and not free:
            # with a maximum, vLLM's grammar allows no backslash, which boxes that are JSON in JSON need
            longest = None if request.boxes else sampling.max_tokens
            schema = {"name": "answer", "strict": True, "schema": build_answer_schema(constraint, longest)}
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return _insert_media({"model": model, **_build_question(request, can, draft, think=True), **fields}, media)


def build_probe_body(
    request: Request, model: str, media: Sequence[bytes], can: Capabilities, stem: str, tokens: Sequence[int],
    draft: str = "",
) -> bytes:  # fmt: skip
    """Return the body that asks for the log-probabilities of `tokens` as the next token after the answer `stem`."""
    question = _build_question(request, can, draft, think=False)
    question["messages"].append({"role": "assistant", "content": stem})
    return _insert_media({"model": model, **question, **build_probe_fields(tokens)}, media)


def build_probe_fields(tokens: Sequence[int]) -> dict[str, Any]:
    """Return the fields that make vLLM 0.32 continue the last message by one token and report on `tokens`."""
    return {
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 1,
        "temperature": 0.0,
        "logprobs": True,
        "logprob_token_ids": list(tokens),
        "return_tokens_as_token_ids": True,
    }


def build_answer_schema(constraint: LabelAnswer, longest: int | None) -> dict[str, Any]:
    """Return the JSON schema of the answer. The reason comes first and has at most `longest` characters, if given."""
    properties: dict[str, Any] = {}
    if constraint.reason_key is not None:
        properties[constraint.reason_key] = {"type": "string"} | ({"maxLength": longest} if longest else {})
    properties[constraint.label_key] = {"type": "string", "enum": list(constraint.labels)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def build_box_grammar(constraint: LabelAnswer) -> str:
    """Return the answer's grammar for vLLM, in which the reason may contain the special tokens of Qwen2-VL's boxes.

    A JSON schema allows none: a model that was trained to write them would write nonsense in their place.
    """
    labels = " | ".join(_quote(escape_json(label)) for label in constraint.labels)
    opening, between, closing = map(_quote, (constraint.opening, constraint.between or "", constraint.closing))
    return f"start: {opening} (TEXT | box)* {between} ({labels}) {closing}{_BOX_RULES}"


def _quote(text: str) -> str:
    return orjson.dumps(text).decode()


def read_reply(answer: dict[str, Any], key: str, wanted: int) -> Generation | None:
    """Return at most `wanted` texts of a chat completion, complete ones first; None when it contains no text.

    `key` is the request's key.
    """
    texts: dict[int, tuple[bool, str, str]] = {}
    for place, choice in enumerate(answer["choices"]):
        text, thought = _read_text(choice)
        numbered = get_path(choice, "index")
        index = place if numbered is None else numbered
        if text is not None and isinstance(index, int) and index not in texts:  # some servers repeat an answer
            texts[index] = (get_path(choice, "finish_reason") == "length", text, thought)
    if not texts:
        return None
    ordered = sorted(list(texts.values())[:wanted], key=lambda t: (not t[1].strip(), t[0]))
    cut, first, _ = ordered[0]
    thoughts = tuple(thought for *_, thought in ordered)
    outcome = Outcome.EMPTY if not first.strip() else Outcome.TRUNCATED if cut else Outcome.OK
    tokens = dict(zip(TOKEN_COUNTS, read_usage(answer), strict=True))
    detail = ADVICE if cut and _is_thinking(first) else ""
    found = tuple(text for _, text, _ in ordered)
    thoughts = thoughts if any(thoughts) else ()
    return Generation(key=key, outcome=outcome, texts=found, thoughts=thoughts, detail=detail, **tokens)


def join_replies(parts: Sequence[Generation]) -> Generation:
    """Return one reply with the texts and tokens of several, each of which has one answer to the same request."""
    best = min(parts, key=lambda r: (r.outcome is not Outcome.OK, r.outcome is Outcome.EMPTY))
    counts = {name: sum(getattr(part, name) for part in parts) for name in TOKEN_COUNTS}
    thoughts = tuple(thought for part in parts for thought in part.thoughts or ("",) * len(part.texts))
    texts = tuple(text for part in parts for text in part.texts)
    return best.model_copy(update={"texts": texts, "thoughts": thoughts if any(thoughts) else (), **counts})


def _read_text(choice: Any) -> tuple[str | None, str]:
    """Return a choice's text, and what the model thought before; no text (None) also if the server broke off.

    What a model thinks is not its answer. If the tokens ended while it was thinking, the text is `<think>` and the
    thoughts, without an end.
    """
    if get_path(choice, "finish_reason") in _BROKEN_OFF:
        return None, ""
    content = get_path(choice, "message", "content")
    text = content or get_path(choice, "message", "refusal")
    thoughts = get_path(choice, "message", "reasoning_content") or get_path(choice, "message", "reasoning")
    thoughts = thoughts if isinstance(thoughts, str) else ""
    if not text and thoughts and get_path(choice, "finish_reason") == "length":
        return f"<think>{thoughts}", ""
    text = text or ("" if thoughts else content)
    return (text, thoughts) if isinstance(text, str) else (None, "")


def _is_thinking(text: str) -> bool:
    return text.startswith("<think>") and "</think>" not in text


def read_usage(answer: dict[str, Any]) -> list[int]:
    """Return the values of TOKEN_COUNTS; 0 for one that is not reported."""
    paths = (
        *(("prompt_tokens",), ("prompt_tokens_details", "cached_tokens")),
        *(("completion_tokens",), ("completion_tokens_details", "reasoning_tokens")),
    )
    counts = [get_path(answer, "usage", *path) for path in paths]
    return [count if isinstance(count, int) and count > 0 else 0 for count in counts]


def read_token_logprobs(answer: dict[str, Any]) -> dict[int, float]:
    """Return a map from token id to log-probability at the first generated position; empty when none is reported.

    Log-probabilities above 0 are left out: they are none, whatever the server calls them.
    """
    try:
        content = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        pairs = [(str(entry["token"]), float(entry["logprob"])) for entry in content]
    except (KeyError, IndexError, TypeError, ValueError):
        return {}
    return {
        int(t.removeprefix("token_id:")): p
        for t, p in pairs
        if t.removeprefix("token_id:").isdecimal() and p <= MOST_LOGPROB
    }


def get_path(value: Any, *path: str | int) -> Any:
    """Return the element at `path` in a JSON value; None if there is no such element."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return None
    return value


def _build_question(request: Request, can: Capabilities, draft: str, *, think: bool) -> dict[str, Any]:
    """Return the fields with the turns, in which marks stand for images and recordings, and the times of frames.

    With `think`, the model thinks first if the request says so.
    """
    content: list[dict[str, Any]] = []
    marks = 0
    for element in make_user_content(request, frames_as_images=not can.videos):
        if element["type"] == "text":
            content.append(dict(element))
        else:
            kind = f"{element['type']}_url"
            content.append({"type": kind, kind: {"url": f"{_MARK}{marks}!"}})
            marks += 1
    turns = [*make_system_turn(request), {"role": "user", "content": content}, *make_draft_turns(request, draft)]
    question: dict[str, Any] = {"messages": turns}
    if can.thinking in (
        Thinking.WITH_SCHEMA,
        Thinking.WITHOUT_SCHEMA,
    ):  # a server that knows no such fields may refuse them
        question |= switch_thinking(think and request.thinking > 0)
    if request.videos and can.videos:
        question["media_io_kwargs"] = {"video": _build_frame_options(request)}
    return question


def _build_frame_options(request: Request) -> dict[str, Any]:
    """Return what vLLM 0.32 must be told of a request's frames; otherwise it takes 32, as if one per second."""
    first, *more = describe_times(request.videos)
    # the numbers of frames are those of one recording; several are numbered from 0 each, which vLLM does itself
    return {"num_frames": -1, **({"fps": first["fps"]} if more else first)}


def _insert_media(body: dict[str, Any], media: Sequence[bytes]) -> bytes:
    text = orjson.dumps(body)
    pieces = list[bytes]()
    at = 0
    for number, url in enumerate(media):
        mark = f"{_MARK}{number}!".encode()
        found = text.index(mark, at)
        pieces += (text[at:found], url)
        at = found + len(mark)
    return b"".join((*pieces, text[at:]))  # copies the images only once
