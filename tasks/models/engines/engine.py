"""The protocol every engine meets, and `open_engine`.

A stream of requests goes in, an unordered stream of generations comes out, each request answered exactly once.
One bad item never raises for the others: it comes back with its outcome. An engine pulls from the stream only as
far ahead as it needs to stay busy, so that memory does not grow with the number of items.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from tasks.models.engines.spec import EngineSpec
from tasks.records import Generation, Request

if TYPE_CHECKING:  # it brings torch, which a command that only reads a configuration need not wait for
    from tasks.models.image_cache import ImageCache


@dataclass(frozen=True)
class Workplace:
    """Where an engine finds and leaves files. Made by flows/asking.py."""

    images: "ImageCache"
    """Decoded, pre-resized images, shared by all engines and runs."""
    logs: Path
    """Folder for the logs of servers it starts."""
    most_images: int = 0
    """The most images that one request of this run holds; 0: not known."""
    ray_address: str = ""
    """The Ray cluster that a vLLM with Ray options of its own joins."""


@dataclass(frozen=True)
class Usage:
    """How busy an engine was since it was opened."""

    target: int = 1
    """Requests it wants in flight (a batch of the local engine)."""
    busy: float = 0.0
    """Request-seconds in flight, at most `target` times `seconds`."""
    seconds: float = 0.0
    """Wall time spent answering."""
    starved: float = 0.0
    """Seconds of these in which it had room for another request and none was handed to it."""
    gpus: int = 0
    """Devices it holds."""


class Engine(Protocol):
    """Something that answers requests."""

    fingerprint: str
    """Kind, model and versions, written into every generation."""
    notes: tuple[str, ...]
    """What people should know of it: found capabilities and what is done without the missing ones."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, in any order; raises EngineError only when the engine itself is dead."""
        ...

    def usage(self) -> Usage:
        """How busy it was so far."""
        ...

    def close(self) -> None:
        """Free memory and children; safe to call twice."""
        ...


@runtime_checkable
class ManyAdapters(Protocol):
    """An engine that serves all of its spec's `adapters` at once."""

    def turn_to(self, adapter: str | None) -> None:
        """Answer with this one from now on; None: with the model itself."""
        ...


def check_engine(spec: EngineSpec) -> None:
    """Raise EngineError, with the mend, if `spec` names an engine that can't be opened here whatever the model."""
    if spec.engine == "vllm":
        from tasks.models.engines.vllm.engine import check_vllm

        check_vllm(spec)
    if spec.engine == "server":
        from tasks.models.engines.server.client import key_of

        key_of(spec)


def open_engine(spec: EngineSpec, place: Workplace) -> Engine:
    """Open the engine that `spec` names; raises EngineError with the mend when it can't be."""
    check_engine(spec)
    if spec.engine == "scripted":
        from tasks.models.engines.scripted import ScriptedEngine

        return ScriptedEngine(spec)
    if spec.engine == "server":
        from tasks.models.engines.server.engine import ServerEngine

        return ServerEngine(spec, place)
    if spec.engine == "vllm":
        from tasks.models.engines.vllm.engine import VllmEngine

        return VllmEngine(spec, place)
    from tasks.models.engines.local.engine import LocalEngine

    return LocalEngine(spec, place)
