import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient

from flows.service.processes import Program, ServerError
from flows.service.server import (
    Answer,
    ask_server,
    find_or_start_server,
    get_server_program,
    read_prefect_environment,
)
from tests.conftest import ROOT, PrefectServer, free_port


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project folder of its own with a free port, where no server runs yet."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    monkeypatch.setenv("LABELSTILL_PORT", str(free_port()))
    for name, value in read_prefect_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    yield tmp_path
    get_server_program(tmp_path).stop()


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a web server that is no Prefect server."""

    class Stranger(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Silent."""

    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_the_settings_work_in_any_folder_and_have_prefects_names(project: Path) -> None:
    environment = read_prefect_environment(project)
    assert environment["PREFECT_HOME"] == str(project / ".prefect")
    assert environment["PREFECT_API_URL"] == f"http://127.0.0.1:{os.environ['LABELSTILL_PORT']}/api"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    from prefect.settings.legacy import _get_settings_fields
    from prefect.settings.models.root import Settings

    known = {name.upper() for name in _get_settings_fields(Settings)}
    assert {name for name in environment if name.startswith("PREFECT_")} <= known


def test_an_invalid_port_is_refused(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELSTILL_PORT", "80000")
    with pytest.raises(ServerError, match="LABELSTILL_PORT is '80000'"):
        read_prefect_environment(project)


def test_the_server_at_an_address_is_recognised(prefect_server: PrefectServer, stranger: int, tmp_path: Path) -> None:
    assert ask_server(prefect_server.api_url, str(prefect_server.home)) is Answer.OURS
    assert ask_server(prefect_server.api_url, str(tmp_path)) is Answer.FOREIGN
    assert ask_server(f"http://127.0.0.1:{stranger}/api", str(tmp_path)) is Answer.FOREIGN
    assert ask_server(f"http://127.0.0.1:{free_port()}/api", str(tmp_path)) is Answer.NOTHING


@contextmanager
def serve_socket(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """Yield the API address of a program that reads a request, answers with `talk`, and closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def listen() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(4096)
                    talk(connection)

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=10)


def hang_up(connection: socket.socket) -> None:
    """Close without an answer, as a server that ends does."""


def reset_connection(connection: socket.socket) -> None:
    """Cut the connection, as the system does for a process that was killed."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def break_off(connection: socket.socket) -> None:
    """End amid an answer."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\ntr")


def answer_without_http(connection: socket.socket) -> None:
    """Answer as another protocol does."""
    connection.sendall(b"220 mail.example ESMTP\r\n500 what is GET?\r\n\r\n")


def ask_for_tls(connection: socket.socket) -> None:
    """Answer as a TLS server does to what is not encrypted."""
    connection.sendall(bytes.fromhex("15030100020246"))


@pytest.mark.parametrize(
    ("talk", "answer"),
    [
        (hang_up, Answer.NOTHING),
        (reset_connection, Answer.NOTHING),
        (break_off, Answer.NOTHING),
        (answer_without_http, Answer.FOREIGN),
        (ask_for_tls, Answer.FOREIGN),
    ],
)
def test_a_dropped_connection_counts_as_nothing_and_another_protocol_as_foreign(
    talk: Callable[[socket.socket], None], answer: Answer, tmp_path: Path
) -> None:
    with serve_socket(talk) as api_url:
        assert ask_server(api_url, str(tmp_path)) is answer


def test_a_port_whose_owner_hangs_up_is_named_when_starting(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_socket(hang_up) as api_url:
        port = api_url.removesuffix("/api").rpartition(":")[2]
        monkeypatch.setenv("LABELSTILL_PORT", port)
        monkeypatch.delenv("PREFECT_API_URL")
        with pytest.raises(ServerError, match=rf"(?s)stopped while starting.*{port} is already in\s+use"):
            find_or_start_server(timeout=150, root=project)


def test_a_port_in_use_is_an_error_that_says_the_fix(
    project: Path, stranger: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELSTILL_PORT", str(stranger))
    monkeypatch.delenv("PREFECT_API_URL")
    with pytest.raises(ServerError, match=rf"Port {stranger} is used by .*LABELSTILL_PORT="):
        find_or_start_server(root=project)


def test_a_server_named_in_the_environment_is_used(prefect_server: PrefectServer) -> None:
    assert find_or_start_server() == prefect_server.api_url


def test_a_server_in_the_environment_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    with pytest.raises(ServerError, match="unset PREFECT_API_URL"):
        find_or_start_server()


def test_a_server_that_stops_while_starting_shows_its_log(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense")
    with pytest.raises(ServerError, match=r"(?s)stopped while starting.*Could not parse SQLAlchemy URL"):
        find_or_start_server(timeout=150, root=project)


@pytest.mark.slow
def test_the_server_is_started_once_and_again_after_a_kill(project: Path) -> None:
    start = [
        sys.executable,
        "-c",
        f"from flows.service.server import *; find_or_start_server(root=Path({str(project)!r}))",
    ]
    both = [subprocess.Popen(start, cwd=ROOT) for _ in range(2)]
    assert [one.wait(timeout=180) for one in both] == [0, 0]
    (server,) = get_server_program(project).find()
    server.kill()
    server.wait(timeout=20)
    api_url = find_or_start_server(root=project)
    assert httpx.get(f"{api_url}/health", timeout=10).status_code == 200
    with SyncPrefectClient(api_url) as client:
        assert client.read_automations_by_name("labelstill: heartbeats")
    assert get_server_program(project).stop()
    assert ask_server(api_url, str(project / ".prefect")) is Answer.NOTHING
    assert not get_server_program(project).stop()


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_this_projects_process_is_found_and_stopped(tmp_path: Path) -> None:
    sleeper = ("-c", "import time; time.sleep(60)", "sleeper")
    program = Program(tmp_path, sleeper, tmp_path / "log")
    program.start({})
    wait_for(lambda: bool(program.find()))
    (process,) = program.find()
    for other in (Program(tmp_path / "another", sleeper, program.log), Program(tmp_path, sleeper[:2], program.log)):
        assert not other.find()
        assert not other.stop()
    assert process.is_running()
    assert program.stop()
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_children_are_stopped_too_and_killed_if_need_be(tmp_path: Path) -> None:
    deaf = "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    deaf += "if len(sys.argv) < 2: subprocess.Popen([sys.executable, __file__, 'child'])\ntime.sleep(60)"
    script = tmp_path / "deaf.py"
    script.write_text(deaf, encoding="utf-8")
    program = Program(tmp_path, (str(script),), tmp_path / "log")
    program.start({})
    wait_for(lambda: any(one.children() for one in program.find()))
    (process,) = program.find()
    family = [process, *process.children()]
    time.sleep(0.5)  # both must have come to ignore SIGTERM
    assert program.stop(patience=1)
    assert len(family) == 2
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in family)
