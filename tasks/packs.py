"""A pack: what a labelling task asks for, as a folder of YAML and Jinja that non-programmers can edit.

``pack.yaml`` holds the label set with its glosses and says how an item of the data set is recognised and cut; the
``*.jinja`` beside it hold the wording (tasks/prompts.py renders them).
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tasks.errors import PackError
from tasks.records import Sample
from tasks.yaml_files import read_yaml

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"
TEMPLATE_FILES = ("rationale.jinja", "classify.jinja", "answer.jinja")


@dataclass(frozen=True)
class TaskPack:
    """One labelling task of a pack. Patterns are compiled with MULTILINE: `^` is the start of any line."""

    name: str
    recognise: re.Pattern[str]
    """Searched for in the instruction; the first task of a pack that matches owns the item."""
    labels: dict[str, str]
    """Label -> gloss, in the order of the file."""
    strip: tuple[re.Pattern[str], ...]
    """Removed from the instruction in this order, after the label list."""
    label_list: re.Pattern[str] | None
    """Group 1 is the list of labels that the instruction offers; the last match counts and is removed."""
    turn: re.Pattern[str] | None
    """The start of a dialogue turn."""
    user_turn: re.Pattern[str] | None = None
    """What a turn of the user's holds; the latest such turn is never shortened. None: the last turn is the user's."""
    examples: tuple["FewShot", ...] = ()
    """Answered examples that the templates may show."""


@dataclass(frozen=True)
class FewShot:
    """An answered example: the item in words, and what a good answer to it is."""

    text: str
    label: str
    reason: str = ""


@dataclass(frozen=True)
class OcrOption:
    """How the text read off an image is shown behind it."""

    before: str
    after: str
    max_chars: int


@dataclass(frozen=True)
class Pack:
    """A loaded and checked pack. Made by `load_pack`; read by samples and prompts."""

    name: str
    folder: Path
    language: str
    tasks: tuple[TaskPack, ...]
    reason_key: str
    label_key: str
    reason_max_chars: int
    describe_first: bool
    """Whether the teacher first describes an item (describe.jinja) and is then asked for the label with it."""
    neither: str | None
    """How an adjudicating teacher says that none of an item's labels is right; None: it has to choose one."""
    ocr: OcrOption | None
    """Whether and how the text on images is shown."""
    digest: str
    """sha256 over the names and bytes of all the folder's files (hidden ones aside)."""

    def with_neither(self, sample: Sample) -> Sample:
        """The sample with "none of these" among its labels, if the pack has a word for it."""
        return sample if self.neither is None else sample.model_copy(update={"labels": (*sample.labels, self.neither)})

    def task(self, name: str) -> TaskPack:
        """The task of that name; raises PackError, naming those there are."""
        for task in self.tasks:
            if task.name == name:
                return task
        known = ", ".join(t.name for t in self.tasks)
        raise PackError(f"{self.folder / 'pack.yaml'}: tasks: no task `{name}`; there are: {known}")


def load_pack(name_or_folder: str | Path) -> Pack:
    """Read and check a pack: the name of a folder under templates/, or a path to a folder.

    Raises PackError, which names the file and the key, when anything is missing, unknown or contradictory.
    """
    folder = _folder(name_or_folder)
    file = folder / "pack.yaml"
    try:
        content = _PackFile.model_validate(read_yaml(file, PackError, "a pack is a folder with a pack.yaml"))
    except ValidationError as error:
        raise PackError("\n".join(_explain(file, dict(e)) for e in error.errors()[:5])) from error
    for template in TEMPLATE_FILES:
        if not (folder / template).is_file():
            raise PackError(f"{folder / template}: missing; a pack needs {', '.join(TEMPLATE_FILES)}")
    if content.describe_first and not (folder / "describe.jinja").is_file():
        raise PackError(f"{folder / 'describe.jinja'}: missing; `describe_first: true` in pack.yaml needs it")
    tasks = tuple(
        TaskPack(
            name,
            t.recognise,
            dict(t.labels),
            tuple(t.strip),
            t.label_list,
            t.turn,
            t.user_turn,
            tuple(FewShot(e.text, e.label, e.reason) for e in t.examples),
        )
        for name, t in content.tasks.items()
    )
    if any(t.examples for t in tasks) and not any("examples" in f.read_text() for f in folder.glob("*.jinja")):
        raise PackError(f"{file}: has `examples`, but no template shows them; use `task.examples` in a prefix block")
    return Pack(
        name=content.name,
        folder=folder,
        language=content.language,
        tasks=tasks,
        reason_key=content.reason_key,
        label_key=content.label_key,
        reason_max_chars=content.reason_max_chars,
        describe_first=content.describe_first,
        neither=content.neither,
        ocr=None if content.ocr is None else OcrOption(**content.ocr.model_dump()),
        digest=_digest(folder),
    )


# --- pack.yaml -----------------------------------------------------------------------------------------------


def _not_blank(text: str) -> str:
    if not text.strip() or text != text.strip():
        raise ValueError("must not be empty, nor begin or end with a space")
    return text


def _pattern(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError("must be a regular expression in quotes")
    try:
        return re.compile(value, re.MULTILINE)
    except re.error as error:
        raise ValueError(f"not a valid regular expression: {error}") from error


_Text = Annotated[str, AfterValidator(_not_blank)]
_Regex = Annotated[re.Pattern[str], BeforeValidator(_pattern)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _ExampleFile(_Strict):
    text: _Text
    label: _Text
    reason: str = ""


class _OcrFile(_Strict):
    before: _Text
    after: _Text
    max_chars: int = Field(default=400, ge=1)


class _TaskFile(_Strict):
    recognise: _Regex
    strip: list[_Regex] = []
    label_list: _Regex | None = None
    turn: _Regex | None = None
    user_turn: _Regex | None = None
    labels: dict[_Text, str] = Field(min_length=1)
    examples: list[_ExampleFile] = []

    @model_validator(mode="after")
    def _consistent(self) -> "_TaskFile":
        if self.label_list is not None and self.label_list.groups < 1:
            raise ValueError("label_list: needs one pair of round brackets around the list itself")
        if unknown := [e.label for e in self.examples if e.label not in self.labels]:
            raise ValueError(f"examples: `{unknown[0]}` is none of the labels")
        return self


class _PackFile(_Strict):
    name: _Text
    language: _Text
    reason_key: _Text
    label_key: _Text
    reason_max_chars: int = Field(default=50, ge=1)
    describe_first: bool = False
    neither: _Text | None = None
    ocr: _OcrFile | None = None
    tasks: dict[_Text, _TaskFile] = Field(min_length=1)

    @model_validator(mode="after")
    def _two_keys(self) -> "_PackFile":
        if self.reason_key == self.label_key:
            raise ValueError("label_key: must differ from reason_key")
        if any(self.neither in task.labels for task in self.tasks.values()):
            raise ValueError("neither: is one of the labels already; give it other words")
        return self


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


# --- the folder ----------------------------------------------------------------------------------------------


def _folder(name_or_folder: str | Path) -> Path:
    bare = isinstance(name_or_folder, str) and re.fullmatch(r"[\w-]+", name_or_folder) is not None
    folder = TEMPLATES / name_or_folder if bare else Path(name_or_folder).resolve()
    if not folder.is_dir():
        known = ", ".join(sorted(p.parent.name for p in TEMPLATES.glob("*/pack.yaml")))
        raise PackError(f"{folder}: no such pack; give one of {known}, or the path of a pack's folder")
    return folder


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name in sorted(files):
        # An editor's hidden swap files come and go and are not the pack.
        if not any(part.startswith(".") for part in name.split("/")):
            total.update(f"{name}\0{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
