"""The GPU memory that training needs, from the shapes in config.json."""

import json
from pathlib import Path

import pytest

from tasks.errors import ConfigError
from tasks.models.engines.gpus import Gpu
from tasks.models.model_sizes import find_model_config
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.students.lora_memory import compute_memory, estimate_memory
from tasks.students.settings import StudentSpec
from tests.tasks.making import sample

QWEN2_VL_7B = {
    "hidden_size": 3584,
    "num_hidden_layers": 28,
    "intermediate_size": 18944,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vision_config": {"depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4},
}
"""The shapes of Qwen2-VL-7B-Instruct, which has 8.29 billion parameters."""
QWEN3_VL_8B = {
    "text_config": {
        "hidden_size": 4096,
        "num_hidden_layers": 36,
        "intermediate_size": 12288,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "dtype": "bfloat16",
    },
    "tie_word_embeddings": False,
    "vision_config": {
        "depth": 27,
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "out_hidden_size": 4096,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}
"""The shapes of Qwen3-VL-8B-Instruct, which has 8.77 billion parameters."""
SPEC = StudentSpec(base="somewhere")


@pytest.mark.parametrize(("config", "billions"), [(QWEN2_VL_7B, 8.29), (QWEN3_VL_8B, 8.77)])
def test_the_weights_are_those_of_the_published_models(config: dict[str, object], billions: float) -> None:
    assert compute_memory(SPEC, config, 0).weights / 2e9 == pytest.approx(billions, rel=0.02)
    full = {**config, "torch_dtype": "float32"}
    assert compute_memory(SPEC, full, 0).weights / 4e9 == pytest.approx(billions, rel=0.02)


def test_what_the_message_says_to_lower_lowers_it() -> None:
    def need(**changes: object) -> float:
        return compute_memory(SPEC.model_copy(update=changes), QWEN2_VL_7B, 2000).mib

    assert 20 < need() / 1024 < 24  # fits an L40S or a 24 GB card, as people report for this size
    assert need(batch_size=1) < need() < need(batch_size=8) < need(batch_size=8, gradient_checkpointing=False)
    assert need(gradient_checkpointing=False) / 1024 > 48


def test_only_gpus_that_are_large_enough_are_used() -> None:
    memory = compute_memory(SPEC, QWEN2_VL_7B, 2000)
    small, large, unknown = Gpu("0", "a", 12_000, 12_000), Gpu("1", "b", 81_920, 0), Gpu("MIG-1", "c", 0, 0)
    assert memory.choose([small, large, unknown]) == [large, unknown]
    with pytest.raises(ConfigError, match=r"needs about 2\d GiB.*GPU, 0, has 12 GiB; lower `student.batch_size`"):
        memory.choose([small])


def test_the_longest_item_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN2_VL_7B))
    prompter = Prompter(load_pack("demo"), "base", max_pixels=768 * 784, min_pixels=3136)
    short, long = sample("a", "退款", task="dialogue"), sample("b", "退款" * 500, task="dialogue")
    spec = StudentSpec(base=str(tmp_path))
    both, one = (estimate_memory(spec, None, prompter, items) for items in ([short, long], [short]))
    assert both and one and both.mib > one.mib
    (tmp_path / "config.json").write_text("{}")
    assert estimate_memory(spec, None, prompter, [short]) is None


def test_a_base_that_is_known_by_name_needs_as_much_as_its_config_says() -> None:
    config = find_model_config("Qwen/Qwen2-VL-7B-Instruct")
    assert config is not None
    assert compute_memory(SPEC, config, 3000).mib == pytest.approx(
        compute_memory(SPEC, QWEN2_VL_7B, 3000).mib, rel=0.02
    )
    experts = find_model_config("Qwen/Qwen3-VL-30B-A3B-Instruct")
    assert experts is not None and compute_memory(SPEC, experts, 3000).mib > 55_000
