"""Have questions answered by a batch API: send those that are not sent yet, and take the answers that are there.

One call of `generate` looks once. It yields what is answered, sends what is new, failed or expired, and then raises
AnswersPending unless everything was answered. What the server can do is found out as for any server, by tiny requests
outside of batches, once there is something to send.
"""

import logging
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from itertools import islice, repeat
from pathlib import Path
from typing import Any

from tasks.errors import AnswersPending, EngineError
from tasks.models.engines.batch.book import Batch, Book, Line, Question, State
from tasks.models.engines.batch.collecting import check_account, collect_answers
from tasks.models.engines.batch.provider import ENDED, WINDOW, Provider, Rejected
from tasks.models.engines.batch.sending import Sender, finish_submitting
from tasks.models.engines.batch.weighing import ALTERNATIVES, weigh_labels
from tasks.models.engines.batch.writing import LineWriter, read_vote
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import identify_model
from tasks.models.engines.server.capabilities import describe_gaps
from tasks.models.engines.server.chat import get_path, join_replies, read_reply
from tasks.models.engines.server.client import read_api_key
from tasks.models.engines.server.engine import ServerEngine
from tasks.models.engines.server.retries import Refused
from tasks.models.engines.spec import EngineSpec
from tasks.models.ledger.ledger import NOT_KEPT
from tasks.models.ledger.tools import find_kept
from tasks.models.unanswered import Unanswered, make_unanswered
from tasks.records import Generation, LabelAnswer, Request

_log = logging.getLogger("labelstill")

_CHUNK = 256
"""Requests that are looked up and prepared at a time."""
_TRIES = 3
"""After so many failures a question counts as failed; until then it is in the next batch again."""
_QUEUE_LIMIT = re.compile(r"limit: ([\d,]+)", re.IGNORECASE)
_QUEUE_SHARE = 0.8
"""Share of the provider's limit on waiting tokens that is used, because our count of tokens is an estimate."""


class BatchEngine:
    """Answers requests through the batch API at the spec's address."""

    def __init__(self, spec: EngineSpec, place: Workplace) -> None:
        """Open the record of batches, which lies beside the ledger; raise EngineError without an API key."""
        assert place.ledger is not None, "a batch engine needs a ledger"
        key = read_api_key(spec)
        self._spec = spec
        self._place = place
        self._ledger = place.ledger
        self._model = spec.adapter or spec.model
        self.fingerprint = f"batch/{identify_model(spec)}"
        self._provider = Provider(spec, key)
        self._book = Book(place.ledger, self._provider.url, self._model)
        self._server: ServerEngine | None = None
        self._open: dict[str, dict[str, Any]] = {}
        """The batches that the provider works on, by their ids."""
        self.notes = (f"questions go to the batch API of {self._provider.host}, at half price and within {WINDOW}",)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield a generation per request that is answered; raise AnswersPending if others are not.

        Raises EngineError when the provider does not answer or refuses a file.
        """
        with self._book.hold():
            self._forget_kept()
            finish_submitting(self._book, self._provider)
            self._look()
            yield from self._answer(requests)

    def usage(self) -> Usage:
        """Return nothing: while a batch is answered, no connection is open."""
        return Usage()

    def close(self) -> None:
        """Close all connections and files; safe to call twice."""
        if self._server is not None:
            self._server.close()
        self._provider.close()
        self._book.close()

    def _note_open(self, batch: dict[str, Any]) -> None:
        self._open[str(batch["id"])] = batch

    def _forget_kept(self) -> None:
        """Forget the answers that are in the ledger."""
        keys = self._book.list_answered_keys()
        for start in range(0, len(keys), _CHUNK):
            kept = find_kept(self._ledger, keys[start : start + _CHUNK])
            if kept:
                self._book.forget_questions(sorted(kept))

    # --- taking answers ---------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Ask once how each batch is doing, and take the answers of those that have ended."""
        refused: list[str] = []
        self._open = {}
        for batch in self._book.list_batches(State.SUBMITTED):
            with self._explain_lost(batch):
                there = self._provider.read_batch(batch.batch_id)
            status = str(there.get("status"))
            if status not in ENDED:
                self._note_open(there)
            elif status == "failed":
                refused += self._free_questions(batch, there)
            else:
                self._take_answers(batch, there, status)
        if refused:
            raise Rejected(
                f"{self._provider.host} refuses batches of {self._model}: {'; '.join(refused)}; correct `model` or "
                "`extra_body`, or remove `batch`, then run again"
            )

    @contextmanager
    def _explain_lost(self, batch: Batch) -> Generator[None]:
        """Context manager: if the provider refuses a batch that it has accepted, say what can be done."""
        try:
            yield
        except Rejected as error:
            raise Rejected(
                f"{error}: batch {batch.batch_id} was sent earlier and may be paid for already; use the API key and "
                f"project that sent it, or move {self._book.path} away to have all its questions asked again"
            ) from error

    def _free_questions(self, batch: Batch, there: dict[str, Any]) -> list[str]:
        """Let the questions of a batch that was not begun be sent again; return why it was refused.

        Nothing is returned if it would only have made the provider's queue too long.
        """
        faults = get_path(there, "errors", "data") or [{}]
        message = "; ".join(dict.fromkeys(str(get_path(fault, "message") or "no reason given") for fault in faults))
        self._book.note_end(batch.name, {}, failed=())
        if any(get_path(fault, "code") == "token_limit_exceeded" for fault in faults):
            named = _QUEUE_LIMIT.search(message)
            waiting = batch.tokens + sum(b.tokens for b in self._book.list_batches(State.SUBMITTED))
            limit = int(named[1].replace(",", "")) * _QUEUE_SHARE if named else waiting / 2
            self._book.note_queue_limit(round(limit))
            _log.warning("%s: %s; its questions are sent again, fewer at a time", batch.batch_id, message)
            return []
        return [f"{batch.batch_id}: {self._provider.hide_key(message)[:300]}"]

    def _take_answers(self, batch: Batch, there: dict[str, Any], status: str) -> None:
        questions = self._book.list_unanswered(batch.name)
        files: list[Path] = []
        for name in ("output_file_id", "error_file_id"):
            if file_id := there.get(name):
                files.append(self._book.folder / f"{batch.name}.{name}")
                with self._explain_lost(batch):
                    self._provider.download(str(file_id), files[-1])
        found = collect_answers(files, questions, ended_early=status != "completed")
        new = self._book.note_end(batch.name, found.answers, failed=found.failed)
        for file in files:
            file.unlink()
        self._provider.delete_file(batch.file_id)
        _log.info("batch %s %s: %d of %d questions answered", batch.batch_id, status, new, batch.questions)
        if oddities := found.describe():
            _log.warning("batch %s: %s", batch.batch_id, oddities)
        check_account(found, self._provider.host)

    # --- answering and sending --------------------------------------------------------------------------------

    def _answer(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield the answers that are there, send what is in no batch, and raise AnswersPending if any are missing."""
        open_batches = self._book.list_batches(State.SUBMITTED)
        sender = Sender(self._book, self._provider, self._count_tokens_left(open_batches), self._note_open)
        ours = {batch.name for batch in open_batches}
        waiting = 0
        elsewhere = 0
        stream = iter(requests)
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="batch") as pool:
            while chunk := list(islice(stream, _CHUNK)):
                sent = self._book.find_questions([request.key for request in chunk])
                unsent: list[tuple[Request, list[str]]] = []
                for request in chunk:
                    questions = sent.get(request.key, [])
                    awaited = [q for q in questions if q.answer is None and q.batch is not None]
                    again = [q for q in questions if q.answer is None and q.batch is None and q.tries < _TRIES]
                    if again or not questions:
                        unsent.append((request, [q.custom_id for q in again]))
                    elif awaited:
                        waiting += 1
                        elsewhere += any(q.batch not in ours for q in awaited)
                    else:
                        yield self._read(request, questions)
                # the writer is made in this thread, and only if there is something to write
                lines = pool.map(self._write_lines, unsent, repeat(self._writer)) if unsent else ()
                for written in lines:
                    if isinstance(written, Generation):
                        yield written
                    else:
                        sender.add(written)
        sender.submit()
        if waiting or sender.questions or sender.held_back:
            raise AnswersPending(self._describe(sender, waiting, elsewhere))

    def _count_tokens_left(self, open_batches: Sequence[Batch]) -> int | None:
        """Return how many more tokens the provider lets wait; None if it has named no limit."""
        limit = self._book.read_queue_limit()
        if limit is None:
            return None
        # at least one line is sent if nothing waits, however low the limit is
        return max(limit - sum(batch.tokens for batch in open_batches), 0 if open_batches else 1)

    @cached_property
    def _writer(self) -> LineWriter:
        self._server = ServerEngine(self._spec, self._place)
        reported = self._provider.reports_alternatives(self._model, self._spec.extra_body, ALTERNATIVES)
        # images go into the file: the provider cannot read ours
        can = replace(self._server.capabilities, local_files=False)
        for note in describe_gaps(replace(can, token_logprobs=reported), self._spec, tokenizer=True, videos=False):
            _log.info("%s", note)
        return LineWriter(self._spec, self._provider, self._server.make_conversation(self._model, can), reported)

    def _write_lines(self, unsent: tuple[Request, list[str]], writer: LineWriter) -> list[Line] | Generation:
        request, custom_ids = unsent
        try:
            return writer.write(request, custom_ids)
        except EngineError:  # of the image cache: no request can be sent
            raise
        except Exception as error:  # concerns this request only
            return make_unanswered(request, error, self.fingerprint)

    def _read(self, request: Request, questions: Sequence[Question]) -> Generation:
        """Return the answer to a request of which each line is answered or has failed for good."""
        try:
            answer = self._join_answers(request, sorted(questions, key=lambda q: read_vote(q.custom_id) or 0))
        except Unanswered as error:
            answer = make_unanswered(request, error, self.fingerprint)
        if answer.outcome in NOT_KEPT:  # else it is forgotten once it is in the ledger
            self._book.forget_questions([request.key])
        return answer

    def _join_answers(self, request: Request, questions: Sequence[Question]) -> Generation:
        replies: list[Generation] = []
        choices: list[Any] = []
        refusals: list[Refused] = []
        for question in questions:
            answer = question.answer or {}
            if "refused" in answer:
                refusals.append(Refused(int(answer["status"]), str(answer["refused"]), ""))
            elif answer:
                vote = read_vote(question.custom_id)
                n = request.sampling.n if vote is None else 1
                reply = read_reply(answer["body"], request.key, n)
                assert reply is not None, "collecting.py keeps only answers with a text"
                if request.drafts:
                    reply = reply.model_copy(update={"thoughts": (request.drafts[vote or 0],)})
                replies.append(reply)
                choices += answer["body"]["choices"][:n]
        if not replies:
            lost = f"the batch API failed {_TRIES} times at this question, or lost its answers"
            raise refusals[0] if refusals else Unanswered(lost)
        joined = join_replies(replies)
        weights: dict[str, float] | None = None
        if request.sampling.label_probabilities and isinstance(request.constraint, LabelAnswer):
            weights = weigh_labels(choices, request.constraint)
        return joined.model_copy(
            update={"engine": self.fingerprint, "label_logprobs": weights, "shortened": questions[0].shortened}
        )

    def _describe(self, sender: Sender, waiting: int, elsewhere: int) -> str:
        """Return what was sent and what is awaited, for the terminal and the run's state."""
        facts: list[str] = []
        if sender.questions:
            price = f", for about {sender.cost:,.3g} at half of `prices`" if self._spec.prices.of_tokens else ""
            files = f"{sender.files} file{'s' if sender.files > 1 else ''}"
            facts.append(f"submitted {sender.questions:,} questions in {files}{price}; answers come within {WINDOW}")
        if waiting:
            facts.append(f"{waiting:,} submitted earlier are not answered yet")
        if sender.held_back:
            facts.append(f"{sender.held_back:,} wait until the provider accepts more questions")
        if elsewhere:
            facts.append(f"{elsewhere:,} of these were sent to another address or model: set that again to take them")
        if self._open:
            done = sum(int(get_path(b, "request_counts", "completed") or 0) for b in self._open.values())
            total = sum(batch.questions for batch in self._book.list_batches(State.SUBMITTED))
            batches = f"{len(self._open)} batch{'es' if len(self._open) > 1 else ''} in progress"
            facts.append(f"{batches}, {done:,} of {total:,} questions done{self._name_end()}")
        return f"{self._model} at {self._provider.host}: {'; '.join(facts)}"

    def _name_end(self) -> str:
        """Return when the last batch expires, if the provider says it."""
        ends = [end for batch in self._open.values() if isinstance(end := batch.get("expires_at"), int | float)]
        return f", at the latest at {time.strftime('%Y-%m-%d %H:%M', time.localtime(max(ends)))}" if ends else ""
