"""The demo's simulated reviewer, who answers with the true labels."""

from collections.abc import Iterable
from pathlib import Path

from tasks.evaluation.test_set import read_truth


def answer_from_truth(truth: Path, asked: Iterable[str]) -> dict[str, str]:
    """Read the true labels from `truth`, and map the ids of the `asked` items to them.

    The true labels of other items are not returned, because correction must not know them.
    """
    labels = read_truth(truth)
    return {identity: labels[identity] for identity in asked if identity in labels}
