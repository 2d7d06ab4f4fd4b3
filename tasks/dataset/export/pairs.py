"""Split examples into pairs of answers for DPO: to the same question, with the same images, one right and one wrong."""

from collections.abc import Iterator

from tasks.prompts.turns import escape_placeholder
from tasks.records import Example


def split_pairs(example: Example) -> Iterator[Example]:
    """Yield an example for each pair: its conversation ends with the answer to prefer, and it has only this pair."""
    for pair in example.pairs:
        yield example.model_copy(update={"messages": pair.messages, "boxes": (), "pairs": (pair,)})


def get_rejected(example: Example) -> str:
    """Return the answer to reject of an example with one pair, escaped like the answers of `make_conversation`."""
    (pair,) = example.pairs
    return escape_placeholder(pair.rejected)
