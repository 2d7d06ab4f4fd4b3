"""Which model answers and how it is run: the `generator:` and `teacher:` keys of a configuration."""

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.settings import Settings


class Prices(Settings):
    """What generation costs, in the currency of your choice; all zero unless configured."""

    prompt: float = Field(default=0.0, ge=0, description="A million prompt tokens")
    cached: float | None = Field(default=None, ge=0, description="A million cached prompt tokens; none: as `prompt`")
    output: float = Field(default=0.0, ge=0, description="A million generated tokens")
    gpu_hour: float = Field(default=0.0, ge=0, description="An hour of one GPU (vllm and local engines)")

    @property
    def of_tokens(self) -> bool:
        """Whether tokens cost anything."""
        return self.prompt > 0 or self.output > 0

    def cost_of(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        """Return the price of tokens; the cached ones are among `tokens_in`."""
        cached = self.prompt if self.cached is None else self.cached
        tokens = (tokens_in - tokens_cached) * self.prompt + tokens_cached * cached + tokens_out * self.output
        return tokens / 1e6


class EngineSpec(Settings):
    """Which model answers, and how it is run."""

    engine: Literal["vllm", "server", "local", "scripted"] = Field(
        default="vllm",
        description="vllm: a managed `vllm serve`; server: a running one; local: transformers in process",
    )
    model: str = Field(
        description="Hugging Face name or local folder of a Qwen-VL checkpoint; for `server` the name it serves"
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hugging Face model")
    adapter: str | None = Field(
        default=None, description="Folder of a peft adapter to load on top of the model; for `server` its name there"
    )
    adapters: tuple[str, ...] = Field(
        default=(), description="Further adapters that the same server loads, to be asked in turn (vllm)"
    )
    trust_remote_code: bool = Field(
        default=False, description="Allow the model's own code to run; off unless asked for"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(default="auto", description="Weights' type")
    min_pixels: int = Field(default=56 * 56, ge=28 * 28, description="Images are enlarged to at least this area")
    max_pixels: int = Field(
        default=1280 * 28 * 28, ge=28 * 28, description="Images are shrunk to at most this area; 784 pixels are a token"
    )
    context_length: int | None = Field(
        default=None, ge=256, description="Most tokens of prompt and answer together; none: what the model takes"
    )
    prices: Prices = Field(default=Prices(), description="For the cost in the record")

    # local
    device_map: str | None = Field(
        default=None, description="transformers' device map, e.g. `auto`; none: the CUDA device if there is one (local)"
    )
    batch_size: int = Field(default=8, ge=1, description="Items a batch (local)")

    # server and vllm
    base_urls: tuple[str, ...] = Field(
        default=(), description="Addresses of the server, e.g. http://host:8000/v1; several share the load (server)"
    )
    api_key_env: str | None = Field(
        default=None, pattern=r"^[A-Za-z_]\w*$", description="Environment variable that holds the server's key (server)"
    )
    tokenizer: str | None = Field(
        default=None, description="Folder or hub name of the tokenizer where it is not the model's (server)"
    )
    concurrency: int = Field(default=64, ge=1, description="Requests kept in flight, over all addresses (server, vllm)")
    timeout_seconds: float = Field(default=300.0, gt=0, description="Longest wait for one answer (server, vllm)")
    patience_seconds: float = Field(
        default=600.0, gt=0, description="How long no address may answer before the run ends (server, vllm)"
    )

    # vllm
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs one copy of the model is split over (vllm)")
    data_parallel_size: int = Field(default=1, ge=1, description="Copies of the model (vllm)")
    api_server_count: int = Field(default=1, ge=1, description="Processes that prepare images and prompts (vllm)")
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Share of the GPU's memory to use; none: vLLM's default (vllm)"
    )
    quantization: str | None = Field(default=None, description="vLLM's name of a quantisation, e.g. awq (vllm)")
    start_seconds: float = Field(default=1800.0, gt=0, description="How long the model may take to load (vllm)")
    extra_args: tuple[str, ...] = Field(default=(), description="Further arguments of `vllm serve`, as they are (vllm)")

    def all_adapters(self) -> tuple[str, ...]:
        """Every adapter that a server of this spec loads, each once."""
        return tuple(dict.fromkeys([*([self.adapter] if self.adapter else []), *self.adapters]))

    @model_validator(mode="after")
    def _addresses_where_needed(self) -> Self:
        if self.engine == "server" and not self.base_urls:
            raise ValueError("engine `server` needs `base_urls`, e.g. [http://127.0.0.1:8000/v1]")
        if self.engine != "server" and self.base_urls:
            raise ValueError(f"engine `{self.engine}` takes no `base_urls`; for a running server set `engine: server`")
        return self
