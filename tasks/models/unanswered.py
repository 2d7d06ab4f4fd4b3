"""A request that gets no answer: the exceptions an engine raises for it inside, and the generation it returns."""

from tasks.records import Generation, Outcome, Request


class Unanswered(Exception):
    """This one request gets no answer, for the reason in the text; the others are not concerned."""

    outcome: Outcome = Outcome.FAILED


class BadMedia(Unanswered):
    """An image cannot be read, or the server cannot use it."""

    outcome: Outcome = Outcome.BAD_MEDIA


class TooLong(Unanswered):
    """The prompt has too many tokens, even when shortened as far as allowed."""

    outcome: Outcome = Outcome.TOO_LONG


def end_unanswered(request: Request, error: Exception, engine: str, seconds: float = 0.0) -> Generation:
    """Return the generation of a request that `error` ended; any other error than Unanswered is one of a library."""
    known = isinstance(error, Unanswered)
    return Generation(
        key=request.key,
        outcome=error.outcome if known else Outcome.FAILED,
        detail=str(error)[:1000] if known else first_line(error),
        seconds=seconds,
        engine=engine,
    )


def first_line(error: BaseException) -> str:
    """Return the error's kind and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
