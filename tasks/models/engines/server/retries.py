"""What may be tried again, how often and after how long; what never is."""

import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from tasks.models.engines.server.chat import dig
from tasks.models.unanswered import Unanswered
from tasks.records import Outcome

_FAULTS = 6
"""Tries of a request that the server answers with a fault (5xx, half a body, nonsense, silence)."""
_BUSY = 14
"""Tries of one that it turns away for now (429, 503): with the waits below about two minutes."""
_CRASHES = 6
"""Connections that may break while one request is in flight, before it is taken for the one that kills the server."""
_FIRST_WAIT, _LONGEST_WAIT, _LONGEST_RETRY_AFTER = 0.25, 15.0, 120.0
CURABLE = frozenset({408, 409, 425, 429})
TURNED_AWAY = frozenset({429, 503})


class Refused(Unanswered):
    """The server understood the request and will never answer it (400, 413, 422): not to be sent again."""

    def __init__(self, status: int, message: str, param: str) -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.message = message
        text = message.lower()
        # vLLM 0.32 names the parameter, older ones only say so
        if param == "input_tokens" or ("length" in text and ("longer than" in text or "maximum" in text)):
            self.outcome = Outcome.TOO_LONG


@dataclass
class Tries:
    """What a request has been through."""

    faults: int = 0
    busy: int = 0
    crashes: int = 0
    last: str = ""

    def wait(self) -> float:
        """Seconds until the next try: doubled each time, half of it by chance so that crowds spread."""
        step = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (self.faults + self.busy + self.crashes - 1))
        return step * (0.5 + random.random() / 2)

    @property
    def used_up(self) -> bool:
        """Whether no further try is allowed."""
        return self.faults >= _FAULTS or self.busy >= _BUSY or self.crashes >= _CRASHES


def complaint(answer: Any, content: bytes) -> tuple[str, str]:
    """What the server says is wrong, and the parameter that it blames."""
    inner = dig(answer, "error") if isinstance(dig(answer, "error"), dict) else answer
    if text := dig(inner, "message") or dig(inner, "detail"):
        return str(text)[:500], str(dig(inner, "param") or "")
    return content[:200].decode(errors="replace") or "no message", ""


def retry_after_seconds(retry_after: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date (RFC 9110); None where it asks nothing."""
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
