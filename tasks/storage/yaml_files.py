"""YAML read as people expect it: UTF-8, no key twice, errors with their place."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import LabelstillError


class _NoDuplicates(yaml.SafeLoader):
    """YAML proper lets the last of two equal keys win in silence: here a label or a setting would vanish."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"`{key.value}` stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(file: Path, failure: type[LabelstillError], what: str) -> object:
    """The content of a YAML file; raises `failure` with file, place and mend. `what` says what should stand there."""
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
        raise failure(f"{file}{place}: {error.problem}; mend that line") from error
    except yaml.YAMLError as error:
        raise failure(f"{file}: not YAML: {error}") from error
