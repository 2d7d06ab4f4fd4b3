"""Settings of an engine: which model answers and how it runs (the `generator:` and `teacher:` keys)."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from tasks.settings import Settings


class Prices(Settings):
    """Prices for computing what answers cost, in one currency of your choice; zero by default."""

    prompt: float = Field(default=0.0, ge=0, description="Price per million prompt tokens")
    cached: float | None = Field(
        default=None, ge=0, description="Price per million cached prompt tokens; same as `prompt` if unset"
    )
    output: float = Field(default=0.0, ge=0, description="Price per million generated tokens")
    gpu_hour: float = Field(default=0.0, ge=0, description="Price per GPU-hour (engines vllm and local)")

    @property
    def of_tokens(self) -> bool:
        """Return whether a price per token is set."""
        return self.prompt > 0 or self.output > 0

    def cost_of(self, tokens_in: int, tokens_cached: int, tokens_out: int) -> float:
        """Return the price of the tokens; `tokens_in` includes the cached ones."""
        cached = self.prompt if self.cached is None else self.cached
        tokens = (tokens_in - tokens_cached) * self.prompt + tokens_cached * cached + tokens_out * self.output
        return tokens / 1e6


_OWN_FIELDS = frozenset(
    {
        *("model", "messages", "temperature", "top_p", "seed", "n", "max_tokens", "max_completion_tokens"),
        *("response_format", "stream", "logprobs", "logprob_token_ids", "return_tokens_as_token_ids"),
        *("add_generation_prompt", "continue_final_message"),
    }
)
"""The fields of a chat request that `extra_body` may not set, because labelstill relies on its own values."""


class EngineSpec(Settings):
    """Which model answers, and how it runs."""

    engine: Literal["vllm", "server", "local", "scripted"] = Field(
        default="vllm",
        description="Where the model runs: new vLLM server (vllm), running server (server), transformers here (local)",
    )
    model: str = Field(
        description="Hugging Face name or local folder of a Qwen-VL checkpoint; for `server`, the model's name there"
    )
    revision: str | None = Field(default=None, description="Branch, tag or commit of a Hugging Face model")
    adapter: str | None = Field(
        default=None,
        description="Folder of a peft adapter to load with the model; for `server`, the adapter's name on the server",
    )
    adapters: tuple[str, ...] = Field(
        default=(),
        description="Folders of further adapters for the same server, which answers with one adapter at a time (vllm)",
    )
    trust_remote_code: bool = Field(default=False, description="Allow Python code that comes with the model to run")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="Data type of the weights"
    )
    min_pixels: int = Field(
        default=56 * 56, ge=28 * 28, description="Minimum area of an image in pixels; smaller images are enlarged"
    )
    max_pixels: int = Field(
        default=1280 * 28 * 28,
        ge=28 * 28,
        description="Maximum area of an image in pixels; larger images are shrunk. 784 pixels make one token",
    )
    context_length: int | None = Field(
        default=None,
        ge=256,
        description="Maximum number of tokens of prompt and answer combined; the model's own limit if unset",
    )
    prices: Prices = Field(default=Prices(), description="Prices for computing the cost of a run")

    # local
    device_map: str | None = Field(
        default=None,
        description="Device map of transformers, e.g. `auto`; if unset, one CUDA device or the CPU (local)",
    )
    batch_size: int = Field(default=8, ge=1, description="Number of items per batch (local)")

    # server and vllm
    base_urls: tuple[str, ...] = Field(
        default=(),
        description="Server addresses, e.g. http://host:8000/v1; requests are distributed over all of them (server)",
    )
    api_key_env: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_]\w*$",
        description="Name of the environment variable that contains the server's API key, e.g. OPENAI_API_KEY; if it "
        "is not set, Prefect's Secret block `openai-api-key` is used (server)",
    )
    tokenizer: str | None = Field(
        default=None,
        description="Folder or hub name of the tokenizer, if `model` is not itself a folder or hub name (server)",
    )
    extra_body: dict[str, Any] = Field(
        default={},
        description="Fields to add to requests, e.g. {chat_template_kwargs: {enable_thinking: false}} (server, vllm)",
    )
    concurrency: int = Field(
        default=64, ge=1, description="Maximum number of requests in flight, over all addresses (server, vllm)"
    )
    timeout_seconds: float = Field(
        default=300.0, gt=0, description="Maximum seconds to wait for one answer (server, vllm)"
    )
    patience_seconds: float = Field(
        default=600.0,
        gt=0,
        description="The run ends when no answer at all has arrived for this many seconds (server, vllm)",
    )

    # vllm
    tensor_parallel_size: int = Field(default=1, ge=1, description="Number of GPUs per copy of the model (vllm)")
    data_parallel_size: int = Field(default=1, ge=1, description="Number of copies of the model (vllm)")
    api_server_count: int = Field(
        default=1, ge=1, description="Number of processes that prepare images and prompts (vllm)"
    )
    gpu_memory_utilization: float | None = Field(
        default=None, gt=0, le=1, description="Fraction of each GPU's memory to use; vLLM's default if unset (vllm)"
    )
    quantization: str | None = Field(
        default=None, description="vLLM's name of the quantisation method, e.g. awq (vllm)"
    )
    start_seconds: float = Field(default=1800.0, gt=0, description="Maximum seconds for loading the model (vllm)")
    extra_args: tuple[str, ...] = Field(
        default=(), description="Further arguments, passed unchanged to `vllm serve` (vllm)"
    )

    def all_adapters(self) -> tuple[str, ...]:
        """Return all adapters that a server of this spec loads, without duplicates."""
        return tuple(dict.fromkeys([*([self.adapter] if self.adapter else []), *self.adapters]))

    @model_validator(mode="after")
    def _check_extra_body(self) -> Self:
        if self.extra_body and self.engine not in ("server", "vllm"):
            raise ValueError(f"engine `{self.engine}` cannot use `extra_body`; remove it, or set `engine: server`")
        if own := sorted(_OWN_FIELDS & self.extra_body.keys()):
            raise ValueError(f"`extra_body` cannot set {', '.join(own)}, which labelstill sets itself; remove them")
        return self

    @model_validator(mode="after")
    def _addresses_where_needed(self) -> Self:
        if self.engine == "server" and not self.base_urls:
            raise ValueError("engine `server` needs `base_urls`, e.g. [http://127.0.0.1:8000/v1]")
        if self.engine != "server" and self.base_urls:
            raise ValueError(f"engine `{self.engine}` cannot use `base_urls`; remove them, or set `engine: server`")
        return self


def name_secret_block(variable: str) -> str:
    """Return the name of the Prefect Secret block for an environment variable: openai-api-key for OPENAI_API_KEY."""
    return variable.lower().replace("_", "-")
