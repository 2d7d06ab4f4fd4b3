"""The keys of pack.yaml, each checked and one against the other; tasks/packs/pack.py makes a `Pack` of them."""

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import PackError
from tasks.packs.columns import DEFAULT_COLUMNS, Columns, Text
from tasks.storage.yaml_files import read_yaml


def _pattern(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a regular expression in quotes")
    try:
        return re.compile(value, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"not a valid regular expression: {error}") from error


_Regex = Annotated[re.Pattern[str], BeforeValidator(_pattern)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FewShot(_Strict):
    """An answered example: the item in words, and what a good answer to it is. Templates may show it."""

    text: Text
    label: Text
    reason: str = ""


class OcrOption(_Strict):
    """How the text read off an image is shown behind it."""

    before: Text
    after: Text
    max_chars: int = Field(default=400, ge=1)


class _TaskFile(_Strict):
    recognise: _Regex | None = None
    strip: list[_Regex] = []
    label_list: _Regex | None = None
    turn: _Regex | None = None
    user_turn: _Regex | None = None
    free_text: bool = False
    labels: dict[Text, str] = {}
    examples: list[FewShot] = []

    @model_validator(mode="after")
    def _consistent(self) -> "_TaskFile":
        if self.free_text and (self.labels or self.label_list or self.examples):
            raise ValueError("free_text: has no labels; take `labels`, `label_list` and `examples` out")
        if not self.free_text and not self.labels:
            raise ValueError("labels: must not be empty; or say `free_text: true` for a task without a label set")
        if self.label_list is not None and self.label_list.groups < 1:
            raise ValueError("label_list: needs one pair of round brackets around the list itself")
        if unknown := [e.label for e in self.examples if e.label not in self.labels]:
            raise ValueError(f"examples: `{unknown[0]}` is none of the labels")
        return self


class PackFile(_Strict):
    """pack.yaml, checked: its keys as they stand there."""

    name: Text
    language: Text
    system: Text | None = None
    reason_key: Text | None = None
    label_key: Text | None = None
    reason_max_chars: int = Field(default=50, ge=1)
    describe_first: bool = False
    neither: Text | None = None
    ocr: OcrOption | None = None
    columns: Columns = DEFAULT_COLUMNS
    tasks: dict[Text, _TaskFile] = Field(min_length=1)

    @property
    def free_text(self) -> bool:
        """Whether the tasks have no label set."""
        return any(task.free_text for task in self.tasks.values())

    @model_validator(mode="after")
    def _free_text_or_labels(self) -> "PackFile":
        keys = {"reason_key": self.reason_key, "label_key": self.label_key}
        if not self.free_text:
            if lacking := [key for key, value in keys.items() if value is None]:
                raise ValueError(f"{lacking[0]}: the key is missing; add it")
            if self.reason_key == self.label_key:
                raise ValueError("label_key: must differ from reason_key")
            return self
        if not all(task.free_text for task in self.tasks.values()):
            raise ValueError("tasks: some have labels, some are free text; make them two packs")
        keys |= {"neither": self.neither, "describe_first": self.describe_first or None}
        if there := [key for key, value in keys.items() if value is not None]:
            raise ValueError(f"{there[0]}: means nothing to tasks that are free text; take it out")
        return self

    @model_validator(mode="after")
    def _every_item_has_a_task(self) -> "PackFile":
        instructions = self.columns.instruction is not None
        if not instructions and len(self.tasks) > 1:
            raise ValueError("columns: items without an instruction can only be of one task; leave one in `tasks`")
        if lacking := [name for name, task in self.tasks.items() if instructions and task.recognise is None]:
            raise ValueError(f"tasks.{lacking[0]}.recognise: the key is missing; add it")
        return self

    @model_validator(mode="after")
    def _neither_is_no_label(self) -> "PackFile":
        if any(self.neither in task.labels for task in self.tasks.values()):
            raise ValueError("neither: is one of the labels already; give it other words")
        return self


def read_pack_file(file: Path) -> PackFile:
    """Read and check a pack.yaml; raises PackError, which names the file and the key."""
    try:
        return PackFile.model_validate(read_yaml(file, PackError, "a pack is a folder with a pack.yaml"))
    except ValidationError as error:
        raise PackError("\n".join(_explain(file, dict(e)) for e in error.errors()[:5])) from error


_ADVICE = {
    "missing": "the key is missing; add it",
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "string_type": "must be text; put it in quotes",
    "too_short": "must not be empty",
}


def _explain(file: Path, error: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"] if part != "[key]") or "top level"
    message = _ADVICE.get(error["type"], str(error["msg"]).removeprefix("Value error, "))
    return f"{file}: {key}: {message}"
