"""Order and cut the review queue, and write its file and page.

Correction, pseudo-labels and the merge provide the cases, each with the gain expected from an answer.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tasks.errors import ConfigError, ManifestError
from tasks.records import ReviewCase
from tasks.review.page import write_review_page
from tasks.storage.json_lines import read_models, write_json_lines

CASES, PAGE, STORE = "cases.jsonl", "review.html", "verdicts.jsonl"
"""The files of a review folder: the cases, the page that shows them, the store of verdicts."""
REVIEW_POOL = Path("review_pool/review")
"""Review folder for uncertain items of the pool, under a run's `output`. It has a parent of its own because
`labelstill review` looks for `review` in the folder it is given."""
CONFLICTS = Path("review_conflicts/review")
"""The same for conflicting duplicates: `labelstill review import <output>/review_conflicts FILE` imports verdicts."""


def order_queue(cases: Iterable[ReviewCase], budget: int, kept: Collection[str] = ()) -> list[ReviewCase]:
    """Return the `budget` cases with the highest expected gain and all `kept` ones, in order of decreasing gain.

    `kept` are sample ids of cases that must be in the queue: the audit's sample, and those judged before, so that a
    verdict can be changed. Equal gains are ordered by source and id. At most the returned cases are kept in memory.
    """

    def rank(case: ReviewCase) -> tuple[float, str, str]:
        return -case.gain, case.source, case.sample_id

    chosen = heapq.nsmallest(budget + len(kept), cases, key=lambda case: (case.sample_id not in kept, rank(case)))
    return sorted(chosen, key=rank)


def write_queue(
    cases: Sequence[ReviewCase],
    folder: Path,
    verdicts: Mapping[str, str] = {},
    *,
    title: str = "Review",
    inline: bool = True,
) -> None:
    """Write the queue's file and page to `folder`; `verdicts` (label or `neither` by id) are shown on the page."""
    write_json_lines(folder / CASES, cases)
    write_review_page(cases, folder / PAGE, title=title, verdicts=verdicts, inline=inline)


def read_queue(folder: Path) -> list[ReviewCase]:
    """Return the cases that `write_queue` wrote, in order.

    Raises ConfigError if there is no queue, ManifestError naming the line that is not a valid case.
    """
    file = folder / CASES
    if not file.exists():
        raise ConfigError(f"{file}: there is no review queue; run `labelstill run` with correction first")
    return list(read_models(file, ReviewCase, "review case", ManifestError, "run again to rewrite it"))
