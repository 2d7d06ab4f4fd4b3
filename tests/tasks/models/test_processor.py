"""The processor without torch beside transformers' own, on a checkpoint's files."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoProcessor

from tasks.demo.checkpoint import write_checkpoint
from tasks.models.processor import LightProcessor, read_processor
from tasks.models.token_budget import PromptBudget
from tasks.records import Sampling
from tests.conftest import ROOT
from tests.tasks.making import image, prompter, sample

TURNS = [
    {"role": "system", "content": "看图。"},
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "哪个？ A/B "}]},
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = (f"用户: 在吗\n客服: 在的，订单{i} has arrived. What's 第{i}个？" for i in range(200))
    return write_checkpoint(tmp_path_factory.mktemp("tiny"), texts)


@pytest.fixture(scope="module")
def theirs(checkpoint: Path) -> Any:
    return AutoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def ours(checkpoint: Path) -> LightProcessor:
    return read_processor(str(checkpoint), local_files_only=True)


words = st.sampled_from(["订单", "\n\n", " ", "<|im_end|>", "<|image_pad|>", "let's", "  \n x", "é", "👍"])


@settings(max_examples=40)
@given(st.lists(st.text(max_size=6) | words, max_size=8).map("".join))
def test_texts_have_the_same_tokens(ours: LightProcessor, theirs: Any, text: str):
    ids = theirs.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert ours.tokenizer(text, add_special_tokens=False)["input_ids"] == ids
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    assert ours.tokenizer.decode(ids, **options) == theirs.tokenizer.decode(ids, **options)


@pytest.mark.parametrize("turns", [TURNS, TURNS[1:], [*TURNS, {"role": "assistant", "content": "A"}]])
@pytest.mark.parametrize("generate", [True, False])
def test_turns_become_the_same_text(ours: LightProcessor, theirs: Any, turns: list[Any], generate: bool):
    options = {"tokenize": False, "add_generation_prompt": generate}
    assert ours.apply_chat_template(turns, **options) == theirs.apply_chat_template(turns, **options)


def test_a_begun_answer_is_left_open(ours: LightProcessor, theirs: Any):
    turns = [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "A: A, Z:"}]
    options = {"tokenize": False, "continue_final_message": True}
    text = ours.tokenizer.apply_chat_template(turns, **options)
    assert text == theirs.tokenizer.apply_chat_template(turns, **options)
    assert text.endswith("A: A, Z:")


def test_prompts_have_the_same_length(ours: LightProcessor, theirs: Any):
    for content in (("用户: 在",), ("用户: 在", image(), "客服: 好", image("b"))):
        request = prompter().classify(sample("s", *content), Sampling())
        assert PromptBudget(ours).count(request) == PromptBudget(theirs).count(request)


def test_older_files_are_read_too(checkpoint: Path, tmp_path: Path, ours: LightProcessor):
    """The hub's Qwen2-VL has its template in chat_template.json, others several in tokenizer_config.json."""
    old = Path(shutil.copytree(checkpoint, tmp_path / "old"))
    template = (old / "chat_template.jinja").read_text("utf-8")
    (old / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="has no chat template"):
        read_processor(str(old))
    config = json.loads((old / "tokenizer_config.json").read_text("utf-8"))
    several = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": template}]
    (old / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": several}), "utf-8")
    assert read_processor(str(old)).apply_chat_template(TURNS) == ours.apply_chat_template(TURNS)
    (old / "chat_template.json").write_text(json.dumps({"chat_template": "{% generation %}x{% endgeneration %}"}))
    assert read_processor(str(old)).apply_chat_template(TURNS) == "x"


def test_nothing_heavy_is_imported(checkpoint: Path):
    code = "import sys; from tasks.models.processor import read_processor as l; l(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, checkpoint], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers"} & set(done.stdout.split())
