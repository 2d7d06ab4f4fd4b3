"""Read and check the keys of pack.yaml; tasks/packs/pack.py makes a `Pack` from them."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from tasks.errors import PackError
from tasks.packs.columns import DEFAULT_COLUMNS, Columns, Text
from tasks.storage.yaml_files import explain_errors, read_yaml


def _pattern(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("write a regular expression in quotes")
    try:
        return re.compile(value, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"not a valid regular expression: {error}") from error


_Regex = Annotated[re.Pattern[str], BeforeValidator(_pattern)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class FewShot(_Strict):
    """An example that templates may show: the text of an item, and a good answer to it."""

    text: Text
    label: Text
    reason: str = ""


class OcrOption(_Strict):
    """How prompts show the text on an image: after the image, between `before` and `after`."""

    before: Text
    after: Text
    max_chars: int = Field(default=400, ge=1)


class TaskPack(_Strict):
    """One labelling task of a pack. Patterns are compiled with MULTILINE: `^` is the start of any line."""

    recognise: _Regex | None = None
    """An item belongs to the first task whose pattern is found in its instruction; None matches any instruction."""
    strip: list[_Regex] = []
    """Patterns whose matches are removed from the instruction, in this order, after its label list is removed."""
    label_list: _Regex | None = None
    """Pattern whose group 1 is the list of labels in the instruction; its last match is used and removed."""
    turn: _Regex | None = None
    """Pattern that matches the start of a dialogue turn."""
    user_turn: _Regex | None = None
    """Pattern found in user turns; the latest user turn is never dropped. None: the last turn is the user's."""
    free_text: bool = False
    """The task has no label set: the answer is a text, such as a caption."""
    labels: dict[Text, str] = {}
    """Maps each label to its gloss, in the order of the file; empty for free text."""
    examples: list[FewShot] = []

    _name: str = PrivateAttr("")

    @property
    def name(self) -> str:
        """Return the task's key in pack.yaml."""
        return self._name

    def set_name(self, name: str) -> None:
        """Set the task's key; called once, by PackFile."""
        self._name = name

    def find_latest_user_turn(self, turns: Iterable[tuple[int, str]]) -> int:
        """Return the number of the user's latest turn. `turns` are the (number, text) of all pieces of a dialogue."""
        pieces = list(turns)
        last = max((number for number, _ in pieces), default=0)
        if self.user_turn is None:
            return last
        return max((number for number, text in pieces if self.user_turn.search(text)), default=last)

    @model_validator(mode="after")
    def _consistent(self) -> "TaskPack":
        if self.free_text and (self.labels or self.label_list or self.examples):
            raise ValueError("free_text: a free-text task has no labels; remove `labels`, `label_list` and `examples`")
        if not self.free_text and not self.labels:
            raise ValueError("labels: must not be empty; set `free_text: true` for a task without a label set")
        if self.label_list is not None and self.label_list.groups < 1:
            raise ValueError("label_list: put round brackets around the list itself")
        if unknown := [e.label for e in self.examples if e.label not in self.labels]:
            raise ValueError(f"examples: `{unknown[0]}` is not one of the labels")
        return self


class PackFile(_Strict):
    """The checked keys of pack.yaml."""

    name: Text
    language: Text
    system: Text = ""
    """The system turn before every question; empty: the default of the model's chat template."""
    reason_key: Text = ""
    """Key of the reason in the JSON answer; empty for free text, whose answers are not JSON."""
    label_key: Text = ""
    """Key of the label in the JSON answer; empty for free text."""
    reason_max_chars: int = Field(default=50, ge=1)
    describe_first: bool = False
    """Whether the teacher first describes an item (describe.jinja) and then labels it with its description."""
    neither: Text | None = None
    """Text of the answer "none of the labels", for a teacher that adjudicates; None: it must choose a label."""
    boxes: bool = False
    """Whether an answer's reason ends with the boxes of the evidence, for items that have boxes."""
    ocr: OcrOption | None = None
    """Whether and how the text on images is shown."""
    columns: Columns = DEFAULT_COLUMNS
    """The names of an item's fields in a manifest."""
    images_first: bool = False
    """Whether an item's images come before its text if the text has no `<image>`, and its recordings if it has no
    `<video>`. Such a text may be empty."""
    tasks: dict[Text, TaskPack] = Field(min_length=1)

    @property
    def free_text(self) -> bool:
        """Return whether the tasks have no label set. If so, an item's `given` is a text such as a caption."""
        return any(task.free_text for task in self.tasks.values())

    @model_validator(mode="after")
    def _tasks_know_their_names(self) -> "PackFile":
        for name, task in self.tasks.items():
            task.set_name(name)
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
            raise ValueError("tasks: some have labels and some are free text; split them into two packs")
        keys |= {"neither": self.neither or "", "describe_first": "true" if self.describe_first else ""}
        keys |= {"boxes": "true" if self.boxes else ""}
        if there := [key for key, value in keys.items() if value]:
            raise ValueError(f"{there[0]}: does not apply to free-text tasks; remove it")
        return self

    @model_validator(mode="after")
    def _every_item_has_a_task(self) -> "PackFile":
        instructions = self.columns.instruction is not None
        if not instructions and len(self.tasks) > 1:
            raise ValueError("columns: items without an instruction can belong to one task only; keep one in `tasks`")
        if lacking := [name for name, task in list(self.tasks.items())[:-1] if task.recognise is None]:
            raise ValueError(
                f"tasks.{lacking[0]}.recognise: the key is missing; add it (only the last task, which gets all other "
                "items, may do without)"
            )
        return self

    @model_validator(mode="after")
    def _neither_is_no_label(self) -> "PackFile":
        if any(self.neither in task.labels for task in self.tasks.values()):
            raise ValueError("neither: the same text is already a label; choose another")
        return self


def read_pack_file(file: Path) -> PackFile:
    """Read and check a pack.yaml; raises PackError with file and key."""
    try:
        return PackFile.model_validate(read_yaml(file, PackError, "a pack is a folder that contains a pack.yaml"))
    except ValidationError as error:
        raise PackError(explain_errors(file, error)) from error
