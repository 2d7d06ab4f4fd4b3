"""vLLM, managed: a server as a child of ours, reached over HTTP like any other."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from itertools import count
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import check_folders
from tasks.models.engines.server.engine import ServerEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.log import explain
from tasks.models.engines.vllm.options import Build, installed_build, serve_command, serve_environment, spans_nodes
from tasks.models.engines.vllm.process import ServerProcess
from tasks.records import Generation, Request

if TYPE_CHECKING:
    from tasks.models.engines.ray.placed import PlacedServers

_numbers = count(1)


def check_vllm(spec: EngineSpec) -> None:
    """Raise EngineError, with the mend, if no vLLM is installed here or it lacks the devices that `spec` asks for."""
    build = find_build(spec)
    if build.cpu or spans_nodes(spec):
        return
    import torch

    devices, wanted = torch.cuda.device_count(), spec.tensor_parallel_size * spec.data_parallel_size
    if not devices:
        raise EngineError("vLLM's GPU build finds no CUDA device: set `engine: local`, or `make clean env-test`")
    if wanted > devices:
        raise EngineError(
            f"`tensor_parallel_size` × `data_parallel_size` is {wanted}, this machine has {devices} CUDA "
            "device(s): lower them"
        )


class VllmEngine(ServerEngine):
    """Starts vLLM for `spec.model` and answers requests through it; `close` ends it with all its processes."""

    def __init__(self, spec: EngineSpec, place: Workplace, servers: "PlacedServers | None" = None) -> None:
        """Start the server and wait until it is ready; raises EngineError with what vLLM said and the fix.

        `servers` run elsewhere than in a child of this process.
        """
        if servers is None:
            check_vllm(spec)
        build = find_build(spec)
        check_folders(spec)
        self.process = servers or server_process(spec, place, build, name=server_name(spec))
        try:
            self.process.start()
            self._names = _names(spec, self.process.model)
            urls = self.process.base_urls
            known = {"base_urls": urls, "concurrency": spec.concurrency * len(urls)}
            super().__init__(
                spec.model_copy(update=known), place,
                served_name=self._names[spec.adapter], revive=self.process.revive, key=self.process.key,
                kind=f"vllm-{build.version}",
            )  # fmt: skip
        except BaseException:
            self.process.close()
            raise
        if build.cpu and spec.api_server_count > 1:
            unused = "vLLM's CPU build prepares images in one process: `api_server_count` has no effect"
            self.notes = (*self.notes, unused)

    def turn_to(self, adapter: str | None) -> None:
        """Answer with another of the spec's adapters (None: with the model itself) from now on; no restart."""
        self._talk_to(self._names[adapter], adapter)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, unordered; raises EngineError when the server dies again and again."""
        for generation in super().generate(requests):
            self.process.answered()
            yield generation

    def usage(self) -> Usage:
        """How busy the server was kept, and the GPUs it holds."""
        return replace(super().usage(), gpus=self.process.gpus)

    def close(self) -> None:
        """End the server; when this returns its processes are gone and its memory is free. Safe to call twice."""
        super().close()
        self.process.close()


def find_build(spec: EngineSpec) -> Build:
    """Return the installed build of vLLM; raises EngineError where there is none."""
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
    environment = serve_environment(spec, build)
    if key:
        environment["VLLM_API_KEY"] = key
    if place.ray_address:
        environment["RAY_ADDRESS"] = place.ray_address
    return ServerProcess(
        partial(serve_command, spec, place, build, _names(spec, name), host),
        name,
        host=host,
        key=key,
        gpus=0 if build.cpu else spec.tensor_parallel_size * spec.data_parallel_size,
        environment=environment,
        log=place.logs.resolve() / f"vllm-{name}.log",
        start_seconds=spec.start_seconds,
        explain=partial(explain, spec=spec),
    )


def _names(spec: EngineSpec, name: str) -> dict[str | None, str]:
    """What the server calls the model (under None) and each of its adapters."""
    served = {a: f"{name}+{i}-{Path(a).name}" for i, a in enumerate(spec.all_adapters())}
    return {None: name, **served}
