"""Order the review queue, limit its length, and write its file and page.

Correction, pseudo-labels and the merge provide the cases. Each case has the gain that is expected from an answer.
"""

import heapq
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tasks.errors import ConfigError, ManifestError
from tasks.records import ReviewCase, content_digest
from tasks.review.page import write_review_page
from tasks.review.verdicts import Settled, read_store, settle_verdicts
from tasks.storage.json_lines import read_models, write_json_lines

CASES, PAGE, STORE = "cases.jsonl", "review.html", "verdicts.jsonl"
"""The files in a review folder: the cases, the page that shows them, and the store of verdicts."""
REVIEW_POOL = Path("review_pool/review")
"""Review folder for uncertain items of the pool, relative to a run's `output`. It has its own parent folder because
`labelstill review` expects a folder that contains `review`."""
CONFLICTS = Path("review_conflicts/review")
"""Review folder for conflicting duplicates. `labelstill review import <output>/review_conflicts FILE` imports their
verdicts."""

REASONS = Path("review_reasons/review")
"""Review folder for reasons that a model has judged. `labelstill review import <output>/review_reasons FILE` imports
their verdicts."""


def order_queue(cases: Iterable[ReviewCase], budget: int, kept: Collection[str] = ()) -> list[ReviewCase]:
    """Return all `kept` cases and the `budget` others with the highest expected gain.

    Blind cases come first, so that the audit is complete early; then cases in order of decreasing gain.
    `kept` contains the sample ids of cases that must be in the queue: audited items, and items judged before, so that
    their verdicts can be changed. Cases with equal gain are ordered by source and id. Memory never holds more cases
    than are returned.
    """

    def rank(case: ReviewCase) -> tuple[bool, float, str, str]:
        return not case.blind, -case.gain, case.source, case.sample_id

    chosen = heapq.nsmallest(budget + len(kept), cases, key=lambda case: (case.sample_id not in kept, rank(case)))
    return sorted(chosen, key=rank)


def write_queue(
    cases: Sequence[ReviewCase],
    folder: Path,
    *,
    title: str = "Review",
    inline: bool = True,
) -> None:
    """Write the queue's file and its page to `folder`.

    The page shows the verdicts imported into the folder. Cases on which people disagree are marked. `inline` says
    whether the page contains the images or links to them.
    """
    settled = settle_cases(cases, folder)
    marked = mark_disagreed(cases, settled)
    write_json_lines(folder / CASES, marked)
    write_review_page(marked, folder / PAGE, title=title, verdicts=settled.verdicts, inline=inline)


def settle_cases(cases: Sequence[ReviewCase], folder: Path) -> Settled:
    """Return which of the verdicts imported into `folder` are used for the cases."""
    contents = {c.sample_id: content_digest(c) for c in cases}
    return settle_verdicts(read_store(folder / STORE), {c.sample_id: c.labels for c in cases}, contents)


def mark_disagreed(cases: Iterable[ReviewCase], settled: Settled) -> list[ReviewCase]:
    """Return the cases, with those marked on which people disagree. Once a marked case is settled, its mark goes."""

    def disagree(case: ReviewCase) -> bool:
        return case.sample_id in settled.disagreed or (case.disagreed and case.sample_id not in settled.verdicts)

    return [case.model_copy(update={"disagreed": disagree(case)}) for case in cases]


def read_queue(folder: Path) -> list[ReviewCase]:
    """Return the cases that `write_queue` wrote, in order.

    Raises ConfigError if there is no queue, and ManifestError, naming the line, if a case is invalid.
    """
    file = folder / CASES
    if not file.exists():
        raise ConfigError(f"{file}: there is no review queue; run `labelstill run` with correction first")
    return list(read_models(file, ReviewCase, "review case", ManifestError, "run again to rewrite it"))
