"""The exceptions that labelstill raises on purpose.

::

    LabelstillError                 base of all errors; its text is one or two lines for a terminal
    ├── ConfigError                 a setting is wrong; the message names key and fix
    ├── ManifestError               a whole input file is unusable; the message names file, fix and, if known, line
    ├── PackError                   a pack is incomplete or contradictory; the message names file and key
    ├── MissingPackage              a package is missing that only a larger environment has
    ├── EngineError                 an engine cannot be opened or has died; a single failed item never raises it
    │   └── AccountError            the provider refuses the account (key, quota, payment); only a person can fix it
    ├── LedgerError                 the ledger cannot be opened or written
    ├── StorageError                a file cannot be written, e.g. on a full disk; the message names file and fix
    ├── JudgementError              probabilities or verdicts are unusable; the message names file, line and item
    ├── TooManyFailures             so many questions failed that the run must not count as a success
    ├── BudgetSpent                 the run has spent its budget; the next run continues from there
    ├── AnswersPending              a batch API has the questions but not yet all answers; a later run takes them
    ├── LeakageError                a prediction comes from a model that was trained on the item
    └── ItemCountError              a stage's kept and dropped items are not exactly its input: a bug in labelstill

A single bad *item* raises none of these outside the function that reads it; it becomes a `records.Dropped`.
"""

from typing import ClassVar


class LabelstillError(Exception):
    """Base of all errors raised on purpose; the command line prints its text and exits with status `exit_code`.

    Names and ids from the data may contain control characters; the text shows them as escape sequences.
    """

    exit_code: ClassVar[int] = 2

    def __str__(self) -> str:
        return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in super().__str__())


class ConfigError(LabelstillError):
    """The configuration cannot be run."""


class ManifestError(LabelstillError):
    """A whole input file is unusable."""


class PackError(LabelstillError):
    """A pack's files are incomplete or contradictory."""


class MissingPackage(LabelstillError):
    """A package is missing that runs models: the environment was made by `make env-light`."""


class EngineError(LabelstillError):
    """An engine cannot be opened, or died and cannot be restarted."""


class AccountError(EngineError):
    """The provider refuses the account, so each further question would fail too. The answers so far are kept."""

    exit_code = 1


class LedgerError(LabelstillError):
    """The ledger cannot be opened or written."""


class StorageError(LabelstillError):
    """A file cannot be written; no partial file is left in its place."""


class JudgementError(LabelstillError):
    """A file of probabilities or verdicts is unusable; nothing in it is used."""


class TooManyFailures(LabelstillError):
    """So many questions failed that the run ends as a failure. The answers and the finished stages are kept."""

    exit_code = 1


class BudgetSpent(LabelstillError):
    """The run has spent its budget; all answers so far are in the ledger."""


class AnswersPending(LabelstillError):
    """Questions were sent to a batch API, which has not answered all of them yet. The text says which and until when.

    Not a failure: the next run takes the answers that are there by then.
    """

    exit_code = 5


class LeakageError(LabelstillError):
    """A prediction was made by a model that was trained on the item or on a duplicate of it."""


class ItemCountError(LabelstillError):
    """The items that a stage kept and dropped are not exactly its input."""
