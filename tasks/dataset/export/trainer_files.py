"""Fill templates of trainer configurations, for the exports and for students that an external trainer trains."""

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
"""The value of a trainer's option."""


def fill_words(text: str, words: Mapping[str, Plain], where: str) -> Plain:
    """Return `text` with every `${word}` replaced by its value from `words`.

    If `text` is nothing but `${word}`, the value keeps its type. Raises ConfigError if a word is not in `words`; the
    message begins with `where`.
    """
    if unknown := sorted(set(_WORD.findall(text)) - set(words)):
        raise ConfigError(f"{where}: unknown word ${{{unknown[0]}}}; known words are {', '.join(sorted(words))}")
    if whole := _WORD.fullmatch(text):
        return words[whole[1]]
    return _WORD.sub(lambda word: str(words[word[1]]), text)


def write_configuration(
    file: Path, template: Path, settings: Mapping[str, Plain], words: Mapping[str, Plain], head: str = ""
) -> None:
    """Write `head` and the options in the YAML file `template` to `file`, with every `${word}` filled from `words`.

    `settings` override the template's options. Options that are None are left out, because ms-swift would read the text
    `None`. Raises ConfigError, naming template and option, if the template can't be read or filled.
    """
    content = read_yaml(template, ConfigError, "give the name of a file in templates/students/, or a path")
    if not isinstance(content, dict):
        raise ConfigError(f"{template}: must be a mapping of options to values, such as `num_train_epochs: 3`")
    options: dict[str, Any] = {**content, **settings}
    values = {name: _fill_value(value, words, f"{template}, `{name}`") for name, value in options.items()}
    values = {name: value for name, value in values.items() if value is not None}
    write_bytes(file, (head + yaml.safe_dump(values, allow_unicode=True, sort_keys=False)).encode())


def _fill_value(value: Any, words: Mapping[str, Plain], where: str) -> Any:
    if isinstance(value, list):
        return [_fill_value(element, words, where) for element in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {k: _fill_value(v, words, where) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, str):
        return value
    result = fill_words(value, words, where)
    if isinstance(result, str) and "${" in result:
        raise ConfigError(f"{where}: `{result}` contains `${{`, which trainers take for a reference; rename the path")
    return result
