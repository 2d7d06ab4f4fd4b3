"""Decide when so many questions of a stage fail that the run must not end as a success.

A bad item is dropped and the run continues. But if every third answer is cut off, a setting, the server or the prompt
is at fault, and a set made from the rest would look like a good one. Bad media are the item's own fault and do not
count.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from tasks.errors import TooManyFailures
from tasks.prompts.thinking import ADVICE
from tasks.records import USABLE, Outcome, Prediction

FAILURES = frozenset(Outcome) - USABLE - {Outcome.BAD_MEDIA}
"""The outcomes that count."""
LEAST = 5
"""Fewer failures never fail a run, whatever their share: 1 of 5 questions is an accident."""
_HOPELESS = 200
"""After this many failures, questions are not asked to the end if the limit is certain to be exceeded."""

_CONTRADICTS = "read the raw answers in the ledger's view `questions`; correct the pack's prompt or use another model"
_FIXES = {
    Outcome.ONLY_THINKING: ADVICE,
    Outcome.TRUNCATED: "raise `max_tokens`",
    Outcome.TOO_LONG: "raise the engine's `context_length`, or lower `max_pixels`",
    Outcome.FAILED: "repair the server (see its log)",
    Outcome.REFUSED: "the model declines to answer: correct the pack's prompt, or use another model",
}


@dataclass(frozen=True)
class FailureLimit:
    """The largest share of a stage's questions of one kind that may fail."""

    stage: str
    max_share: float

    def watch(self, answers: Iterator[Prediction], asked: int, what: str) -> Iterator[Prediction]:
        """Yield the answers to `asked` questions. Raises TooManyFailures at the end, or earlier if it is certain."""
        failures = Failures(self, what, asked)
        for answer in answers:
            failures.count(answer.sample_id, answer.outcome, answer.detail)
            if failures.number >= _HOPELESS:
                failures.check()
            yield answer
        failures.check()


NO_LIMIT = FailureLimit("", 1.0)


@dataclass
class Failures:
    """Counts the failed ones of `asked` questions of one kind. Each question counts once, by its last answer."""

    limit: FailureLimit
    what: str
    asked: int
    counts: Counter[Outcome] = field(default_factory=Counter[Outcome])
    examples: dict[Outcome, str] = field(default_factory=dict[Outcome, str])

    @property
    def number(self) -> int:
        """Number of failed questions so far."""
        return self.counts.total()

    def count(self, sample_id: str, outcome: Outcome, detail: str) -> None:
        """Count the last answer about an item."""
        if outcome in FAILURES:
            self.counts[outcome] += 1
            self.examples.setdefault(outcome, f"item {sample_id}{f' ({detail[:200]})' if detail else ''}")

    def check(self) -> None:
        """Raise TooManyFailures, which names the commonest cause and its fix, if too many questions failed."""
        if self.number < LEAST or self.number <= self.limit.max_share * self.asked:
            return
        [(outcome, times)] = self.counts.most_common(1)
        raise TooManyFailures(
            f"{self.limit.stage}: {self.number:,} of {self.asked:,} questions failed ({self.what}), more than "
            f"`max_failed_share: {self.limit.max_share:g}` allows. Most frequent: {outcome}, {times:,} times, e.g. "
            f"{self.examples[outcome]}; {_FIXES.get(outcome, _CONTRADICTS)}, then run again (answers so far are kept)"
        )
