"""The demo's models behind a real vLLM, started once for all tests here."""

import json
import math
import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import psutil
import pytest
import torch

from tasks.demo.tiny_models import make_models
from tasks.errors import EngineError
from tasks.models.engines.engine import Workplace, check_engine
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.engines.vllm.engine import VllmEngine
from tasks.models.engines.vllm.options import find_installed_build
from tasks.models.image_cache import ImageCache
from tasks.models.token_budget import PromptBudget
from tasks.prompts.parsing import parse
from tasks.records import Generation, Outcome, Request, Sample, Sampling
from tasks.students.lora import LoraRecipe
from tasks.students.settings import StudentSpec
from tests.quick_teacher import MAX_PIXELS, MIN_PIXELS, ask_label, screen_samples, teach
from tests.tasks.making import prompter

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_installed_build() is None, reason="no vLLM here")]

Answers = dict[str, Generation]


def spec_of(model: Path, engine: str = "vllm", **fields) -> EngineSpec:
    bounds = {"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS}
    return EngineSpec(**{"engine": engine, "model": str(model), "dtype": "float32", **bounds, **fields})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def place(folder: Path) -> Workplace:
    return Workplace(ImageCache(folder / "images"), folder / "logs", most_images=4)


@pytest.fixture(scope="module")
def samples(folder: Path) -> list[Sample]:
    return screen_samples(100, 4242, folder / "screens")


@pytest.fixture(scope="module")
def teacher(folder: Path) -> Path:
    torch.set_num_threads(2)
    return teach(folder / "teacher")


@pytest.fixture(scope="module")
def adapters(teacher: Path, folder: Path, samples: list[Sample]) -> tuple[str, ...]:
    """Train two students, each on a different wrong label for all items."""
    found: list[str] = []
    for wrong in samples[0].labels[:2]:
        spec = StudentSpec(
            base=str(teacher), epochs=2, batch_size=8, gradient_accumulation=1, learning_rate=5e-3, lora_rank=4,
            gradient_checkpointing=False, min_pixels=MIN_PIXELS, max_pixels=MAX_PIXELS,
        )  # fmt: skip
        taught = [sample.model_copy(update={"given": wrong}) for sample in samples[:24]]
        home = folder / f"adapter-{len(found)}"
        found.append(str(LoraRecipe(spec, prompter()).train(taught, len(found), home, lambda *_: None)))
    return tuple(found)


@pytest.fixture(scope="module")
def served(teacher: Path, adapters: tuple[str, ...], place: Workplace) -> Iterator[VllmEngine]:
    engine = VllmEngine(spec_of(teacher, adapters=adapters), place)
    family = psutil.Process().children(recursive=True)
    assert any("VLLM" in p.name() for p in family)
    yield engine
    engine.close()
    # the next engine needs the memory
    assert not [p for p in family if p.is_running() and "VLLM" in p.name()]
    engine.close()


@pytest.fixture(scope="module")
def local(teacher: Path, place: Workplace) -> Iterator[LocalEngine]:
    engine = LocalEngine(spec_of(teacher, "local"), place)
    yield engine
    engine.close()


def answers(engine: VllmEngine | LocalEngine, requests: Sequence[Request]) -> Answers:
    generations = list(engine.generate(requests))
    assert sorted(g.key for g in generations) == sorted(r.key for r in requests)
    assert {g.outcome for g in generations} == {Outcome.OK}, {g.detail for g in generations}
    return {g.key: g for g in generations}


def labels(requests: Sequence[Request], found: Answers) -> list[str | None]:
    return [parse(r, found[r.key], source="teacher", model="m").label for r in requests]


def test_all_that_vllm_can_do_is_found_out(served: VllmEngine):
    assert served.notes == ()
    assert served.fingerprint.startswith("vllm-0.") and "/teacher#" in served.fingerprint
    build = find_installed_build()
    assert build is not None and served.usage().gpus == (0 if build.cpu else 1)


@pytest.mark.parametrize("with_reason", [True, False])
def test_greedy_labels_are_those_of_the_local_engine(
    served: VllmEngine, local: LocalEngine, samples: list[Sample], with_reason: bool
):
    sampling = Sampling(max_tokens=48, label_probabilities=True)
    requests = [ask_label(sample, sampling, with_reason=with_reason) for sample in samples]
    ours, theirs = answers(served, requests), answers(local, requests)
    our_labels, their_labels = labels(requests, ours), labels(requests, theirs)
    assert len(set(their_labels)) >= 6  # a model with one answer for everything would prove nothing
    assert "商品页" in their_labels  # xgrammar cannot write it
    agreed = [a == b for a, b in zip(our_labels, their_labels, strict=True)]
    assert sum(agreed) >= 98
    for request, same in zip(requests, agreed, strict=True):
        text = json.loads(ours[request.key].texts[0])
        assert list(text) == (["理由", "所属类别"] if with_reason else ["所属类别"])
        if same and ours[request.key].texts == theirs[request.key].texts:
            assert chances(ours[request.key]) == pytest.approx(chances(theirs[request.key]), abs=0.02)


def test_every_adapter_is_served_by_the_one_server(
    served: VllmEngine, teacher: Path, adapters: tuple[str, ...], samples: list[Sample], place: Workplace
):
    requests = [ask_label(s, Sampling(max_tokens=8, label_probabilities=True), with_reason=False) for s in samples]
    found: dict[str | None, list[str | None]] = {}
    names: set[str] = set()
    try:
        for adapter in (*adapters, None):
            served.switch_adapter(adapter)
            names.add(served.fingerprint)
            local = LocalEngine(spec_of(teacher, "local", adapter=adapter), place)
            theirs = labels(requests, answers(local, requests))
            local.close()
            found[adapter] = labels(requests, answers(served, requests))
            assert sum(a == b for a, b in zip(found[adapter], theirs, strict=True)) >= 98
    finally:
        served.switch_adapter(None)
    first, second = (found[adapter] for adapter in adapters)
    # the students differ from each other and from the model, so none answered for another
    assert sum(a != b for a, b in zip(first, second, strict=True)) > 30
    assert sum(a != b for a, b in zip(first, found[None], strict=True)) > 30
    assert len(names) == 3


def chances(generation: Generation) -> dict[str, float]:
    assert generation.label_logprobs is not None
    found = {label: math.exp(p) for label, p in generation.label_logprobs.items()}
    assert sum(found.values()) == pytest.approx(1, abs=1e-3)
    return found


def test_prompts_are_as_long_as_the_budget_says(
    served: VllmEngine, local: LocalEngine, teacher: Path, samples: list[Sample]
):
    """Equal lengths mean that the server does not resize images again, and uses the same chat template."""
    requests = [ask_label(s, Sampling(max_tokens=8), with_reason=False, glosses=True) for s in samples[:8]]
    # vLLM's CPU build caches blocks of 128 tokens
    requests = [r.model_copy(update={"prefix": 3 * r.prefix}) for r in requests]
    budget = PromptBudget(local._processor)
    for tries in range(2):
        found = answers(served, requests)
        assert {found[r.key].tokens_in - budget.count(r) for r in requests} == {0}
        assert tries == 0 or min(found[r.key].tokens_cached for r in requests) > 0


def test_votes_differ_and_stay_in_the_schema(served: VllmEngine, samples: list[Sample]):
    """64 seeded requests at once do not fit one step; vLLM's CPU build crashes when their prompts are split."""
    sampling = Sampling(n=3, temperature=1.0, max_tokens=48, seed=3, label_probabilities=True)
    requests = [ask_label(sample, sampling, glosses=True) for sample in samples[:64]]
    found = answers(served, requests)
    for request in requests:
        generation = found[request.key]
        assert len(generation.texts) == 3
        assert {json.loads(t)["所属类别"] for t in generation.texts} <= set(request.constraint.labels)  # type: ignore[union-attr]
        assert sum(parse(request, generation, source="t", model="m").votes.values()) == 3
        assert set(chances(generation)) == set(request.constraint.labels)  # type: ignore[union-attr]
    assert sum(len(set(found[r.key].texts)) > 1 for r in requests) > 16
    usage = served.usage()
    assert 0 < usage.busy <= usage.target * usage.seconds


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_killed_engine_costs_no_item(served: VllmEngine, samples: list[Sample], place: Workplace):
    requests = [ask_label(sample, Sampling(n=2, temperature=1.0, seed=9), glosses=True) for sample in samples]
    stream = served.generate(requests)
    found = list(islice(stream, 20))
    [victim] = [p for p in psutil.Process().children(recursive=True) if p.name().startswith("VLLM::Engine")]
    os.kill(victim.pid, signal.SIGKILL)
    found += stream
    assert Counter(g.key for g in found) == Counter(r.key for r in requests)
    assert {g.outcome for g in found} == {Outcome.OK}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_demos_own_teacher_agrees_too(folder: Path, place: Workplace, samples: list[Sample], served: VllmEngine):
    """The demo's teacher with its full training, asked with the demo's prompts."""
    served.close()  # frees the memory
    teacher = make_models(folder / "models").teacher
    requests = [ask_label(s, Sampling(max_tokens=64, label_probabilities=True), glosses=True) for s in samples]
    engines = VllmEngine(spec_of(teacher), place), LocalEngine(spec_of(teacher, "local"), place)
    try:
        ours, theirs = (labels(requests, answers(engine, requests)) for engine in engines)
    finally:
        for engine in engines:
            engine.close()
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 98
    assert sum(a == s.given for a, s in zip(ours, samples, strict=True)) >= 80


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"model": "/nowhere/model"}, "/nowhere/model does not exist; set `model`"),
        ({"model": "a/b", "adapter": "/nowhere/fold0"}, "no adapter_config.json; set `adapter`"),
    ],
)
def test_missing_folders_are_reported_before_vllm_starts(place: Workplace, fields: dict[str, str], message: str):
    check_engine(EngineSpec(engine="vllm", **fields))
    with pytest.raises(EngineError, match=message):
        VllmEngine(EngineSpec(engine="vllm", **fields), place)
    assert not list(place.logs.glob("*nowhere*"))
