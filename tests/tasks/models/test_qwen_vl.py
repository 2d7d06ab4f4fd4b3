import json
import random
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from transformers import AutoProcessor

from tasks.errors import EngineError
from tasks.media import ImagePart, ImageRef, TextPart
from tasks.models.engines.spec import EngineSpec
from tasks.models.qwen_vl import QwenVL, close_thoughts, find_patch_size, load_processor, read_qwen_vl
from tasks.models.token_budget import PromptBudget
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import FreeText, Request, Sampling
from tests.checkpoints import GENERATIONS

NAMES = tuple(GENERATIONS)
BOUNDS = [(56 * 56, 768 * 784), (3136, 100_000), (50_000, 50_000)]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoints_own_files_say_what_it_is(name: str, random_checkpoints: Mapping[str, Path]) -> None:
    made = GENERATIONS[name]
    folder = random_checkpoints[name]
    assert read_qwen_vl(str(folder)) == QwenVL(made.model_type, made.patch_size, made.thinks)
    assert find_patch_size(EngineSpec(engine="local", model=str(folder))) == made.patch_size
    served = EngineSpec(engine="server", model="ours", base_urls=("http://x/v1",), tokenizer=str(folder))
    assert find_patch_size(served) == made.patch_size


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("Qwen/Qwen2-VL-7B-Instruct", QwenVL("qwen2_vl", 14, False)),
        ("Qwen/Qwen2-VL-72B-Instruct-GPTQ-Int4", QwenVL("qwen2_vl", 14, False)),
        ("Qwen/Qwen2.5-VL-72B-Instruct-AWQ", QwenVL("qwen2_5_vl", 14, False)),
        ("Qwen/Qwen3-VL-8B-Instruct", QwenVL("qwen3_vl", 16, False)),
        ("Qwen/Qwen3-VL-4B-Thinking-FP8", QwenVL("qwen3_vl", 16, True)),
        ("Qwen/Qwen3-VL-30B-A3B-Thinking", QwenVL("qwen3_vl_moe", 16, True)),
    ],
)
def test_qwens_own_checkpoints_are_known_without_a_network(model: str, expected: QwenVL) -> None:
    assert read_qwen_vl(model) == expected


@pytest.mark.parametrize("model", ["Qwen/Qwen3-VL-Embedding-2B", "somebody/qwen2-vl-tuned", "gpt-5"])
def test_another_name_is_refused_where_its_files_are_not_at_hand(model: str) -> None:
    with pytest.raises(EngineError, match=rf"which Qwen-VL {model} is: .*; give the folder of a checkpoint"):
        read_qwen_vl(model)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "has no config.json"),
        ({"model_type": "internvl"}, "`model_type` in config.json is internvl, .* qwen2_vl, qwen2_5_vl, qwen3_vl"),
        ({"model_type": "qwen3_vl", "vision_config": {"spatial_merge_size": 3}}, "2 by 2 per token"),
    ],
)
def test_an_unknown_checkpoint_is_refused(config: object, message: str, tmp_path: Path) -> None:
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(EngineError, match=message):
        read_qwen_vl(str(tmp_path))


def test_a_server_with_a_name_of_its_own_is_no_known_model() -> None:
    assert find_patch_size(EngineSpec(engine="server", model="shop-vl", base_urls=("http://x/v1",))) == 14
    qwen3 = EngineSpec(engine="server", model="Qwen/Qwen3-VL-8B-Instruct", base_urls=("http://x/v1",))
    assert find_patch_size(qwen3) == 16


def test_only_a_generation_prompt_that_opens_thoughts_is_closed() -> None:
    qwen3 = "{{- '<|im_start|>assistant\\n<think>\\n' }}"
    assert close_thoughts(qwen3) == "{{- '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n' }}"
    for other in ("{{ '<|im_start|>assistant\\n' }}", "{{ '<|im_start|>assistant\\n<think>\\n' + thoughts }}"):
        assert close_thoughts(other).count("</think>") == other.count("</think>")


@pytest.mark.parametrize("name", NAMES)
def test_a_prompt_ends_where_the_template_begins_an_answer(name: str, random_checkpoints: Mapping[str, Path]) -> None:
    turns = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]
    folder = str(random_checkpoints[name])
    prompt = load_processor(folder).apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    whole = AutoProcessor.from_pretrained(folder).apply_chat_template(turns, tokenize=False)
    assert whole.removeprefix(prompt) == "答<|im_end|>\n"


@pytest.mark.parametrize("name", NAMES)
def test_the_budget_counts_what_the_processor_makes(name: str, random_checkpoints: Mapping[str, Path]) -> None:
    """The processor resizes by itself here, within the same bounds in pixels."""
    processor = load_processor(str(random_checkpoints[name]))
    budget, rng = PromptBudget(processor), random.Random(name)
    for least, most in BOUNDS:
        sizes = [(rng.randint(40, 1500), rng.randint(40, 1500)) for _ in range(5)]
        parts = [ImagePart(image=ImageRef(path="a", sha256="a", width=w, height=h)) for w, h in sizes]
        request = Request(
            key="k", sample_id="s", purpose="classify", prefix="看图。<think>", suffix="回答：", constraint=FreeText(),
            parts=(TextPart(text="用户: 在吗"), *parts), sampling=Sampling(), min_pixels=least, max_pixels=most,
        )  # fmt: skip
        turns = [*make_system_turn(request), {"role": "user", "content": make_user_content(request)}]
        prompt = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        size = {"shortest_edge": least, "longest_edge": most}
        made = processor(text=[prompt], images=[Image.new("RGB", s) for s in sizes], images_kwargs={"size": size})
        assert budget.count(request) == len(made["input_ids"][0])
