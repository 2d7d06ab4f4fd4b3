"""Find out how large a model is, from its configuration or, before it is downloaded, from its name."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache


@dataclass(frozen=True)
class ModelSize:
    """What the costs of a vision-language model follow from."""

    parameters: float
    """Of the language model, with its embeddings, and of the vision tower."""
    active: float
    """Parameters of the language model that each token meets, without the embeddings."""
    layers: int
    attention_width: int
    cache_bytes: int
    """Bytes of the key-value cache per token, in 16 bits."""
    vision: float
    """Parameters that each patch of an image meets."""
    vision_attention: int
    """Width of the vision tower times the number of its layers in which each patch attends to the whole image."""
    vocabulary: int
    context: int
    """Most tokens of prompt and answer."""
    bits: float
    """Per weight of the language model."""

    @property
    def weight_bytes(self) -> float:
        """Return the memory that the weights take; a quantised model has scales, and keeps some layers in 16 bits."""
        return self.parameters * self.bits / 8 * (1.0 if self.bits == 16 else 1.12)


def find_model_size(model: str, revision: str | None = None) -> ModelSize | None:
    """Return the size of a local or downloaded checkpoint, or of a known Qwen-VL; None if it is not known."""
    config = find_model_config(model, revision)
    return None if config is None else read_model_size(config, model)


def find_model_config(model: str, revision: str | None = None) -> dict[str, Any] | None:
    """Return the config.json of a local or downloaded checkpoint or, as far as sizes go, of a known Qwen-VL."""
    folder = Path(model).expanduser()
    cached = None if folder.is_dir() else try_to_load_from_cache(model, "config.json", revision=revision)
    file = Path(cached) if isinstance(cached, str) else folder / "config.json"
    if file.is_file():
        return json.loads(file.read_text(encoding="utf-8"))
    name = re.search(r"qwen(2\.5|2|3)-?vl.*?-(\d+b(?:-a\d+b)?)", model, re.IGNORECASE)
    known = None if name is None else _KNOWN.get((name[1], name[2].upper()))
    return None if name is None or known is None else _write_config(name[1], known)


def read_model_size(config: dict[str, Any], name: str = "") -> ModelSize:
    """Return the size of the model with this config.json; `name` may say how it is quantised."""
    text, vision = {**config, **config.get("text_config", {})}, config["vision_config"]
    hidden, layers, heads = text["hidden_size"], text["num_hidden_layers"], text["num_attention_heads"]
    head = text.get("head_dim") or hidden // heads
    cached_width = 2 * text["num_key_value_heads"] * head
    attention = hidden * (2 * heads * head + cached_width)
    if experts := text.get("num_experts"):
        one = 3 * hidden * text["moe_intermediate_size"]
        all_, used = experts * one, text["num_experts_per_tok"] * one
    else:
        all_ = used = 3 * hidden * text["intermediate_size"]
    embeddings = text["vocab_size"] * hidden * (1 if config.get("tie_word_embeddings") else 2)
    width = vision.get("embed_dim") or vision["hidden_size"]
    inner = vision.get("intermediate_size") or width * vision.get("mlp_ratio", 4)
    gated = "fullatt_block_indexes" in vision  # Qwen2.5-VL
    tower = vision["depth"] * width * (4 * width + (3 if gated else 2) * inner)
    return ModelSize(
        parameters=layers * (attention + all_) + embeddings + tower,
        active=layers * (attention + used),
        layers=layers,
        attention_width=heads * head,
        cache_bytes=2 * layers * cached_width,
        vision=tower,
        vision_attention=width * (len(vision["fullatt_block_indexes"]) if gated else vision["depth"]),
        vocabulary=text["vocab_size"],
        context=text.get("max_position_embeddings", 32_768),
        bits=_find_bits(config.get("quantization_config") or {}, name),
    )


def _find_bits(quantization: dict[str, Any], name: str) -> float:
    if isinstance(bits := quantization.get("bits"), int):
        return bits
    named = f"{quantization.get('quant_method', '')} {name}".lower()
    if re.search(r"awq|gptq|w4a|int4|4bit", named):
        return 4
    return 8 if re.search(r"fp8|w8a|int8|8bit", named) else 16


_KNOWN = {
    # layers, hidden, intermediate, heads, key-value heads, width of a head, experts
    ("2", "2B"): (28, 1536, 8960, 12, 2, 128, 0),
    ("2", "7B"): (28, 3584, 18944, 28, 4, 128, 0),
    ("2", "72B"): (80, 8192, 29568, 64, 8, 128, 0),
    ("2.5", "3B"): (36, 2048, 11008, 16, 2, 128, 0),
    ("2.5", "7B"): (28, 3584, 18944, 28, 4, 128, 0),
    ("2.5", "32B"): (64, 5120, 27648, 40, 8, 128, 0),
    ("2.5", "72B"): (80, 8192, 29568, 64, 8, 128, 0),
    ("3", "2B"): (28, 2048, 6144, 16, 8, 128, 0),
    ("3", "4B"): (36, 2560, 9728, 32, 8, 128, 0),
    ("3", "8B"): (36, 4096, 12288, 32, 8, 128, 0),
    ("3", "32B"): (64, 5120, 25600, 64, 8, 128, 0),
    ("3", "30B-A3B"): (48, 2048, 768, 32, 4, 128, 128),
    ("3", "235B-A22B"): (94, 4096, 1536, 64, 4, 128, 128),
}
"""The published sizes of Qwen-VL."""
_VISION = {
    "2": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4},
    "2.5": {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "fullatt_block_indexes": [7, 15, 23, 31]},
    "3": {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304},
}
_CONTEXT = {"2": 32_768, "2.5": 128_000, "3": 262_144}


def _write_config(generation: str, known: tuple[int, ...]) -> dict[str, Any]:
    """Return what config.json says about a known model."""
    layers, hidden, inner, heads, cached, head, experts = known
    width = {"moe_intermediate_size": inner, "num_experts": experts, "num_experts_per_tok": 8}
    text = {
        **(width if experts else {"intermediate_size": inner}),
        **{"num_hidden_layers": layers, "hidden_size": hidden, "num_attention_heads": heads, "head_dim": head},
        **{"num_key_value_heads": cached, "vocab_size": 152_000, "max_position_embeddings": _CONTEXT[generation]},
    }
    return {"text_config": text, "vision_config": _VISION[generation], "tie_word_embeddings": hidden < 3000}
