"""Read a batch's files of answers: in any order, with lines missing, doubled, damaged or of somebody else."""

from collections import Counter
from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from tasks.errors import AccountError
from tasks.models.engines.server.chat import get_path, read_reply
from tasks.models.engines.server.retries import RETRIED_4XX, is_account_fault, read_error_message

_KEPT_TOKENS = 48
"""Tokens at the end of an answer whose alternatives are kept: the label and what closes it. Those of a whole answer
take 100 times the space of its text."""
_NOT_TRIED = ("expired", "cancelled", "canceled")
"""Parts of the error codes of questions that the server has not come to."""


@dataclass
class Collected:
    """What the files of an ended batch say about its questions."""

    answers: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Maps custom id to `{"body": chat completion}`, or `{"refused": message, "status": number}`: final either way."""
    failed: set[str] = field(default_factory=set[str])
    """Questions that the server tried and failed at for now, or whose line is lost."""
    oddities: Counter[str] = field(default_factory=Counter[str])
    """What is wrong with lines, with the number of each."""
    account_fault: str = ""
    """Why the provider answers nothing until somebody repairs the account; empty if it does not say so."""

    def describe(self) -> str:
        """Return the oddities in words; empty if there are none."""
        return ", ".join(f"{n:,} {what}" for what, n in sorted(self.oddities.items()))


def collect_answers(files: Iterable[Path], questions: Set[str], *, ended_early: bool) -> Collected:
    """Read the files of answers and of errors to the `questions`, named by custom id.

    A question without a line counts as failed, except in a batch that `ended_early`: the server has not come to it.
    """
    found = Collected()
    untried: set[str] = set()
    for file in files:
        with file.open("rb") as lines:
            for line in lines:
                if line.strip():
                    _read_line(line, questions, found, untried)
    missing = questions - found.answers.keys() - found.failed - untried
    if not ended_early:
        if missing:
            found.oddities["questions without an answer, which are sent again"] += len(missing)
        found.failed |= missing
    found.failed -= found.answers.keys()
    return found


def check_account(found: Collected, host: str) -> None:
    """Raise AccountError if questions failed because the account must be repaired first."""
    if found.account_fault:
        raise AccountError(
            f"{host} refuses questions because of your account: {found.account_fault}; top up the account or raise its "
            "limit there, then run again (answers so far are kept)"
        )


def _read_line(line: bytes, questions: Set[str], found: Collected, untried: set[str]) -> None:
    try:
        entry = orjson.loads(line)
    except orjson.JSONDecodeError:
        entry = None
    custom_id = get_path(entry, "custom_id")
    if not isinstance(custom_id, str):
        found.oddities["damaged lines"] += 1
        return
    if custom_id not in questions:
        found.oddities["lines about questions that this batch does not have"] += 1
        return
    if custom_id in found.answers:
        found.oddities["doubled lines"] += 1
        return
    status = get_path(entry, "response", "status_code")
    body = get_path(entry, "response", "body")
    if status == 200 and isinstance(get_path(body, "choices"), list) and read_reply(body, custom_id, 1) is not None:
        found.answers[custom_id] = {"body": _trim(body)}
        return
    if status == 200:
        found.oddities["answers without any text"] += 1
        found.failed.add(custom_id)
        return
    fault = get_path(entry, "error") or get_path(body, "error") or body
    code = str(get_path(fault, "code") or "")
    message, _ = read_error_message({"error": fault}, b"")
    number = status if isinstance(status, int) else 0
    if any(word in code for word in _NOT_TRIED):
        untried.add(custom_id)
    elif is_account_fault(number, {"error": fault}, message):
        found.account_fault = message
        untried.add(custom_id)
    elif 400 <= number < 500 and number not in RETRIED_4XX:
        found.answers[custom_id] = {"refused": message, "status": number}
    else:
        found.oddities[f"questions that failed ({message[:80]}), which are sent again"] += 1
        found.failed.add(custom_id)


def _trim(body: dict[str, Any]) -> dict[str, Any]:
    """Keep what is read later: the choices, with the alternatives of their last tokens, and the usage."""
    choices: list[dict[str, Any]] = []
    for choice in body["choices"]:
        if not isinstance(choice, dict):
            continue
        kept = {name: choice[name] for name in ("index", "message", "finish_reason") if name in choice}
        if isinstance(tokens := get_path(choice, "logprobs", "content"), list):
            kept["logprobs"] = {"content": [_trim_token(token) for token in tokens[-_KEPT_TOKENS:]]}
        choices.append(kept)
    return {"choices": choices, "usage": body.get("usage")}


def _trim_token(token: Any) -> dict[str, Any]:
    others = get_path(token, "top_logprobs")
    pairs = [[_read_token(t), get_path(t, "logprob")] for t in others] if isinstance(others, list) else []
    return {"token": _read_token(token), "logprob": get_path(token, "logprob"), "others": pairs}


def _read_token(token: Any) -> str:
    """Return a token's bytes, one character each: a token of Chinese text may end within a character."""
    listed = get_path(token, "bytes")
    try:
        own = bytes(listed) if isinstance(listed, list) else str(get_path(token, "token") or "").encode()
    except (TypeError, ValueError):
        own = b""
    return own.decode("latin-1")
