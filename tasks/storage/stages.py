"""Write and read a stage's folder: kept.parquet, dropped.parquet and record.json, which is written last."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from pydantic import BaseModel

from tasks.errors import ItemCountError
from tasks.records import Dropped, Record, digest_of
from tasks.storage.json_lines import write_json
from tasks.storage.rows import write_rows
from tasks.storage.stage_record import StageRecord, read_record


@cache
def code_version() -> str:
    """Return a digest (12 hex digits) of the source of tasks/ and of templates/words.

    It is part of every recipe. So after a rule has changed, stages run again, with the answers in the ledger.
    """
    tasks = Path(__file__).parents[1]
    hasher = hashlib.sha256()
    for file in (*sorted(tasks.rglob("*.py")), *sorted(tasks.parent.glob("templates/words/*.yaml"))):
        hasher.update(str(file.relative_to(tasks.parent)).encode() + b"\0" + file.read_bytes())
    return hasher.hexdigest()[:12]


def hash_recipe(**parts: object) -> str:
    """Return a hash of a stage's named inputs; each is a pydantic model or a JSON value."""
    plain = {k: v.model_dump(mode="json") if isinstance(v, BaseModel) else v for k, v in parts.items()}
    return digest_of(plain)[:16]


def hash_records(records: Iterable[Record]) -> str:
    """Return a hash of the contents of `records` in their order."""
    hasher = hashlib.sha256()
    for record in records:
        hasher.update(record.model_dump_json().encode() + b"\n")
    return hasher.hexdigest()


def find_finished_record(folder: Path, recipe: str) -> StageRecord | None:
    """Return the record if `folder` holds a complete stage with this recipe; None if the stage must run (again).

    A stage with failed questions must run again: its other answers are in the ledger, and the server may work again.
    """
    record = read_record(folder)
    whole = (folder / "kept.parquet").exists() and (folder / "dropped.parquet").exists()
    return record if record is not None and whole and record.recipe == recipe and not record.costs.failed else None


def write_stage(
    folder: Path, record: StageRecord, kept: Sequence[Record], dropped: Sequence[Dropped], input_ids: Iterable[str]
) -> StageRecord:
    """Write a stage's three files and return the record with its counts.

    Raises ItemCountError unless the sample ids of `kept` and `dropped` together are exactly `input_ids`.
    """
    check_item_counts(record.stage, (_sample_id(k) for k in kept), (d.sample_id for d in dropped), input_ids)
    open_stage(folder)
    write_rows(folder / "kept.parquet", kept)
    write_rows(folder / "dropped.parquet", dropped, Dropped)
    return close_stage(folder, record, len(kept), Counter(d.reason for d in dropped))


def open_stage(folder: Path) -> None:
    """Create the folder and delete its record; a stage without a record counts as incomplete."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").unlink(missing_ok=True)


def close_stage(folder: Path, record: StageRecord, kept: int, drops: Mapping[str, int]) -> StageRecord:
    """Write the record of a stage whose two other files are complete, and return it with its counts.

    For stages whose items do not fit into memory; they call `check_item_counts` themselves.
    """
    dropped = sum(drops.values())
    record = record.model_copy(
        update={
            "read": kept + dropped,
            "kept": kept,
            "dropped": dropped,
            "drops": dict(sorted(drops.items())),
            "code": code_version(),
        }
    )
    write_json(folder / "record.json", record)
    return record


def check_item_counts(stage: str, kept: Iterable[str], dropped: Iterable[str], input_ids: Iterable[str]) -> None:
    """Raise ItemCountError unless the ids of kept and dropped items together are exactly the input's ids."""
    out, into = Counter(kept) + Counter(dropped), Counter(input_ids)
    if out != into:
        lost, extra = into - out, out - into
        raise ItemCountError(f"{stage}: kept + dropped ≠ input; missing {list(lost)[:5]}, unexpected {list(extra)[:5]}")


def _sample_id(row: Record) -> str:
    fields = dict(row)
    return str(fields.get("sample_id") or fields["id"])
