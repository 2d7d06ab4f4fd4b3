"""The folds of a stage on disk: recorded, so that items that are added later do not move those that are there."""

from pathlib import Path

import orjson

from tasks.storage.json_lines import write_json
from tasks.students.folds import Folds


def write_folds(split: Folds, folder: Path, repeat: int) -> None:
    """Write the split of that repeat to `folder`, with its groups: how many of which size, and the largest by ids."""
    facts = {
        "k": split.k,
        "groups": split.groups,
        "group_sizes": {str(size): n for size, n in sorted(split.group_sizes.items())},
        "largest_groups": split.largest,
        "rare": split.rare,
        "always_train": split.always_train,
        "moved": split.moved,
        "fold_of": split.fold_of,
    }
    write_json(folder / _name(repeat), facts)


def recorded_folds(folder: Path, repeat: int, k: int) -> dict[str, int] | None:
    """Sample id → fold, of an earlier run with as many folds; None where there was none."""
    file = folder / _name(repeat)
    if not file.exists():
        return None
    facts = orjson.loads(file.read_bytes())
    return facts["fold_of"] if facts["k"] == k else None


def _name(repeat: int) -> str:
    return f"folds-{repeat}.json" if repeat else "folds.json"
