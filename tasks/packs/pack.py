"""A pack: what a labelling task asks for, as a folder of YAML and Jinja that non-programmers can edit.

``pack.yaml`` holds the label set with its glosses and says how an item of the data set is recognised and cut; the
``*.jinja`` beside it hold the wording (tasks/prompts/prompter.py renders them).
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import PackError
from tasks.packs.columns import Columns
from tasks.packs.pack_file import FewShot, OcrOption, read_pack_file
from tasks.records import Sample

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
TEMPLATE_FILES = ("rationale.jinja", "classify.jinja", "answer.jinja")
FREE_TEXT_FILES = ("write.jinja", "answer.jinja")
_ANYTHING = re.compile("")


@dataclass(frozen=True)
class TaskPack:
    """One labelling task of a pack. Patterns are compiled with MULTILINE: `^` is the start of any line."""

    name: str
    recognise: re.Pattern[str]
    """Searched for in the instruction; the first task of a pack that matches owns the item."""
    labels: dict[str, str]
    """Label -> gloss, in the order of the file; none for free text."""
    strip: tuple[re.Pattern[str], ...]
    """Removed from the instruction in this order, after the label list."""
    label_list: re.Pattern[str] | None
    """Group 1 is the list of labels that the instruction offers; the last match counts and is removed."""
    turn: re.Pattern[str] | None
    """The start of a dialogue turn."""
    user_turn: re.Pattern[str] | None = None
    """What a turn of the user's holds; the latest such turn is never shortened. None: the last turn is the user's."""
    examples: tuple[FewShot, ...] = ()
    free_text: bool = False
    """It has no label set: an item's answer is a text, such as a caption."""


@dataclass(frozen=True)
class Pack:
    """A loaded and checked pack. Made by `load_pack`; read by samples and prompts."""

    name: str
    folder: Path
    language: str
    system: str
    """The system turn before every question; empty: the model's own."""
    tasks: tuple[TaskPack, ...]
    reason_key: str
    """This and the next are empty for free text, whose answers are no JSON."""
    label_key: str
    reason_max_chars: int
    describe_first: bool
    """Whether the teacher first describes an item (describe.jinja) and is then asked for the label with it."""
    neither: str | None
    """How an adjudicating teacher says that none of an item's labels is right; None: it has to choose one."""
    ocr: OcrOption | None
    """Whether and how the text on images is shown."""
    free_text: bool
    """Its tasks have no label set: an item's `given` is the text itself (a caption, say)."""
    columns: Columns
    """Where a manifest has an item's fields."""
    digest: str
    """sha256 over the names and bytes of all the folder's files (hidden ones aside)."""

    def with_neither(self, sample: Sample) -> Sample:
        """The sample with "none of these" among its labels, if the pack has a word for it."""
        return sample if self.neither is None else sample.model_copy(update={"labels": (*sample.labels, self.neither)})

    def require_labels(self, stage: str) -> None:
        """Raise PackError, which says what does work, if `stage` can't be run: it needs tasks with a label set."""
        if self.free_text:
            raise PackError(
                f"{self.folder / 'pack.yaml'}: free_text: {stage} needs a label set, and this pack has none; leave out "
                "`generator`, `teacher` and `student`: reading, merging and exporting (emit) work without labels"
            )

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
    content = read_pack_file(file)
    needed = FREE_TEXT_FILES if content.free_text else TEMPLATE_FILES
    for template in needed:
        if not (folder / template).is_file():
            raise PackError(f"{folder / template}: missing; such a pack needs {', '.join(needed)}")
    if content.describe_first and not (folder / "describe.jinja").is_file():
        raise PackError(f"{folder / 'describe.jinja'}: missing; `describe_first: true` in pack.yaml needs it")
    tasks = tuple(
        TaskPack(
            name,
            t.recognise or _ANYTHING,
            dict(t.labels),
            tuple(t.strip),
            t.label_list,
            t.turn,
            t.user_turn,
            tuple(t.examples),
            t.free_text,
        )
        for name, t in content.tasks.items()
    )
    if any(t.examples for t in tasks) and not any("examples" in f.read_text() for f in folder.glob("*.jinja")):
        raise PackError(f"{file}: has `examples`, but no template shows them; use `task.examples` in a prefix block")
    return Pack(
        name=content.name,
        folder=folder,
        language=content.language,
        system=content.system or "",
        tasks=tasks,
        reason_key=content.reason_key or "",
        label_key=content.label_key or "",
        reason_max_chars=content.reason_max_chars,
        describe_first=content.describe_first,
        neither=content.neither,
        ocr=content.ocr,
        free_text=content.free_text,
        columns=content.columns,
        digest=_digest(folder),
    )


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
