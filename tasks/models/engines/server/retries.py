"""Decide which failures are retried, how often and after what wait."""

import random
import re
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from tasks.models.engines.server.chat import get_path
from tasks.models.unanswered import Unanswered
from tasks.records import Outcome

_FAULTS = 6
"""Maximum attempts per request while the server fails (5xx, an incomplete or unreadable reply, a timeout)."""
_BUSY = 14
"""Maximum attempts per request while the server is overloaded; with the waits below, about two minutes."""
_CRASHES = 6
"""After this many broken connections, a request is taken to be the one that crashes the server."""
_FIRST_WAIT = 0.25
_LONGEST_WAIT = 15.0
_LONGEST_RETRY_AFTER = 120.0
RETRIED_4XX = frozenset({408, 409, 425, 429})
OVERLOAD_STATUSES = frozenset({408, 429, 503, 504, 524, 529})
"""What servers return while they have too much to do, and the proxies in front of them when they take too long."""


class Refused(Unanswered):
    """The server rejects this request (e.g. 400, 413, 422), which is therefore not sent again."""

    def __init__(self, status: int, message: str, param: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.message = message
        text = message.lower()
        # vLLM 0.32 names the parameter, older versions only mention the length
        about_prompt = "length" in text and any(word in text for word in ("token", "context", "prompt"))
        if param == "input_tokens" or (about_prompt and ("longer than" in text or "maximum" in text)):
            self.outcome = Outcome.TOO_LONG


class CrashesServer(Unanswered):
    """The connection broke while the request was in flight: it may crash the server."""


@dataclass
class Tries:
    """Counts the failed attempts of one request."""

    faults: int = 0
    busy: int = 0
    crashes: int = 0
    last: str = ""

    def choose_wait(self) -> float:
        """Return the seconds until the next attempt. They double each time; half is random to spread the load."""
        step = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (self.faults + self.busy + self.crashes - 1))
        return step * (0.5 + random.random() / 2)

    @property
    def used_up(self) -> bool:
        """Return whether no further attempt is allowed."""
        return self.faults >= _FAULTS or self.busy >= _BUSY or self.crashes >= _CRASHES


_ACCOUNT_CODES = re.compile(
    r"insufficient_?(quota|balance|credits?|funds)|exceeded_current_quota|billing_(hard_limit|not_active)|arrearage"
    r"|account_?overdue|overdue_?balance|account_(suspended|deactivated)|payment_required",
    re.IGNORECASE,
)
"""The codes and types of errors with which providers say that the account must be paid or unlocked."""
_ACCOUNT_TEXTS = re.compile(
    r"insufficient (account |user )?(quota|balance|credit|fund)|not enough (balance|credit|quota)"
    r"|(balance|credits?|quota) (is|are) (insufficient|too low)"
    r"|(used|used up|run out of|ran out of|out of) (your |all )?(available )?(credit|quota|balance)"
    r"|exceeded your (current|monthly) (quota|spend|budget|usage)|billing (hard limit|is not active|not active)"
    r"|account\b.{0,60}(suspended|deactivated|overdue|not active|in good standing)|in arrears|arrearage"
    r"|overdue[ -](payment|balance)|(spend|spending) limit|余额不足|欠费|额度不足|额度已用[完尽]",
    re.IGNORECASE,
)
_SOON = re.compile(r"per[ _-]?(minute|second)|retry in|try again in \d", re.IGNORECASE)
"""A quota that is free again after a short wait is a rate limit."""
_QUOTED = 200
"""Number of a message's characters that are searched. What follows them may be quoted from our prompt."""


def is_account_fault(status: int, answer: Any, message: str) -> bool:
    """Return whether the error says that the account lacks money or quota, so that no request will be answered."""
    inner = get_path(answer, "error")
    codes = [str(get_path(where, name)) for where in (inner, answer) for name in ("code", "type", "status")]
    if status == 402 or any(_ACCOUNT_CODES.search(code) for code in codes):
        return True
    return bool(_ACCOUNT_TEXTS.search(message[:_QUOTED])) and not _SOON.search(message)


def read_error_message(answer: Any, content: bytes) -> tuple[str, str]:
    """Return the server's error message and the parameter that it names (empty if it names none)."""
    inner = get_path(answer, "error") if isinstance(get_path(answer, "error"), dict) else answer
    if text := get_path(inner, "message") or get_path(inner, "detail"):
        return str(text)[:500], str(get_path(inner, "param") or "")
    return content[:200].decode(errors="replace") or "no message", ""


def parse_retry_after(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header (a number or a date, RFC 9110) asks for; None if it is not valid."""
    if not retry_after:
        return None
    try:
        asked = float(retry_after)
    except ValueError:
        try:
            asked = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(asked, 0.0), _LONGEST_RETRY_AFTER) if asked == asked else None
