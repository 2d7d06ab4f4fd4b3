"""Load a pack: a folder of YAML and Jinja, editable by non-programmers, that defines a labelling task.

``pack.yaml`` contains the label set with its glosses and the patterns that recognise and split an item; the ``*.jinja``
files contain the wording of prompts, which tasks/prompts/prompter.py renders.
"""

import hashlib
import re
from pathlib import Path

from tasks.errors import PackError
from tasks.packs.pack_file import PackFile, TaskPack, read_pack_file
from tasks.records import Sample

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
STARTER = TEMPLATES / "starter"
"""The prompts of new packs, one folder per language. A template that a pack lacks and may lack is read from here."""
TEMPLATE_FILES = ("rationale.jinja", "classify.jinja", "answer.jinja")
FREE_TEXT_FILES = ("write.jinja", "answer.jinja")


class Pack(PackFile):
    """A loaded and checked pack. `load_pack` makes it; the `items` and `prompts` packages use it."""

    folder: Path
    digest: str
    """sha256 of the names and bytes of all files in the folder, except hidden ones."""

    def with_neither(self, sample: Sample) -> Sample:
        """Return the sample with the pack's "none of these" added to its labels, if the pack defines one."""
        return sample if self.neither is None else sample.model_copy(update={"labels": (*sample.labels, self.neither)})

    def require_labels(self, stage: str) -> None:
        """Raise PackError if this is a free-text pack; `stage` in the message is what needs labels."""
        if self.free_text:
            raise PackError(
                f"{self.folder / 'pack.yaml'}: free_text: {stage} needs a label set, and this pack has none; leave out "
                "`generator`, `teacher` and `student` (reading, merging and exporting (emit) work without labels)"
            )

    def require_template(self, file: str, setting: str) -> None:
        """Raise PackError if the pack lacks a template that only runs with `setting` need."""
        if not (self.folder / file).is_file():
            advice = f"copy the one in {TEMPLATES / 'starter'}/en or zh"
            raise PackError(f"{self.folder / file}: missing; `{setting}` needs it: {advice}")

    def task(self, name: str) -> TaskPack:
        """Return the task called `name`; raises PackError with the known names if there is none."""
        if name not in self.tasks:
            known = ", ".join(self.tasks)
            raise PackError(f"{self.folder / 'pack.yaml'}: tasks: no task `{name}`; the pack has {known}")
        return self.tasks[name]


def load_pack(name_or_folder: str | Path) -> Pack:
    """Read and check a pack, given by the name of a folder under templates/ or by a path.

    Raises PackError with file and key when anything is missing, unknown or contradictory.
    """
    folder = _find_folder(name_or_folder)
    file = folder / "pack.yaml"
    content = read_pack_file(file)
    needed = FREE_TEXT_FILES if content.free_text else TEMPLATE_FILES
    for template in needed:
        if not (folder / template).is_file():
            raise PackError(f"{folder / template}: missing; this kind of pack needs {', '.join(needed)}")
    if content.describe_first and not (folder / "describe.jinja").is_file():
        raise PackError(f"{folder / 'describe.jinja'}: missing; `describe_first: true` in pack.yaml needs it")
    has_examples = any(task.examples for task in content.tasks.values())
    if has_examples and not any("examples" in f.read_text() for f in folder.glob("*.jinja")):
        raise PackError(f"{file}: has `examples`, but no template shows them; use `task.examples` in a prefix block")
    return Pack.model_construct(
        **dict(content), folder=folder, digest=_compute_digest(folder)
    )  # content is checked already


# --- the folder ----------------------------------------------------------------------------------------------


def _find_folder(name_or_folder: str | Path) -> Path:
    bare = isinstance(name_or_folder, str) and re.fullmatch(r"[\w-]+", name_or_folder) is not None
    folder = TEMPLATES / name_or_folder if bare else Path(name_or_folder).resolve()
    if not folder.is_dir():
        known = ", ".join(sorted(p.parent.name for p in TEMPLATES.glob("*/pack.yaml")))
        raise PackError(f"{folder}: no such pack; give one of {known}, or the path of a pack's folder")
    return folder


def _compute_digest(folder: Path) -> str:
    total = hashlib.sha256()
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    for name in sorted(files):
        # Hidden swap files of an editor come and go and are not part of the pack.
        if not any(part.startswith(".") for part in name.split("/")):
            total.update(f"{name}\0{hashlib.sha256(files[name].read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()
