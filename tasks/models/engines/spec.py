"""Settings of an engine: which model answers and how it runs (the `generator:` and `teacher:` keys)."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.settings import Settings


class Prices(Settings):
    """Prices of generation, in any one currency; all zero unless configured."""

    prompt: float = Field(default=0.0, ge=0, description="Price per million prompt tokens")
    cached: float | None = Field(
        default=None, ge=0, description="Price per million cached tokens; as `prompt` if unset"
    )
    output: float = Field(default=0.0, ge=0, description="Price per million generated tokens")
    gpu_hour: float = Field(default=0.0, ge=0, description="Price per GPU-hour (vllm and local engines)")

    @property
    def of_tokens(self) -> bool:
        """Return whether tokens have a price."""
        return self.prompt > 0 or self.output > 0

    def cost_of(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        """Return the price of the tokens; `tokens_in` includes the cached ones."""
        cached = self.prompt if self.cached is None else self.cached
        tokens = (tokens_in - tokens_cached) * self.prompt + tokens_cached * cached + tokens_out * self.output
        return tokens / 1e6


class EngineSpec(Settings):
    """Which model answers, and how it runs."""

    engine: Literal["vllm", "server", "local", "scripted"] = Field(
        default="vllm",
        description="How the model runs: `vllm serve` (vllm), a running server (server), this process (local)",
    )
    model: str = Field(
        description="Hugging Face name or local folder of a Qwen-VL checkpoint; for `server`, the name it is served as"
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hugging Face model")
    adapter: str | None = Field(
        default=None, description="Folder of a peft adapter to load with the model; for `server`, its name there"
    )
    adapters: tuple[str, ...] = Field(
        default=(), description="Folders of further adapters that the same server loads and answers with in turn (vllm)"
    )
    trust_remote_code: bool = Field(default=False, description="Allow the code that comes with the model to run")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="Type of the weights")
    min_pixels: int = Field(default=56 * 56, ge=28 * 28, description="Smaller images are enlarged to this pixel area")
    max_pixels: int = Field(
        default=1280 * 28 * 28, ge=28 * 28, description="Larger images are shrunk to these pixels; 784 are one token"
    )
    context_length: int | None = Field(
        default=None, ge=256, description="Maximum tokens of prompt and answer together; the model's own if unset"
    )
    prices: Prices = Field(default=Prices(), description="Prices for computing the cost of a run")

    # local
    device_map: str | None = Field(
        default=None, description="transformers' device map, e.g. `auto`; if unset, one CUDA device or CPU (local)"
    )
    batch_size: int = Field(default=8, ge=1, description="Items per batch (local)")

    # server and vllm
    base_urls: tuple[str, ...] = Field(
        default=(), description="Addresses of the server, e.g. http://host:8000/v1, which share the load (server)"
    )
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Za-z_]\w*$", description="Environment variable with the server's API key (server)"
    )
    tokenizer: str | None = Field(
        default=None, description="Folder or hub name of the tokenizer, if `model` is not one itself (server)"
    )
    concurrency: int = Field(default=64, ge=1, description="Requests in flight, over all addresses (server, vllm)")
    timeout_seconds: float = Field(default=300.0, gt=0, description="Seconds to wait for one answer (server, vllm)")
    patience_seconds: float = Field(
        default=600.0, gt=0, description="Seconds without any answer after which the run ends (server, vllm)"
    )

    # vllm
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs per copy of the model (vllm)")
    data_parallel_size: int = Field(default=1, ge=1, description="Copies of the model (vllm)")
    api_server_count: int = Field(default=1, ge=1, description="Processes that prepare images and prompts (vllm)")
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Fraction of the GPU's memory to use; vLLM's default if unset (vllm)"
    )
    quantization: str | None = Field(default=None, description="Quantisation method, as vLLM names it, e.g. awq (vllm)")
    start_seconds: float = Field(default=1800.0, gt=0, description="Seconds that loading the model may take (vllm)")
    extra_args: tuple[str, ...] = Field(default=(), description="Further arguments of `vllm serve`, unchanged (vllm)")

    def all_adapters(self) -> tuple[str, ...]:
        """Return every adapter that a server of this spec loads, each once."""
        return tuple(dict.fromkeys([*([self.adapter] if self.adapter else []), *self.adapters]))

    @model_validator(mode="after")
    def _addresses_where_needed(self) -> Self:
        if self.engine == "server" and not self.base_urls:
            raise ValueError("engine `server` needs `base_urls`, e.g. [http://127.0.0.1:8000/v1]")
        if self.engine != "server" and self.base_urls:
            raise ValueError(f"engine `{self.engine}` takes no `base_urls`: remove them, or set `engine: server`")
        return self
