"""The review queue: its order and length, its file, and the page that is written with it.

Correction, pseudo-labels and the merge only say what could be asked and what each answer is expected to gain.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tasks.errors import ConfigError, ManifestError
from tasks.records import ReviewCase
from tasks.review.page import write_review_page
from tasks.storage.json_lines import read_models, write_json_lines

CASES, PAGE, STORE = "cases.jsonl", "review.html", "verdicts.jsonl"
"""The files of a review folder: the questions, the page that asks them, what people said (`tasks.review.verdicts`)."""
REVIEW_POOL = Path("review_pool/review")
"""Where under a run's `output` the uncertain items of the pool are asked about: a folder of its own for `labelstill
review`, which looks for `review` in what it is given."""
CONFLICTS = Path("review_conflicts/review")
"""The same for conflicting duplicates: `labelstill review import <output>/review_conflicts FILE` takes answers in."""


def order_queue(cases: Iterable[ReviewCase], budget: int, kept: Collection[str] = ()) -> list[ReviewCase]:
    """Return the `budget` cases with the highest expected gain, and those `kept` whatever their gain, highest first.

    `kept` are sample ids of cases: the sample that an audit drew, and what was judged before, so that a verdict can be
    changed. Equal gains are ordered by source and id. No more cases are held in memory than are returned.
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
    """Write the queue's file and its page to `folder`, with the `verdicts` there are (id → label or `neither`)."""
    write_json_lines(folder / CASES, cases)
    write_review_page(cases, folder / PAGE, title=title, verdicts=verdicts, inline=inline)


def read_queue(folder: Path) -> list[ReviewCase]:
    """The cases that `write_queue` wrote, in order.

    Raises ConfigError when there is no queue, ManifestError naming the line that is no case.
    """
    file = folder / CASES
    if not file.exists():
        raise ConfigError(f"{file}: there is no review queue; a run with `student` and `teacher` writes one")
    return list(read_models(file, ReviewCase, "review case", ManifestError, "run again to write it anew"))
