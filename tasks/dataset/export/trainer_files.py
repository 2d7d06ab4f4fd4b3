"""A trainer's configuration, filled from a template: for the exports' ready files and for external students."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import ConfigError
from tasks.storage.files import write_bytes
from tasks.storage.yaml_files import read_yaml

_WORD = re.compile(r"\$\{([^}]*)\}")

Plain = str | int | float | bool | None
"""A value of a trainer's option."""


def fill_words(text: str, words: Mapping[str, Plain], where: str) -> Plain:
    """Return `text` with its `${word}`s; the word's own value, not text, where it is all of `text`.

    Raises ConfigError, naming `where`, for a word that is not in `words`.
    """
    if unknown := sorted(set(_WORD.findall(text)) - set(words)):
        raise ConfigError(f"{where}: no such word as ${{{unknown[0]}}}; there are {', '.join(sorted(words))}")
    if whole := _WORD.fullmatch(text):
        return words[whole[1]]
    return _WORD.sub(lambda word: str(words[word[1]]), text)


def write_configuration(
    file: Path, template: Path, settings: Mapping[str, Plain], words: Mapping[str, Plain], head: str = ""
) -> None:
    """Write `template` (YAML: the trainer's options), overridden by `settings`, with its words filled, below `head`.

    An option that ends up as None is left out: ms-swift would read the text `None`. Raises ConfigError, naming
    template and option, for what can't be read or filled.
    """
    content = read_yaml(template, ConfigError, "name a file of templates/students/, or a path")
    if not isinstance(content, dict):
        raise ConfigError(f"{template}: must be options and their values, e.g. `num_train_epochs: 3`")
    options: dict[str, Any] = {**content, **settings}
    values = {name: _filled_value(value, words, f"{template}, `{name}`") for name, value in options.items()}
    values = {name: value for name, value in values.items() if value is not None}
    write_bytes(file, (head + yaml.safe_dump(values, allow_unicode=True, sort_keys=False)).encode())


def _filled_value(value: Any, words: Mapping[str, Plain], where: str) -> Any:
    if isinstance(value, list):
        return [_filled_value(element, words, where) for element in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {k: _filled_value(v, words, where) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, str):
        return value
    result = fill_words(value, words, where)
    if isinstance(result, str) and "${" in result:
        raise ConfigError(f"{where}: `{result}` holds `${{`, which both trainers take for a reference; rename the path")
    return result
