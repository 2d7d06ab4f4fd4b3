"""A server with `/v1/files` and `/v1/batches` that answers rightly, or misbehaves on purpose; a process of its own.

`running(BatchOptions(...))` starts it for a test. Whatever it does wrong is drawn with a fixed seed. It counts what a
provider would bill: an answer is billed once its line is written undamaged into a file of answers. `Bill.twice` are
questions that were accepted while an earlier batch with them was under way, or after their answer was delivered.

POST `/kill?pid=P&call=N&after=1` kills a process at the N-th call from now, before or after the call has its effect.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import orjson
from aiohttp import web

from tests.conftest import free_port
from tests.stub_answers import Gap, Refused, Thinks, check, completion

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class BatchOptions:
    """How the server behaves; the default is flawless. Shares are between 0 and 1."""

    model: str = "stub"
    seed: int = 0
    looks: int = 1
    """A batch has ended when it is looked at for the time after so many."""
    lose: float = 0.0
    """Share of answers whose line is missing; the next three: doubled, cut off, of nobody's question."""
    double: float = 0.0
    damage: float = 0.0
    foreign: float = 0.0
    reorder: bool = True
    expire: float = 0.0
    """Share of batches that expire when half of the questions are answered; the next two: that are cancelled then, or
    complete although every second question failed with status 500."""
    cancel: float = 0.0
    fail_half: float = 0.0
    spare_later: bool = False
    """Do nothing of the above to a question that is sent for the third time."""
    refuse: tuple[str, ...] = ()
    """Questions (parts of their text) that are refused with status 400."""
    refused_files: int = 0
    """So many first uploads are refused."""
    invalid_batches: int = 0
    """So many first batches fail when they are checked."""
    queue_tokens: int = 0
    """A batch fails if more tokens (100 per question) than this would wait; 0: never."""
    rate_limit: float = 0.0
    """Share of calls that are answered with 429."""
    lose_reply: float = 0.0
    """Share of uploads and creations that have their effect, after which the connection breaks."""
    gaps: frozenset[Gap] = frozenset()
    thinks: Thinks = Thinks.NEVER
    alternatives: bool = False
    """Report the alternatives of each token."""
    api_key: str = ""


@dataclass
class Bill:
    """What a provider would have counted."""

    accepted: int = 0
    delivered: Counter[str] = field(default_factory=Counter[str])
    twice: set[str] = field(default_factory=set[str])
    batches: int = 0
    uploads: int = 0
    online: int = 0
    """Questions asked outside of batches."""


class BatchStub:
    """The request handler."""

    def __init__(self, options: BatchOptions) -> None:
        self.options = options
        self.bill = Bill()
        self.files: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.sent: Counter[str] = Counter()
        self._draw = random.Random(options.seed)
        self._live: Counter[str] = Counter()
        self._kill: tuple[int, int, bool] | None = None
        self._calls = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one HTTP request."""
        path = request.path.removeprefix("/v1")
        if path == "/stats":
            bill = self.bill
            figures = {"accepted": bill.accepted, "answers": len(bill.delivered), "twice": len(bill.twice)}
            more = {"batches": bill.batches, "uploads": bill.uploads, "online": bill.online, "calls": self._calls}
            return _reply({**figures, **more, "billed": bill.delivered.total()})
        if path == "/kill":
            query = request.query
            call = int(query["call"])
            self._kill = (int(query["pid"]), self._calls + call, query["after"] == "1") if call else None
            return _reply({})
        if self.options.api_key and request.headers.get("Authorization") != f"Bearer {self.options.api_key}":
            return _refuse(401, f"Incorrect API key provided: {request.headers.get('Authorization')}")
        self._calls += 1
        pid, call, after = self._kill or (0, 0, False)
        doomed = call == self._calls
        if doomed and not after:
            os.kill(pid, signal.SIGKILL)
            return _refuse(500, "the caller is dead")
        content = await request.read()
        if self._draw.random() < self.options.rate_limit:
            return _refuse(429, "Rate limit reached, try again in 0.05s", {"Retry-After": "0.05"})
        response = self._answer(request, path, content)
        if doomed:
            os.kill(pid, signal.SIGKILL)
        if (
            path in ("/files", "/batches")
            and request.method == "POST"
            and self._draw.random() < self.options.lose_reply
        ):
            assert request.transport is not None
            request.transport.abort()
        return response

    def _answer(self, request: web.BaseRequest, path: str, content: bytes) -> web.Response:
        what, _, rest = path[1:].partition("/")
        number, _, action = rest.partition("/")
        if path == "/models":
            return _reply({"object": "list", "data": [{"id": self.options.model}]})
        if path == "/chat/completions":
            self.bill.online += 1
            return self._complete(orjson.loads(content))
        if what == "files" and request.method == "POST":
            return self._upload(request, content)
        if what == "batches" and request.method == "POST":
            return self._create(orjson.loads(content))
        table = self.files if what == "files" else self.batches
        if not rest:
            return self._list(list(table.values()), request)
        if number not in table:
            return _refuse(404, f"No such {what[:-1]}: {number}")
        if request.method == "DELETE":
            del table[number]
            return _reply({"id": number, "deleted": True})
        if action == "content":
            return web.Response(body=table[number]["content"])
        if what == "batches":
            self._look(table[number])
        return _reply(_show(table[number]))

    def _list(self, entries: list[dict[str, Any]], request: web.BaseRequest) -> web.Response:
        ordered = entries[::-1]
        after = request.query.get("after")
        start = 1 + next((i for i, e in enumerate(ordered) if e["id"] == after), -1)
        page = ordered[start : start + int(request.query.get("limit", "20"))]
        return _reply({"data": [_show(e) for e in page], "has_more": start + len(page) < len(ordered)})

    def _upload(self, request: web.BaseRequest, content: bytes) -> web.Response:
        boundary = request.headers["Content-Type"].partition("boundary=")[2].strip('"').encode()
        parts = content.split(b"--" + boundary)
        [part] = [p for p in parts if b'name="file"' in p]
        head, _, body = part.partition(b"\r\n\r\n")
        if self.bill.uploads < self.options.refused_files:
            self.bill.uploads += 1
            return _refuse(400, "Invalid file format")
        self.bill.uploads += 1
        file = self._store(head.partition(b'filename="')[2].partition(b'"')[0].decode(), body.removesuffix(b"\r\n"))
        return _reply(_show(file))

    def _store(self, name: str, content: bytes) -> dict[str, Any]:
        number = f"file-{len(self.files) + 1}-{self._draw.getrandbits(32):x}"
        self.files[number] = {"id": number, "object": "file", "filename": name, "purpose": "batch", "content": content}
        return self.files[number]

    def _create(self, body: dict[str, Any]) -> web.Response:
        if body["input_file_id"] not in self.files:
            return _refuse(400, f"Cannot find file {body['input_file_id']}")
        number = f"batch_{len(self.batches) + 1}"
        lines = [orjson.loads(line) for line in self.files[body["input_file_id"]]["content"].splitlines()]
        batch = {
            "id": number, "object": "batch", **body, "status": "validating", "created_at": int(time.time()),
            "expires_at": int(time.time()) + 86400, "output_file_id": None, "error_file_id": "", "errors": None,
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0}, "lines": lines, "looked": 0,
        }  # fmt: skip
        self.bill.batches += 1
        self.batches[number] = batch
        if (fault := self._find_fault(lines)) is not None:
            batch |= {"status": "failed", "errors": {"object": "list", "data": [fault]}}
            return _reply(_show(batch) | {"status": "validating", "errors": None})
        for line in lines:
            name = line["custom_id"]
            if self._live[name] or self.bill.delivered[name]:
                self.bill.twice.add(name)
            self._live[name] += 1
            self.sent[name] += 1
            self.bill.accepted += 1
        return _reply(_show(batch))

    def _find_fault(self, lines: list[dict[str, Any]]) -> dict[str, Any] | None:
        names = {line["custom_id"] for line in lines}
        if self.bill.batches <= self.options.invalid_batches or len(names) < len(lines) or len(lines) > 50_000:
            return {"code": "invalid_request", "message": "The model does not support batches", "line": 1}
        limit = self.options.queue_tokens
        if limit and 100 * (self._live.total() + len(lines)) > limit:
            message = f"Enqueued token limit reached for stub. Limit: {limit:,} enqueued tokens."
            return {"code": "token_limit_exceeded", "message": message, "line": None}
        return None

    def _look(self, batch: dict[str, Any]) -> None:
        """Count a look at a batch, and end it if it is due."""
        batch["looked"] += 1
        if batch["status"] in ("validating", "in_progress"):
            batch["status"] = "in_progress"
            if batch["looked"] > self.options.looks:
                self._end(batch)

    def _end(self, batch: dict[str, Any]) -> None:
        options, draw = self.options, self._draw
        drawn = draw.random()
        early = ""
        if drawn < options.expire + options.cancel:
            early = "expired" if drawn < options.expire else "cancelled"
        halves = not early and drawn < options.expire + options.cancel + options.fail_half
        answers: list[bytes] = []
        errors: list[bytes] = []
        for place, line in enumerate(batch["lines"]):
            name, body = line["custom_id"], line["body"]
            self._live[name] -= 1
            spared = options.spare_later and self.sent[name] >= 3
            status, answer = self._ask(body)
            if early and place % 2 and not spared:
                fault = {"code": f"batch_{early}", "message": f"This request was not executed: the batch {early}."}
                errors.append(_line(name, None, fault))
            elif halves and place % 2 and not spared:
                errors.append(_line(name, {"status_code": 500, "body": {"error": {"message": "server error"}}}, None))
            elif status != 200:
                errors.append(_line(name, {"status_code": status, "body": answer}, None))
            else:
                written = _line(name, {"status_code": 200, "body": answer}, None)
                luck = 1.0 if spared else draw.random()
                if luck < options.lose:
                    continue
                if luck < options.lose + options.damage:
                    answers.append(written[: len(written) // 2])
                    continue
                self.bill.delivered[name] += 1
                answers += [written] * (2 if draw.random() < options.double else 1)
            if draw.random() < options.foreign:
                answers.append(_line(f"someone-else-{place}", {"status_code": 200, "body": answer}, None))
        if options.reorder:
            draw.shuffle(answers)
        batch["status"] = early or "completed"
        batch["request_counts"] |= {"completed": len(answers), "failed": len(errors)}
        if answers:
            batch["output_file_id"] = self._store("output.jsonl", b"\n".join(answers) + b"\n")["id"]
        if errors:
            batch["error_file_id"] = self._store("error.jsonl", b"\n".join(errors) + b"\n")["id"]

    def _complete(self, body: dict[str, Any]) -> web.Response:
        status, answer = self._ask(body)
        return _reply(answer, status)

    def _ask(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = orjson.dumps(body["messages"]).decode()
        try:
            check(body, self.options.gaps, None, 0)
            if any(word in text for word in self.options.refuse):
                raise Refused("this question is not allowed")
            if body.get("top_logprobs") and not self.options.alternatives:
                raise Refused("logprobs are not supported", "logprobs")
        except Refused as refusal:
            return 400, {"error": {"message": str(refusal), "param": refusal.param}}
        answer = completion(body, text, self.options.gaps | {Gap.LOGPROB_IDS}, "", self.options.thinks)
        for choice in answer["choices"] if body.get("top_logprobs") else ():
            written = choice["message"]["content"]
            other = {"token": "退", "bytes": list("退".encode()), "logprob": -3.0}
            tokens = [{"token": c, "bytes": list(c.encode()), "logprob": -0.1} for c in written]
            choice["logprobs"] = {"content": [{**token, "top_logprobs": [token, other]} for token in tokens]}
        return 200, answer


def _line(name: str, response: dict[str, Any] | None, error: dict[str, Any] | None) -> bytes:
    return orjson.dumps({"id": f"batch_req_{name[:8]}", "custom_id": name, "response": response, "error": error})


def _show(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name not in ("content", "lines", "looked")}


def _reply(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def _refuse(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    body = orjson.dumps({"error": {"message": message}})
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


@dataclass(frozen=True)
class RunningBatchStub:
    """A stub that is up."""

    url: str

    def stats(self) -> dict[str, int]:
        """Return the bill in figures."""
        return httpx.get(f"{self.url}/stats", trust_env=False, timeout=60).json()

    def kill_at(self, pid: int, call: int, *, after: bool) -> None:
        """Have the process killed at a call that it makes; `call` 0 takes that back."""
        query = {"pid": str(pid), "call": str(call), "after": str(int(after))}
        httpx.post(f"{self.url}/kill", params=query, trust_env=False, timeout=60)


@contextmanager
def running(options: BatchOptions | None = None) -> Generator[RunningBatchStub]:
    """Run the stub on a free port until the block ends."""
    port = free_port()
    text = json.dumps(asdict(options or BatchOptions()), default=list)
    command = [sys.executable, "-m", "tests.batch_stub", "--port", str(port), "--options", text]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)
    stub = RunningBatchStub(f"http://127.0.0.1:{port}/v1")
    try:
        for _ in range(600):
            try:
                stub.stats()
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield stub
    finally:
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()


async def _serve(port: int, options: BatchOptions) -> None:
    server = web.Server(BatchStub(options).handle)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--options", default="{}")
    given = parser.parse_args()
    values = json.loads(given.options)
    values["gaps"] = frozenset(Gap(name) for name in values.get("gaps", ()))
    values["thinks"] = Thinks(values.get("thinks", ""))
    values["refuse"] = tuple(values.get("refuse", ()))
    threading.Thread(target=_end_with_starter, daemon=True).start()
    asyncio.run(_serve(given.port, BatchOptions(**values)))
