"""Estimate how much GPU memory the training of a LoRA student needs, from its base's config.json and its items.

Weights follow from the shapes in the configuration. Activations are counted per token: with gradient checkpointing one
hidden state per layer, and all that a layer with adapters keeps only for the layer that is being recomputed.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from tasks.errors import ConfigError
from tasks.models.engines.gpus import Gpu
from tasks.models.model_sizes import read_model_size
from tasks.models.token_budget import estimate_prompt_tokens
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, Sampling
from tasks.students.settings import StudentSpec

LESS_MEMORY = (
    "lower `student.batch_size` (and raise `gradient_accumulation` as much) or `max_pixels`, set "
    "`student.gradient_checkpointing: true`, or use a smaller `student.base`"
)
"""What to change when a GPU has too little memory for training."""

_MIB = 1 << 20
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_STATES = 16
"""Bytes per parameter of an adapter: weight, gradient and two moments in 32 bits."""
_FIXED = 1536 * _MIB
"""CUDA's context, the libraries' work space, and the loss, which trl computes in chunks."""


@dataclass(frozen=True)
class Memory:
    """Bytes that a training needs on its GPU."""

    weights: int
    adapter: int
    activations: int

    @property
    def mib(self) -> float:
        """Return the sum in MiB, with CUDA's own share."""
        return (self.weights + self.adapter + self.activations + _FIXED) / _MIB

    def choose(self, gpus: Sequence[Gpu]) -> list[Gpu]:
        """Return the GPUs that are large enough or of unknown size.

        Raises ConfigError, which says what to lower, if all are too small.
        """
        enough = [gpu for gpu in gpus if not gpu.total or gpu.total >= self.mib]
        if not enough:
            largest = max(gpus, key=lambda gpu: gpu.total)
            parts = {"weights": self.weights, "adapters": self.adapter, "activations": self.activations}
            listed = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in parts.items())
            raise ConfigError(
                f"student: training needs about {self.mib / 1024:.0f} GiB of GPU memory ({listed}), but the largest "
                f"GPU, {largest.name}, has {largest.total / 1024:.0f} GiB; {LESS_MEMORY}"
            )
        return enough


def estimate_memory(
    spec: StudentSpec, revision: str | None, prompter: Prompter, samples: Iterable[Sample]
) -> Memory | None:
    """Return what training on `samples` needs; None if the base's configuration cannot be read or is of another kind.

    The longest item counts, because a batch of the longest must fit.
    """
    config = _read_config(spec.base, revision)
    if "vision_config" not in config:
        return None
    patch_size = config["vision_config"].get("patch_size", 14)
    requests = (prompter.classify(s, Sampling(), with_reason=False) for s in samples)
    longest = max((estimate_prompt_tokens(request, patch_size) for request in requests), default=0)
    try:
        return compute_memory(spec, config, longest)
    except (KeyError, TypeError):  # a configuration with other names
        return None


def compute_memory(spec: StudentSpec, config: dict[str, Any], tokens: int) -> Memory:
    """Return what training needs if the longest item has `tokens` tokens; `config` is the base's config.json."""
    size = read_model_size(config)
    text, vision = config.get("text_config", config), config["vision_config"]
    hidden, inner = text["hidden_size"], text.get("intermediate_size") or text["moe_intermediate_size"]
    weight_bytes = _BYTES[config.get("torch_dtype") or config.get("dtype") or text.get("dtype") or "bfloat16"]
    # an adapter of a matrix has as many rows and columns in all; there are seven per layer (see lora_training.py)
    sides = 7 * hidden + 2 * size.attention_width + size.cache_bytes // (2 * size.layers) + 3 * inner
    # bytes that autograd keeps per token and layer, measured on random models of 256 and 512 units in bfloat16
    layer = 27 * hidden + 8 * inner
    kept = 2 * hidden * size.layers if spec.gradient_checkpointing else layer * (size.layers - 1)
    kept += 3 * layer // 2  # and the gradients of the layer at which backpropagation is
    # the frozen tower keeps nothing, but needs its largest layer: four patches per token
    seen = 4 * 2 * 8 * (vision.get("embed_dim") or vision["hidden_size"])
    return Memory(
        weights=int(size.parameters * weight_bytes),
        adapter=size.layers * spec.lora_rank * sides * _STATES,
        activations=tokens * spec.batch_size * max(kept, seen),
    )


def _read_config(base: str, revision: str | None) -> dict[str, Any]:
    """Return the content of the base's config.json, or an empty dict; loading the base reports what is wrong."""
    try:
        folder = Path(base).expanduser()
        file = folder / "config.json" if folder.is_dir() else hf_hub_download(base, "config.json", revision=revision)
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except Exception:  # of the disk, the network, the hub or the proxy
        return {}
