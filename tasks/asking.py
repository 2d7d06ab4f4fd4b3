"""Ask an engine, ledger first: nothing is paid twice, and a killed run goes on where it was."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tasks.engines import Engine
from tasks.ledger import Ledger
from tasks.records import Generation, Request


@dataclass
class Tally:
    """What an asking cost; added up over a stage and written into its record."""

    asked: int = 0
    reused: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    seconds: float = 0.0

    def add(self, generation: Generation) -> None:
        """Count one new answer."""
        self.asked += 1
        self.tokens_in += generation.tokens_in
        self.tokens_out += generation.tokens_out
        self.seconds += generation.seconds


@dataclass(frozen=True)
class Plan:
    """Which of a stage's requests are already answered, and which are still to be asked (one of each key)."""

    answers: dict[str, Generation]
    missing: tuple[Request, ...]
    tally: Tally = field(default_factory=Tally)

    def shards(self, size: int) -> Iterator[Sequence[Request]]:
        """The missing requests, `size` at a time."""
        for start in range(0, len(self.missing), size):
            yield self.missing[start : start + size]


def plan(requests: Iterable[Request], ledger: Ledger) -> Plan:
    """Look `requests` up in the ledger; equal questions (same key) are asked once."""
    wanted = {request.key: request for request in requests}
    answers = ledger.get(wanted)
    missing = tuple(request for key, request in wanted.items() if key not in answers)
    return Plan(answers, missing, Tally(reused=len(answers)))


def ask(
    engine: Engine, ledger: Ledger, requests: Sequence[Request], on_answer: Callable[[Generation], None]
) -> list[Generation]:
    """Answer `requests` with `engine`, each answer going to the ledger as it comes; unordered.

    `on_answer` is called for each answer (progress). Raises EngineError when the engine died, LedgerError when an
    answer can't be kept; what was answered before stays in the ledger.
    """
    answers: list[Generation] = []
    try:
        for generation in engine.generate(requests):
            ledger.put(generation)
            answers.append(generation)
            on_answer(generation)
    finally:
        ledger.flush()
    return answers
