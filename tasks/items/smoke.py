"""Choose a few items of a set for a smoke run, evenly over its labels."""

from collections import defaultdict
from collections.abc import Sequence

from tasks.records import Sample, content_digest


def choose_few(samples: Sequence[Sample], limit: int) -> list[Sample]:
    """Return `limit` samples (or all, if there are fewer) in their order, as evenly over tasks and labels as possible.

    The choice depends on the items' contents only, so a larger limit keeps the items of a smaller one.
    """
    groups: defaultdict[tuple[str, str | None], list[tuple[str, int]]] = defaultdict(list)
    for place, sample in enumerate(samples):
        groups[sample.task, sample.given].append((content_digest(sample), place))
    ranked = sorted(
        (rank, digest, place) for group in groups.values() for rank, (digest, place) in enumerate(sorted(group))
    )
    return [samples[place] for place in sorted(place for _, _, place in ranked[:limit])]
