"""What the ledger's file keeps of a question and its answer: see ledger_file.py for the tables."""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

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
    return Row(values, _question_text(request), dict(zip(ids, texts, strict=True)))


# Few, because a pack may write a label list, and so a prefix, of its own for each item.
@lru_cache(maxsize=256)
def _text_id(text: str) -> int:
    # 64 bits: among a million texts two are alike by accident once in 30 million ledgers
    return int.from_bytes(sha256(text.encode()).digest()[:8], signed=True)


@lru_cache(maxsize=256)
def _constraint_text(constraint: Constraint) -> str:
    return constraint.model_dump_json()


def _question_text(request: Request) -> str:
    fixed = {"prefix", "suffix", "constraint"}
    try:
        return request.model_dump_json(exclude=fixed)
    except PydanticSerializationError:
        return _text_without_halves(request.model_dump(exclude=fixed))


def _generation_text(generation: Generation) -> str:
    logprobs = generation.label_logprobs
    if logprobs is not None and not math.isfinite(sum(logprobs.values())):
        # JSON has no infinity, and the null that pydantic writes for one it can't read back; a string it can
        logprobs = {label: value if math.isfinite(value) else str(value) for label, value in logprobs.items()}
        return _text_without_halves(generation.model_dump() | {"label_logprobs": logprobs})
    try:
        return generation.model_dump_json()
    except PydanticSerializationError:
        return _text_without_halves(generation.model_dump())


def _text_without_halves(values: dict[str, object]) -> str:
    """JSON with `?` for half a surrogate pair, which UTF-8 can't hold."""
    return _encodable(json.dumps(values, ensure_ascii=False))


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
