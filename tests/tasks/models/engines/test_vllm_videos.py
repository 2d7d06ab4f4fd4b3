"""Recordings behind a real vLLM, in every generation that reads them differently, beside the local engine."""

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.media import ImagePart, TextPart, VideoPart
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.server.label_tokens import compute_label_logprobs, find_branches
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine
from tasks.models.engines.vllm.installation import find_vllm
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Generation, LabelAnswer, Outcome, Request, Sample, Sampling
from tests.benchmarks import grounded_videos
from tests.checkpoints import make_small_tokenizer, write_random_checkpoint
from tests.recordings import draw_video
from tests.tasks.making import sample
from tests.tasks.models.engines.local_requests import logprobs_after
from tests.tasks.models.engines.test_local_videos import inputs_of

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(find_vllm() is None, reason="no vLLM here"),
]

BOUNDS = {"min_pixels": 64 * 64, "max_pixels": 224 * 224}
LABELS = ("申请退款", "查询物流", "反馈破损", "优惠券", "商品页")
ITEMS = 100


@pytest.fixture(scope="module", params=["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [f'{{"所属类别": "{label}"}}' for label in LABELS] * 40
    folder = tmp_path_factory.mktemp("model") / "base"
    return write_random_checkpoint(folder, make_small_tokenizer(texts), request.param, spaces=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("place")
    return Workplace(ImageCache(folder / "images"), folder / "logs", most_images=1, most_videos=2)


@pytest.fixture(scope="module")
def served(model: Path, place: Workplace) -> Iterator[VllmEngine]:
    engine = VllmEngine(EngineSpec(engine="vllm", model=str(model), dtype="float32", **BOUNDS), place)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def local(model: Path, place: Workplace) -> Iterator[LocalEngine]:
    engine = LocalEngine(EngineSpec(engine="local", model=str(model), dtype="float32", **BOUNDS), place)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Recordings of 4 to 40 frames in three sizes, of seconds or minutes; some with an image or a second recording."""
    folder = tmp_path_factory.mktemp("clips")
    made: list[Sample] = []
    for number in range(ITEMS):
        width, height = [(112, 168), (200, 90), (300, 400)][number % 3]
        seconds = 2.0 + 31 * (number % 4)
        clip = draw_video(folder, f"{number}", 4 + 2 * (number % 19), width, height, seconds=seconds)
        parts = [TextPart(text=f"用户: 第{number}次\n"), VideoPart(video=clip)]
        if number % 5 == 1:
            parts.append(ImagePart(image=clip.frames[0]))
        if number % 5 == 2:
            parts.append(VideoPart(video=draw_video(folder, f"{number}b", 6, 90, 90, seconds=9.0)))
        made.append(sample(f"{number}").model_copy(update={"parts": tuple(parts), "labels": LABELS}))
    return made


def ask(engine: VllmEngine | LocalEngine, requests: list[Request]) -> list[Generation]:
    found = {g.key: g for g in engine.generate(requests)}
    assert {g.outcome for g in found.values()} == {Outcome.OK}, {g.detail for g in found.values()}
    return [found[r.key] for r in requests]


def test_vllm_and_the_local_engine_agree(served: VllmEngine, local: LocalEngine, samples: list[Sample]) -> None:
    """About label, probabilities and the number of prompt tokens.

    The local engine's own label probabilities weigh the tokens within a label too, which in a random model matter: so
    its model is asked for those tokens that vLLM was asked for.
    """
    prompter = Prompter(load_pack("demo"), "m", **BOUNDS, texts={})
    sampling = Sampling(label_probabilities=True)
    requests = [prompter.classify(item, sampling, with_reason=False) for item in samples]
    assert served.notes == () and served.capabilities.videos
    ours, theirs = ask(served, requests), ask(local, requests)
    same = apart = 0.0
    labels: set[str] = set()
    for request, one, other in zip(requests, ours, theirs, strict=True):
        assert one.tokens_in == other.tokens_in
        chances = {label: math.exp(value) for label, value in (one.label_logprobs or {}).items()}
        expected = {label: math.exp(value) for label, value in weigh_by_plain_passes(local, request).items()}
        assert set(chances) == set(expected) == set(LABELS)
        apart = max(apart, *(abs(chances[label] - expected[label]) for label in LABELS))
        first, second = (max(found, key=found.__getitem__) for found in (chances, expected))
        same += first == second
        labels.add(first)
    figures = f"same label for {same:g} of {ITEMS}, {len(labels)} labels in all"
    print(f"{served.fingerprint}: {figures}, probabilities at most {apart:.5f} apart")
    assert same >= 0.98 * ITEMS


def weigh_by_plain_passes(engine: LocalEngine, request: Request) -> dict[str, float]:
    """Return what the server engine computes, with plain passes of the local model in the place of HTTP requests."""
    answer, tokenizer = request.constraint, engine._processor.tokenizer
    assert isinstance(answer, LabelAnswer)
    root, inputs = find_branches(tokenizer, answer.opening, answer.labels, answer.closing), inputs_of(engine, request)
    assert root is not None

    async def pass_once(text: str, options: tuple[int, ...]) -> dict[int, float]:
        logps = logprobs_after(engine, inputs, tokenizer(text)["input_ids"])[-1]
        return {token: float(logps[token]) for token in options}

    found = asyncio.run(compute_label_logprobs(root, "", len(answer.labels), pass_once))
    assert found is not None
    return dict(zip(answer.labels, found, strict=True))


def test_a_trained_model_reads_recordings_alike_in_both(tmp_path: Path) -> None:
    """The training takes six CPU minutes."""
    trained = grounded_videos.teach(tmp_path)
    asked = grounded_videos.draw_items(tmp_path / "asked", ITEMS, 99)
    theirs, ours = (grounded_videos.answer(trained, kind, asked, tmp_path) for kind in ("local", "vllm"))
    assert min(grounded_videos.count_right(theirs, asked)) >= 0.9 * ITEMS
    assert min(grounded_videos.compare(theirs, ours)) >= 0.98 * ITEMS
