import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from qwen_vl_utils import fetch_image
from transformers import AutoProcessor, Qwen2VLImageProcessor

from tasks.demo.checkpoint import write_checkpoint
from tasks.media import ImagePart, ImageRef, Part, TextPart
from tasks.models.image_cache import TooThin, open_images
from tasks.models.token_budget import PromptBudget, count_image_tokens, estimate_prompt_tokens
from tasks.models.unanswered import TooLong
from tasks.prompts.turns import make_system_turn, make_user_content
from tasks.records import FreeText, Request, Sampling
from tests.tasks.making import image, prompter, sample

rng = random.Random(0)
# for images longer than max_pixels / 784 times their width, qwen_vl_utils (used here) and transformers disagree
SIZES = [(28, 28), (29, 57), (42, 70), (1080, 2340), (500, 28)]
SIZES += [(rng.randint(100, 1500), rng.randint(100, 1500)) for _ in range(30)]
BOUNDS = [(56 * 56, 1280 * 784), (112 * 168, 112 * 168), (784, 100 * 784)]


def sized(width: int, height: int, path: str = "/a.png") -> ImageRef:
    return ImageRef(path=path, sha256="a", width=width, height=height)


@pytest.fixture(scope="module", params=[14, 16], ids=["qwen2", "qwen3"])
def budget(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> PromptBudget:
    texts = (f"用户: 在吗\n客服: 在的，订单{i} has arrived. What's 第{i}个？" for i in range(200))
    processor = AutoProcessor.from_pretrained(write_checkpoint(tmp_path_factory.mktemp("tiny"), texts))
    processor.image_processor = Qwen2VLImageProcessor(patch_size=request.param)
    return PromptBudget(processor)


def asked(
    *parts: Part, prefix: str = "看图并回答。\n", suffix: str = "\n回答：", system: str = "", **fields: int
) -> Request:
    return Request(
        key="k",
        sample_id="s",
        purpose="classify",
        prefix=prefix,
        parts=parts,
        suffix=suffix,
        system=system,
        constraint=FreeText(),
        sampling=Sampling(),
        **{"max_pixels": 30 * 784, "min_pixels": 4 * 784, **fields},
    )


def made(budget: PromptBudget, request: Request) -> dict[str, list[list[int]]]:
    """Return the processor's tensors for the prompt, with blank images of the right sizes."""
    processor, bounds = budget._processor, {"min_pixels": request.min_pixels, "max_pixels": request.max_pixels}
    patch = processor.image_processor.patch_size
    pictures = [
        fetch_image({"image": Image.new("RGB", (i.width, i.height)), **bounds}, image_patch_size=patch)
        for i in request.images
    ]
    turns = [*make_system_turn(request), {"role": "user", "content": make_user_content(request)}]
    prompt = processor.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return processor(text=[prompt], images=pictures or None, do_resize=False)


def dialogue(turns: int, keep: int, images_a_turn: int = 1, **fields: int) -> Request:
    """Return a request with a heading (turn 0), and a text and phone screenshots in each turn."""
    parts: list[Part] = [TextPart(text="对话：\n"), ImagePart(image=sized(200, 200))]
    for turn in range(1, turns + 1):
        parts.append(TextPart(text=f"用户: 第{turn}个订单" + "到哪里了" * (turn % 4) + "\n", turn=turn))
        parts += [ImagePart(image=sized(300 + turn, 600), turn=turn)] * images_a_turn
    return asked(*parts, keep_from_turn=keep, **fields)


@pytest.mark.parametrize(("min_pixels", "max_pixels"), BOUNDS)
def test_an_image_costs_what_the_processor_makes_of_it(min_pixels: int, max_pixels: int) -> None:
    processor = Qwen2VLImageProcessor(size={"shortest_edge": min_pixels, "longest_edge": max_pixels})
    bounds = {"min_pixels": min_pixels, "max_pixels": max_pixels}
    for width, height in SIZES:
        grid = processor(images=[Image.new("RGB", (width, height))], return_tensors="np")["image_grid_thw"][0]
        # one token per 2 × 2 patches of 14 pixels, and two that frame an image
        expected = int(grid.prod()) // 4 + 2
        assert count_image_tokens(sized(width, height), **bounds, patch_size=14) == expected


@pytest.mark.parametrize(("width", "height"), [(300, 700), (31, 31), (1200, 90)])
def test_an_opened_image_costs_the_same(tmp_path: Path, width: int, height: int) -> None:
    file = tmp_path / "a.png"
    Image.new("RGB", (width, height)).save(file)
    ref = sized(width, height, str(file))
    bounds = {"min_pixels": 56 * 56, "max_pixels": 200 * 784, "patch_size": 14}
    (opened,) = open_images([ref], **bounds) or []
    assert opened.width * opened.height // 784 + 2 == count_image_tokens(ref, **bounds)


def test_an_estimate_is_images_text_and_a_frame() -> None:
    asking = prompter()
    costs = [
        estimate_prompt_tokens(asking.classify(sample("s", *content), Sampling()), patch_size=14)
        for content in (
            ("用户: 在",),
            ("用户: 在", image()),
            ("用户: 在", image(), image("b")),
            ("用户: 在" + "吗" * 160,),
            ("用户: 在", sized(1, 20_000)),
        )
    ]
    assert costs[1] - costs[0] == costs[2] - costs[1] == 4 * 6 + 2
    assert costs[3] - costs[0] == 100
    assert costs[4] == costs[0]


def test_the_longest_draft_is_counted(budget: PromptBudget) -> None:
    plain = asked(TextPart(text="用户: 在"))
    short, long = [
        budget.count(plain.model_copy(update={"drafts": drafts})) for drafts in (("想",), ("想", "想" * 100))
    ]
    assert long - short >= 50 and short > budget.count(plain) + 2
    with pytest.raises(TooLong):
        budget.fit(plain.model_copy(update={"drafts": ("想" * 100,)}), short)


# texts that may merge at the borders of parts: spaces, line ends, combining marks, halves of special tokens
pieces = st.text("a 1\n\t.。单é\u0301\u200d👍'<|>", max_size=12)
words = st.sampled_from(["订单", "\n\n", " ", "<|im_end|>", "<|im_start|>", "<image>", "let's", "  \n x"])
texts = st.lists(pieces | words, max_size=6).map("".join)
sides = st.integers(20, 900)
images = st.builds(sized, sides, sides)
contents = st.lists(
    st.one_of(texts.map(lambda t: TextPart(text=t)), images.map(lambda i: ImagePart(image=i))), max_size=8
)


@settings(max_examples=60, deadline=None)
@given(parts=contents, prefix=texts, suffix=texts, system=texts, most=st.integers(4, 40))
def test_the_count_equals_the_processors(
    budget: PromptBudget, parts: list[Part], prefix: str, suffix: str, system: str, most: int
):
    request = asked(*parts, prefix=prefix, suffix=suffix, system=system, max_pixels=most * 1024, min_pixels=4 * 1024)
    assume(all(max(i.width, i.height) < most * min(i.width, i.height) for i in request.images))
    assert budget.count(request) == len(made(budget, request)["input_ids"][0])


def test_several_threads_may_ask(budget: PromptBudget):
    """Counts while other threads call the tokenizer, which sets its padding and truncation."""
    items = [dialogue(n, keep=n) for n in range(1, 40)]
    expected = [budget.count(item) for item in items]
    budget._text_tokens.cache_clear()

    def ask(number: int) -> int:
        budget._processor.tokenizer(f"请看图{number}")
        return budget.count(items[number % 39])

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(39 * 5))) == expected * 5


def test_an_image_token_in_the_text_is_not_an_image(budget: PromptBudget):
    plain = asked(TextPart(text="看图"), ImagePart(image=sized(300, 300)))
    poisoned = asked(TextPart(text="看<|image_pad|>图"), ImagePart(image=sized(300, 300)))
    pad = budget._processor.tokenizer.convert_tokens_to_ids(budget._processor.image_token)
    ids = [list(made(budget, request)["input_ids"][0]) for request in (plain, poisoned)]
    assert ids[0].count(pad) == ids[1].count(pad) > 0
    assert budget.count(poisoned) == len(ids[1])


def test_an_image_that_cannot_be_resized_is_named(budget: PromptBudget):
    request = asked(ImagePart(image=sized(1, 20_000, "/strip.png")))
    for counting in (budget.count, lambda r: budget.fit(r, 10_000)):
        with pytest.raises(TooThin, match=r"/strip\.png: 1×20000 pixels"):
            counting(request)


def test_a_request_that_fits_is_unchanged(budget: PromptBudget):
    request = dialogue(4, keep=4)
    tokens = budget.count(request)
    fitted = budget.fit(request, tokens)
    assert fitted.request is request
    assert (fitted.tokens, fitted.note) == (tokens, "")


@pytest.mark.parametrize("share", [0.9, 0.6, 0.35])
def test_oldest_turns_are_removed_first_and_no_more_than_needed(budget: PromptBudget, share: float):
    request = dialogue(12, keep=12)
    limit = round(budget.count(request) * share)
    fitted = budget.fit(request, limit)
    turns = sorted({p.turn for p in fitted.request.parts})
    first = turns[1]
    assert turns == [0, *range(first, 13)]
    assert fitted.request.parts == tuple(p for p in request.parts if p.turn == 0 or p.turn >= first)
    assert fitted.request.max_pixels == request.max_pixels
    ids = made(budget, fitted.request)["input_ids"][0]
    assert budget.count(fitted.request) == fitted.tokens == len(ids) <= limit
    one_less = request.model_copy(update={"parts": tuple(p for p in request.parts if p.turn in (0, first - 1, *turns))})
    assert budget.count(one_less) > limit
    gone = "turn 1 (1 image)" if first == 2 else f"turns 1 to {first - 1} ({first - 1} images)"
    assert fitted.note == f"dropped {gone}"


def test_images_shrink_after_turns_and_no_more_than_needed(budget: PromptBudget):
    request = dialogue(4, keep=3)
    token_pixels = (2 * budget._patch_size) ** 2
    kept = tuple(p for p in request.parts if p.turn in (0, 3, 4))
    limit = budget.count(request.model_copy(update={"parts": kept})) - 30
    fitted = budget.fit(request, limit)
    assert fitted.request.parts == kept
    low = fitted.request.max_pixels
    assert request.min_pixels <= low < request.max_pixels
    assert fitted.tokens == budget.count(fitted.request) <= limit
    assert budget.count(fitted.request.model_copy(update={"max_pixels": low + token_pixels})) > limit
    assert fitted.note == f"dropped turns 1 to 2 (2 images); max_pixels {request.max_pixels} → {low}"
    assert len(made(budget, fitted.request)["input_ids"][0]) == fitted.tokens


def test_nothing_is_dropped_where_nothing_may_be(budget: PromptBudget):
    request = dialogue(4, keep=0)
    fitted = budget.fit(request, budget.count(request) - 20)
    assert fitted.request.parts == request.parts
    assert fitted.note == f"max_pixels {request.max_pixels} → {fitted.request.max_pixels}"


def test_a_prompt_that_cannot_fit_is_refused_with_its_length(budget: PromptBudget):
    request = dialogue(3, keep=2)
    whole = budget.count(request)
    with pytest.raises(
        TooLong, match=rf"^needs {whole} tokens, 20 are allowed; .* dropped turn 1 \(1 image\), max_pixels"
    ):
        budget.fit(request, 20)
    with pytest.raises(
        TooLong, match=rf"^needs {budget.count(asked())} tokens, 5 are allowed \(15 including the answer\)$"
    ):
        budget.fit(asked(), 15, answer=10)


def test_no_image_is_shrunk_to_nothing(budget: PromptBudget):
    request = asked(ImagePart(image=sized(2000, 100)), ImagePart(image=sized(900, 900)), max_pixels=400 * 1024)
    with pytest.raises(TooLong) as refused:
        budget.fit(request, 1)
    floor = int(str(refused.value).rsplit("→", 1)[1])
    smallest = request.model_copy(update={"max_pixels": floor})
    assert budget.count(smallest) == len(made(budget, smallest)["input_ids"][0]) < budget.count(request) / 4


@settings(max_examples=600, deadline=None)
@given(turns=st.integers(1, 9), keep=st.integers(0, 9), images=st.integers(0, 3), share=st.floats(0.2, 1.0))
def test_a_shortened_request_fits(budget: PromptBudget, turns: int, keep: int, images: int, share: float):
    request = dialogue(turns, keep=min(keep, turns), images_a_turn=images)
    limit = round(budget.count(request) * share)
    try:
        fitted = budget.fit(request, limit)
    except TooLong:
        kept = tuple(p for p in request.parts if p.turn == 0 or p.turn >= (request.keep_from_turn or 1))
        least = {"parts": kept, "max_pixels": 4 * (2 * budget._patch_size) ** 2}
        assert budget.count(request.model_copy(update=least)) > limit
        return
    assert fitted.tokens == budget.count(fitted.request) <= limit
    assert {p for p in request.parts if p.turn == 0 or p.turn >= request.keep_from_turn} <= set(fitted.request.parts)
    assert bool(fitted.note) is (fitted.request is not request)
