"""True labels of held-out items: read by evaluation alone."""

from pathlib import Path
from typing import Any, cast

import orjson

from tasks.errors import JudgementError


def read_truth(file: Path) -> dict[str, str]:
    """Label by id from JSON Lines `{"id": …, "label": …}`; other fields are ignored.

    Raises JudgementError naming file and line.
    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as error:
        raise JudgementError(f"{file}: {error.strerror}; give JSON Lines of id and label") from error
    truth: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row: Any = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise JudgementError(f"{file}, line {number}: not JSON ({error}); mend the line") from error
        fields = cast(dict[str, object], row) if isinstance(row, dict) else {}
        name, label = fields.get("id"), fields.get("label")
        if not isinstance(name, str) or not isinstance(label, str):
            raise JudgementError(f'{file}, line {number}: needs {{"id": …, "label": …}}, both text')
        if truth.setdefault(name, label) != label:
            raise JudgementError(f"{file}, line {number}: item {name} has two labels, {truth[name]} and {label}")
    return truth
