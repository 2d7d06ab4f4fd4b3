"""True labels of held-out items: read by evaluation alone."""

from pathlib import Path

from tasks.errors import JudgementError
from tasks.storage.json_lines import read_objects


def read_truth(file: Path) -> dict[str, str]:
    """Label by id from JSON Lines `{"id": …, "label": …}`; other fields are ignored.

    Raises JudgementError naming file and line.
    """
    truth: dict[str, str] = {}
    for number, fields in read_objects(file, JudgementError, "give JSON Lines of id and label"):
        name, label = fields.get("id"), fields.get("label")
        if not isinstance(name, str) or not isinstance(label, str):
            raise JudgementError(f'{file}, line {number}: needs {{"id": …, "label": …}}, both text')
        if truth.setdefault(name, label) != label:
            raise JudgementError(f"{file}, line {number}: item {name} has two labels, {truth[name]} and {label}")
    return truth
