import hashlib
import math
import re
import time
from itertools import count, islice
from pathlib import Path

import pytest
import torch
from qwen_vl_utils import process_vision_info

from tasks.engines import EngineSpec, Usage, Workplace
from tasks.engines.decoding import Decoder
from tasks.engines.identity import model_identity
from tasks.engines.local import LocalEngine
from tasks.engines.scoring import score_answers, split_answers
from tasks.errors import EngineError
from tasks.images import ImageCache
from tasks.parsing import parse
from tasks.records import FreeText, Generation, ImagePart, ImageRef, LabelAnswer, Outcome, Request, Sampling, TextPart
from tasks.user_turn import user_content

LABELS = ("订单", "物流", "物流-派送中", "退款", "优惠券A", "优惠券B")
OPENING, BETWEEN, CLOSING = '{"理由": "', '", "所属类别": "', '"}'


def request(key: str, images: list[ImageRef], *, kind: str = "label", text: str = "请看图", **sampling) -> Request:
    """kind: `label`, `reason` (then label) or `text`."""
    with_reason = kind == "reason"
    answer = LabelAnswer(
        labels=LABELS,
        reason_key="理由" if with_reason else None,
        label_key="所属类别",
        opening=OPENING if with_reason else '{"所属类别": "',
        between=BETWEEN if with_reason else None,
        closing=CLOSING,
    )
    return Request(
        key=key,
        sample_id=key,
        purpose="classify",
        prefix="看图并回答。",
        parts=(TextPart(text=text), *(ImagePart(image=i) for i in images)),
        suffix="",
        constraint=FreeText() if kind == "text" else answer,
        sampling=Sampling(**{"max_tokens": 6, "label_probabilities": True, **sampling}),
        max_pixels=12 * 784,
        min_pixels=4 * 784,
    )


def varied(images: list[ImageRef], kind: str, **sampling) -> list[Request]:
    counts = (0, 1, 3, 2, 0, 1)
    texts = ("请看图" * (3 * i + 1) for i in range(6))
    return [
        request(f"{kind}{i}", images[:n], kind=kind, text=t, **sampling)
        for i, (n, t) in enumerate(zip(counts, texts, strict=True))
    ]


def answers(engine: LocalEngine, requests: list[Request]) -> dict[str, Generation]:
    generations = list(engine.generate(requests))
    assert sorted(g.key for g in generations) == sorted(r.key for r in requests)
    return {g.key: g for g in generations}


def inputs_of(engine: LocalEngine, asked: Request, answer: str = ""):
    """What the processor makes of the prompt and the answer's beginning, by the shortest way."""
    limits = {"max_pixels": asked.max_pixels, "min_pixels": asked.min_pixels}
    content = [e | limits if e["type"] == "image" else e for e in user_content(asked)]
    messages = [{"role": "user", "content": content}]
    prompt = engine._processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    pictures = process_vision_info(messages)[0]
    return engine._processor(text=[prompt + answer], images=pictures, do_resize=False, return_tensors="pt")


def logprobs_after(engine: LocalEngine, inputs, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of each of the tokens and of what follows, by one plain pass: no cache, padding or batch."""
    added = torch.tensor([tokens], dtype=torch.long)
    fillers = {"input_ids": added, "attention_mask": added * 0 + 1, "mm_token_type_ids": added * 0}
    whole = {k: torch.cat([v, fillers[k]], dim=1) if k in fillers else v for k, v in inputs.items()}
    with torch.no_grad():
        return engine._model(**whole).logits[0].log_softmax(-1)[-len(tokens) - 1 :]


def tokenised(engine: LocalEngine, text: str) -> list[int]:
    return engine._processor.tokenizer(text)["input_ids"]


def greedy_reason(engine: LocalEngine, inputs, length: int) -> tuple[list[int], str]:
    """The tokens before the closing quote, and the text that shares a token with it."""
    tokens: list[int] = []
    while len(tokens) < length:
        following = logprobs_after(engine, inputs, tokens)[-1]
        following[engine._decoder.banned] = -math.inf
        token = int(following.argmax())
        if token in engine._decoder.ends | engine._decoder.quotes:
            return tokens, engine._processor.tokenizer.decode([token], skip_special_tokens=True).split('"')[0]
        tokens.append(token)
    return tokens, ""


@pytest.mark.parametrize("kind", ["label", "reason"])
def test_a_batch_answers_as_single_items_do(engine: LocalEngine, images: list[ImageRef], kind: str):
    requests = varied(images, kind)
    together = answers(engine, requests)
    for asked in requests:
        alone = answers(engine, [asked])[asked.key]
        assert together[asked.key].outcome is Outcome.OK
        assert together[asked.key].texts == alone.texts
        assert together[asked.key].label_logprobs == pytest.approx(alone.label_logprobs, abs=1e-4)
        assert together[asked.key].tokens_in == alone.tokens_in > 0


@pytest.mark.parametrize("kind", ["label", "reason"])
def test_label_probabilities_equal_plain_full_passes(engine: LocalEngine, images: list[ImageRef], kind: str):
    requests = varied(images, kind)[:3]
    generations = answers(engine, requests)
    for asked in requests:
        inputs = inputs_of(engine, asked, OPENING if kind == "reason" else "")
        reason, unfed = greedy_reason(engine, inputs, 6) if kind == "reason" else ([], "")
        start = unfed + BETWEEN if kind == "reason" else '{"所属类别": "'
        likelihoods: list[torch.Tensor] = []
        for label in LABELS:
            tokens = reason + engine._processor.tokenizer(start + label + CLOSING)["input_ids"]
            logps = logprobs_after(engine, inputs, tokens)[:-1]
            likelihoods.append(logps.gather(1, torch.tensor(tokens)[:, None]).sum())
        expected = dict(zip(LABELS, torch.stack(likelihoods).log_softmax(0).tolist(), strict=True))
        generation = generations[asked.key]
        assert generation.label_logprobs == pytest.approx(expected, abs=1e-4)
        best = max(expected, key=expected.__getitem__)
        assert parse(asked, generation, source="t", model="m").label == best
        shown = OPENING + engine._processor.tokenizer.decode(reason).rstrip("\ufffd") if kind == "reason" else ""
        assert generation.texts == (shown + start + best + CLOSING,)


def test_a_greedy_text_is_the_one_of_transformers_own_generate(engine: LocalEngine, images: list[ImageRef]):
    asked = request("greedy", images[:2], kind="text", max_tokens=5)
    text = answers(engine, [asked])["greedy"].texts[0]
    made = inputs_of(engine, asked)
    banned = engine._decoder.banned.tolist()
    out = engine._model.generate(**made, max_new_tokens=5, do_sample=False, suppress_tokens=banned)
    assert text == engine._processor.tokenizer.decode(out[0, made["input_ids"].shape[1] :], skip_special_tokens=True)


def test_a_broken_image_hits_only_its_item(engine: LocalEngine, images: list[ImageRef], tmp_path: Path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(images[0].path).read_bytes()[:500])
    digest = hashlib.sha256(broken.read_bytes()).hexdigest()
    fields = {
        "broken": {"path": str(broken), "sha256": digest},
        "missing": {"path": str(tmp_path / "missing.png"), "sha256": "0" * 64},
        "strip": {"width": 1, "height": 20_000},
    }
    bad = {key: request(key, [images[1], images[0].model_copy(update=changed)]) for key, changed in fields.items()}
    requests = varied(images, "label")
    requests[3:3] = bad.values()
    generations = answers(engine, requests)
    assert {key for key, g in generations.items() if g.outcome is Outcome.BAD_MEDIA} == set(bad)
    assert {g.outcome for g in generations.values()} == {Outcome.OK, Outcome.BAD_MEDIA}
    assert all(Path(r.images[1].path).name in generations[key].detail for key, r in bad.items())


def test_a_cache_that_cannot_be_written_is_no_fault_of_the_items(
    checkpoint: Path, images: list[ImageRef], tmp_path: Path
):
    (tmp_path / "taken").write_text("a file")
    place = Workplace(ImageCache(tmp_path / "taken"), tmp_path)
    stuck = LocalEngine(EngineSpec(engine="local", model=str(checkpoint)), place)
    with pytest.raises(EngineError, match="cannot be written"):
        answers(stuck, varied(images, "label"))
    stuck.close()


def test_images_are_made_once(checkpoint: Path, images: list[ImageRef], tmp_path: Path):
    """The second engine has nothing but the cache to answer from."""
    place = Workplace(ImageCache(tmp_path / "cache"), tmp_path)
    moved = [image.model_copy(update={"path": str(tmp_path / f"{n}.png")}) for n, image in enumerate(images)]
    for image, copy in zip(images, moved, strict=True):
        Path(copy.path).write_bytes(Path(image.path).read_bytes())
    given: list[dict[str, Generation]] = []
    for _ in range(2):
        opened = LocalEngine(EngineSpec(engine="local", model=str(checkpoint)), place)
        given.append(answers(opened, varied(moved, "label")))
        opened.close()
        for copy in moved:
            Path(copy.path).unlink(missing_ok=True)
    first, second = ({key: g.label_logprobs for key, g in of.items()} for of in given)
    assert first == second
    assert None not in first.values()


def test_an_item_that_breaks_the_batch_fails_alone(engine: LocalEngine, images: list[ImageRef]):
    # a dialogue that spells the image token has more places for images than images
    poisoned = request("poison", images[:1], text="看<|image_pad|>图")
    generations = answers(engine, [*varied(images, "label"), poisoned])
    assert generations["poison"].outcome is Outcome.FAILED
    assert generations["poison"].detail
    assert [g.outcome for g in generations.values()].count(Outcome.OK) == 6


class SmallMemory(Decoder):
    """Runs out of memory beyond two prompts."""

    def prefill(self, ids: torch.Tensor, *rest):
        if len(ids) > 2:
            raise torch.OutOfMemoryError(f"{len(ids)} prompts")
        return super().prefill(ids, *rest)


def test_a_batch_too_large_for_the_memory_is_halved(
    checkpoint: Path, place: Workplace, engine: LocalEngine, images: list[ImageRef]
):
    small = LocalEngine(EngineSpec(engine="local", model=str(checkpoint), batch_size=8), place)
    small._decoder = SmallMemory(small._model, small._processor.tokenizer)
    requests = varied(images, "label")
    halved, whole = answers(small, requests), answers(engine, requests)
    assert {key: g.texts for key, g in halved.items()} == {key: g.texts for key, g in whole.items()}
    small.close()


def test_labels_scored_in_chunks_are_the_same(engine: LocalEngine):
    ids = torch.arange(20, 40).reshape(2, 10)
    options = [split_answers([(50, 51, n, 60) for n in range(70, 80)]), split_answers([(70,), (71, 72), (73,)])]
    with torch.inference_mode():
        rows = engine._decoder.prefill(ids, torch.zeros_like(ids), torch.ones_like(ids), None, None)
        whole = score_answers(engine._model, rows, options)
        chunked = score_answers(engine._model, rows, options, logits_budget=1)
    for expected, actual in zip(whole, chunked, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


def test_too_long_and_cut(engine: LocalEngine, images: list[ImageRef]):
    requests = [
        request("long", [], text="请看图" * 40_000),
        request("cut", [], kind="text", max_tokens=3, temperature=1.0),
        request("cut reason", images[:1], kind="reason", max_tokens=3, temperature=1.0, seed=1),
    ]
    generations = answers(engine, requests)
    assert generations["long"].outcome is Outcome.TOO_LONG
    assert re.search(r"needs \d+ tokens, 327\d\d are allowed: 32768 with the answer", generations["long"].detail)
    assert generations["cut"].outcome is Outcome.TRUNCATED
    assert generations["cut"].tokens_out == 3
    assert generations["cut reason"].outcome is Outcome.OK
    assert "cut at 3" in generations["cut reason"].detail


def dialogue(key: str, images: list[ImageRef], turns: int, **fields) -> Request:
    parts = [TextPart(text="对话：")]
    for turn in range(1, turns + 1):
        parts += [TextPart(text=f"请看图{turn}" * 20, turn=turn), ImagePart(image=images[turn % 3], turn=turn)]
    asked = request(key, [], **fields)
    return asked.model_copy(update={"parts": tuple(parts), "keep_from_turn": turns})


@pytest.mark.parametrize("kind", ["label", "reason", "text"])
def test_a_long_dialogue_is_answered_without_its_oldest_turns(
    checkpoint: Path, place: Workplace, engine: LocalEngine, images: list[ImageRef], kind: str
):
    spec = EngineSpec(engine="local", model=str(checkpoint), context_length=512)
    short = LocalEngine(spec, place)
    requests = [dialogue("short", images, 2, kind=kind), dialogue("long", images, 30, kind=kind)]
    generations = answers(short, requests)
    assert generations["short"].shortened == ""
    long = generations["long"]
    gone = re.fullmatch(r"dropped turns 1 to (\d+) \(\1 images\)", long.shortened)
    assert gone
    parts = tuple(p for p in requests[1].parts if p.turn == 0 or p.turn > int(gone[1]))
    cut = requests[1].model_copy(update={"parts": parts})
    same = answers(engine, [cut])["long"]
    assert (long.texts, long.tokens_in) == (same.texts, same.tokens_in)
    assert 400 < long.tokens_in < 512
    assert long.label_logprobs == pytest.approx(same.label_logprobs, abs=1e-4)
    short.close()


def test_the_answer_has_room_behind_the_longest_prompt_that_fits(
    checkpoint: Path, place: Workplace, engine: LocalEngine, images: list[ImageRef]
):
    """One token less of context, and it would have to be shortened."""
    tight = LocalEngine(EngineSpec(engine="local", model=str(checkpoint)), place)
    for kind, needed in (("label", 0), ("reason", 6), ("text", 6)):
        asked = request("a", images[:1], kind=kind, text="请看图" * 200)
        prompt = inputs_of(engine, asked)["input_ids"].shape[1]
        starts = [OPENING, BETWEEN] if kind == "reason" else ['{"所属类别": "']
        ends = [] if kind == "text" else [len(tokenised(engine, starts[-1] + label + CLOSING)) for label in LABELS]
        whole = prompt + needed + max(ends, default=0) + sum(len(tokenised(engine, s)) for s in starts[:-1])
        for context, shortened in ((whole, False), (whole - 1, True)):
            tight._context = context
            generation = answers(tight, [asked])["a"]
            assert bool(generation.shortened) is shortened
            assert generation.outcome in (Outcome.OK, Outcome.TRUNCATED)
    tight.close()


def test_usage_counts_the_time_in_which_batches_are_answered(
    checkpoint: Path, place: Workplace, images: list[ImageRef]
):
    opened = LocalEngine(EngineSpec(engine="local", model=str(checkpoint), batch_size=4), place)
    assert opened.usage() == Usage(target=4)

    def slowly():
        for asked in varied(images, "label"):
            time.sleep(0.05)
            yield asked

    began = time.perf_counter()
    for _ in opened.generate(slowly()):
        time.sleep(0.05)
    wall = time.perf_counter() - began
    usage = opened.usage()
    assert 0.3 <= usage.starved < usage.seconds < wall - 0.3
    # six in batches of four: one full, one half empty
    assert 0 < usage.busy < 4 * (usage.seconds - usage.starved)
    assert 0 < usage.utilisation < 1
    assert usage.gpus == torch.cuda.is_available()
    opened.close()


def test_three_samples_each_scored(engine: LocalEngine, images: list[ImageRef]):
    requests = varied(images, "reason", n=3, temperature=1.0, top_p=0.95, seed=7)
    generations = answers(engine, requests)
    for asked in requests:
        generation = generations[asked.key]
        assert len(generation.texts) == 3
        assert all(t.startswith(OPENING) and t.endswith(CLOSING) and BETWEEN in t for t in generation.texts)
        assert generation.label_logprobs is not None
        assert sum(map(math.exp, generation.label_logprobs.values())) == pytest.approx(1, abs=1e-4)
    assert len({t for g in generations.values() for t in g.texts}) > 6


def test_draws_repeat_whatever_the_batch_and_change_with_the_seed(engine: LocalEngine, images: list[ImageRef]):
    requests = varied(images, "text", n=2, temperature=1.0, seed=3)
    texts = {key: g.texts for key, g in answers(engine, requests).items()}
    assert texts == {key: g.texts for key, g in answers(engine, requests[::-1]).items()}
    assert texts[requests[2].key] == answers(engine, [requests[2]])[requests[2].key].texts
    reseeded = varied(images, "text", n=2, temperature=1.0, seed=4)
    assert texts != {key: g.texts for key, g in answers(engine, reseeded).items()}


def test_kinds_mix_in_one_batch(engine: LocalEngine, images: list[ImageRef]):
    requests = [r for kind in ("label", "reason", "text") for r in varied(images, kind)[:2]]
    together = answers(engine, requests)
    for asked in requests:
        alone = answers(engine, [asked])[asked.key]
        assert together[asked.key].texts == alone.texts


def test_a_stream_without_end_is_answered_as_it_comes(engine: LocalEngine, images: list[ImageRef]):
    pulled: list[int] = []

    def endless():
        for number in count():
            pulled.append(number)
            yield request(f"r{number}", images[number % 3 : number % 3 + 1])

    assert len({g.key for g in islice(engine.generate(endless()), 40)}) == 40
    assert len(pulled) <= 64


def test_an_adapter_changes_answers_and_identity(
    checkpoint: Path, place: Workplace, engine: LocalEngine, images: list[ImageRef], tmp_path: Path
):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(0)
    base = AutoModelForImageTextToText.from_pretrained(checkpoint)
    lora = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    get_peft_model(base, lora).save_pretrained(tmp_path / "fold0")
    spec = EngineSpec(engine="local", model=str(checkpoint), adapter=str(tmp_path / "fold0"))
    assert model_identity(spec).startswith(f"{checkpoint.name}#")
    assert "+fold0#" in model_identity(spec)
    adapted = LocalEngine(spec, place)
    asked = request("a", images[:1])
    ours, theirs = answers(adapted, [asked])["a"], answers(engine, [asked])["a"]
    assert ours.label_logprobs != pytest.approx(theirs.label_logprobs, abs=1e-3)
    assert ours.engine != theirs.engine
    adapted.close()
    adapted.close()
