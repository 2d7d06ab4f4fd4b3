"""Where verdicts come from: a person's file, or the demo's stand-in reviewer."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.errors import ConfigError
from tasks.records import NEITHER
from tasks.storage.json_lines import read_objects


def read_verdicts(kind: str, path: Path, asked: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Verdicts (sample id → label or `neither`) on the items `asked` (sample id → its labels), and on no others.

    `kind` is `verdict_file` (JSON Lines ``{"id", "verdict"}``, a person's; ids without a line, or whose
    verdict is null or empty, are left open) or
    `demo_stand_in` (the demo's truth file ``{"id", "label", …}``, read for the asked items only, as rule 6 allows).
    Raises ConfigError naming the file and line when it can't be read, or a verdict is no label of its item.
    """
    field = "label" if kind == "demo_stand_in" else "verdict"
    verdicts: dict[str, str] = {}
    needed = f'must be a JSON object with "id" and text in "{field}"'
    for number, row in read_objects(path, ConfigError, needed):
        identity, verdict = str(row.get("id")), row.get(field) or ""
        if "id" not in row or field not in row or not isinstance(verdict, str):
            raise ConfigError(f"{path}, line {number}: {needed}")
        if identity not in asked or not verdict.strip():
            continue
        if verdict.strip() not in {NEITHER, *asked[identity]}:
            raise ConfigError(
                f"{path}, line {number}: `{verdict}` is no label of item {identity}; write one, or `neither`"
            )
        verdicts[identity] = verdict.strip()
    return verdicts
