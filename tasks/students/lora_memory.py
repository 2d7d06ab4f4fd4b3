"""Estimate how much GPU memory the training of a LoRA student needs, from its base's config.json and its items.

Weights follow from the shapes in the configuration. Activations are counted per token: with gradient checkpointing one
hidden state per layer, and all that a layer with adapters keeps only for the layer that is being recomputed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download

from tasks.errors import ConfigError
from tasks.models.engines.gpus import Gpu
from tasks.models.image_cache import compute_sides
from tasks.models.unanswered import BadMedia
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_user_content
from tasks.records import Sample, Sampling
from tasks.students.settings import StudentSpec

LESS_MEMORY = (
    "lower `student.batch_size` (and raise `gradient_accumulation` as much) or `max_pixels`, set "
    "`student.gradient_checkpointing: true`, or use a smaller `student.base`"
)
"""What to change when a GPU has too little memory for training."""

_MIB = 1 << 20
_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
_TOKENS_PER_CHARACTER = 0.7
"""Chinese text; English has fewer."""
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
    vision = config["vision_config"]
    merged = vision.get("patch_size", 14) * vision.get("spatial_merge_size", 2)
    try:
        return compute_memory(spec, config, max((count_tokens(prompter, s, merged) for s in samples), default=0))
    except (KeyError, TypeError):  # a configuration with other names
        return None


def compute_memory(spec: StudentSpec, config: Mapping[str, Any], tokens: int) -> Memory:
    """Return what training needs if the longest item has `tokens` tokens; `config` is the base's config.json."""
    text, vision = config.get("text_config", config), config["vision_config"]
    hidden, layers, inner = text["hidden_size"], text["num_hidden_layers"], text["intermediate_size"]
    heads = text["num_attention_heads"]
    head = text.get("head_dim") or hidden // heads
    query, shared = heads * head, text.get("num_key_value_heads", heads) * head
    experts = text.get("num_experts") or 1
    expert = text["moe_intermediate_size"] if experts > 1 else inner
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings", False))
    size = layers * (2 * hidden * (query + shared) + 3 * experts * hidden * expert)
    size += text["vocab_size"] * hidden * (1 if tied else 2) + _count_vision(vision)

    named = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    rows = 2 * hidden + query + 2 * shared + query + hidden + 3 * (hidden + inner)
    adapter = layers * spec.lora_rank * (rows + hidden)
    batch = tokens * spec.batch_size
    # bytes that autograd keeps per token and layer, measured on random models of 256 and 512 units in bfloat16
    layer = 27 * hidden + 8 * inner
    kept = 2 * hidden * layers if spec.gradient_checkpointing else layer * (layers - 1)
    kept += 3 * layer // 2  # and the gradients of the layer at which backpropagation is
    # the frozen tower keeps nothing, but needs its largest layer: four patches per token
    width = vision.get("embed_dim") or vision["hidden_size"]
    seen = 4 * 2 * 8 * width
    return Memory(size * _BYTES[named], adapter * _STATES, batch * max(kept, seen))


def count_tokens(prompter: Prompter, sample: Sample, merged: int) -> int:
    """Return about how many tokens an item has; an image token stands for a square of `merged` pixels."""
    request = prompter.classify(sample, Sampling(), with_reason=False)
    characters = sum(len(part["text"]) for part in make_user_content(request) if part["type"] == "text")
    found = int(characters * _TOKENS_PER_CHARACTER)
    bounds = {"min_pixels": prompter.min_pixels, "max_pixels": prompter.max_pixels, "patch_size": merged // 2}
    for image in request.images:
        try:
            width, height = compute_sides(image, **bounds)
        except BadMedia:  # reported when it is used
            continue
        found += width * height // merged**2
    return found


def _count_vision(vision: Mapping[str, Any]) -> int:
    """Return the number of the vision tower's parameters."""
    width = vision.get("embed_dim") or vision["hidden_size"]
    out = vision.get("out_hidden_size") or vision["hidden_size"]
    inner = vision.get("intermediate_size") or int(width * vision.get("mlp_ratio", 4))
    merger = 4 * width * (4 * width + out)
    mergers = 1 + len(vision.get("deepstack_visual_indexes", ()))
    return vision["depth"] * (4 * width * width + 2 * width * inner) + mergers * merger


def _read_config(base: str, revision: str | None) -> dict[str, Any]:
    """Return the content of the base's config.json, or an empty dict; loading the base reports what is wrong."""
    try:
        folder = Path(base).expanduser()
        file = folder / "config.json" if folder.is_dir() else hf_hub_download(base, "config.json", revision=revision)
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except Exception:  # of the disk, the network, the hub or the proxy
        return {}
