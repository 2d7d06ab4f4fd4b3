"""The page server serves finished pages and nothing else, and only to browsers on this machine."""

import http.client
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prefect import flow

from flows.service.pages import (
    PageServer,
    PageSettings,
    find_or_start_pages,
    get_pages_program,
    make_link,
    read_page_settings,
    show_links,
)
from flows.service.processes import ServerError
from tasks.models.engines.engine import Workplace
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import make_server_name, make_server_process
from tasks.models.engines.vllm.installation import Vllm
from tasks.models.image_cache import ImageCache
from tests.conftest import PrefectServer, free_port

PAGE = "<p>第一件</p>"
SERVED = (
    "run/card/index.html",
    "run/review/review.html",
    "run/review_pool/review/review.html",
    "run/correction/report.html",
    "run/logs/vllm-7b.log",
    "run/logs/node-1.local/vllm-7b@4711.2.log",
    "tuesday's run/card/index.html",
)
PRIVATE = (
    "ledger.sqlite",
    "run/review/verdicts.jsonl",
    "run/review/cases.jsonl",
    "run/review/.review.html.4711",
    "run/card/settings.json",
    "run/emit/llamafactory/train.json",
    "run/.hidden/card/index.html",
    "run/logs/.vllm-7b@4711.1.log",
    "run/logs/.node/vllm-7b@4711.1.log",
    "run/logs/node/deeper/vllm-7b@4711.1.log",
    "run/logs/node/vllm-7b@4711.1.json",
    "data/images/index.html",
)


@pytest.fixture
def settings(tmp_path: Path) -> PageSettings:
    folder = tmp_path / "artifacts"
    for name in (*SERVED, *PRIVATE):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(PAGE, encoding="utf-8")
    port = free_port()
    return PageSettings(folder.resolve(), "127.0.0.1", port, f"http://127.0.0.1:{port}")


@pytest.fixture
def site(settings: PageSettings) -> Iterator[PageSettings]:
    with PageServer(settings) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield settings
        server.shutdown()


def send_request(
    site: PageSettings, way: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    """A request whose path is sent as it is written; a client such as httpx would tidy it up."""
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=5)
    connection.putrequest(method, way, skip_host=True)
    connection.putheader("Host", host or f"127.0.0.1:{site.port}")
    connection.endheaders()
    answer = connection.getresponse()
    found = answer.status, answer.read(), dict(answer.getheaders())
    connection.close()
    return found


@pytest.mark.parametrize("name", SERVED)
def test_a_page_is_served_under_its_link(site: PageSettings, name: str) -> None:
    link = make_link(site.folder / name, site)
    assert link is not None
    answer = httpx.get(link, trust_env=False)
    assert (answer.status_code, answer.text) == (200, PAGE)
    kind = "text/plain" if name.endswith(".log") else "text/html"
    assert answer.headers["Content-Type"] == f"{kind}; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert ("script-src" in answer.headers["Content-Security-Policy"]) == ("/review/" in name)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Cache-Control"] == "no-store"
    assert httpx.head(link, trust_env=False).status_code == 200


@pytest.mark.parametrize("model", ["Qwen/Qwen2-VL-7B-Instruct", "/models/my 7B+fold=0 (合)"])
def test_the_log_of_a_vllm_here_or_on_a_node_is_served(
    site: PageSettings, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under the names that the engine gives it here and on a node."""
    monkeypatch.chdir(site.folder)
    spec = EngineSpec(engine="vllm", model=model)
    place = Workplace(ImageCache(site.folder / "images"), site.folder / "run" / "logs")
    on_node = replace(place, logs=place.logs / socket.gethostname())  # as tasks/models/engines/ray/placed.py does
    for one in (place, on_node):
        log = make_server_process(
            spec, one, Vllm(Path("/opt/vllm/bin/python"), "0.32.0", cpu=False), name=make_server_name(spec)
        ).log
        log.parent.mkdir(exist_ok=True)
        log.write_text(PAGE, encoding="utf-8")
        link = make_link(log, site)
        assert link is not None, log
        assert httpx.get(link, trust_env=False).text == PAGE


@pytest.mark.parametrize("name", PRIVATE)
def test_nothing_else_is_served_or_linked(site: PageSettings, name: str) -> None:
    assert send_request(site, f"/{name}")[0] == 404
    assert make_link(site.folder / name, site) is None


@pytest.mark.parametrize(
    "way",
    [
        "/../outside/card/index.html",
        "/run/../../outside/card/index.html",
        "/%2e%2e/outside/card/index.html",
        "/run/%2e%2e/%2e%2e/outside/card/index.html",
        "/..%2foutside/card/index.html",
        "/%252e%252e/outside/card/index.html",
        "/..\\outside\\card\\index.html",
        "//outside/card/index.html",
        "/run/card/index.html%00.log",
        "/run/logs/../../../outside/logs/node/vllm-7b@1.1.log",
        "/run/logs/%2e%2e/vllm-7b@1.1.log",
        "/run/logs/node%2f..%2f..%2f..%2f..%2foutside%2fvllm-7b@1.1.log",
        "/run/card/index.html/",
        "/run/card/",
        "/",
        "/" + "a/" * 20_000 + "card/index.html",
    ],
)
def test_no_path_leads_out_of_the_folder(site: PageSettings, way: str) -> None:
    outside = site.folder.parent / "outside" / "card"
    outside.mkdir(parents=True)
    (outside / "index.html").write_text("geheim", encoding="utf-8")
    for log in (outside.parent / "logs" / "node", outside.parent, site.folder / "run"):
        log.mkdir(parents=True, exist_ok=True)
        (log / "vllm-7b@1.1.log").write_text("geheim", encoding="utf-8")
    status, body, _ = send_request(site, way)
    assert status in (404, 414)
    assert b"geheim" not in body


def test_no_symlink_is_followed(site: PageSettings) -> None:
    secret = site.folder.parent / "secret"
    (secret / "card").mkdir(parents=True)
    (secret / "card" / "index.html").write_text("geheim", encoding="utf-8")
    (site.folder / "linked").symlink_to(secret)
    (site.folder / "run" / "logs" / "ledger.log").symlink_to(site.folder / "ledger.sqlite")
    assert send_request(site, "/linked/card/index.html")[0] == 404
    assert send_request(site, "/run/logs/ledger.log")[0] == 404


def test_requests_for_another_host_name_are_refused(site: PageSettings) -> None:
    for host in ("evil.example", f"evil.example:{site.port}", "127.0.0.1:1", ""):
        status, body, headers = send_request(site, "/run/review/review.html", host=host or " ")
        assert status == 421
        assert PAGE.encode() not in body
        assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert send_request(site, "/run/review/review.html", host=f"LOCALHOST:{site.port}")[0] == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_it_is_read_only(site: PageSettings, method: str) -> None:
    assert send_request(site, "/run/card/index.html", method)[0] == 501


def test_settings_come_from_the_environment(tmp_path: Path) -> None:
    plain = read_page_settings(environment={"PREFECT_SERVER_API_PORT": "5000"})
    assert (plain.host, plain.port, plain.url) == ("127.0.0.1", 5010, "http://127.0.0.1:5010")
    assert plain.folder.name == "artifacts"
    configured = read_page_settings(
        environment={
            "PREFECT_SERVER_API_PORT": "5000", "LABELSTILL_PAGES_FOLDER": str(tmp_path),
            "LABELSTILL_PAGES_HOST": "0.0.0.0", "LABELSTILL_PAGES_PORT": "81",
            "LABELSTILL_PAGES_URL": "https://box.example/",
        }
    )  # fmt: skip
    assert configured == PageSettings(tmp_path.resolve(), "0.0.0.0", 81, "https://box.example")
    assert "box.example" in configured.names and "evil.example" not in configured.names
    with pytest.raises(ServerError, match="LABELSTILL_PAGES_PORT is 'x'"):
        read_page_settings(environment={"PREFECT_SERVER_API_PORT": "5000", "LABELSTILL_PAGES_PORT": "x"})


def test_a_run_links_to_its_existing_pages(
    prefect_server: PrefectServer, settings: PageSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABELSTILL_PAGES_FOLDER", str(settings.folder))
    monkeypatch.setenv("LABELSTILL_PAGES_URL", settings.url)

    @flow
    def work() -> None:
        show_links(settings.folder / "run", logs=True)

    state = work(return_state=True)
    body = {"artifacts": {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}}}
    found = httpx.post(f"{prefect_server.api_url}/artifacts/filter", json=body).raise_for_status().json()
    links = {one["key"]: one["data"] for one in found}
    of_logs = {"log-vllm-7b", "log-node-1-local-vllm-7b-4711-2"}
    assert links.keys() == {"card", "review", "review-pool", "corrections"} | of_logs
    assert f"({settings.url}/run/review_pool/review/review.html)" in links["review-pool"]


def test_the_page_server_is_found_again_and_stopped(
    settings: PageSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.service.server import get_project_root

    monkeypatch.setenv("LABELSTILL_PAGES_FOLDER", str(settings.folder))
    monkeypatch.setenv("LABELSTILL_PAGES_PORT", str(settings.port))
    monkeypatch.setenv("PYTHONPATH", str(get_project_root()))
    (tmp_path / "pyproject.toml").write_bytes((get_project_root() / "pyproject.toml").read_bytes())
    try:
        url = find_or_start_pages(tmp_path)
        assert find_or_start_pages(tmp_path) == url == settings.url
        assert httpx.get(f"{url}/run/card/index.html", trust_env=False).text == PAGE
    finally:
        assert get_pages_program(tmp_path).stop()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/run/card/index.html", trust_env=False)
