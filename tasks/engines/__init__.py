"""The protocol every engine meets, and `open_engine`.

A stream of requests goes in, an unordered stream of generations comes out, each request answered exactly once.
One bad item never raises for the others: it comes back with its outcome. An engine pulls from the stream only as
far ahead as it needs to stay busy, so that memory does not grow with the number of items.
"""

from collections.abc import Iterable, Iterator
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from tasks.errors import EngineError
from tasks.records import Generation, Request


class EngineSpec(BaseModel):
    """Which model answers, and how it is run: the `generator:` and `teacher:` keys of a configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    engine: Literal["vllm", "server", "local", "scripted"] = Field(
        default="vllm",
        description="vllm: a managed `vllm serve`; server: a running one; local: transformers in process",
    )
    model: str = Field(description="Hugging Face name or local folder of a Qwen-VL checkpoint")
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hugging Face model")
    adapter: str | None = Field(default=None, description="Folder of a peft adapter to load on top of the model")
    trust_remote_code: bool = Field(
        default=False, description="Allow the model's own code to run; off unless asked for"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="Weights' type")
    device_map: str | None = Field(
        default=None, description="transformers' device map, e.g. `auto`; none: the CUDA device if there is one"
    )
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] = Field(
        default="sdpa", description="Attention kernel of the local engine"
    )
    batch_size: int = Field(default=8, ge=1, description="Items a batch of the local engine")
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs one copy of the model is split over (vllm)")
    min_pixels: int = Field(default=56 * 56, ge=28 * 28, description="Images are enlarged to at least this area")
    max_pixels: int = Field(
        default=1280 * 28 * 28, ge=28 * 28, description="Images are shrunk to at most this area; 784 pixels are a token"
    )


class Engine(Protocol):
    """Something that answers requests."""

    fingerprint: str
    """Kind, model and versions, written into every generation."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        """Answer each request once, in any order; raises EngineError only when the engine itself is dead."""
        ...

    def close(self) -> None:
        """Free memory and children; safe to call twice."""
        ...


def check_engine(spec: EngineSpec) -> None:
    """Raise EngineError, with the mend, if `spec` names an engine that can't be opened here whatever the model."""
    if spec.engine in ("vllm", "server"):
        raise EngineError(f"engine `{spec.engine}` is not built yet; set `engine: local` for {spec.model}")


def open_engine(spec: EngineSpec) -> Engine:
    """Open the engine that `spec` names; raises EngineError with the mend when it can't be."""
    check_engine(spec)
    if spec.engine == "scripted":
        from tasks.engines.scripted import ScriptedEngine

        return ScriptedEngine(spec)
    from tasks.engines.local import LocalEngine

    return LocalEngine(spec)
