"""Find or start the project's own Prefect server, with its settings.

This module does not import Prefect, which reads its settings at import: call `apply_environment` first.
"""

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
from filelock import FileLock, Timeout

from flows.service.processes import Program, ServerError

_NO_HTTP = "illegal"
"""Part of httpx's error message if an answer is not HTTP. httpx has no exception type for this case."""


class Answer(StrEnum):
    """What kind of program answers at the server's address."""

    OURS = "ours"
    FOREIGN = "foreign"
    NOTHING = "nothing"


def get_project_root() -> Path:
    """Return the folder that holds pyproject.toml, prefect.yaml and flows/."""
    return Path(__file__).resolve().parents[2]


def _flatten(table: Mapping[str, Any], prefix: str) -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in table.items():
        name = f"{prefix}_{key.upper()}"
        if isinstance(value, dict):
            flat |= _flatten(value, name)
        elif isinstance(value, list):
            flat[name] = ",".join(map(str, value))
        else:
            flat[name] = str(value).lower() if isinstance(value, bool) else str(value)
    return flat


def check_port(name: str, port: str) -> str:
    """Return `port`, the value of the environment variable `name`. Raises ServerError if it is not a port number."""
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise ServerError(f"{name} is {port!r}, which is not a port. Set it to a number from 1 to 65535, e.g. 4277.")
    return port


def read_prefect_environment(root: Path) -> dict[str, str]:
    """Return Prefect's settings for the project in `root` as environment variables, valid in any working directory.

    They come from `[tool.prefect]` in `root`/pyproject.toml. `LABELSTILL_PORT` changes the server's port. Raises
    ServerError if `LABELSTILL_PORT` is not a port.
    """
    tables = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    settings = _flatten(tables["tool"]["prefect"], "PREFECT")
    port = check_port("LABELSTILL_PORT", os.environ.get("LABELSTILL_PORT", settings["PREFECT_SERVER_API_PORT"]))
    return settings | {
        "PREFECT_HOME": str(root / settings["PREFECT_HOME"]),
        "PREFECT_SERVER_API_PORT": port,
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_CLI_PROMPT": "false",
        "DO_NOT_TRACK": "1",
        # Beside a busy server a training step took 4-8 s with two spinning OpenMP threads, 0.4-1.3 s if they sleep.
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def read_user_profile() -> dict[str, str]:
    """Return the settings of the user's active Prefect profile if it names a server, else an empty dict.

    Prefect itself would not see it, because the project has a PREFECT_HOME of its own.
    """
    folder = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    file = Path(os.environ.get("PREFECT_PROFILES_PATH") or folder / "profiles.toml")
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
        profile = found["profiles"][os.environ.get("PREFECT_PROFILE") or found["active"]]
    except (OSError, ValueError, KeyError):
        return {}
    return {name: str(value) for name, value in profile.items()} if "PREFECT_API_URL" in profile else {}


def choose_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the Prefect settings to add to `environment`: those of the user's profile, then those of the project.

    The password of a server that is started here is also the client's.
    """
    profile = {} if "PREFECT_API_URL" in environment else read_user_profile()
    chosen = {**read_prefect_environment(get_project_root()), **profile}
    password = environment.get("PREFECT_SERVER_API_AUTH_STRING")
    if password and "PREFECT_API_URL" not in {**environment, **profile}:
        chosen["PREFECT_API_AUTH_STRING"] = password
    return {name: value for name, value in chosen.items() if name not in environment}


def apply_environment() -> None:
    """Add the Prefect settings that `choose_environment` returns to this process's environment.

    Call it before Prefect is first imported.
    """
    os.environ.update(choose_environment())


def get_server_program(root: Path) -> Program:
    """Return the program that serves Prefect's API and web UI for the project in `root`."""
    return Program(root, ("-m", "prefect", "server", "start"), root / ".prefect" / "server.log", "the Prefect server")


def ask_server(api_url: str, home: str) -> Answer:
    """Return what answers at `api_url`: a Prefect server with the state folder `home`, something else, or nothing."""
    try:
        health = httpx.get(f"{api_url}/health", timeout=10)
        if health.status_code != 200:
            return Answer.FOREIGN
        name, _, password = os.environ.get("PREFECT_API_AUTH_STRING", "").partition(":")
        answer = httpx.get(f"{api_url}/admin/settings", timeout=10, auth=(name, password) if name else None)
        theirs = answer.json()["home"]
        return Answer.OURS if os.path.realpath(theirs) == os.path.realpath(home) else Answer.FOREIGN
    except httpx.TransportError as error:
        # A server that is starting, briefly too busy or closing the connection as it ends counts as nothing.
        return Answer.FOREIGN if _NO_HTTP in str(error) else Answer.NOTHING
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return Answer.FOREIGN


def find_or_start_server(timeout: float = 180, root: Path | None = None) -> str:
    """Return the API URL of the project's server. Start the server if it is not running.

    If `PREFECT_API_URL` names another server, that server is used. Raises ServerError if something else uses the port,
    if the server stops while it starts, or if it is not ready after `timeout` seconds.
    """
    root = root or get_project_root()
    own = read_prefect_environment(root)
    chosen = os.environ.get("PREFECT_API_URL", own["PREFECT_API_URL"]).rstrip("/")
    if chosen != own["PREFECT_API_URL"]:
        return _foreign_server(chosen)
    if _is_ours(own):
        return chosen
    (root / ".prefect").mkdir(exist_ok=True)
    try:
        with FileLock(root / ".prefect" / "labelstill-server.lock", timeout=timeout):
            if not _is_ours(own):
                _start(root, own, timeout)
    except Timeout:
        raise ServerError(
            f"Another process has been starting the Prefect server for {timeout:.0f} s. "
            f"See {root / '.prefect' / 'server.log'}, stop that process and try again."
        ) from None
    return chosen


def _foreign_server(api_url: str) -> str:
    from prefect.exceptions import PrefectHTTPStatusError

    from flows.api import open_client

    try:
        with open_client(api_url) as client:
            client.read_flows(limit=1)
    except PrefectHTTPStatusError as error:
        if error.response.status_code not in (401, 403):
            raise ServerError(f"The server {api_url} in PREFECT_API_URL answers with an error: {error}") from error
        raise ServerError(
            f"The server {api_url} in PREFECT_API_URL refuses this client. Set PREFECT_API_AUTH_STRING to its "
            "USER:PASSWORD or, for Prefect Cloud, PREFECT_API_KEY to a valid key."
        ) from error
    except httpx.HTTPError as error:
        raise ServerError(
            f"The server {api_url} in PREFECT_API_URL does not answer ({error}). Start that server, or use the "
            "project's own: unset PREFECT_API_URL, or choose a Prefect profile without it."
        ) from error
    print(f"Using the Prefect server in PREFECT_API_URL: {api_url}", flush=True)
    return api_url


def _is_ours(own: Mapping[str, str]) -> bool:
    answer = ask_server(own["PREFECT_API_URL"], own["PREFECT_HOME"])
    if answer is Answer.FOREIGN:
        raise ServerError(
            f"Port {own['PREFECT_SERVER_API_PORT']} is used by something that is not this project's Prefect server. "
            "Stop it, or use another port in this and all later commands: export LABELSTILL_PORT=4278. If it is a "
            "Prefect server with a password, set PREFECT_API_URL to its address, with a host name, not 127.0.0.1."
        )
    return answer is Answer.OURS


def _start(root: Path, own: Mapping[str, str], timeout: float) -> None:
    get_server_program(root).start_until(lambda: _is_ours(own), timeout, own)
    from flows.api import open_client
    from flows.service.alerts import apply_automations

    with open_client(own["PREFECT_API_URL"]) as client:
        apply_automations(client)
