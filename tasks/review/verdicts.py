"""Store people's verdicts in an append-only file of JSON Lines. Of each person, the last line about an item counts.

The file contains nothing else, and it survives every rerun. Each line has the digest of the content that was judged. If
the item's content has changed since then, its verdict stays in the file but is no longer used. If several people have
judged an item, the verdict of more than half of them is used. Without one, the item is asked about again.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
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
    """The person who judged."""


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
    by: str | None = None
    """The person who judged, if the file says so."""


@dataclass(frozen=True)
class Settled:
    """The verdicts that are used, and the sample ids of those that are not."""

    verdicts: dict[str, str]
    """Maps sample id to a label or `neither`."""
    outdated: tuple[str, ...] = ()
    """Items that have changed since they were judged."""
    disagreed: tuple[str, ...] = ()
    """Items on which people disagree, with no verdict of more than half of them."""
    skipped: tuple[str, ...] = ()
    """Of a file: one sentence per verdict that does not fit its item, naming the line and the item."""


@dataclass(frozen=True)
class Imported:
    """The sample ids of the imported verdicts, grouped by their effect on the store."""

    new: tuple[str, ...]
    changed: tuple[str, ...]
    same: tuple[str, ...]
    withdrawn: tuple[str, ...]
    disagreed: tuple[str, ...] = ()
    """The items among these on which people now disagree."""
    skipped: tuple[str, ...] = ()
    """One sentence per verdict that was not imported, naming the line and the item."""


_EFFECTS = ("new", "changed", "same", "withdrawn")


def read_store(path: Path) -> dict[str, tuple[Verdict, ...]]:
    """Map sample ids to the current verdicts, one per person. The result is empty if there is no file.

    Raises JudgementError, naming the line, if a verdict is invalid.
    """
    if not path.exists():
        return {}
    check_size(path)
    lines = read_models(path, Verdict, "verdict", JudgementError, "restore or remove the line")
    latest = {(v.id, v.by): v for v in lines}
    return _group(latest.values())


def _group(verdicts: Iterable[Verdict]) -> dict[str, tuple[Verdict, ...]]:
    """Map sample ids to their verdicts, without those that were withdrawn."""
    found: dict[str, tuple[Verdict, ...]] = {}
    for v in verdicts:
        if v.verdict is not None:
            found[v.id] = (*found.get(v.id, ()), v)
    return found


def settle_verdicts(
    store: Mapping[str, Sequence[Verdict]], labels: Mapping[str, Sequence[str]], contents: Mapping[str, str]
) -> Settled:
    """Return which verdicts in `store` are used.

    `labels` and `contents` map sample ids to the items' current labels and content digests. Verdicts on other items are
    left out. A verdict is outdated if the item's content has changed or if the item no longer offers the label.
    """
    settled: dict[str, str] = {}
    outdated: list[str] = []
    disagreed: list[str] = []
    for i, verdicts in store.items():
        if i not in contents:
            continue
        valid = [v.verdict for v in verdicts if v.content == contents[i] and _fits(v.verdict, labels[i])]
        verdict = _find_majority(valid)
        if verdict is not None:
            settled[i] = verdict
        else:
            (disagreed if valid else outdated).append(i)
    return Settled(settled, tuple(outdated), tuple(disagreed))


def _find_majority(verdicts: Sequence[str | None]) -> str | None:
    """Return the verdict of more than half of the people, or None if there is none."""
    return next((verdict for verdict, count in Counter(verdicts).items() if 2 * count > len(verdicts)), None)


def read_answers(file: Path) -> list[Answer]:
    """Read the verdicts in a file that the review page saved or a person wrote, or in a store: JSON Lines.

    Lines with a null or empty verdict are left out unless they contain ``"withdrawn": true`` or are from a store.
    Raises JudgementError, naming file and line, if a line is invalid.
    """
    answers: list[Answer] = []
    check_size(file)
    for number, row in read_objects(file, JudgementError, "save the verdicts again"):
        answer = _make_answer(file, f"line {number}", row)
        if answer is not None:
            answers.append(answer)
    return answers


def read_verdicts(file: Path, labels: Mapping[str, Sequence[str]]) -> Settled:
    """Read the verdicts in a file that is used without an import.

    `labels` maps the sample ids of the known items to the labels they offer. Verdicts on other items, and verdicts that
    are not one of their item's labels, are skipped. Of several verdicts of one person on an item, the last one counts.
    Raises JudgementError, naming file and line, if a line is invalid.
    """
    latest: dict[tuple[str, str | None], Answer] = {}
    skipped: list[str] = []
    for answer in read_answers(file):
        if answer.id not in labels:
            skipped.append(f"{answer.where}: item {_escape_newlines(answer.id)} is not among the items")
        elif fault := _find_wrong_label(answer, labels[answer.id]):
            skipped.append(fault)
        else:
            latest[answer.id, answer.by] = answer
    by_item: dict[str, list[str]] = {}
    for answer in latest.values():
        if answer.verdict is not None:
            by_item.setdefault(answer.id, []).append(answer.verdict)
    found = {i: _find_majority(verdicts) for i, verdicts in by_item.items()}
    return Settled(
        {i: verdict for i, verdict in found.items() if verdict is not None},
        disagreed=tuple(i for i, verdict in found.items() if verdict is None),
        skipped=tuple(skipped),
    )


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
    """Add a file's verdicts to the store. A verdict that is already in the store adds no line.

    `labels`, `contents` and `givens` describe the items that were asked about: they map sample ids to the allowed
    labels, the content digest and the given label. `answers` contains the verdicts in `file` if they have already been
    read, for example from Label Studio's export. `by` is the person who judged, where the file does not name one. Of
    several verdicts of one person on an item, the last one counts. A verdict is skipped if

    - its item was not asked about (unless the store already contains the same verdict);
    - it is not one of the item's labels;
    - the item's content or given label has changed since it was judged.

    Raises JudgementError if all are skipped, and, naming file and line, if a line is invalid.
    """
    found = read_answers(file) if answers is None else answers
    given_now = givens or {}
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{store}.lock"):
        stored = {(v.id, v.by): v for verdicts in read_store(store).values() for v in verdicts}
        wanted: dict[tuple[str, str], Answer] = {}
        skipped: list[str] = []
        for answer in found:
            person = answer.by or by
            before = stored.get((answer.id, person))
            # A page saved again may repeat verdicts of an earlier queue that were imported before.
            repeated = before is not None and (before.verdict, before.content) == (answer.verdict, answer.content)
            kept_elsewhere = repeated and answer.id not in contents
            if fault := None if kept_elsewhere else _find_fault(answer, labels, contents, given_now):
                skipped.append(fault)
            else:
                wanted[answer.id, person] = answer
        if skipped and not wanted:
            raise JudgementError(f"{file}, {skipped[0]}; no verdict in the file fits, so name its own run")
        effects = {key: _compare(a, stored.get(key), contents.get(key[0])) for key, a in wanted.items()}
        at = datetime.now(UTC).isoformat(timespec="seconds")
        lines = {
            (i, person): Verdict(
                id=i, content=contents[i], verdict=wanted[i, person].verdict, at=at, by=person,
                given=given_now.get(i, wanted[i, person].given or ""),
            )
            for (i, person), effect in effects.items() if effect != "same"
        }  # fmt: skip
        if lines:
            old = store.read_bytes() if store.exists() else b""
            write_bytes(store, old + dump_json_lines(lines.values()))
    disagreed = settle_verdicts(_group((stored | lines).values()), labels, contents).disagreed
    return Imported(
        **{name: _list_ids(key for key, effect in effects.items() if effect == name) for name in _EFFECTS},
        disagreed=tuple(i for i in _list_ids(wanted) if i in disagreed),
        skipped=tuple(skipped),
    )


def _list_ids(keys: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Return the sample ids of (sample id, person) pairs, each once."""
    return tuple(dict.fromkeys(i for i, _ in keys))


def _compare(answer: Answer, before: Verdict | None, content: str | None) -> str:
    """Return the answer's effect, one of _EFFECTS; `content` is None for an item that was not asked about."""
    if answer.verdict is None:
        return "same" if before is None else "withdrawn"
    if before is None:
        return "new"
    unchanged = before.verdict == answer.verdict and content in (None, before.content)
    return "same" if unchanged else "changed"


def _find_fault(
    answer: Answer,
    labels: Mapping[str, Sequence[str]],
    contents: Mapping[str, str],
    givens: Mapping[str, str],
) -> str | None:
    """Return a sentence that says why the verdict can't be used, or None."""
    place = f"{answer.where}: item {_escape_newlines(answer.id)}"
    if answer.id not in contents:
        return f"{place} is not in this run's review queue"
    if answer.content is not None and answer.content != contents[answer.id]:
        return f"{place} has changed since it was judged; judge it again"
    given = givens.get(answer.id)
    if None not in (answer.given, given) and answer.given != given:
        return f"{place} was judged when its given label was `{answer.given}`, now it is `{given}`; judge it again"
    return _find_wrong_label(answer, labels[answer.id])


def _find_wrong_label(answer: Answer, labels: Sequence[str]) -> str | None:
    if answer.verdict is None or _fits(answer.verdict, labels):
        return None
    return (
        f"{answer.where}: `{_escape_newlines(answer.verdict)}` is not a label of item {_escape_newlines(answer.id)}; "
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
    # The page writes an empty given label for an item of the audit.
    stated = (row.get("given") or None, row.get("content"))
    by = row.get("by")
    if not isinstance(identity, str | int) or not isinstance(verdict, str):
        raise JudgementError(f'{file}, {where}: needs an "id" and text in "verdict"')
    if not all(isinstance(value, str | None) for value in (*stated, by)):
        raise JudgementError(f'{file}, {where}: "given", "content" and "by" must be text; remove them or save again')
    withdrawn = row.get("withdrawn") is True or "at" in row  # a line of the store has a time
    if not verdict.strip() and not withdrawn:
        return None
    return Answer(str(identity), verdict.strip() or None, *stated, where, (by or "").strip() or None)


def check_size(path: Path) -> None:
    """Raise JudgementError if a file with verdicts can't be read or is larger than MOST_BYTES."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise JudgementError(f"{path}: verdicts can't be read: {error.strerror or error}; correct the path") from error
    if size > MOST_BYTES:
        raise JudgementError(f"{path}: is larger than {MOST_BYTES >> 20} MiB, too large for verdicts; correct the path")
