"""The rows of the ledger: what is kept of a request and its answer, and the checksum that shows damage."""

import json
import math
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from tasks.prompts.parsing import MOST_LOGPROB
from tasks.records import Constraint, Generation, Request

COLUMNS = (
    *("key", "at", "sample_id", "purpose", "outcome", "engine"),
    *("tokens_in", "tokens_cached", "tokens_out", "seconds"),
    *("prefix_id", "suffix_id", "constraint_id", "generation", "checksum"),
)
"""The columns of the table `answers`, without the row number `id`."""

_SECONDS = "CAST(seconds * 1000000 AS INTEGER)"
_CHECKED = tuple(_SECONDS if name == "seconds" else name for name in COLUMNS if name not in ("at", "checksum"))
ROW_TEXT = " || ',' || ".join(f"hex({column})" for column in _CHECKED)
"""SQL expression for the text of a row that its checksum covers: all values but the time, in hexadecimal.

It has only hexadecimal digits and commas, whatever bytes a damaged row has.
"""

AGREES = "CASE WHEN json_valid(generation) THEN " + " AND ".join(
    f"{name} = json_extract(generation, '$.{name}')"
    for name in ("key", "outcome", "engine", "tokens_in", "tokens_cached", "tokens_out")
) + " ELSE 0 END"  # fmt: skip
"""SQL expression for whether the columns of a row say the same as its answer."""


@dataclass(frozen=True)
class Row:
    """An answer as it is stored: `values` are in the order of COLUMNS, and `texts` maps ids to the shared texts."""

    generation: Generation
    values: tuple[object, ...]
    request_json: str
    texts: dict[int, str]

    @property
    def size(self) -> int:
        """Return the total number of characters in the request's and the answer's JSON."""
        return len(self.request_json) + len(str(self.values[-2]))


def make_row(request: Request, generation: Generation, at: float) -> Row:
    """Return the row for a request and its answer, which was received at the time `at` (Unix seconds)."""
    constraint = _serialise_constraint(request.constraint)  # pyright: ignore[reportArgumentType]  # frozen, so it hashes
    texts = (request.prefix, request.suffix, constraint)
    ids = [_make_text_id(text) for text in texts]
    request_json = _serialise(request, "prefix", "suffix", "constraint")
    g = generation
    named = (request.key, _replace_surrogates(request.sample_id), request.purpose, g.outcome.value, g.engine)
    counts = (g.tokens_in, g.tokens_cached, g.tokens_out)
    rest = (*ids, _serialise_generation(g))
    checked = (*named, *counts, int(g.seconds * 1_000_000), *rest)
    checksum = compute_checksum(",".join(str(value).encode().hex().upper() for value in checked))
    key, *others = named
    values = (key, at, *others, *counts, g.seconds, *rest, checksum)
    return Row(g, values, request_json, dict(zip(ids, texts, strict=True)))


def read_answer(checksum: str, row_text: str) -> Generation | None:
    """Return the answer in a row, or None if the row is damaged.

    `checksum` is the column's value in hexadecimal, and `row_text` is made by ROW_TEXT.
    """
    if checksum != compute_checksum(row_text).encode().hex().upper():
        return None
    try:
        answer = Generation.model_validate_json(bytes.fromhex(row_text.rpartition(",")[2]))
    except ValidationError:
        return None
    return answer if _is_believable(answer) else None


def _is_believable(answer: Generation) -> bool:
    """Return whether the label log-probabilities can be ones, that is, whether none is above 0 or no number."""
    return all(value <= MOST_LOGPROB for value in (answer.label_logprobs or {}).values())


def compute_checksum(row_text: str) -> str:
    """Return the checksum of a row, whose text is made by ROW_TEXT."""
    return sha256(row_text.encode()).hexdigest()[:16]


# a small cache, because a pack may give each item its own label list and so its own prefix
@lru_cache(maxsize=256)
def _make_text_id(text: str) -> int:
    # 64 bits: two of a million texts have the same id in one of 30 million ledgers
    return int.from_bytes(sha256(text.encode()).digest()[:8], signed=True)


@lru_cache(maxsize=256)
def _serialise_constraint(constraint: Constraint) -> str:
    return constraint.model_dump_json()


def _serialise_generation(generation: Generation) -> str:
    logprobs = generation.label_logprobs
    if logprobs is not None and not math.isfinite(sum(logprobs.values())):
        # JSON has no infinity: pydantic writes null, which it cannot read back, but it does read a string
        logprobs = {label: value if math.isfinite(value) else str(value) for label, value in logprobs.items()}
        return _replace_surrogates(
            json.dumps(generation.model_dump() | {"label_logprobs": logprobs}, ensure_ascii=False)
        )
    return _serialise(generation)


def _serialise(record: Request | Generation, *without: str) -> str:
    """Return the record as JSON, with `?` for half a surrogate pair, which UTF-8 cannot encode."""
    try:
        return record.model_dump_json(exclude=set(without))
    except PydanticSerializationError:
        return _replace_surrogates(json.dumps(record.model_dump(exclude=set(without)), ensure_ascii=False))


def _replace_surrogates(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
