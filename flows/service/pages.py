"""Serve the finished pages of runs over HTTP, because browsers do not follow `file://` links from the web UI.

Only cards, review pages, correction reports and logs in one folder are served, but no ledger, data or file listings.
Review pages show users' data, so the server listens on the loopback address by default, answers only requests for its
own host names (against DNS rebinding), follows no symlinks, and forbids the browser to load anything from elsewhere.
`python -m flows.service.pages` serves until it is stopped.
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, cast
from urllib.parse import quote, unquote, urlsplit

import httpx

from flows.service.processes import Program
from flows.service.server import check_port, get_project_root, read_prefect_environment

PAGES = {
    "card": Path("card/index.html"),
    "review": Path("review/review.html"),
    "review-pool": Path("review_pool/review/review.html"),
    "review-conflicts": Path("review_conflicts/review/review.html"),
    "review-reasons": Path("review_reasons/review/review.html"),
    "corrections": Path("correction/report.html"),
}
"""Maps the key of a link to the page's path in the run's output folder."""

_NAME = "labelstill-pages"
_PART = r"[^/.\\][^/\\]*"
"""A path part that does not begin with a dot. This excludes `..` and files that are still being written."""
_SERVED = re.compile(
    rf"/(?:{_PART}/)*(?:card/index\.html|review/\w[\w-]*\.html|review/images/\w[\w.]*\.(?:webp|mp4|m4v|webm)|correction/report\.html"
    rf"|logs/(?:{_PART}/)?{_PART}\.log)"
)
"""The paths that are served. Logs are named after models; on a cluster each node has its own folder of logs."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_BESIDE = "img-src data: 'self'; media-src data: 'self'"
_REVIEW_POLICY = _POLICY.replace("img-src data:", _BESIDE) + "; script-src 'unsafe-inline'"
"""For review pages only, which may show pictures and recordings beside them. The page's own policy allows only its one
script."""
_TYPES = {
    ".html": "text/html; charset=utf-8", ".log": "text/plain; charset=utf-8", ".webp": "image/webp",
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm",
}  # fmt: skip
_PORT_OFFSET = 10
"""The default port is the Prefect server's port plus this number."""
_START_SECONDS = 30
_MAX_LOGS = 20


@dataclass(frozen=True)
class PageSettings:
    """The folder whose pages are served, and the address of the page server."""

    folder: Path
    host: str
    port: int
    url: str
    """The beginning of all links."""

    @property
    def names(self) -> frozenset[str]:
        """The `Host` headers that the server accepts: loopback, the listening host, and the host in links."""
        listens = {f"{host}:{self.port}" for host in ("127.0.0.1", "localhost", self.host)}
        return frozenset({*listens, urlsplit(self.url).netloc.lower()})


def read_page_settings(root: Path | None = None, environment: Mapping[str, str] = os.environ) -> PageSettings:
    """Read `LABELSTILL_PAGES_FOLDER` (default: artifacts/), `_HOST` (127.0.0.1), `_PORT` (the server's plus 10) and
    `_URL` (that host and port; set it for links through a proxy).

    Raises ServerError for an invalid port.
    """
    root = root or get_project_root()
    own = environment.get("PREFECT_SERVER_API_PORT") or read_prefect_environment(root)["PREFECT_SERVER_API_PORT"]
    port = environment.get("LABELSTILL_PAGES_PORT") or str(int(own) + _PORT_OFFSET)
    check_port("LABELSTILL_PAGES_PORT", port)
    host = environment.get("LABELSTILL_PAGES_HOST") or "127.0.0.1"
    folder = Path(environment.get("LABELSTILL_PAGES_FOLDER") or root / "artifacts")
    url = environment.get("LABELSTILL_PAGES_URL") or f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"
    return PageSettings(folder.resolve(), host, int(port), url.rstrip("/"))


def make_link(page: Path, settings: PageSettings | None = None) -> str | None:
    """Return the URL of `page`, or None if the page is not served."""
    settings = settings or read_page_settings()
    page = page.resolve()
    if not page.is_relative_to(settings.folder):
        return None
    way = "/" + page.relative_to(settings.folder).as_posix()
    return settings.url + quote(way) if _SERVED.fullmatch(way) else None


def show_links(output: Path, names: Iterable[str] = tuple(PAGES), *, logs: bool = False) -> None:
    """Show links to the run's existing pages in the web UI; with `logs`, also links to its newest logs.

    Pages outside the served folder have no URL: with `logs`, one line of the log says how to open them.
    """
    from prefect import get_run_logger
    from prefect.artifacts import create_link_artifact

    from flows.ui import show_in_ui

    pages = {name: output / PAGES[name] for name in names}
    if logs:
        folder = output / "logs"
        found = [*folder.glob("*.log"), *folder.glob("*/*.log")]
        newest = sorted(found, key=lambda log: log.stat().st_mtime)[-_MAX_LOGS:]
        pages |= {_make_log_key(log.relative_to(folder)): log for log in newest}
    settings = read_page_settings()
    if not output.resolve().is_relative_to(settings.folder):
        there = [page.resolve().as_uri() for page in pages.values() if page.exists() and page.suffix == ".html"]
        if logs and there:
            get_run_logger().info("pages to open in a browser: %s", "  ".join(there))
        return
    for name, page in pages.items():
        if not page.exists():
            continue
        link = make_link(page, settings)
        if link is not None:
            words = str(page.relative_to(output))
            show_in_ui(name, lambda link=link, words=words, name=name: create_link_artifact(link, words, key=name))


def _make_log_key(log: Path) -> str:
    return f"log-{re.sub('[^a-z0-9]+', '-', log.with_suffix('').as_posix().lower())}"


class PageServer(ThreadingHTTPServer):
    """The HTTP server for the pages of `settings`."""

    daemon_threads = True

    def __init__(self, settings: PageSettings) -> None:
        self.settings = settings
        super().__init__((settings.host, settings.port), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer  # pyright: ignore[reportIncompatibleVariableOverride]
    server_version = _NAME
    sys_version = ""
    timeout = 30

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing, because requested paths may name users' data."""

    def _answer(self, *, with_body: bool) -> None:
        if self.headers.get("Host", "").lower() not in self.server.settings.names:
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return
        page = self._find_page()
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with page.open("rb") as file:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", _TYPES[page.suffix])
            self.end_headers()
            if with_body:  # without a Content-Length, because a log may grow meanwhile
                shutil.copyfileobj(file, cast(BinaryIO, self.wfile))

    def end_headers(self) -> None:
        """Add the security headers to every answer, including errors."""
        self.send_header("Content-Security-Policy", _REVIEW_POLICY if "/review/" in self.path else _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def _find_page(self) -> Path | None:
        """Return the requested file, or None if it is not a page or its path contains a symlink."""
        way = unquote(urlsplit(self.path).path)
        if not _SERVED.fullmatch(way) or "\0" in way:
            return None
        page = self.server.settings.folder / way[1:]
        try:
            return page if page.resolve(strict=True) == page and page.is_file() else None
        except OSError:
            return None


def get_pages_program(root: Path) -> Program:
    """Return the program that serves the pages of the project in `root`."""
    return Program(root, ("-m", "flows.service.pages"), root / ".prefect" / "pages.log", "the page server")


def find_or_start_pages(root: Path | None = None) -> str:
    """Return the page server's URL. Start the server if it is not running; raises ServerError if that fails."""
    root = root or get_project_root()
    settings = read_page_settings(root)
    if not _is_answering(settings):
        hint = f"If port {settings.port} is in use, set LABELSTILL_PAGES_PORT to another. "
        get_pages_program(root).start_until(lambda: _is_answering(settings), _START_SECONDS, {}, hint=hint)
    return settings.url


def _is_answering(settings: PageSettings) -> bool:
    host = "127.0.0.1" if settings.host == "0.0.0.0" else settings.host
    try:
        found = httpx.get(f"http://{host}:{settings.port}/", timeout=5, trust_env=False)
    except httpx.HTTPError:
        return False
    return found.headers.get("Server", "").startswith(_NAME)


if __name__ == "__main__":
    PageServer(read_page_settings()).serve_forever()
