"""An engine that answers by fixed rules, without a model, for dry runs and tests.

Its answers are no evidence about labels (`EngineSpec.is_rule`), except in tests, where it stands in for a model.
"""

import hashlib
import math
import re
import time
from collections.abc import Iterable, Iterator

from tasks.errors import EngineError
from tasks.media import TextPart
from tasks.models.engines.engine import Usage
from tasks.models.engines.spec import EngineSpec
from tasks.records import Generation, LabelAnswer, Outcome, Request
from tasks.storage.json_lines import escape_json

_SCRIPT = re.compile(
    r"scripted:\s*(?:(?:(?P<choice>first|hash|echo)|slow=(?P<slow>\d*\.?\d+)|bad=(?P<bad>\d+))\s*(?:,\s*|$))*"
)
_SURE = 0.9
"""Probability of the chosen label; the other labels share the rest equally."""


class ScriptedEngine:
    """Answers by the rules in `spec.model`, which is `scripted:` followed by any of these, separated by commas:

    - `first`: answer with each item's first label; `hash` (default): with a label chosen by the request's key; `echo`:
      with the label that occurs in the item's text, or like `hash` if none does;
    - `slow=S`: take S seconds per item; `bad=N`: make every N-th answer invalid JSON.
    """

    def __init__(self, spec: EngineSpec) -> None:
        """Parse the rules; raise EngineError for an unknown rule."""
        script = _SCRIPT.fullmatch(spec.model)
        if script is None:
            known = "`scripted:` followed by any of first, hash, echo, slow=SECONDS and bad=N, separated by commas"
            raise EngineError(f"unknown script `{spec.model}`; set `model` to {known}")
        self._choice = script["choice"] or "hash"
        self._slow = float(script["slow"] or 0)
        self._bad = int(script["bad"] or 0)
        self.fingerprint = f"scripted/{spec.model}"
        self.notes = ()
        self._seconds = 0.0

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield one generation per request, in input order."""
        for number, request in enumerate(requests, start=1):
            if self._slow:
                time.sleep(self._slow)
                self._seconds += self._slow
            yield self._answer(request, malformed=self._bad > 0 and number % self._bad == 0)

    def usage(self) -> Usage:
        """Return the total time spent answering; requests are answered one at a time."""
        return Usage(1, self._seconds, self._seconds)

    def close(self) -> None:
        """Do nothing, because there is nothing to free."""

    def _answer(self, request: Request, *, malformed: bool) -> Generation:
        constraint, sampling = request.constraint, request.sampling
        reason = f"依据{hashlib.sha256(request.key.encode()).hexdigest()[:6]}判断"
        logprobs: dict[str, float] | None = None
        text = reason
        if isinstance(constraint, LabelAnswer):
            label = self._choose_label(request, constraint.labels)
            before = "" if constraint.between is None else reason + constraint.between
            text = constraint.opening + before + escape_json(label) + constraint.closing
            if sampling.label_probabilities:
                logprobs = _make_logprobs(label, constraint.labels)
        if malformed:
            text = "<<<"
        return Generation(
            key=request.key,
            outcome=Outcome.OK,
            texts=(text,) * sampling.n,
            label_logprobs=logprobs,
            tokens_in=len(request.prefix) + len(_join_text(request)) + len(request.suffix),
            tokens_out=len(text) * sampling.n,
            seconds=self._slow,
            engine=self.fingerprint,
        )

    def _choose_label(self, request: Request, labels: tuple[str, ...]) -> str:
        if self._choice == "first":
            return labels[0]
        if self._choice == "echo":
            text = _join_text(request)
            # the longest one, since a label's name may be part of another's
            if named := [label for label in labels if label in text]:
                return max(named, key=len)
        return labels[int(hashlib.sha256(request.key.encode()).hexdigest(), 16) % len(labels)]


def _join_text(request: Request) -> str:
    return "".join(part.text for part in request.parts if isinstance(part, TextPart))


def _make_logprobs(chosen: str, labels: tuple[str, ...]) -> dict[str, float]:
    weights = {label: _SURE if label == chosen else (1 - _SURE) / (len(labels) - 1) for label in labels}
    return {label: math.log(weight / sum(weights.values())) for label, weight in weights.items()}
