"""The protocol that every engine implements, and `open_engine`, which opens the engine that a spec names.

An engine takes a stream of requests and yields generations in any order, exactly one per request. A request that
cannot be answered yields a generation whose outcome says why, and never disturbs other requests. An engine reads ahead
only as far as it needs to stay busy, so its memory does not grow with the number of items.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tasks.models.engines.gpus import list_gpus
from tasks.models.engines.spec import EngineSpec
from tasks.models.packages import require_model_packages
from tasks.records import Generation, Request

if TYPE_CHECKING:  # it imports torch, which a command that only reads a configuration does not need
    from tasks.models.image_cache import ImageCache


@dataclass(frozen=True)
class Workplace:
    """Where an engine reads and writes files. Made by flows/asking.py."""

    images: "ImageCache"
    """The cache of resized images, which all engines and runs share."""
    logs: Path
    """Folder for the logs of the servers that the engine starts."""
    most_images: int = 0
    """Maximum number of images in one request of this run; 0 if not known."""
    most_videos: int = 0
    """Maximum number of recordings in one request of this run."""
    ledger: Path | None = None
    """The run's ledger. What is known about batches is kept beside it."""
    ray_address: str = ""
    """Address of the Ray cluster that vLLM joins if vLLM's own options name Ray; otherwise empty."""


@dataclass(frozen=True)
class Usage:
    """How busy an engine has been since it was opened."""

    target: int = 1
    """How many requests it can have in flight at a time (for the local engine, the batch size)."""
    busy: float = 0.0
    """Seconds that each request was in flight, summed over requests; at most `target` times `seconds`."""
    seconds: float = 0.0
    """Wall time spent answering, in seconds."""
    starved: float = 0.0
    """The part of `seconds` in which the engine could have taken another request but got none."""
    gpus: int = 0
    """Number of GPUs that it occupies."""


class Engine(Protocol):
    """A model that answers requests. One that uses a batch API raises AnswersPending for those not answered yet."""

    fingerprint: str
    """The engine's kind, model and versions; written into every generation."""
    notes: tuple[str, ...]
    """Sentences for the run's log about capabilities that are missing and what is done instead."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Yield one generation per request, in any order; raise EngineError only when the engine itself has died."""
        ...

    def usage(self) -> Usage:
        """Return how busy the engine has been so far."""
        ...

    def close(self) -> None:
        """Free the engine's memory and end its child processes; safe to call twice."""
        ...


@runtime_checkable
class ManyAdapters(Protocol):
    """An engine that has loaded all `adapters` of its spec and can switch between them."""

    def switch_adapter(self, adapter: str | None) -> None:
        """Answer with `adapter` from now on, or with the bare model when it is None."""
        ...


def check_engine(spec: EngineSpec, *, key: bool = True) -> None:
    """Raise an error that says how to fix it if this machine cannot run the engine of `spec`. Ignores the model.

    Raises EngineError, or MissingPackage in an environment without the packages that run models. With `key`, a
    server's API key must be set.
    """
    if spec.engine != "scripted":
        require_model_packages(f"`engine: {spec.engine}`", "env-gpu" if spec.engine == "vllm" else "env-base")
    if spec.engine == "vllm":
        from tasks.models.engines.vllm.engine import check_vllm

        check_vllm(spec)
    if spec.engine == "server" and key:
        from tasks.models.engines.server.client import read_api_key

        read_api_key(spec)


def open_engine(spec: EngineSpec, place: Workplace) -> Engine:
    """Open the engine that `spec` names; raise EngineError, saying how to fix it, when that fails."""
    check_engine(spec)
    if spec.engine == "scripted":
        from tasks.models.engines.scripted import ScriptedEngine

        return ScriptedEngine(spec)
    if spec.batch:
        from tasks.models.engines.batch.engine import BatchEngine

        return BatchEngine(spec, place)
    if spec.engine == "server":
        from tasks.models.engines.server.engine import ServerEngine

        return ServerEngine(spec, place)
    if spec.engine == "vllm":
        from tasks.models.engines.vllm.engine import VllmEngine

        return VllmEngine(spec, place)
    if list_gpus():
        from tasks.models.engines.local.child_engine import ChildEngine

        return ChildEngine(spec, place)
    from tasks.models.engines.local.engine import LocalEngine

    return LocalEngine(spec, place)
