"""Store people's verdicts in an append-only file of JSON Lines. The last line about an item counts.

The file contains nothing else, and it survives every rerun. Each line has the digest of the content that was judged. If
the item's content has changed since then, its verdict stays in the file but is no longer used.
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
from tasks.storage.json_lines import dump_json_lines, read_models, read_objects

MOST_BYTES = 1 << 28
"""Maximum size of a file with verdicts; enough for a million. A larger file is probably something else, and would fill
the memory."""


class Verdict(Record):
    """A person's verdict on one item. Made by `import_verdicts`; read by correction and the review page."""

    id: str
    content: str
    """Digest of the content that was judged (`records.content_digest`)."""
    verdict: str | None
    """A label or `neither`; None if the verdict was withdrawn."""
    given: str
    """The item's given label when it was judged."""
    at: str
    """Time of the import, in UTC and ISO 8601."""
    by: str


@dataclass(frozen=True)
class Answer:
    """A verdict as read from a file, not yet checked. `given` and `content` are None if the file does not have them."""

    id: str
    verdict: str | None
    """A label or `neither`; None if the person withdrew the verdict."""
    given: str | None
    content: str | None
    where: str
    """The line or task in the file, for error messages."""


@dataclass(frozen=True)
class Imported:
    """The sample ids of the imported verdicts, grouped by their effect on the store."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    withdrawn: tuple[str, ...]


_EFFECTS = ("new", "changed", "same", "withdrawn")


def read_store(path: Path) -> dict[str, Verdict]:
    """Map sample ids to the current verdicts. The result is empty if there is no file.

    Raises JudgementError, naming the line, if a verdict is invalid.
    """
    if not path.exists():
        return {}
    check_size(path)
    found = {v.id: v for v in read_models(path, Verdict, "verdict", JudgementError, "restore or remove the line")}
    return {identity: v for identity, v in found.items() if v.verdict is not None}


def split_valid(
    store: Mapping[str, Verdict], labels: Mapping[str, Sequence[str]], contents: Mapping[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the valid verdicts, as a mapping of sample id to a label or `neither`, and the ids of the outdated ones.

    `labels` and `contents` map sample ids to the items' current labels and content digests. Verdicts on other items are
    left out. A verdict is outdated if the item's content has changed or if the item no longer offers the label.
    """
    known = {i: v for i, v in store.items() if i in contents and v.verdict is not None}
    valid = {i: v.verdict or "" for i, v in known.items() if v.content == contents[i] and _fits(v.verdict, labels[i])}
    return valid, tuple(i for i in known if i not in valid)


def read_answers(file: Path) -> list[Answer]:
    """Read the verdicts in a file that the review page saved or a person wrote: JSON Lines ``{"id", "verdict"}``.

    Lines with a null or empty verdict are left out unless they contain ``"withdrawn": true``. Raises JudgementError,
    naming file and line, if a line is invalid.
    """
    answers: list[Answer] = []
    check_size(file)
    for number, row in read_objects(file, JudgementError, "save the verdicts again"):
        answer = _make_answer(file, f"line {number}", row)
        if answer is not None:
            answers.append(answer)
    return answers


def read_verdicts(file: Path, labels: Mapping[str, Sequence[str]], *, strict: bool = False) -> dict[str, str]:
    """Read the verdicts in a file, and map sample ids to a label or `neither`.

    `labels` maps the sample ids of the known items to the labels they offer. If an item has several verdicts, the last
    one counts. Verdicts on unknown items are ignored. With `strict`, both are errors. Raises JudgementError, naming
    file and line, if a line is invalid or if a verdict is not one of its item's labels.
    """
    verdicts: dict[str, str] = {}
    for answer in read_answers(file):
        place = f"{file}, {answer.where}"
        item = f"item {_escape_newlines(answer.id)}"
        if strict and answer.id not in labels:
            raise JudgementError(f"{place}: verdict on an unknown {item}; remove the line")
        if strict and answer.id in verdicts:
            raise JudgementError(f"{place}: second verdict on {item}; keep one of them")
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
    """Add a file's verdicts to the store, all of them or none. A verdict that is already in the store adds no line.

    `labels`, `contents` and `givens` describe the items that were asked about: they map sample ids to the allowed
    labels, the content digest and the given label. `answers` contains the verdicts in `file` if they have already been
    read, for example from Label Studio's export. Raises JudgementError, naming file and line, if

    - an item was not asked about (unless the store already contains the same verdict);
    - a verdict is not one of the item's labels;
    - an item's content or given label has changed since it was judged;
    - there are two different verdicts on one item.
    """
    found = read_answers(file) if answers is None else answers
    given_now = givens or {}
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store}.lock"):
        stored = read_store(store)
        wanted: dict[str, Answer] = {}
        for answer in found:
            # A page saved again may repeat verdicts of an earlier queue that were imported before.
            before = stored.get(answer.id)
            repeated = before is not None and (before.verdict, before.content) == (answer.verdict, answer.content)
            if not (repeated and answer.id not in contents):
                _check(file, answer, labels, contents, given_now)
            first = wanted.setdefault(answer.id, answer)
            if first.verdict != answer.verdict:
                raise JudgementError(
                    f"{file}, {answer.where}: item {_escape_newlines(answer.id)} is `{answer.verdict}` here and "
                    f"`{first.verdict}` in {first.where}; keep one of them"
                )
        effects = {i: _compare(a, stored.get(i), contents.get(i)) for i, a in wanted.items()}
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
            write_bytes(store, old + dump_json_lines(lines))
    return Imported(**{name: tuple(i for i, effect in effects.items() if effect == name) for name in _EFFECTS})


def _compare(answer: Answer, before: Verdict | None, content: str | None) -> str:
    """Return the answer's effect, one of _EFFECTS; `content` is None for an item that was not asked about."""
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
    place = f"{file}, {answer.where}"
    item = f"item {_escape_newlines(answer.id)}"
    if answer.id not in contents:
        raise JudgementError(f"{place}: {item} was not asked about in this run; remove it, or name its own run")
    _check_label(place, answer, labels[answer.id])
    if answer.content is not None and answer.content != contents[answer.id]:
        raise JudgementError(f"{place}: {item} has changed since it was judged; remove the line and judge again")
    given = givens.get(answer.id)
    if None not in (answer.given, given) and answer.given != given:
        raise JudgementError(
            f"{place}: {item} was judged when its given label was `{answer.given}`, now it is `{given}`; "
            "remove the line and judge again"
        )


def _check_label(place: str, answer: Answer, labels: Sequence[str]) -> None:
    if answer.verdict is not None and not _fits(answer.verdict, labels):
        raise JudgementError(
            f"{place}: `{_escape_newlines(answer.verdict)}` is not a label of item {_escape_newlines(answer.id)}; "
            f"write one of its labels, or `{NEITHER}`"
        )


def _escape_newlines(text: str) -> str:
    return text.replace("\n", "\\n")


def _fits(verdict: str | None, labels: Sequence[str]) -> bool:
    return verdict == NEITHER or verdict in labels


def _make_answer(file: Path, where: str, row: dict[str, Any]) -> Answer | None:
    identity = row.get("id")
    verdict = row.get("verdict", 0)
    if verdict is None:
        verdict = ""
    stated = (row.get("given"), row.get("content"))
    if not isinstance(identity, str | int) or not isinstance(verdict, str):
        raise JudgementError(f'{file}, {where}: needs an "id" and text in "verdict"')
    if not all(isinstance(value, str | None) for value in stated):
        raise JudgementError(f'{file}, {where}: "given" and "content" must be text; remove them or save again')
    if not verdict.strip() and row.get("withdrawn") is not True:
        return None
    return Answer(str(identity), verdict.strip() or None, *stated, where)


def check_size(path: Path) -> None:
    """Raise JudgementError if a file with verdicts can't be read or is larger than MOST_BYTES."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise JudgementError(f"{path}: verdicts can't be read: {error.strerror or error}; correct the path") from error
    if size > MOST_BYTES:
        raise JudgementError(f"{path}: is larger than {MOST_BYTES >> 20} MiB, too large for verdicts; correct the path")
