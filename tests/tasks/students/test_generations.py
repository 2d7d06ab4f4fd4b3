"""Every generation of Qwen-VL as the base of students: asked, trained with the default settings, asked as trained."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForImageTextToText

from tasks.demo.dataset import write_demo
from tasks.items.samples import read_samples
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.image_cache import ImageCache
from tasks.models.qwen_vl import read_qwen_vl
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Generation, Outcome, Sample, Split
from tasks.students.asking import choose_base_engine, choose_student_engine, make_label_requests
from tasks.students.lora import LoraRecipe
from tasks.students.settings import StudentSpec
from tests.checkpoints import GENERATIONS
from tests.tasks.models.engines.local_requests import inputs_of, logprobs_after

PIXELS = 112 * 168


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    paths = write_demo(tmp_path_factory.mktemp("data") / "d", labelled=24, unlabelled=1, test=1, broken=0)
    kept = read_samples(paths.labelled.manifest, paths.labelled.images, load_pack("demo"), Split.LABELLED).kept
    return [s for s in kept if s.task == "image"][:4] + [s for s in kept if s.task == "dialogue"][:4]


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter(load_pack("demo"), "base", min_pixels=56 * 56, max_pixels=PIXELS)


@pytest.fixture(scope="module", params=GENERATIONS)
def spec(request: pytest.FixtureRequest, random_checkpoints: Mapping[str, Path]) -> StudentSpec:
    base = str(random_checkpoints[request.param])
    return StudentSpec(base=base, dtype="float32", max_pixels=PIXELS, epochs=10, learning_rate=2e-2)


@pytest.fixture(scope="module")
def student(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return LoraRecipe(spec, prompter).train(samples, 0, tmp_path_factory.mktemp("s") / "student", lambda *_: None)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    folder = tmp_path_factory.mktemp("place")
    return Workplace(ImageCache(folder / "images"), folder / "logs")


def test_label_probabilities_are_those_of_a_plain_pass(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], place: Workplace
) -> None:
    engine = LocalEngine(choose_base_engine(spec), place)
    requests = make_label_requests(prompter, samples[3:5], with_reason=False)
    found = {g.key: g for g in engine.generate(requests)}
    for request in requests:
        inputs = inputs_of(engine, request)
        assert found[request.key].outcome is Outcome.OK
        assert found[request.key].tokens_in == inputs["input_ids"].shape[1]
        answer, tokenizer = request.constraint, engine._processor.tokenizer
        scores: list[torch.Tensor] = []
        for label in answer.labels:  # type: ignore[union-attr]
            tokens = tokenizer(answer.opening + label + answer.closing)["input_ids"]  # type: ignore[union-attr]
            logps = logprobs_after(engine, inputs, tokens)[:-1]
            scores.append(logps.gather(1, torch.tensor(tokens)[:, None]).sum())
        expected = torch.stack(scores).log_softmax(0).tolist()
        assert list((found[request.key].label_logprobs or {}).values()) == pytest.approx(expected, abs=1e-4)
    assert bool(engine.notes) is read_qwen_vl(spec.base).thinks
    engine.close()


def test_a_student_learns_to_answer_as_it_is_asked(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], student: Path, place: Workplace
) -> None:
    losses = json.loads((student / "student.json").read_text("utf-8"))["losses"]
    assert losses[-1] < 0.8 * losses[0]
    untaught, taught = (
        log_loss(LocalEngine(engine, place), prompter, samples)
        for engine in (choose_base_engine(spec), choose_student_engine(spec, student, [student]))
    )
    assert taught < 0.9 * untaught


def test_a_merged_student_answers_as_its_adapter(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], student: Path, place: Workplace
) -> None:
    """The local engine merges a float32 adapter; peft's own layers do not."""
    engine = LocalEngine(choose_student_engine(spec, student, [student]), place)
    request = make_label_requests(prompter, samples[:1], with_reason=False)[0]
    merged = logprobs_after(engine, inputs_of(engine, request), [1, 2, 3])
    base = AutoModelForImageTextToText.from_pretrained(spec.base, dtype=torch.float32)
    engine._model = PeftModel.from_pretrained(base, student).eval()
    adapter = logprobs_after(engine, inputs_of(engine, request), [1, 2, 3])
    assert float((merged - adapter).abs().max()) < 1e-4
    with engine._model.disable_adapter():
        bare = logprobs_after(engine, inputs_of(engine, request), [1, 2, 3])
    assert float((merged - bare).abs().max()) > 0.01


def log_loss(engine: LocalEngine, prompter: Prompter, samples: list[Sample]) -> float:
    """The mean negative log-probability of the given labels."""
    requests = make_label_requests(prompter, samples, with_reason=False)
    found: dict[str, Generation] = {g.key: g for g in engine.generate(requests)}
    engine.close()
    scores = [(found[r.key].label_logprobs or {})[s.given or ""] for r, s in zip(requests, samples, strict=True)]
    return -sum(scores) / len(scores)
