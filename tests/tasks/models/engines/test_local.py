import math
import time
from itertools import count, islice
from pathlib import Path

import pytest
import torch

from tasks.media import BoxForm, ImageRef
from tasks.models.engines.engine import Usage, Workplace
from tasks.models.engines.identity import identify_model
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.local.scoring import score_answers, split_answers
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache, compute_sides
from tasks.prompts.parsing import parse
from tasks.records import Generation, Outcome
from tests.tasks.models.engines.local_requests import (
    BETWEEN,
    CLOSING,
    LABELS,
    OPENING,
    answers,
    greedy_reason,
    inputs_of,
    logprobs_after,
    request,
    varied,
)


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


@pytest.mark.parametrize("system", ["", "你是客服助手。"])
def test_a_greedy_text_is_the_one_of_transformers_own_generate(
    engine: LocalEngine, images: list[ImageRef], system: str
):
    asked = request("greedy", images[:2], kind="text", max_tokens=5).model_copy(update={"system": system})
    text = answers(engine, [asked])["greedy"].texts[0]
    made = inputs_of(engine, asked)
    banned = engine._decoder.banned.tolist()
    out = engine._model.generate(**made, max_new_tokens=5, do_sample=False, suppress_tokens=banned)
    assert text == engine._processor.tokenizer.decode(out[0, made["input_ids"].shape[1] :], skip_special_tokens=True)


def test_images_are_made_once(checkpoint: Path, images: list[ImageRef], tmp_path: Path):
    """The second engine can only read images from the cache."""
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


def test_labels_scored_in_chunks_are_the_same(engine: LocalEngine):
    ids = torch.arange(20, 40).reshape(2, 10)
    options = [split_answers([(50, 51, n, 60) for n in range(70, 80)]), split_answers([(70,), (71, 72), (73,)])]
    with torch.inference_mode():
        rows = engine._decoder.prefill(ids, torch.zeros_like(ids), torch.ones_like(ids), {})
        whole = score_answers(engine._model, rows, options)
        chunked = score_answers(engine._model, rows, options, logits_budget=1)
    for expected, actual in zip(whole, chunked, strict=True):
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


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
    assert 0 < usage.busy < usage.target * usage.seconds
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
    reseed = varied(images, "text", n=2, temperature=1.0, seed=4)
    assert texts != {key: g.texts for key, g in answers(engine, reseed).items()}


def test_an_answer_with_boxes_says_at_which_size_the_images_were_seen(engine: LocalEngine, images: list[ImageRef]):
    plain = varied(images, "label")[0]
    with_images = next(r for r in varied(images, "label") if r.images)
    pointing = with_images.model_copy(update={"key": "pointing", "boxes": BoxForm.QWEN2_5})
    found = answers(engine, [plain, pointing])
    bounds = {"min_pixels": pointing.min_pixels, "max_pixels": pointing.max_pixels, "patch_size": 14}
    assert found["pointing"].sides == tuple(compute_sides(image, **bounds) for image in pointing.images)
    assert found[plain.key].sides == ()


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
    assert identify_model(spec).startswith(f"{checkpoint.name}#")
    assert "+fold0#" in identify_model(spec)
    adapted = LocalEngine(spec, place)
    asked = request("a", images[:1])
    ours, theirs = answers(adapted, [asked])["a"], answers(engine, [asked])["a"]
    assert ours.label_logprobs != pytest.approx(theirs.label_logprobs, abs=1e-3)
    assert ours.engine != theirs.engine
    adapted.close()
    adapted.close()
