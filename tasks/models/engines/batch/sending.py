"""Write questions into files, upload them and have their batches created; finish what a killed run has begun."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from tasks.models.engines.batch.book import Batch, Book, Line, State
from tasks.models.engines.batch.provider import MOST_BYTES, MOST_QUESTIONS, Provider, Rejected
from tasks.storage.files import report_full_disk

_LAG_SECONDS = 1.0
"""A file or batch may be missing from a server's list for a moment after the server has accepted it."""


@dataclass
class Sender:
    """Fills files with lines and submits each file as soon as it is full.

    `tokens_left` is how many more prompt tokens the server accepts now; None if it has named no limit. `submitted` is
    called with each batch that the server has accepted.
    """

    book: Book
    provider: Provider
    tokens_left: int | None
    submitted: Callable[[dict[str, Any]], None]
    questions: int = 0
    """Lines submitted so far."""
    files: int = 0
    cost: float = 0.0
    held_back: int = 0
    """Requests that wait because the server accepts no more now."""
    _lines: list[Line] = field(default_factory=list[Line])
    _bytes: int = 0

    def add(self, lines: Sequence[Line]) -> None:
        """Add a request's lines to the present file, or hold them back while the server accepts no more.

        A request's lines go into one file: after a kill, either all of its votes are recorded or none.
        """
        if self.tokens_left is not None:
            if self.tokens_left <= 0:
                self.held_back += 1
                return
            self.tokens_left -= sum(line.tokens for line in lines)
        size = sum(len(line.content) for line in lines)
        if len(self._lines) + len(lines) > MOST_QUESTIONS or self._bytes + size > MOST_BYTES:
            self.submit()
        self._lines += lines
        self._bytes += size

    def submit(self) -> None:
        """Submit the present file, if it has a line. Raises Rejected if the server refuses it."""
        if not self._lines:
            return
        lines, self._lines, self._bytes = self._lines, [], 0
        name = f"labelstill-{token_hex(12)}.jsonl"
        path = self.book.folder / name
        with report_full_disk(path), path.open("wb") as file:
            file.writelines(line.content for line in lines)
            file.flush()
            os.fsync(file.fileno())
        self.book.note_file(name, lines, sum(line.tokens for line in lines))
        self.submitted(_upload_and_create(self.book, self.provider, name, file_id=""))
        self.questions += len(lines)
        self.files += 1
        self.cost += sum(line.cost for line in lines)


def finish_submitting(book: Book, provider: Provider) -> None:
    """Take the steps that are missing for the files of a run that was killed or lost its connection."""
    begun = book.list_batches(State.UPLOADING, State.CREATING)
    recorded = book.list_file_names()
    for path in book.folder.glob("labelstill-*"):
        if path.name not in recorded:  # the run was killed before it recorded the file
            path.unlink()
    if begun:
        time.sleep(_LAG_SECONDS)
    for batch in begun:
        _finish(book, provider, batch)


def _finish(book: Book, provider: Provider, batch: Batch) -> None:
    """Have a batch that was begun accepted by the server, unless it has been already."""
    if (created := provider.find_batch(batch.name)) is not None:
        _note_created(book, batch.name, created)
        return
    file_id = batch.file_id
    if not file_id and (uploaded := provider.find_file(batch.name)) is not None:
        file_id = str(uploaded["id"])
    _upload_and_create(book, provider, batch.name, file_id)


def _upload_and_create(book: Book, provider: Provider, name: str, file_id: str) -> dict[str, Any]:
    """Upload a file unless it has a `file_id`, and have its batch created; return the batch."""
    path = book.folder / name
    try:
        if not file_id and not path.exists():
            raise Rejected(f"{path} is gone")
        file_id = file_id or provider.upload(name, path)
        book.note_step(name, State.CREATING, file_id=file_id)
        created = provider.create(name, file_id)
    except Rejected as error:
        book.forget_batch(name)
        path.unlink(missing_ok=True)
        raise Rejected(
            f"{error} (a file of questions for the batch API); run again, and if it is refused again, correct `model` "
            "or `extra_body`, or remove `batch`"
        ) from error
    _note_created(book, name, created)
    return created


def _note_created(book: Book, name: str, created: dict[str, Any]) -> None:
    book.note_step(name, State.SUBMITTED, batch_id=str(created["id"]))
    (book.folder / name).unlink(missing_ok=True)
