"""What the ledger's file keeps of a question and its answer: see ledger_file.py for the tables."""

import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

import orjson
from pydantic_core import PydanticSerializationError

from tasks.records import Constraint, Generation, Request

COLUMNS = (
    *("key", "at", "sample_id", "purpose", "outcome", "engine"),
    *("tokens_in", "tokens_cached", "tokens_out", "seconds"),
    *("prefix_id", "suffix_id", "constraint_id", "generation"),
)
"""Of the table `answers`, but for its row number `id`."""


@dataclass(frozen=True)
class Row:
    """An answer as the file keeps it: `values` in the order of COLUMNS, its question, and this one's `texts` by id."""

    values: tuple[object, ...]
    question: str
    texts: dict[int, str]

    @property
    def size(self) -> int:
        """Characters of the two JSON texts."""
        return len(self.question) + len(str(self.values[-1]))


def row_of(request: Request, generation: Generation, at: float) -> Row:
    """What the file keeps of a question and its answer, taken at `at` (Unix seconds)."""
    constraint = _constraint_text(request.constraint)  # pyright: ignore[reportArgumentType]  # frozen, so it hashes
    texts = (request.prefix, request.suffix, constraint)
    ids = [_text_id(text) for text in texts]
    g = generation
    values = (
        *(request.key, at, _encodable(request.sample_id), request.purpose, g.outcome.value, g.engine),
        *(g.tokens_in, g.tokens_cached, g.tokens_out, g.seconds, *ids, _generation_text(g)),
    )
    question = request.model_dump_json(exclude={"prefix", "suffix", "constraint"})
    return Row(values, question, dict(zip(ids, texts, strict=True)))


# Few, because a pack may write a label list, and so a prefix, of its own for each item.
@lru_cache(maxsize=256)
def _text_id(text: str) -> int:
    # 64 bits: among a million texts two are alike by accident once in 30 million ledgers
    return int.from_bytes(sha256(text.encode()).digest()[:8], signed=True)


@lru_cache(maxsize=256)
def _constraint_text(constraint: Constraint) -> str:
    return constraint.model_dump_json()


def _generation_text(generation: Generation) -> str:
    logprobs = generation.label_logprobs
    if logprobs is None or math.isfinite(sum(logprobs.values())):
        try:
            return generation.model_dump_json()
        except PydanticSerializationError:
            pass  # half a surrogate pair
    # JSON has neither halves of surrogate pairs nor infinities; pydantic reads the latter back from strings, and
    # would write null, which it can't read back
    values = generation.model_dump(mode="python")
    values["texts"] = [_encodable(text) for text in generation.texts]
    values["detail"] = _encodable(generation.detail)
    if logprobs is not None:
        values["label_logprobs"] = {k: v if math.isfinite(v) else str(v) for k, v in logprobs.items()}
    return orjson.dumps(values).decode()


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
