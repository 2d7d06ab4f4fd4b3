"""The exception tree.

::

    LabelstillError                 anything labelstill itself raises; its text is one or two lines fit for a terminal
    ├── ConfigError                 the configuration asks for something that cannot be: names the key and the mend
    ├── ManifestError               a whole input file is unusable: names the file, the line where known, and the mend
    ├── PackError                   a pack is incomplete or contradicts itself: names the pack's file and the key
    ├── EngineError                 an engine cannot be opened or has died; never raised for a single item
    ├── LedgerError                 the ledger cannot be opened or written
    ├── StorageError                a file cannot be written, as on a full disk: names the file and the mend
    ├── JudgementError              a file of probabilities or verdicts is unusable: names file, line and item
    ├── BudgetSpent                 the run's budget is spent: nothing is wrong, it goes on the next time
    ├── LeakageError                a prediction comes from a model that saw the item
    └── ItemCountError                  kept + dropped ≠ input in a stage: a defect of ours, never of the data

One bad *item* raises none of these beyond the room that met it: it becomes a `records.Dropped`.
"""


class LabelstillError(Exception):
    """Base of all errors raised on purpose; the command line prints its text and exits with 2.

    What a terminal would obey or can't print, as names and ids from data may hold it, is spelled out in the text.
    """

    def __str__(self) -> str:
        return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in super().__str__())


class ConfigError(LabelstillError):
    """The configuration cannot be run as written."""


class ManifestError(LabelstillError):
    """An input file as a whole is unusable."""


class PackError(LabelstillError):
    """A pack's files are incomplete or contradictory."""


class EngineError(LabelstillError):
    """An engine cannot be opened, or died and stays dead."""


class LedgerError(LabelstillError):
    """The ledger cannot be opened or written."""


class StorageError(LabelstillError):
    """A file cannot be written; nothing half written is left in its place."""


class JudgementError(LabelstillError):
    """A file of probabilities or verdicts cannot be used, not even in part."""


class BudgetSpent(LabelstillError):
    """The run has spent what it may; all that was answered is in the ledger."""


class LeakageError(LabelstillError):
    """A prediction was made by a model that was trained on the item, or on a duplicate of it."""


class ItemCountError(LabelstillError):
    """A stage's kept and dropped items do not add up to its input."""
