"""Bad files of verdicts, probabilities and versions, into the readers that read them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from tasks.correction.judgements import read_probabilities, read_teacher
from tasks.dataset.versions import FOLDER, LOG, read_versions
from tasks.errors import LabelstillError
from tasks.evaluation.test_set import read_truth
from tasks.review.label_studio import is_export, read_export
from tasks.review.verdicts import import_verdicts, read_answers, read_store, read_verdicts
from tests.properties.damage import Row, damaged_bytes, damaged_row, sometimes
from tests.properties.result import Result

LABELS = ("申请退款", "查询物流", "反馈破损")
IDS = tuple("abcdef")


def _lines(rng: Random, rows: Sequence[Row]) -> bytes:
    """JSON Lines of the rows, some with faults in their fields, the file sometimes with faults in its bytes."""
    damaged = [sometimes(rng, 0.25, damaged_row, row) for row in rows]
    data = b"".join(
        json.dumps(row, ensure_ascii=rng.random() < 0.7).encode(errors="surrogatepass") + b"\n" for row in damaged
    )
    return sometimes(rng, 0.4, damaged_bytes, data)


def _page(rng: Random) -> list[Row]:
    return [
        {"id": i, "verdict": rng.choice((*LABELS, "neither", None, "")), "given": LABELS[0], "content": f"{i}1"}
        for i in rng.sample(IDS, rng.randint(1, 5))
    ]


def _export(rng: Random) -> bytes:
    tasks: list[Any] = []
    for i in rng.sample(IDS, rng.randint(1, 4)):
        result: Row = {"from_name": "verdict", "type": "choices", "value": {"choices": [rng.choice(LABELS)]}}
        annotation: Row = {"result": [result], "updated_at": "2026-01-01T00:00:00Z", "was_cancelled": False}
        task: Row = {"data": {"item": i, "content": f"{i}1", "given": LABELS[0]}, "annotations": [annotation]}
        for part in (result, annotation, task):
            if rng.random() < 0.3:
                made = damaged_row(rng, part)
                part.clear()
                part.update(made if isinstance(made, dict) else {"odd": made})
        if rng.random() < 0.2:
            annotation["result"] = damaged_row(rng, {"x": [result]})
        tasks.append(sometimes(rng, 0.1, damaged_row, task))
    data = json.dumps(tasks).encode()
    return sometimes(rng, 0.3, damaged_bytes, data)


def bad_verdicts(rng: Random, folder: Path) -> Result:
    """Import a bad file into a store: all of it or nothing, and what a person said before stays."""
    store, file, result = folder / "verdicts.jsonl", folder / "file", Result()
    labels, contents, givens = dict.fromkeys(IDS, LABELS), {i: f"{i}1" for i in IDS}, dict.fromkeys(IDS, LABELS[0])
    store.unlink(missing_ok=True)
    file.write_bytes(f'{{"id": "a", "verdict": "neither"}}\n{{"id": "b", "verdict": "{LABELS[1]}"}}\n'.encode())
    import_verdicts(store, file, labels, contents, "Ann", givens=givens)
    if rng.random() < 0.2:
        store.write_bytes(damaged_bytes(rng, store.read_bytes()))
    before = store.read_bytes()
    file.write_bytes(_export(rng) if rng.random() < 0.4 else _lines(rng, _page(rng)))
    try:
        answers = read_export(file) if is_export(file) else read_answers(file)
        done = import_verdicts(store, file, labels, contents, "Bob", givens=givens, answers=answers)
    except LabelstillError as error:
        result.require(store.read_bytes() == before, "a refused file changed the store")
        return result.count_refusal(error, file, store)
    after, told_of = read_store(store), (*done.new, *done.changed, *done.same, *done.withdrawn)
    result.require(store.read_bytes().startswith(before), "what was said before is gone")
    shown = {answer.id: answer.id.replace("\n", "\\n") for answer in answers}
    named = {i for i, text in shown.items() if any(f"item {text}" in fault for fault in done.skipped)}
    result.require({answer.id for answer in answers} - named <= set(told_of), "an answer without a word")
    last = {answer.id: answer.verdict for answer in answers if answer.id not in named}
    result.require(
        all(verdict is None or verdict in [v.verdict for v in after[i]] for i, verdict in last.items()), "not kept"
    )
    return result.count(*("kept" for _ in told_of), *(["nothing open"] if not told_of else []))


def _probabilities(rng: Random) -> list[Row]:
    return [
        {"id": i, "given": rng.choice(LABELS), "probabilities": {label: rng.random() for label in LABELS}} for i in IDS
    ]


def _count_read(file: Path) -> int:
    found = read_verdicts(file, dict.fromkeys(IDS, LABELS))
    return len(found.verdicts) + len(found.disagreed) + len(found.skipped)


def bad_lines(rng: Random, folder: Path) -> Result:
    """Read a bad file of probabilities, verdicts or truth: every line counts, or the file is refused."""
    good, file = folder / "good.jsonl", folder / "bad.jsonl"
    good.write_text("".join(json.dumps(row) + "\n" for row in _probabilities(rng)), encoding="utf-8")
    readers: dict[str, tuple[list[Row], Callable[[], int]]] = {
        "probabilities": (_probabilities(rng), lambda: len(read_probabilities([file]).ids)),
        "teacher": (_probabilities(rng), lambda: len(read_teacher(file, read_probabilities([good])))),
        "verdicts": (
            [{"id": i, "verdict": rng.choice((*LABELS, "neither"))} for i in IDS],
            lambda: _count_read(file),
        ),
        "truth": ([{"id": i, "label": rng.choice(LABELS)} for i in IDS], lambda: len(read_truth(file))),
        "reviewer": (_page(rng), lambda: _count_read(file)),
    }
    name = rng.choice(sorted(readers))
    rows, read = readers[name]
    file.write_bytes(_lines(rng, rows))
    result = Result()
    try:
        count = read()
    except LabelstillError as error:
        return result.count_refusal(error, file, good)
    lines = sum(bool(line.strip()) for line in file.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"))
    # An item may stand twice with one truth, and a verdict that is open or of another run is left out by design.
    result.require(
        count == lines or (name in ("truth", "reviewer", "verdicts") and count < lines),
        f"{name}: {count} of {lines} lines",
    )
    return result.count(f"{name} read")


def bad_version_log(rng: Random, folder: Path) -> Result:
    """Read a bad log of versions."""
    log = folder / FOLDER / LOG
    log.parent.mkdir(exist_ok=True)
    row: Row = {
        "version": "ab" * 32, "parent": None, "rows": 3, "origins": {"given": 3}, "recipe": "r", "code": "c",
        "made_at": 1.0,
    }  # fmt: skip
    log.write_bytes(_lines(rng, [row] * rng.randint(1, 3)))
    result = Result()
    try:
        found = read_versions(folder)
    except LabelstillError as error:
        return result.count_refusal(error, log)
    return result.count(*("kept" for _ in found), *([] if found else ["nothing"]))
