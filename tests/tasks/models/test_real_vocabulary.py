"""What users' models do with the vocabulary that users have: Qwen2-VL's 151,657 tokens, on the labels of www2025."""

import random
import string
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from PIL import Image
from tiktoken.load import load_tiktoken_bpe
from transformers import AutoModelForImageTextToText, Qwen2Tokenizer
from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

from tasks.media import ImagePart, ImageRef, TextPart
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.server.label_tokens import Branch, find_branches
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.models.qwen_vl import load_processor
from tasks.models.token_budget import PromptBudget
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_user_content
from tasks.records import LabelAnswer, Request, Sample, Sampling, Split
from tasks.storage.json_lines import escape_json
from tasks.students.lora_dataset import make_dataset
from tests.checkpoints import ROWS, SPLIT, find_real_vocabulary, make_real_tokenizer, write_random_checkpoint
from tests.tasks.models.engines.local_requests import inputs_of, logprobs_after

PACK = load_pack("www2025")
GLOSSES = [gloss for task in PACK.tasks.values() for gloss in task.labels.values()]
MIN_PIXELS, MAX_PIXELS = 56 * 56, 768 * 784
DIALOGUE_TOKENS = 48_437
"""The longest dialogue of the challenge."""


@pytest.fixture(scope="module")
def tokenizer() -> Qwen2Tokenizer:
    return make_real_tokenizer()


@pytest.fixture(scope="module")
def checkpoint(tokenizer: Qwen2Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("real") / "base", tokenizer, rows=ROWS)


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Any:
    return load_processor(str(checkpoint))


@pytest.fixture(scope="module")
def engine(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalEngine]:
    folder = tmp_path_factory.mktemp("place")
    opened = LocalEngine(EngineSpec(engine="local", model=str(checkpoint)), Workplace(ImageCache(folder), folder))
    yield opened
    opened.close()


def draw_item(rng: random.Random, number: int = 0) -> Sample:
    """An item of the challenge's kind: a dialogue with up to three screenshots, or a screenshot alone."""
    task = rng.choice(list(PACK.tasks))
    parts: list[TextPart | ImagePart] = []
    for turn in range(1, rng.randint(1, 12) if task == "dialogue" else 2):
        said = rng.choice(GLOSSES) + rng.choice(["", "？", "😀", " OK\n\n", str(rng.randint(0, 10**6))])
        parts.append(TextPart(text=f"{rng.choice(['用户', '客服'])}: {said}\n", turn=turn))
    for place in range(rng.randint(1, 3)):
        name = f"{number}-{place}"
        shot = ImageRef(path=f"/{name}.png", sha256=name, width=rng.randint(500, 1300), height=rng.randint(300, 2600))
        parts.append(ImagePart(image=shot, turn=len(parts)))
    labels = tuple(PACK.tasks[task].labels)
    fields = {"id": str(number), "task": task, "parts": tuple(parts), "labels": labels, "given": rng.choice(labels)}
    return Sample(**fields, split=Split.LABELLED, source="train.json")


def make_prompter() -> Prompter:
    return Prompter(PACK, "m", min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS, texts={})


def test_the_tokens_are_those_of_qwens_own_encoder(tokenizer: Qwen2Tokenizer) -> None:
    """`tiktoken` is what Qwen's first models used, with the same file."""
    encoder = tiktoken.Encoding(
        "qwen", pat_str=SPLIT, mergeable_ranks=load_tiktoken_bpe(str(find_real_vocabulary())), special_tokens={}
    )
    texts = [*GLOSSES, "Let's 2024年  \n\n 已发货！！👍 e\u0301", '{"理由": "见图", "所属类别": "退款页面"}']
    assert [tokenizer(text)["input_ids"] for text in texts] == [encoder.encode(text) for text in texts]
    ids = {"<|im_start|>": 151644, "<|im_end|>": 151645, "<|image_pad|>": 151655, "<|video_pad|>": 151656}
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids


@pytest.mark.parametrize(("task", "count", "first", "deepest"), [("image", 25, 21, 2), ("dialogue", 23, 20, 2)])
@pytest.mark.parametrize("with_reason", [True, False])
def test_labels_part_at_single_tokens(
    tokenizer: Qwen2Tokenizer, task: str, count: int, first: int, deepest: int, with_reason: bool
) -> None:
    """One pass parts `first` groups of labels, and `deepest` passes part all. One-token codes would exist, but no model
    knows them.
    """
    labels = [escape_json(label) for label in PACK.tasks[task].labels]
    sample = draw_item(random.Random(0)).model_copy(update={"task": task, "labels": tuple(PACK.tasks[task].labels)})
    answer = make_prompter().classify(sample, Sampling(), with_reason=with_reason).constraint
    assert isinstance(answer, LabelAnswer) and len(labels) == count
    root = find_branches(tokenizer, answer.between or answer.opening, labels, answer.closing)
    assert root is not None
    assert (len(root.labels), count_levels(root)) == (first, deepest)
    codes = [tokenizer(answer.opening + letter)["input_ids"] for letter in string.ascii_uppercase[:count]]
    assert len({tuple(code) for code in codes}) == count and len({len(code) for code in codes}) == 1


def count_levels(branch: Branch) -> int:
    return 1 + max(map(count_levels, branch.branches.values()), default=0)


def count_by_processor(processor: Any, request: Request, *, pictures: bool) -> int:
    """Return the length of the processor's prompt; with `pictures` it gets real pixels, else their sizes alone."""
    turns = [{"role": "user", "content": make_user_content(request)}]
    prompt: str = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    size = {"shortest_edge": request.min_pixels, "longest_edge": request.max_pixels}
    if pictures:
        blank = [Image.new("RGB", (image.width, image.height)) for image in request.images]
        return len(processor(text=[prompt], images=blank or None, images_kwargs={"size": size})["input_ids"][0])
    reader, bounds = processor.image_processor, {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels}
    patches = [reader.get_number_of_image_patches(i.height, i.width, bounds) for i in request.images]
    first, *rest = prompt.split(processor.image_token)
    whole = first + "".join(processor.image_token * (n // 4) + text for n, text in zip(patches, rest, strict=True))
    return len(processor.tokenizer(whole)["input_ids"])


def count_differences(processor: Any, items: Sequence[Sample], *, pictures: bool) -> int:
    budget, prompter = PromptBudget(processor), make_prompter()
    requests = [prompter.classify(item, Sampling()) for item in items]
    return sum(budget.count(r) != count_by_processor(processor, r, pictures=pictures) for r in requests)


def test_the_budget_counts_what_the_processor_makes(processor: Any) -> None:
    rng = random.Random(1)
    assert count_differences(processor, [draw_item(rng, n) for n in range(10)], pictures=True) == 0
    assert count_differences(processor, [draw_item(rng, n) for n in range(40)], pictures=False) == 0


@pytest.mark.slow
def test_the_budget_counts_a_thousand_items(processor: Any) -> None:
    rng = random.Random(2)
    assert count_differences(processor, [draw_item(rng, n) for n in range(1000)], pictures=True) == 0


@pytest.mark.parametrize("limit", [32_768, 16_384, 4_096])
def test_the_longest_dialogue_is_shortened_to_fit(processor: Any, limit: int) -> None:
    budget, rng = PromptBudget(processor), random.Random(3)
    item = draw_item(rng).model_copy(update={"task": "dialogue", "labels": tuple(PACK.tasks["dialogue"].labels)})
    parts: list[TextPart | ImagePart] = []
    shot = ImageRef(path="/a.png", sha256="a", width=1080, height=2400)
    for turn in range(1, 61):
        parts.append(TextPart(text=f"{'用户' if turn % 2 else '客服'}: {rng.choice(GLOSSES)}\n", turn=turn))
        parts += [ImagePart(image=shot, turn=turn)] if turn % 2 else []
    request = make_prompter().classify(item.model_copy(update={"parts": tuple(parts)}), Sampling())
    request = request.model_copy(update={"keep_from_turn": 59})

    def fill(length: int) -> Request:
        long = TextPart(text=f"客服: 0{'1' * length}\n", turn=2)  # a token per digit
        return request.model_copy(update={"parts": (*request.parts[:2], long, *request.parts[2:])})

    request = fill(DIALOGUE_TOKENS - budget.count(fill(0)))
    assert budget.count(request) == DIALOGUE_TOKENS
    fitted = budget.fit(request, limit, answer=256)
    assert fitted.tokens == count_by_processor(processor, fitted.request, pictures=False) <= limit - 256
    assert "dropped turns 1 to" in fitted.note
    assert [p for p in request.parts if p.turn >= 59] == [p for p in fitted.request.parts if p.turn >= 59]


def test_only_the_answers_tokens_count_towards_the_loss(
    processor: Any, tokenizer: Qwen2Tokenizer, tmp_path: Path
) -> None:
    """And what comes before them is the prompt with which the local engine asks."""
    rng, prompter = random.Random(4), make_prompter()
    taught = [(save_images(draw_item(rng, n), tmp_path), reason) for n, reason in enumerate(["", "图中有退款按钮"])]
    processor.image_processor.do_resize = False
    rows = make_dataset(prompter, taught, patch_size=14)[:]
    batch = DataCollatorForVisionLanguageModeling(processor, completion_only_loss=True)(
        [{key: rows[key][i] for key in rows} for i in range(2)]
    )
    for i, (item, reason) in enumerate(taught):
        answer = prompter.answer(item.given or "", reason)
        request = prompter.classify(item, Sampling(), with_reason=bool(reason))
        real = batch["input_ids"][i][batch["attention_mask"][i] == 1].tolist()
        trained = batch["labels"][i][batch["labels"][i] != -100].tolist()
        assert trained == tokenizer(answer + "<|im_end|>\n")["input_ids"]
        assert len(real) - len(trained) == PromptBudget(processor).count(request)
        turns = [{"role": "user", "content": make_user_content(request)}]
        prompt = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        asked = processor(text=[prompt], images=rows["images"][i], do_resize=False)["input_ids"][0]
        assert real == [*asked, *trained]


def save_images(item: Sample, folder: Path) -> Sample:
    parts: list[TextPart | ImagePart] = []
    for part in item.parts:
        if isinstance(part, ImagePart):
            file = folder / f"{part.image.sha256}.png"
            Image.new("RGB", (112, 168), "white").save(file)
            part = ImagePart(image=part.image.model_copy(update={"path": str(file), "width": 112, "height": 168}))
        parts.append(part)
    return item.model_copy(update={"parts": tuple(parts)})


def test_a_merged_adapter_is_the_adapter(checkpoint: Path, engine: LocalEngine, tmp_path: Path) -> None:
    torch.manual_seed(0)
    targets = r".*language_model.*\.(q_proj|v_proj|down_proj)"
    made = get_peft_model(
        AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32),
        LoraConfig(r=4, target_modules=targets, init_lora_weights=False),
    )
    made.save_pretrained(tmp_path / "adapter")
    request = make_prompter().classify(save_images(draw_item(random.Random(5)), tmp_path), Sampling())
    spec = EngineSpec(engine="local", model=str(checkpoint), adapter=str(tmp_path / "adapter"))
    merged = LocalEngine(spec, Workplace(ImageCache(tmp_path), tmp_path))
    inputs = inputs_of(merged, request)
    base = engine._model
    found = logprobs_after(merged, inputs, [1, 2, 3])
    merged._model = PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32), tmp_path / "adapter"
    ).eval()
    expected = logprobs_after(merged, inputs, [1, 2, 3])
    assert found.shape[-1] == ROWS
    assert float((found - expected).abs().max()) < 1e-4
    merged._model = base
    assert float((found - logprobs_after(merged, inputs, [1, 2, 3])).abs().max()) > 0.01
