"""Keep asking questions that do not depend on answers still pending at a batch API."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tasks.errors import AnswersPending

T = TypeVar("T")


def count_answered(stream: Iterator[T], asked: int, what: str) -> Iterator[T]:
    """Yield the answers; if some are pending, add the number of answered questions to the error."""
    answered = 0
    try:
        for answer in stream:
            answered += 1
            yield answer
    except AnswersPending as pending:
        raise AnswersPending(f"{what}: {answered:,} of {asked:,} answered. {pending}") from pending


def ask_each(*asks: Callable[[], T]) -> list[T]:
    """Call each function and return the results. If the answers to one are pending, the others are still called.

    Questions that do not depend on each other are so sent to a batch API at the same time.
    """
    results: list[T] = []
    pending: list[AnswersPending] = []
    for ask in asks:
        try:
            results.append(ask())
        except AnswersPending as error:
            pending.append(error)
    if pending:
        raise join_pending(pending)
    return results


def join_pending(pending: Sequence[AnswersPending]) -> AnswersPending:
    """Return one error that says what several say."""
    return AnswersPending("\n".join(str(error) for error in pending))
