"""People's verdicts on given labels: a file of JSON Lines that only grows, the last line on an item counting.

A model never writes here, so what a person said outlives every re-run. Each line names the content that was judged:
when the item's content has changed since, its verdict is kept but no longer used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.errors import JudgementError
from tasks.records import NEITHER, Record
from tasks.storage.files import write_bytes
from tasks.storage.json_lines import json_lines, read_models, read_objects

MOST_BYTES = 1 << 28
"""Of a file of verdicts: about a million. A larger one is something else, and would fill the memory."""


class Verdict(Record):
    """What a person said about one item. Made by `import_verdicts`; read by correction and the review page."""

    id: str
    content: str
    """Digest of what was judged (`records.content_digest`)."""
    verdict: str | None
    """A label, or `neither`; None: taken back."""
    given: str
    """The label it had then."""
    at: str
    """When it was imported: ISO 8601, UTC."""
    by: str


@dataclass(frozen=True)
class Answer:
    """One verdict as a file brings it, not yet checked. `given` and `content` are None where the file doesn't say."""

    id: str
    verdict: str | None
    """None: the person took it back."""
    given: str | None
    content: str | None
    where: str
    """The place in the file, for error messages."""


@dataclass(frozen=True)
class Imported:
    """The ids of a file's verdicts, by what they did to the store."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    withdrawn: tuple[str, ...]


_EFFECTS = ("new", "changed", "same", "withdrawn")


def read_store(path: Path) -> dict[str, Verdict]:
    """Return the verdict that counts on each item (by sample id); none where there is no file.

    Raises JudgementError naming the line that is no verdict.
    """
    if not path.exists():
        return {}
    check_size(path)
    found = {v.id: v for v in read_models(path, Verdict, "verdict", JudgementError, "restore or remove the line")}
    return {identity: v for identity, v in found.items() if v.verdict is not None}


def usable(
    store: Mapping[str, Verdict], labels: Mapping[str, Sequence[str]], contents: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the verdicts (sample id → label or `neither`) that still hold, and the ids of those that don't.

    `labels` and `contents` are those of the items as they are now, by id; verdicts on other items are in neither. A
    verdict no longer holds when its item's content has changed, or its label is none of the item's any more.
    """
    known = {i: v for i, v in store.items() if i in contents and v.verdict is not None}
    held = {i: v.verdict or "" for i, v in known.items() if v.content == contents[i] and _fits(v.verdict, labels[i])}
    return held, tuple(i for i in known if i not in held)


def read_answers(file: Path) -> list[Answer]:
    """Return the verdicts of a review page's file, or of one written by hand: JSON Lines ``{"id", "verdict"}``.

    Lines whose verdict is null or empty are open and left out, unless they say ``"withdrawn": true``. Raises
    JudgementError naming file and line.
    """
    answers: list[Answer] = []
    check_size(file)
    for number, row in read_objects(file, JudgementError, "save the verdicts again"):
        answer = _answer(file, f"line {number}", row)
        if answer is not None:
            answers.append(answer)
    return answers


def read_verdicts(file: Path, labels: Mapping[str, Sequence[str]], *, strict: bool = False) -> dict[str, str]:
    """Return a file's verdicts (sample id → label or `neither`) on the items of `labels` (sample id → its labels).

    Of several verdicts on an item the last counts, and those on other items are ignored; with `strict`, either is an
    error. Raises JudgementError naming file and line, also for a verdict that is no label of its item.
    """
    verdicts: dict[str, str] = {}
    for answer in read_answers(file):
        place, item = f"{file}, {answer.where}", f"item {_on_a_line(answer.id)}"
        if strict and answer.id not in labels:
            raise JudgementError(f"{place}: verdict for an unknown {item}; take the line out")
        if strict and answer.id in verdicts:
            raise JudgementError(f"{place}: a second verdict on {item}; keep one")
        if answer.verdict is not None and answer.id in labels:
            _check_label(place, answer, labels[answer.id])
            verdicts[answer.id] = answer.verdict
    return verdicts


def import_verdicts(
    store: Path,
    file: Path,
    labels: Mapping[str, Sequence[str]],
    contents: Mapping[str, str],
    by: str,
    *,
    givens: Mapping[str, str] | None = None,
    answers: Sequence[Answer] | None = None,
) -> Imported:
    """Add a file's verdicts to the store, all or none; a verdict that the store holds already adds no line.

    `labels`, `contents` and `givens` (sample id → the labels it may get, content digest, given label) are the items
    that were asked about. `answers` is what `file` holds, where it isn't the JSON Lines of `read_answers`.
    Raises JudgementError, naming file, place and mend, for an id that wasn't asked about (unless the store holds that
    very verdict), a verdict that is no label of its item, an item that was judged with other content or another given
    label, and an item judged twice, differently.
    """
    found = read_answers(file) if answers is None else answers
    given_now = givens or {}
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store}.lock"):
        held = read_store(store)
        wanted: dict[str, Answer] = {}
        for answer in found:
            # Of an earlier queue, and imported before: a page that was saved twice brings these again.
            before = held.get(answer.id)
            repeated = before is not None and (before.verdict, before.content) == (answer.verdict, answer.content)
            if not (repeated and answer.id not in contents):
                _check(file, answer, labels, contents, given_now)
            first = wanted.setdefault(answer.id, answer)
            if first.verdict != answer.verdict:
                raise JudgementError(
                    f"{file}, {answer.where}: item {_on_a_line(answer.id)} is `{answer.verdict}` here and "
                    f"`{first.verdict}` in {first.where}; keep one of them"
                )
        effects = {i: _compare(a, held.get(i), contents.get(i)) for i, a in wanted.items()}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        lines = [
            Verdict(
                id=i, content=contents[i], verdict=wanted[i].verdict, at=at, by=by,
                given=given_now.get(i, wanted[i].given or ""),
            )
            for i, effect in effects.items() if effect != "same"
        ]  # fmt: skip
        if lines:
            old = store.read_bytes() if store.exists() else b""
            write_bytes(store, old + json_lines(lines))
    return Imported(**{name: tuple(i for i, effect in effects.items() if effect == name) for name in _EFFECTS})


def _compare(answer: Answer, before: Verdict | None, content: str | None) -> str:
    """Return which of _EFFECTS an answer has on the verdict `before`; no `content`: its item isn't asked about now."""
    if answer.verdict is None:
        return "same" if before is None else "withdrawn"
    if before is None:
        return "new"
    unchanged = before.verdict == answer.verdict and content in (None, before.content)
    return "same" if unchanged else "changed"


def _check(
    file: Path,
    answer: Answer,
    labels: Mapping[str, Sequence[str]],
    contents: Mapping[str, str],
    givens: Mapping[str, str],
) -> None:
    place, item = f"{file}, {answer.where}", f"item {_on_a_line(answer.id)}"
    if answer.id not in contents:
        raise JudgementError(f"{place}: {item} was not asked about in this run; remove it, or name the run it is of")
    _check_label(place, answer, labels[answer.id])
    if answer.content is not None and answer.content != contents[answer.id]:
        raise JudgementError(f"{place}: {item} has changed since it was judged; remove it, and judge it again")
    given = givens.get(answer.id)
    if None not in (answer.given, given) and answer.given != given:
        raise JudgementError(
            f"{place}: {item} was judged when its given label was `{answer.given}`, it is `{given}` now; "
            "remove it, and judge it again"
        )


def _check_label(place: str, answer: Answer, labels: Sequence[str]) -> None:
    if answer.verdict is not None and not _fits(answer.verdict, labels):
        raise JudgementError(
            f"{place}: `{_on_a_line(answer.verdict)}` is no label of item {_on_a_line(answer.id)}; "
            f"write one, or `{NEITHER}`"
        )


def _on_a_line(text: str) -> str:
    return text.replace("\n", "\\n")


def _fits(verdict: str | None, labels: Sequence[str]) -> bool:
    return verdict == NEITHER or verdict in labels


def _answer(file: Path, where: str, row: dict[str, Any]) -> Answer | None:
    identity, verdict = row.get("id"), row.get("verdict", 0)
    if verdict is None:
        verdict = ""
    stated = (row.get("given"), row.get("content"))
    if not isinstance(identity, str | int) or not isinstance(verdict, str):
        raise JudgementError(f'{file}, {where}: must be a JSON object with "id" and text in "verdict"')
    if not all(isinstance(value, str | None) for value in stated):
        raise JudgementError(f'{file}, {where}: "given" and "content" must be text; take them out, or save it again')
    if not verdict.strip() and row.get("withdrawn") is not True:
        return None
    return Answer(str(identity), verdict.strip() or None, *stated, where)


def check_size(path: Path) -> None:
    """Raise JudgementError if a file of verdicts can't be found or has over MOST_BYTES."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise JudgementError(f"{path}: verdicts can't be read: {error.strerror or error}; correct the path") from error
    if size > MOST_BYTES:
        raise JudgementError(f"{path}: is over {MOST_BYTES >> 20} MiB: no file of verdicts; correct the path")
