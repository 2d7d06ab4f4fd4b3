"""The exceptions for a request that an engine cannot answer, and the generation that it then returns."""

from tasks.records import Generation, Outcome, Request


class Unanswered(Exception):
    """One request cannot be answered; the text says why. Other requests are not affected."""

    outcome: Outcome = Outcome.FAILED


class BadMedia(Unanswered):
    """An image file itself is unusable, as seen on this machine: undecodable, changed or too thin.

    A file that cannot be read now, or a request that a server rejects, is no proof of that.
    """

    outcome: Outcome = Outcome.BAD_MEDIA


class TooLong(Unanswered):
    """The prompt has too many tokens, even when shortened as far as allowed."""

    outcome: Outcome = Outcome.TOO_LONG


def make_unanswered(request: Request, error: Exception, engine: str, seconds: float = 0.0) -> Generation:
    """Return the generation for a request that failed with `error`, which may be Unanswered or a library's error."""
    known = isinstance(error, Unanswered)
    return Generation(
        key=request.key,
        outcome=error.outcome if known else Outcome.FAILED,
        detail=str(error)[:1000] if known else summarise(error),
        seconds=seconds,
        engine=engine,
    )


def summarise(error: BaseException) -> str:
    """Return the type of an error and the first line of its text."""
    return f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0][:300]}"
