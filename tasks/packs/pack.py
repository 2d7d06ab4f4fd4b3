"""A pack: what a labelling task asks for, as a folder of YAML and Jinja that non-programmers can edit.

``pack.yaml`` holds the label set with its glosses and says how an item of the data set is recognised and cut; the
``*.jinja`` beside it hold the wording (tasks/prompts/prompter.py renders them).
"""

import hashlib
import re
from pathlib import Path

from tasks.errors import PackError
from tasks.packs.pack_file import PackFile, TaskPack, read_pack_file
from tasks.records import Sample

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
TEMPLATE_FILES = ("rationale.jinja", "classify.jinja", "answer.jinja")
FREE_TEXT_FILES = ("write.jinja", "answer.jinja")


class Pack(PackFile):
    """A loaded and checked pack. Made by `load_pack`; read by items and prompts."""

    folder: Path
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
        if name not in self.tasks:
            known = ", ".join(self.tasks)
            raise PackError(f"{self.folder / 'pack.yaml'}: tasks: no task `{name}`; there are: {known}")
        return self.tasks[name]


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
    has_examples = any(task.examples for task in content.tasks.values())
    if has_examples and not any("examples" in f.read_text() for f in folder.glob("*.jinja")):
        raise PackError(f"{file}: has `examples`, but no template shows them; use `task.examples` in a prefix block")
    return Pack.model_construct(**dict(content), folder=folder, digest=_digest(folder))  # content is checked already


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
