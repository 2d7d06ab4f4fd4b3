import hashlib
import re
from pathlib import Path

import pytest
import torch

from tasks.errors import EngineError
from tasks.media import ImagePart, ImageRef, TextPart
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.decoding import Decoder
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.records import Outcome, Request
from tests.tasks.models.engines.local_requests import (
    BETWEEN,
    CLOSING,
    LABELS,
    OPENING,
    answers,
    inputs_of,
    request,
    tokenised,
    varied,
)


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
    found = {key: g.outcome for key, g in generations.items() if g.outcome is not Outcome.OK}
    assert found == {"broken": Outcome.BAD_MEDIA, "missing": Outcome.FAILED, "strip": Outcome.BAD_MEDIA}
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


def test_an_item_that_breaks_the_batch_fails_alone(engine: LocalEngine, images: list[ImageRef]):
    # half a surrogate pair, which manifests cannot contain, makes the tokenizer fail for the whole batch
    poisoned = request("poison", images[:1])
    torn = TextPart.model_construct(type="text", text="看\ud800图", turn=0)
    poisoned = poisoned.model_copy(update={"parts": (*poisoned.parts, torn)})
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


def test_long_prompts_are_refused_and_long_answers_cut(engine: LocalEngine, images: list[ImageRef]):
    requests = [
        request("long", [], text="请看图" * 40_000),
        request("cut", [], kind="text", max_tokens=3, temperature=1.0),
        request("cut reason", images[:1], kind="reason", max_tokens=3, temperature=1.0, seed=1),
    ]
    generations = answers(engine, requests)
    assert generations["long"].outcome is Outcome.TOO_LONG
    assert re.search(
        r"needs \d+ tokens, 327\d\d are allowed \(32768 including the answer\)", generations["long"].detail
    )
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


def test_the_answer_fits_after_the_longest_prompt(
    checkpoint: Path, place: Workplace, engine: LocalEngine, images: list[ImageRef]
):
    """With a context that is one token shorter, the prompt is shortened."""
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
