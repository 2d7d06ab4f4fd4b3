"""Read YAML as UTF-8, refuse duplicate keys, and report errors with line and column."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tasks.errors import LabelstillError


class _NoDuplicates(yaml.SafeLoader):
    """Refuses duplicate keys, of which YAML silently keeps the last: a label or a setting would disappear."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                why = "a key must be text; put it in quotes, also where `{{ … }}` is meant as text"
                raise yaml.constructor.ConstructorError(None, None, why, key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key `{key.value}`", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path, failure: type[LabelstillError], what: str) -> object:
    """Return the content of a YAML file; raise `failure`, naming file, position and fix, when it cannot be read.

    `what` completes the message "FILE: missing; …" for a file that does not exist.
    """
    try:
        return yaml.load(file.read_text(encoding="utf-8-sig"), Loader=_NoDuplicates)
    except FileNotFoundError as error:
        raise failure(f"{file}: missing; {what}") from error
    except UnicodeDecodeError as error:
        raise failure(f"{file}: not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise failure(f"{file}: cannot be read: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise failure(f"{file}{place}: {error.problem}; correct that line") from error
    except yaml.YAMLError as error:
        raise failure(f"{file}: not valid YAML: {error}") from error


_ADVICE = {
    "missing": "the key is missing; add it",
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "string_type": "must be text; put the value in quotes",
    "too_short": "must not be empty",
}


def explain_errors(file: Path, failed: ValidationError) -> str:
    """Return one line for each of the first five errors, with file, key and fix."""
    lines: list[str] = []
    for error in failed.errors()[:5]:
        key = ".".join(str(part) for part in error["loc"] if part != "[key]") or "top level"
        lines.append(f"{file}: {key}: {_ADVICE.get(error['type'], error['msg'].removeprefix('Value error, '))}")
    return "\n".join(lines)
