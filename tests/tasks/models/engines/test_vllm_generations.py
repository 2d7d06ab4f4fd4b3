"""Every generation of Qwen-VL, and Qwen2-VL's whole vocabulary, behind a real vLLM: one server for each."""

import asyncio
import json
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.demo.dataset import write_demo
from tasks.items.samples import read_samples
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.server.chat import Thinking
from tasks.models.engines.server.label_tokens import compute_label_logprobs, find_branches
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine
from tasks.models.engines.vllm.installation import find_vllm
from tasks.models.image_cache import ImageCache
from tasks.models.qwen_vl import read_qwen_vl
from tasks.packs.pack import load_pack
from tasks.prompts.parsing import has_only_thinking
from tasks.prompts.prompter import Prompter
from tasks.records import Generation, LabelAnswer, Outcome, Request, Sample, Sampling, Split
from tasks.storage.json_lines import escape_json
from tests.checkpoints import (
    GENERATIONS,
    ROWS,
    make_real_tokenizer,
    make_small_tokenizer,
    write_random_checkpoint,
)
from tests.tasks.models.engines.local_requests import inputs_of, logprobs_after

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(find_vllm() is None, reason="no vLLM here"),
]

BOUNDS = {"min_pixels": 56 * 56, "max_pixels": 112 * 168}
REAL = "the whole vocabulary"
THINKING_TOKENS = 16
"""A random model never ends its thoughts."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("place")
    return Workplace(ImageCache(folder / "images"), folder / "logs", most_images=4)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    """Screens of the demo, labelled with the screens of www2025."""
    paths = write_demo(tmp_path_factory.mktemp("data") / "d", labelled=24, unlabelled=1, test=1, broken=0)
    kept = read_samples(paths.labelled.manifest, paths.labelled.images, load_pack("demo"), Split.LABELLED).kept
    labels = tuple(load_pack("www2025").tasks["image"].labels)
    return [s.model_copy(update={"labels": labels, "given": labels[0]}) for s in kept if s.task == "image"][:8]


@pytest.fixture(scope="module", params=[REAL, *GENERATIONS])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "base"
    if request.param == REAL:
        return write_random_checkpoint(folder, make_real_tokenizer(), rows=ROWS, spaces=False)
    # known labels part at whole characters, as label probabilities over HTTP need it
    texts = [f'"所属类别": "{label}"' for label in load_pack("www2025").tasks["image"].labels] * 20
    return write_random_checkpoint(folder, make_small_tokenizer(texts), request.param, spaces=False)


@pytest.fixture(scope="module")
def served(model: Path, place: Workplace) -> Iterator[VllmEngine]:
    thinking = THINKING_TOKENS if read_qwen_vl(str(model)).thinks else 0
    spec = EngineSpec(engine="vllm", model=str(model), dtype="float32", thinking_tokens=thinking, **BOUNDS)
    engine = VllmEngine(spec, place)
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def local(model: Path, place: Workplace) -> Iterator[LocalEngine]:
    engine = LocalEngine(EngineSpec(engine="local", model=str(model), dtype="float32", **BOUNDS), place)
    yield engine
    engine.close()


def ask(engine: VllmEngine | LocalEngine, requests: list[Request]) -> list[Generation]:
    found = {g.key: g for g in engine.generate(requests)}
    assert {g.outcome for g in found.values()} == {Outcome.OK}, {g.detail for g in found.values()}
    return [found[r.key] for r in requests]


def weigh_by_plain_passes(engine: LocalEngine, request: Request) -> dict[str, float]:
    """Return what the server engine computes, with plain passes of the local model in the place of HTTP requests.

    The local engine's own label probabilities weigh the tokens within a label too, which in a random model matter.
    """
    answer, tokenizer = request.constraint, engine._processor.tokenizer
    assert isinstance(answer, LabelAnswer)
    labels = [escape_json(label) for label in answer.labels]
    root, inputs = find_branches(tokenizer, answer.opening, labels, answer.closing), inputs_of(engine, request)
    assert root is not None

    async def pass_once(text: str, options: tuple[int, ...]) -> dict[int, float]:
        logps = logprobs_after(engine, inputs, tokenizer(text)["input_ids"])[-1]
        return {token: float(logps[token]) for token in options}

    found = asyncio.run(compute_label_logprobs(root, "", len(labels), pass_once))
    assert found is not None
    return dict(zip(answer.labels, found, strict=True))


def think_first(engine: VllmEngine, requests: list[Request]) -> list[Request]:
    """Ask with thinking, and return the questions for the form of the answers alone."""
    asked = [r.model_copy(update={"thinking": THINKING_TOKENS}) for r in requests]
    found = {g.key: g for g in engine.generate(asked)}
    assert all(g.thoughts or has_only_thinking(g) for g in found.values()), found
    drafts = [(found[r.key].thoughts or found[r.key].texts)[0].removeprefix("<think>") for r in requests]
    return [r.model_copy(update={"drafts": (draft,)}) for r, draft in zip(requests, drafts, strict=True)]


def test_constrained_answers_and_label_probabilities(
    served: VllmEngine, local: LocalEngine, samples: list[Sample]
) -> None:
    prompter = Prompter(load_pack("www2025"), "m", **BOUNDS, texts={})
    sampling = Sampling(label_probabilities=True, max_tokens=24)
    assert served.notes == ()
    apart = 0.0
    thinks = served.capabilities.thinking is Thinking.WITH_SCHEMA
    for with_reason in (False, True):
        requests = [prompter.classify(s, sampling, with_reason=with_reason) for s in samples]
        if thinks and with_reason:
            requests = think_first(served, requests)
        ours, theirs = ask(served, requests), ask(local, requests)
        for request, one, other in zip(requests, ours, theirs, strict=True):
            answer = request.constraint
            assert isinstance(answer, LabelAnswer)
            written = json.loads(one.texts[0])
            assert list(written) == (["理由", "所属类别"] if with_reason else ["所属类别"])
            assert written["所属类别"] in answer.labels
            chances = one.label_logprobs or {}
            assert set(chances) == set(answer.labels)
            if not with_reason:  # the reasons that a random model writes differ
                assert one.tokens_in == other.tokens_in
                expected = weigh_by_plain_passes(local, request) if one in ours[:2] else chances
                apart = max(apart, *(abs(math.exp(chances[k]) - math.exp(v)) for k, v in expected.items()))
    print(f"{served.fingerprint}: largest difference of label probabilities {apart:.5f}")
    assert apart < 0.02
