"""The keys of pack.yaml, each checked and one against the other; tasks/packs/pack.py makes a `Pack` of them."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

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


class TaskPack(_Strict):
    """One labelling task of a pack. Patterns are compiled with MULTILINE: `^` is the start of any line."""

    recognise: _Regex | None = None
    """Searched for in the instruction; the first task of a pack that matches owns the item. None: any item is its."""
    strip: list[_Regex] = []
    """Removed from the instruction in this order, after the label list."""
    label_list: _Regex | None = None
    """Group 1 is the list of labels that the instruction offers; the last match counts and is removed."""
    turn: _Regex | None = None
    """The start of a dialogue turn."""
    user_turn: _Regex | None = None
    """What a turn of the user's holds; the latest such turn is never shortened. None: the last turn is the user's."""
    free_text: bool = False
    """It has no label set: an item's answer is a text, such as a caption."""
    labels: dict[Text, str] = {}
    """Label -> gloss, in the order of the file; none for free text."""
    examples: list[FewShot] = []

    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """Return the task's key in pack.yaml."""
        return self._name

    @model_validator(mode="after")
    def _consistent(self) -> "TaskPack":
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
    system: Text = ""
    """The system turn before every question; empty: the model's own."""
    reason_key: Text = ""
    """This and the next are empty for free text, whose answers are no JSON."""
    label_key: Text = ""
    reason_max_chars: int = Field(default=50, ge=1)
    describe_first: bool = False
    """Whether the teacher first describes an item (describe.jinja) and is then asked for the label with it."""
    neither: Text | None = None
    """How an adjudicating teacher says that none of an item's labels is right; None: it has to choose one."""
    ocr: OcrOption | None = None
    """Whether and how the text on images is shown."""
    columns: Columns = DEFAULT_COLUMNS
    """Where a manifest has an item's fields."""
    tasks: dict[Text, TaskPack] = Field(min_length=1)

    @property
    def free_text(self) -> bool:
        """Return whether the tasks have no label set: an item's `given` is then the text itself (a caption, say)."""
        return any(task.free_text for task in self.tasks.values())

    @model_validator(mode="after")
    def _tasks_know_their_names(self) -> "PackFile":
        for name, task in self.tasks.items():
            task._name = name
        return self

    @model_validator(mode="after")
    def _free_text_or_labels(self) -> "PackFile":
        keys = {"reason_key": self.reason_key, "label_key": self.label_key}
        if not self.free_text:
            if lacking := [key for key, value in keys.items() if not value]:
                raise ValueError(f"{lacking[0]}: the key is missing; add it")
            if self.reason_key == self.label_key:
                raise ValueError("label_key: must differ from reason_key")
            return self
        if not all(task.free_text for task in self.tasks.values()):
            raise ValueError("tasks: some have labels, some are free text; make them two packs")
        keys |= {"neither": self.neither or "", "describe_first": "true" if self.describe_first else ""}
        if there := [key for key, value in keys.items() if value]:
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
        raise PackError(explain_errors(file, error)) from error


_ADVICE = {
    "missing": "the key is missing; add it",
    "extra_forbidden": "unknown key; remove it or correct its spelling",
    "string_type": "must be text; put it in quotes",
    "too_short": "must not be empty",
}


def explain_errors(file: Path, failed: ValidationError) -> str:
    """Return a line for each of the first five errors: file, key and what to do."""
    lines: list[str] = []
    for error in failed.errors()[:5]:
        key = ".".join(str(part) for part in error["loc"] if part != "[key]") or "top level"
        lines.append(f"{file}: {key}: {_ADVICE.get(error['type'], error['msg'].removeprefix('Value error, '))}")
    return "\n".join(lines)
