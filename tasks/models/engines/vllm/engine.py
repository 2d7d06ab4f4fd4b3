"""vLLM, managed: a server as a child of ours, reached over HTTP like any other."""

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import count
from os import getpid
from pathlib import Path
from typing import Protocol

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import model_identity
from tasks.models.engines.server.engine import ServerEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.log import explain, last_line
from tasks.models.engines.vllm.options import Build, installed_build, serve_command, serve_environment, spans_nodes
from tasks.models.engines.vllm.process import ServerProcess
from tasks.records import Generation, Request

_numbers = count(1)


def check_vllm(spec: EngineSpec) -> None:
    """Raise EngineError, with the mend, if no vLLM is installed here or it lacks the devices that `spec` asks for."""
    build = _find_build(spec)
    if build.cpu or spans_nodes(spec):
        return
    import torch

    devices, wanted = torch.cuda.device_count(), spec.tensor_parallel_size * spec.data_parallel_size
    if not devices:
        raise EngineError("vLLM's GPU build finds no CUDA device: set `engine: local`, or `make clean env-test`")
    if wanted > devices:
        raise EngineError(
            f"`tensor_parallel_size` × `data_parallel_size` is {wanted}, this machine has {devices} CUDA device(s)"
        )


class Servers(Protocol):
    """One or several running copies of a model's server: a child process here, or actors on a Ray cluster."""

    model: str
    """The name under which they serve."""
    key: str
    """What they want as a bearer token; empty: nothing."""
    gpus: int
    """Devices they hold together."""

    @property
    def base_urls(self) -> tuple[str, ...]: ...

    def start(self) -> None: ...

    def context_length(self) -> int | None: ...

    def answered(self) -> None: ...

    def revive(self, base_url: str) -> str: ...

    def close(self) -> None: ...


class VllmEngine:
    """Starts vLLM for `spec.model` and answers requests through it; `close` ends it with all its processes."""

    def __init__(self, spec: EngineSpec, place: Workplace, servers: Servers | None = None) -> None:
        """Start the server and wait until it is ready; raises EngineError with what vLLM said and the fix.

        `servers` run elsewhere than in a child of this process.
        """
        if servers is None:
            check_vllm(spec)
        build = installed_vllm(spec)
        self.process: Servers = servers or server_process(spec, place, build, name=server_name(spec))
        # also where nobody closes it: at the interpreter's end, or when it is forgotten
        self._finalizer = weakref.finalize(self, self.process.close)
        try:
            self.process.start()
            self._before = Usage()
            self._spec, self._place, self._version = spec, place, build.version
            self._context_length = self.process.context_length()
            self._server = self._ask_as(spec.adapter)
        except BaseException:
            self._finalizer()
            raise
        self.capabilities = self._server.capabilities
        self.fingerprint = f"vllm-{build.version}/{model_identity(spec)}"
        self.notes = (*self._server.notes, *_notes(spec, build))

    def turn_to(self, adapter: str | None) -> None:
        """Answer with another of the spec's adapters (None: with the model itself) from now on; no restart."""
        self._server.close()
        self._before = _together(self._before, self._server.usage())
        self._server = self._ask_as(adapter)
        identity = model_identity(self._spec.model_copy(update={"adapter": adapter}))
        self.fingerprint = f"vllm-{self._version}/{identity}"

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, unordered; raises EngineError when the server dies again and again."""
        for generation in self._server.generate(requests):
            self.process.answered()
            yield generation.model_copy(update={"engine": self.fingerprint})

    def usage(self) -> Usage:
        """How busy the server was kept, and the GPUs it holds."""
        return replace(_together(self._before, self._server.usage()), gpus=self.process.gpus)

    def _ask_as(self, adapter: str | None) -> ServerEngine:
        known = {
            "base_urls": self.process.base_urls,
            "concurrency": self._spec.concurrency * len(self.process.base_urls),
            "context_length": self._context_length,
            "adapter": adapter,
            "adapters": (),
        }
        name = _names(self._spec, self.process.model)[adapter]
        spec = self._spec.model_copy(update=known)
        return ServerEngine(spec, self._place, served_name=name, keeper=self.process, key=self.process.key)

    def close(self) -> None:
        """End the server; when this returns its processes are gone and its memory is free. Safe to call twice."""
        self._server.close()
        self._finalizer()


def installed_vllm(spec: EngineSpec) -> Build:
    """Return the installed build; raises EngineError where there is none, or `spec`'s folders are not there."""
    build = _find_build(spec)
    _check_folders(spec)
    return build


def _find_build(spec: EngineSpec) -> Build:
    build = installed_build()
    if build is None or find_spec("vllm") is None:
        raise EngineError(
            f"vLLM is not installed, which `engine: vllm` for {spec.model} needs: run `make env-gpu` (with a CUDA "
            "device) or `make env-test` (without), or set `engine: local`"
        )
    return build


def server_name(spec: EngineSpec) -> str:
    """Return a name that no other server of this machine has, so that an answer under it is ours."""
    return f"{Path(spec.model).name}@{getpid()}.{next(_numbers)}"


def server_process(
    spec: EngineSpec, place: Workplace, build: Build, *, name: str, host: str = "127.0.0.1", key: str = ""
) -> ServerProcess:
    """Return the server for `spec`, not started yet, which serves as `name` on `host` and wants `key`."""
    names = tuple(_names(spec, name).values())

    def command(port: int) -> list[str]:
        return serve_command(spec, place, build, names=names, port=port, host=host)

    environment = serve_environment(spec, build)
    if key:
        environment["VLLM_API_KEY"] = key
    if place.ray_address:
        environment["RAY_ADDRESS"] = place.ray_address
    return ServerProcess(
        command,
        name,
        host=host,
        key=key,
        gpus=0 if build.cpu else spec.tensor_parallel_size * spec.data_parallel_size,
        environment=environment,
        log=place.logs.resolve() / f"vllm-{name}.log",
        start_seconds=spec.start_seconds,
        explain=partial(explain, spec=spec),
        last_line=last_line,
    )


def _together(before: Usage, now: Usage) -> Usage:
    return replace(
        now,
        busy=before.busy + now.busy,
        seconds=before.seconds + now.seconds,
        starved=before.starved + now.starved,
    )


def _names(spec: EngineSpec, name: str) -> dict[str | None, str]:
    """What the server calls the model (under None) and each of its adapters."""
    served = {a: f"{name}+{i}-{Path(a).name}" for i, a in enumerate(spec.all_adapters())}
    return {None: name, **served}


def _check_folders(spec: EngineSpec) -> None:
    """Say at once what vLLM would find out after half a minute."""
    looks_local = spec.model.startswith((".", "/", "~")) or spec.model.count("/") > 1
    if looks_local and not Path(spec.model).expanduser().is_dir():
        raise EngineError(f"model folder {spec.model} does not exist; set `model` to a checkpoint folder or a hub name")
    for adapter in spec.all_adapters():
        if not (Path(adapter) / "adapter_config.json").is_file():
            raise EngineError(f"adapter {adapter} has no adapter_config.json; set `adapter` to what peft wrote")


def _notes(spec: EngineSpec, build: Build) -> tuple[str, ...]:
    if build.cpu and spec.api_server_count > 1:
        return ("vLLM's CPU build prepares images in one process: `api_server_count` has no effect",)
    return ()
