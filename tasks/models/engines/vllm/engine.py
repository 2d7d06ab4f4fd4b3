"""Start a vLLM server as a child process and ask it over HTTP, like any other server."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from os import getpid
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import EngineError
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import check_folders
from tasks.models.engines.server.engine import ServerEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.installation import Vllm, require_vllm
from tasks.models.engines.vllm.log import explain
from tasks.models.engines.vllm.options import build_serve_command, build_serve_environment, spans_nodes
from tasks.models.engines.vllm.process import ServerProcess
from tasks.models.engines.vllm.weights import fetch_weights
from tasks.records import Generation, Request

if TYPE_CHECKING:
    from tasks.models.engines.ray.placed import PlacedServers

_log = logging.getLogger("labelstill")
_numbers = count(1)
_USUAL_SHARE = 0.92
"""The share of a GPU's memory that vLLM uses if it is not told another."""


def check_vllm(spec: EngineSpec) -> None:
    """Raise EngineError, saying how to fix it, if vLLM is not installed or `spec` needs more devices than there are."""
    vllm = require_vllm(spec)
    if vllm.cpu or spans_nodes(spec):
        return
    wanted = spec.tensor_parallel_size * spec.data_parallel_size
    if not vllm.devices:
        raise EngineError(
            f"vLLM's GPU build in {vllm.python.parents[1]} finds no CUDA device; set `engine: local`, or remove "
            ".venv-vllm and run `make env-test`"
        )
    if wanted > vllm.devices:
        raise EngineError(
            f"`tensor_parallel_size` × `data_parallel_size` is {wanted}, but this machine has {vllm.devices} CUDA "
            "device(s); lower one of them"
        )


class VllmEngine(ServerEngine):
    """Starts vLLM for `spec.model` and answers requests through it; `close` ends all processes of vLLM."""

    def __init__(self, spec: EngineSpec, place: Workplace, servers: "PlacedServers | None" = None) -> None:
        """Start the server and wait until it is ready; raise EngineError with vLLM's message and how to fix it.

        `servers` are copies on a cluster. Without them, the server is a child of this process.
        """
        if servers is None:
            check_vllm(spec)
        vllm = require_vllm(spec)
        check_folders(spec)
        self.process = servers or make_server_process(spec, place, vllm, name=make_server_name(spec))
        try:
            self.process.start()
            self._names = _name_models(spec, self.process.model)
            urls = self.process.base_urls
            known = {"base_urls": urls, "concurrency": spec.concurrency * len(urls)}
            super().__init__(
                spec.model_copy(update=known), place,
                served_name=self._names[spec.adapter], revive=self.process.revive, key=self.process.key,
                kind=f"vllm-{vllm.version}",
            )  # fmt: skip
            if place.most_videos and not self.capabilities.videos:
                raise EngineError(
                    f"vLLM {vllm.version} does not show recordings as they are sent; labelstill is written for 0.32, "
                    "so install that version, or set `engine: local`"
                )
        except BaseException:
            self.process.close()
            raise

    def switch_adapter(self, adapter: str | None) -> None:
        """Switch, without a restart, to another of the spec's adapters or to the bare model (None)."""
        self._switch_model(self._names[adapter], adapter)

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield one generation per request, in any order; raise EngineError when the server keeps dying."""
        for generation in super().generate(requests):
            self.process.note_answer()
            yield generation

    def usage(self) -> Usage:
        """Return how busy the server has been, and how many GPUs it has."""
        return replace(super().usage(), gpus=self.process.gpus)

    def close(self) -> None:
        """End the server and wait until its processes are gone and its memory is free. Safe to call twice."""
        super().close()
        self.process.close()


def make_server_name(spec: EngineSpec) -> str:
    """Return a model name that no other server on this machine uses, so that we recognise our own server."""
    return f"{Path(spec.model).name}@{getpid()}.{next(_numbers)}"


def make_server_process(
    spec: EngineSpec, place: Workplace, vllm: Vllm, *, name: str, host: str = "127.0.0.1", key: str = ""
) -> ServerProcess:
    """Return a server process for `spec`, not started yet; it serves `name` on `host` and requires API key `key`."""
    fetch_weights(spec.model, spec.revision)  # before the start, whose time is limited
    if vllm.warning:
        _log.warning("%s", vllm.warning)
    environment = build_serve_environment(spec, vllm)
    if key:
        environment["VLLM_API_KEY"] = key
    if place.ray_address:
        environment["RAY_ADDRESS"] = place.ray_address
    return ServerProcess(
        partial(build_serve_command, spec, place, vllm, _name_models(spec, name), host),
        name,
        host=host,
        key=key,
        gpus=0 if vllm.cpu else spec.tensor_parallel_size * spec.data_parallel_size,
        gpu_share=0.0 if vllm.cpu or spans_nodes(spec) else spec.gpu_memory_utilization or _USUAL_SHARE,
        environment=environment,
        log=place.logs.resolve() / f"vllm-{name}.log",
        explain=partial(explain, spec=spec),
    )


def _name_models(spec: EngineSpec, name: str) -> dict[str | None, str]:
    """Return the server's name for the model (under None) and for each adapter."""
    served = {a: f"{name}+{i}-{Path(a).name}" for i, a in enumerate(spec.all_adapters())}
    return {None: name, **served}
