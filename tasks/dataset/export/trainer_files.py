"""What a foreign trainer is given: its configuration, from a template, and the data set in its format."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.dataset.export.llamafactory import write_llamafactory
from tasks.dataset.export.swift import swift_row
from tasks.errors import ConfigError
from tasks.models.image_cache import ImageCache
from tasks.prompts.prompter import Prompter
from tasks.records import Example, Origin, Sample
from tasks.storage.files import write_bytes
from tasks.storage.json_lines import write_json_lines
from tasks.storage.yaml_files import read_yaml

_WORD = re.compile(r"\$\{([^}]*)\}")

Plain = str | int | float | bool | None
"""A value of a trainer's option."""


def filled(text: str, words: Mapping[str, Plain], where: str) -> Plain:
    """`text` with its `${word}`s; the word's own value, not text, where it is all of `text`.

    Raises ConfigError, naming `where`, for a word that is not in `words`.
    """
    if unknown := sorted(set(_WORD.findall(text)) - set(words)):
        raise ConfigError(f"{where}: no such word as ${{{unknown[0]}}}; there are {', '.join(sorted(words))}")
    if whole := _WORD.fullmatch(text):
        return words[whole[1]]
    return _WORD.sub(lambda word: str(words[word[1]]), text)


def write_configuration(
    file: Path, template: Path, settings: Mapping[str, Plain], words: Mapping[str, Plain]
) -> dict[str, Any]:
    """Write `template` (YAML: the trainer's options), overridden by `settings`, with its words filled; returns it.

    An option that ends up as None is left out: ms-swift would read the text `None`. Raises ConfigError, naming
    template and option, for what can't be read or filled.
    """
    content = read_yaml(template, ConfigError, "name a file of templates/students/, or a path")
    if not isinstance(content, dict):
        raise ConfigError(f"{template}: must be options and their values, e.g. `num_train_epochs: 3`")
    options: dict[str, Any] = {**content, **settings}
    values = {name: _filled_value(value, words, f"{template}, `{name}`") for name, value in options.items()}
    values = {name: value for name, value in values.items() if value is not None}
    write_bytes(file, yaml.safe_dump(values, allow_unicode=True, sort_keys=False).encode())
    return values


def _filled_value(value: Any, words: Mapping[str, Plain], where: str) -> Any:
    if isinstance(value, list):
        return [_filled_value(element, words, where) for element in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return {k: _filled_value(v, words, where) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(value, str):
        return value
    result = filled(value, words, where)
    if isinstance(result, str) and "${" in result:
        raise ConfigError(f"{where}: `{result}` holds `${{`, which both trainers take for a reference; rename the path")
    return result


def write_data(folder: Path, name: str, trainer: str, examples: Sequence[Example]) -> Path:
    """Write the data set for `trainer` (`llamafactory` or `swift`) and return its file."""
    if trainer == "llamafactory":
        return write_llamafactory(folder, name, examples)[0]
    file = folder / f"{name}.jsonl"
    write_json_lines(file, (swift_row(e, [i.path for i in e.images]) for e in examples))
    return file


def label_examples(prompter: Prompter, train: Sequence[Sample], images: ImageCache | None) -> list[Example]:
    """Each item as the classify prompt without a reason and the answer that names its given label.

    With a cache, images are the files in it, sized as the student will see them: trainers resize a little differently.
    """
    bounds = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels}
    examples: list[Example] = []
    for sample in train:
        seen = sample.images
        if images is not None:
            seen = tuple(i.model_copy(update={"path": str(images.file(i, **bounds).resolve())}) for i in seen)
        label = sample.given or ""
        examples.append(
            Example(
                sample_id=sample.id,
                messages=prompter.training_turns(sample, label),
                images=seen,
                label=label,
                origin=Origin.GIVEN,
                why="given label",
                source=sample.source,
            )
        )
    return examples
