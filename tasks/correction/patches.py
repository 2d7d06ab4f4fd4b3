"""Corrections as a patch: one line a changed label, applied to a copy of the manifest and taken back from it.

`apply_patch` leaves a second file beside the copy, `OUT.undo.jsonl`, with what it took away, spelled as it was: first a
line that says of which patch and which copy it is, then `manifest_edits.UndoLine`s. With it, `revert_patch` gives the
very bytes of the original back (of Parquet: its rows). Without it, or when the copy was changed since, labels are still
taken back one by one; only removed items can't be, as they stand nowhere else.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson
from pydantic import ValidationError, model_validator

from tasks.correction.manifest_edits import UndoLine, digest_of_lines, edit, undo_edits
from tasks.errors import ManifestError
from tasks.items.manifests import RawItem, read_items
from tasks.records import Action, Correction, Record, digest_of
from tasks.storage.files import write_bytes


class Change(Record):
    """One line of a patch. Made by `changes`; read by `apply_patch` and `revert_patch`, and by people."""

    id: str
    given: str
    label: str | None
    """The new label; None for an item that is to be removed."""
    action: Literal[Action.RELABEL, Action.DROP]
    reviewed: bool
    verdict: str | None = None
    """What the reviewer said: a label, or `neither`."""
    why: str
    p_given: float | None = None
    p_candidate: float | None = None
    p_neither: float | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> "Change":
        if (self.label is None) is not (self.action is Action.DROP):
            raise ValueError("`label` must be null for drop, and only for drop")
        if self.label == self.given:
            raise ValueError("`label` is the given one")
        if any(text is not None and (text != text.strip() or not text) for text in (self.given, self.label)):
            raise ValueError("a label is empty, or has spaces around it")
        return self


@dataclass(frozen=True)
class Applied:
    """What `apply_patch` or `revert_patch` did."""

    out: Path
    relabelled: int
    """Items with another label than in the manifest."""
    dropped: int
    """Items removed (apply) or put back (revert)."""


def changes(corrections: Sequence[Correction]) -> list[Change]:
    """The changes among `corrections`, in order: of each RELABEL and DROP one."""
    return [
        Change(
            id=c.sample_id, given=c.given, label=c.label, action=c.action, reviewed=c.reviewed, verdict=c.verdict,
            why=c.why, p_given=c.p_given, p_candidate=c.p_candidate, p_neither=c.p_neither,
        )
        for c in corrections
        if c.action is Action.RELABEL or c.action is Action.DROP
    ]  # fmt: skip


def write_patch(patch: Sequence[Change], path: Path) -> None:
    """Write JSON Lines, atomically; a patch without changes is an empty file."""
    write_bytes(path, b"".join(orjson.dumps(change.model_dump(mode="json")) + b"\n" for change in patch))


def read_patch(path: Path) -> list[Change]:
    """Read what `write_patch` wrote. Raises ManifestError naming the line that is no change, or repeats an item."""
    found: dict[str, Change] = {}
    for number, line in enumerate(_bytes(path, "a patch").splitlines(), 1):
        if not line.strip():
            continue
        try:
            change = Change.model_validate_json(line)
        except ValidationError as error:
            first = error.errors()[0]
            why = ": ".join([*map(str, first["loc"]), first["msg"]])
            raise ManifestError(
                f"{path}, line {number}: is no change ({why}); use the corrections.jsonl of a run"
            ) from error
        if change.id in found:
            raise ManifestError(f"{path}, line {number}: changes item {change.id} again; keep one of its lines")
        found[change.id] = change
    return list(found.values())


def undo_path(out: Path) -> Path:
    """The file that `apply_patch` leaves beside `out`."""
    return out.with_name(f"{out.name}.undo.jsonl")


def apply_patch(patch: Path, manifest: Path, out: Path) -> Applied:
    """Write to `out` the manifest with the patch's labels and without the items that it drops; all or nothing.

    Same format, and all else as it was (see manifest_edits.py). Raises ManifestError naming file, item and mend:
    an item isn't in the manifest, or more than once, or has not the label that the patch says it was given.
    """
    wanted, items = read_patch(patch), read_items(manifest)
    _check_names(out, manifest, patch)
    edits = _edits(manifest, items, wanted, {c.id: (c.given, c.label) for c in wanted}, "already applied")
    data, lines = edit(manifest.read_bytes(), manifest.suffix, edits)
    head = {"patch": _digest(wanted), "copy": hashlib.sha256(data).hexdigest(), "lines": digest_of_lines(lines)}
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in (head, *lines))
    # What undoes the copy is there before the copy is.
    write_bytes(undo_path(out), text.encode("utf-8", "surrogateescape"))
    write_bytes(out, data)
    return _applied(out, wanted)


def revert_patch(patch: Path, manifest: Path, out: Path, undo: Path | None = None) -> Applied:
    """Write to `out` what the manifest was before `apply_patch`; all or nothing.

    `manifest` is the copy that apply wrote, `undo` the file that it left beside it (by default, the one beside
    `manifest`). Raises ManifestError naming file, item and mend: an item has not the patch's label, or `undo` is named
    or needed (for removed items) and is missing, of another patch, or of another state of the copy.
    """
    wanted = read_patch(patch)
    _check_names(out, manifest, patch)
    data = _bytes(manifest, "a copy of a manifest")
    copy = hashlib.sha256(data).hexdigest()
    lines, problem = _undo_lines(undo or undo_path(manifest), manifest, _digest(wanted), copy)
    if lines is not None:
        write_bytes(out, undo_edits(data, manifest.suffix, lines))
        return _applied(out, wanted)
    relabelled = {c.id: (c.label, c.given) for c in wanted if c.label is not None}
    items = read_items(manifest)
    edits = _edits(manifest, items, wanted, relabelled, "not applied here, or already reverted")
    if undo is not None or len(relabelled) < len(wanted):
        raise ManifestError(f"{problem}; nothing was written")
    write_bytes(out, edit(data, manifest.suffix, edits)[0])
    return _applied(out, wanted)


def _applied(out: Path, wanted: Sequence[Change]) -> Applied:
    dropped = sum(change.label is None for change in wanted)
    return Applied(out, len(wanted) - dropped, dropped)


def _digest(wanted: Sequence[Change]) -> str:
    return digest_of([change.model_dump(mode="json") for change in wanted])


def _bytes(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ManifestError(f"{path}: {what} can't be read: {error.strerror or error}; correct the path") from error


def _check_names(out: Path, manifest: Path, patch: Path) -> None:
    if out.suffix.lower() != manifest.suffix.lower():
        raise ManifestError(f"{out}: is written in the manifest's own format; let its name end in {manifest.suffix}")
    if out.resolve() in (manifest.resolve(), patch.resolve()):
        raise ManifestError(f"{out}: is the manifest or the patch itself; write to another file")


# --- which items, and whether they are as the patch says ------------------------------------------------------


def _edits(
    manifest: Path,
    items: Sequence[RawItem],
    wanted: Sequence[Change],
    labels: Mapping[str, tuple[str | None, str | None]],
    done: str,
) -> dict[int, str | None]:
    """New `output` by item index, for `labels` (id → label it must have now, label it gets, None to remove it).

    Changes that are not in `labels` must have no item. `done` says what it means that an item is as it should become.
    """
    places: dict[str, list[int]] = {change.id: [] for change in wanted}
    for index, item in enumerate(items):
        identity = _own_id(item)
        if identity in places:
            places[identity].append(index)
    edits: dict[int, str | None] = {}
    problems: list[str] = []
    for identity, found in places.items():
        now, becomes = labels.get(identity, (None, None))
        output = (items[found[0]].fields or {}).get("output") if found else None
        label = output.strip() if isinstance(output, str) else None
        problem = _problem(identity, [items[i].where for i in found], label, now, becomes, done)
        if problem:
            problems.append(problem)
        elif found and isinstance(output, str) and now is not None:
            # Spaces around the label stay, as all else does; no label has its own.
            edits[found[0]] = None if becomes is None else output.replace(now, becomes, 1)
    if problems:
        others = f" (and {len(problems) - 1} more items)" if len(problems) > 1 else ""
        raise ManifestError(f"{manifest}, {problems[0]}{others}; nothing was written")
    return edits


def _problem(
    identity: str, places: Sequence[str], label: str | None, now: str | None, becomes: str | None, done: str
) -> str:
    """What is not as the patch says, for people; empty when all is."""
    if now is None:
        return f"{places[0]}: item {identity} is there, though the patch removes it: {done}" if places else ""
    if not places:
        why = f"{done}, or the patch is of another manifest" if becomes is None else "the patch is of another manifest"
        return f"item {identity}: there is none: {why}"
    if len(places) > 1:
        return f"{places[1]}: item {identity} again, after {places[0]}; remove one, only the first is ever read"
    if label == now:
        return ""
    if label is not None and label == becomes:
        return f"{places[0]}: item {identity} is `{label}`: {done}"
    return f"{places[0]}: item {identity} is `{label or ''}`, the patch is of a manifest where it is `{now}`; use that"


def _own_id(item: RawItem) -> str | None:
    """As tasks/items/samples.py reads it: text, or a whole number."""
    value = (item.fields or {}).get("id")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None


# --- the undo file --------------------------------------------------------------------------------------------


def _undo_lines(undo: Path, manifest: Path, patch: str, copy: str) -> tuple[list[UndoLine] | None, str]:
    """The lines that fit this patch and this copy; else None and why not, with the mend."""
    if not undo.exists():
        return None, f"{undo}: no such file; apply left it beside the copy: put it there, or name it (--undo)"
    try:
        head, *lines = [
            json.loads(line) for line in undo.read_bytes().decode("utf-8", "surrogateescape").split("\n")[:-1]
        ]
        of_patch, of_copy, of_lines = head["patch"], head["copy"], head["lines"]
        if of_lines != digest_of_lines(lines):
            raise ValueError("other lines than apply wrote")
    except (ValueError, RecursionError, KeyError, TypeError, OSError):
        return None, f"{undo}: is not what apply leaves beside its copy; name the right one (--undo)"
    if of_patch != patch:
        return None, f"{undo}: is of another patch; revert that one first, or name the right one (--undo)"
    if of_copy != copy:
        return (
            None,
            f"{manifest}: was changed after the patch was applied, so {undo} doesn't fit; use the unchanged copy",
        )
    return lines, ""
