"""Call `/files` and `/batches` of an OpenAI-compatible server such as OpenAI's or DashScope's.

A lost reply to an upload or to the creation of a batch leaves open whether the server has accepted it. Then the file or
batch is looked for by its name in the server's lists before it is sent again: a batch sent twice would be paid twice.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import httpx
import orjson

from tasks.errors import AccountError, EngineError
from tasks.models.engines.server.chat import get_path
from tasks.models.engines.server.retries import (
    RETRIED_4XX,
    is_account_fault,
    parse_retry_after,
    read_error_message,
)
from tasks.models.engines.spec import EngineSpec

MOST_QUESTIONS = 50_000
"""Questions per file, at OpenAI and DashScope."""
MOST_BYTES = 190_000_000
"""OpenAI takes 200 MB per file, DashScope 500."""
_MOST_LINE_BYTES = {"aliyuncs.com": 6_000_000, "qwencloud.com": 6_000_000}
"""DashScope refuses a whole file for one longer line. OpenAI names no limit."""
WINDOW = "24h"
"""Within this time batches are answered. OpenAI allows nothing else; DashScope 24 to 336 hours."""
ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
ENDPOINT = "/v1/chat/completions"
_WAITS = (0.5, 2.0, 8.0, 20.0, None)
"""Seconds to wait after each failed attempt; None means to give up."""
_PAGE = 100


class Rejected(EngineError):
    """The server refuses a file or a batch, and would refuse it again."""


class _Failed(Exception):
    """A call failed for now; the server may have done what was asked unless it was `busy`."""

    def __init__(self, why: str, *, busy: bool = False, wait: float = 0.0) -> None:
        super().__init__(why)
        self.busy = busy
        self.wait = wait


class Provider:
    """The batch API at the spec's address. Raises AccountError when the account is refused, and EngineError when the
    server does not answer or refuses a call."""

    def __init__(self, spec: EngineSpec, key: str) -> None:
        self.url = spec.base_urls[0].rstrip("/")
        self._key = key
        self._session = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(300.0, connect=30.0),
            trust_env=False,
        )

    @property
    def host(self) -> str:
        """Return the server's name, for people."""
        return urlsplit(self.url).netloc

    @property
    def most_line_bytes(self) -> int:
        """Return the longest line that the server takes."""
        known = (most for name, most in _MOST_LINE_BYTES.items() if self.host.split(":")[0].endswith(name))
        return next(known, MOST_BYTES)

    def close(self) -> None:
        """Close all connections."""
        self._session.close()

    def upload(self, name: str, file: Path) -> str:
        """Upload a file of questions as `name`, unless it is there; return its id. Raises Rejected if it is refused."""

        def send() -> dict[str, Any]:
            with file.open("rb") as content:
                files = {"file": (name, content, "application/jsonl")}
                return self._send("POST", "/files", data={"purpose": "batch"}, files=files)

        return str(self._insist(send, lambda: self.find_file(name))["id"])

    def create(self, name: str, file_id: str) -> dict[str, Any]:
        """Create the batch of an uploaded file, unless it is there; return it. Raises Rejected if it is refused.

        `ds_name` is where DashScope expects a name; OpenAI takes any field.
        """
        body = {
            "input_file_id": file_id,
            "endpoint": ENDPOINT,
            "completion_window": WINDOW,
            "metadata": {"ds_name": name, "ds_description": "labelstill"},
        }
        return self._insist(lambda: self._send("POST", "/batches", json=body), lambda: self.find_batch(name))

    def reports_alternatives(self, model: str, extra_body: dict[str, Any], number: int) -> bool:
        """Return whether the server reports `number` alternatives for each token of an answer; asks for one token."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1, **extra_body}
        asked = {**body, "logprobs": True, "top_logprobs": number}
        try:
            answer = self._insist(lambda: self._send("POST", "/chat/completions", json=asked))
        except Rejected:
            return False
        return bool(get_path(answer, "choices", 0, "logprobs", "content", 0, "top_logprobs"))

    def find_file(self, name: str) -> dict[str, Any] | None:
        """Return the uploaded file of this name, or None."""
        files = self._list("/files", {"purpose": "batch"})
        return next((file for file in files if get_path(file, "filename") == name), None)

    def find_batch(self, name: str) -> dict[str, Any] | None:
        """Return the batch that was created under this name, or None."""
        return next((b for b in self._list("/batches", {}) if get_path(b, "metadata", "ds_name") == name), None)

    def read_batch(self, batch_id: str) -> dict[str, Any]:
        """Return the present state of a batch."""
        return self._insist(lambda: self._send("GET", f"/batches/{batch_id}"))

    def download(self, file_id: str, to: Path) -> None:
        """Write the content of a file on the server to the file `to`."""

        def receive() -> dict[str, Any]:
            with self._session.stream("GET", f"{self.url}/files/{file_id}/content") as response:
                if response.status_code != 200:
                    response.read()
                    self._check(response)
                with to.open("wb") as file:
                    for piece in response.iter_bytes(1 << 20):
                        file.write(piece)
            return {}

        self._insist(receive)

    def delete_file(self, file_id: str) -> None:
        """Delete a file of questions that is no longer needed, which holds the images too. Failing does no harm."""
        try:
            self._session.delete(f"{self.url}/files/{file_id}")
        except httpx.HTTPError:
            return

    def hide_key(self, text: str) -> str:
        """Return `text` without the key, which some servers quote."""
        return text.replace(self._key, "(key)") if self._key else text

    def _list(self, path: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Yield all entries of a list, page by page."""
        after = ""
        while True:
            page = {**query, "limit": str(_PAGE), **({"after": after} if after else {})}
            answer = self._insist(lambda page=page: self._send("GET", path, params=page))
            entries = cast("list[dict[str, Any]]", answer.get("data") or [])
            yield from entries
            last = str(get_path(entries[-1], "id")) if entries else ""
            if not answer.get("has_more") or last in ("", after):
                return
            after = last

    def _insist(
        self, send: Callable[[], dict[str, Any]], find: Callable[[], dict[str, Any] | None] = lambda: None
    ) -> dict[str, Any]:
        """Call `send` until the server has answered; where it may have done its work unseen, call `find` first."""
        failed = _Failed("no attempt was made")
        for wait in _WAITS:
            try:
                return send()
            except (httpx.TransportError, _Failed) as error:
                failed = (
                    error if isinstance(error, _Failed) else _Failed(self.hide_key(f"{type(error).__name__}: {error}"))
                )
            if wait is None:
                break
            time.sleep(failed.wait or wait)
            if not failed.busy and (found := find()) is not None:
                return found
        raise EngineError(f"{self.url}: {failed}; run again later (what was accepted is not sent again)")

    def _send(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        response = self._session.request(method, self.url + path, **content)
        self._check(response)
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise _Failed("an answer that is no JSON") from error
        if not isinstance(answer, dict):
            raise _Failed("an answer that is no JSON object")
        return cast("dict[str, Any]", answer)

    def _check(self, response: httpx.Response) -> None:
        """Raise an error unless the call was successful."""
        status = response.status_code
        if status < 400:
            return
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = None
        text, _ = read_error_message(answer, response.content)
        message = self.hide_key(f"HTTP {status}: {text}")
        if status in (401, 403) or is_account_fault(status, answer, text):
            raise AccountError(f"{self.url} refuses the account: {message}; check `api_key_env` and the account")
        if status >= 500 or status in RETRIED_4XX:
            wait = parse_retry_after(response.headers.get("Retry-After"))
            raise _Failed(message, busy=status in (425, 429), wait=wait or 0.0)
        raise Rejected(f"{self.url}{response.request.url.path.rpartition('/v1')[2]}: {message}")
