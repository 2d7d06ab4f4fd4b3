"""Settings of an engine: which model answers and how it runs (the `generator:` and `teacher:` keys)."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from tasks.settings import MAX_PIXELS, MIN_PIXELS, Settings


class Prices(Settings):
    """Prices for computing what answers cost, in one currency of your choice; zero by default."""

    prompt: float = Field(default=0.0, ge=0)
    """Price per million prompt tokens."""
    cached: float | None = Field(default=None, ge=0)
    """Price per million cached prompt tokens; same as `prompt` if unset."""
    output: float = Field(default=0.0, ge=0)
    """Price per million generated tokens."""
    gpu_hour: float = Field(default=0.0, ge=0)
    """Price per GPU-hour (engines vllm and local)."""

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


RULE = "a scripted rule, not a model: its answers are no evidence"
"""What the log, the report, the card and the review page say of an engine that is a rule."""
STAND_IN = "LABELSTILL_SCRIPTED_STANDS_IN_FOR_A_MODEL"
"""Environment variable that the tests set, so that scripted engines are treated as the models that they imitate."""


class ServingSettings(Settings):
    """How a model is run: the keys of a teacher or generator and, under `student.scoring`, of trained students."""

    batch_size: int = Field(default=8, ge=1)
    """Number of items per batch (local)."""
    concurrency: int = Field(default=64, ge=1)
    """Maximum number of requests in flight, over all addresses; fewer while the server is overloaded (server, vllm)."""
    tensor_parallel_size: int = Field(default=1, ge=1)
    """Number of GPUs per copy of the model (vllm)."""
    data_parallel_size: int = Field(default=1, ge=1)
    """Number of copies of the model (vllm)."""
    gpu_memory_utilization: float | None = Field(default=None, gt=0, le=1)
    """Fraction of each GPU's memory to use; vLLM's default if unset (vllm)."""
    extra_args: tuple[str, ...] = ()
    """Further arguments of `vllm serve`, e.g. [--api-server-count, '4'], for many images (vllm)."""


class EngineSpec(ServingSettings):
    """Which model answers, and how it runs."""

    engine: Literal["vllm", "server", "local", "scripted"] = "vllm"
    """Where the model runs: new vLLM server (vllm), running server (server), transformers here (local)."""
    model: str
    """Hugging Face name or local folder of a Qwen-VL checkpoint; for `server`, the model's name there."""
    revision: str | None = None
    """Branch, tag or commit of a Hugging Face model."""
    adapter: str | None = None
    """Folder of a peft adapter to load with the model; for `server`, the adapter's name on the server."""
    adapters: SkipJsonSchema[tuple[str, ...]] = ()
    """Folders of all adapters that one server serves, one at a time."""
    trust_remote_code: SkipJsonSchema[bool] = False
    """As at the top level."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Data type of the weights."""
    min_pixels: SkipJsonSchema[int] = MIN_PIXELS
    """As at the top level."""
    max_pixels: SkipJsonSchema[int] = MAX_PIXELS
    """As at the top level."""
    context_length: int | None = Field(default=None, ge=256)
    """Maximum number of tokens of prompt and answer combined; the model's own limit if unset."""
    prices: Prices = Prices()
    """Prices for computing the cost of a run."""

    # server
    base_urls: tuple[str, ...] = ()
    """Server addresses, e.g. http://host:8000/v1; requests are distributed over all of them (server)."""
    api_key_env: str | None = Field(default=None, pattern=r"^[A-Za-z_]\w*$")
    """Name of the environment variable that contains the server's API key, e.g. OPENAI_API_KEY; if it is not set,
    Prefect's Secret block `openai-api-key` is used (server)."""
    tokenizer: str | None = None
    """Folder or hub name of the tokenizer, if `model` is not itself a folder or hub name (server)."""
    extra_body: dict[str, Any] = Field(default={})
    """Fields to add to requests, e.g. {chat_template_kwargs: {enable_thinking: false}} (server, vllm)."""
    thinking_tokens: int = Field(default=0, ge=0)
    """Maximum number of tokens for thinking before the answer, e.g. 4096; with 0, thinking is not switched on (server,
    vllm)."""
    batch: bool = False
    """Send questions as files to the server's batch API, at half of `prices`; answers take up to 24 hours, and until
    then a run ends with exit code 5 (server)."""

    @property
    def is_rule(self) -> bool:
        """Return whether a fixed rule answers, so that the answers say nothing about any item's label."""
        return self.engine == "scripted" and STAND_IN not in os.environ

    @property
    def charged(self) -> Prices:
        """Return the prices that this engine's answers cost: batch APIs charge half of `prices`."""
        if not self.batch:
            return self.prices
        cached = None if self.prices.cached is None else self.prices.cached / 2
        half = {"prompt": self.prices.prompt / 2, "cached": cached, "output": self.prices.output / 2}
        return self.prices.model_copy(update=half)

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
    def _check_thinking(self) -> Self:
        if self.thinking_tokens and self.engine not in ("server", "vllm"):
            raise ValueError(f"engine `{self.engine}` cannot think: remove `thinking_tokens`, or set `engine: vllm`")
        if self.thinking_tokens and (own := {"chat_template_kwargs", "enable_thinking"} & self.extra_body.keys()):
            raise ValueError(f"`thinking_tokens` sets {', '.join(sorted(own))} itself; remove them from `extra_body`")
        return self

    @model_validator(mode="after")
    def _addresses_where_needed(self) -> Self:
        if self.engine == "server" and not self.base_urls:
            raise ValueError("engine `server` needs `base_urls`, e.g. [http://127.0.0.1:8000/v1]")
        if self.engine != "server" and self.base_urls:
            raise ValueError(f"engine `{self.engine}` cannot use `base_urls`; remove them, or set `engine: server`")
        if self.batch and len(self.base_urls) != 1:
            raise ValueError("`batch` needs `engine: server` and exactly one of `base_urls`; correct them or remove it")
        return self


class TeacherSpec(EngineSpec):
    """One of several teachers, and which items it is asked about."""

    ask: Literal["all", "uncertain"] | Annotated[float, Field(gt=0, le=1)] | None = None
    """Items that it is asked about: `all`; `uncertain`, those whose label is not certain enough after the other
    teachers' answers; or a number from 0 to 1: uncertain ones, at most this share of all items. Default: `all` for the
    first teacher, `uncertain` for the others."""

    @property
    def share(self) -> float | None:
        """Return the share of the items that it may be asked about if they are uncertain; None: all items."""
        return None if self.ask == "all" else 1.0 if self.ask == "uncertain" else self.ask


def name_secret_block(variable: str) -> str:
    """Return the name of the Prefect Secret block for an environment variable: openai-api-key for OPENAI_API_KEY."""
    return variable.lower().replace("_", "-")
