"""Students that learn probabilities of labels."""

import math
from pathlib import Path

import pytest
import torch

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.dataset import draw_items, write_demo
from tasks.items.samples import read_samples
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, Sampling, Split
from tasks.students.asking import choose_base_engine
from tasks.students.lora import LoraRecipe
from tasks.students.settings import StudentSpec
from tasks.students.soft_loss import compute_soft_loss, find_targets
from tasks.students.student_folder import read_facts

PIXELS = 112 * 168


def test_targets_stand_where_answers_part_and_are_shares_of_what_is_still_possible() -> None:
    answers = [([7, 1, 2, 9], 0.5), ([7, 1, 3, 9], 0.25), ([7, 4, 9], 0.25)]
    assert find_targets([7, 1, 2, 9], answers) == {
        1: {1: 0.75, 4: 0.25},
        2: {2: pytest.approx(2 / 3), 3: pytest.approx(1 / 3)},
    }
    assert find_targets([7, 4, 9], answers) == {1: {1: 0.75, 4: 0.25}}


def test_a_certain_teacher_or_none_leaves_one_token_everywhere() -> None:
    assert find_targets([7, 1, 9], [([7, 1, 9], 1.0), ([7, 4, 9], 0.0)]) == {}
    assert find_targets([7, 1, 9], []) == {}


class _Table:
    """A model that says the same of each token after a token, whatever came before."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def __call__(self, input_ids: torch.Tensor, logits_to_keep: torch.Tensor, use_cache: bool) -> "_Table":
        return _Table(self.logits[input_ids[:, logits_to_keep]])


def test_the_loss_is_the_cross_entropy_with_the_targets_and_with_one_token_elsewhere() -> None:
    table = torch.randn(10, 10, generator=torch.Generator().manual_seed(0))
    p = table.log_softmax(-1)
    ids = torch.tensor([[0, 5, 7, 1, 9], [0, 0, 5, 7, 4]])
    labels = torch.tensor([[-100, -100, 7, 1, 9], [-100, -100, -100, 7, 4]])
    targets = [{1: {1: 0.75, 4: 0.25}}, {}]
    loss = compute_soft_loss(_Table(table), {"input_ids": ids, "labels": labels}, targets, None)
    expected = -(p[5, 7] + 0.75 * p[7, 1] + 0.25 * p[7, 4] + p[1, 9] + p[5, 7] + p[7, 4]) / 5
    assert loss == pytest.approx(float(expected))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    paths = write_demo(tmp_path_factory.mktemp("data") / "d", labelled=40, unlabelled=4, test=4)
    kept = read_samples(paths.labelled.manifest, paths.labelled.images, load_pack("demo"), Split.LABELLED).kept
    return [s for s in kept if s.task == "dialogue"][:8]


def test_a_student_learns_the_probabilities(tmp_path: Path, samples: list[Sample]) -> None:
    base = write_checkpoint(tmp_path / "base", [item.instruction for item in draw_items(60, seed=3)])
    spec = StudentSpec(
        base=str(base), steps=12, batch_size=4, gradient_accumulation=1, gradient_checkpointing=False,
        learning_rate=2e-2, min_pixels=PIXELS, max_pixels=PIXELS,
    )  # fmt: skip
    prompter = Prompter(load_pack("demo"), "base", max_pixels=PIXELS, min_pixels=PIXELS)
    first, second, *others = samples[0].labels
    taught = [s.model_copy(update={"given": first}) for s in samples[:4]]
    soft = {s.id: {first: 0.5, second: 0.5} for s in taught}
    folder = LoraRecipe(spec, prompter, soft=soft).train(taught, 0, tmp_path / "soft", lambda *_: None)
    losses = read_facts(folder)["losses"]
    assert losses[-1] < losses[0]
    engine = open_engine(
        choose_base_engine(spec).model_copy(update={"adapter": str(folder)}), Workplace(ImageCache(tmp_path), tmp_path)
    )
    requests = [prompter.classify(s, Sampling(label_probabilities=True), with_reason=False) for s in taught]
    learned = [{label: math.exp(p) for label, p in (g.label_logprobs or {}).items()} for g in engine.generate(requests)]
    engine.close()
    for found in learned:  # to a student of hard labels, the second label is as improbable as the others
        rest = sum(found[other] for other in others) / len(others)
        assert min(found[first], found[second]) > 1.3 * rest


def test_only_what_is_taught_softly_changes_a_students_name(tmp_path: Path, samples: list[Sample]) -> None:
    base = write_checkpoint(tmp_path / "base", [item.instruction for item in draw_items(20, seed=3)])
    prompter = Prompter(load_pack("demo"), "base", max_pixels=PIXELS, min_pixels=PIXELS)
    spec, shares = StudentSpec(base=str(base)), {samples[0].id: {samples[0].labels[0]: 1.0}}
    hard = LoraRecipe(spec, prompter).digest(samples, 0)
    assert LoraRecipe(spec.model_copy(update={"loss": "soft"}), prompter).digest(samples, 0) == hard
    assert LoraRecipe(spec, prompter, soft=shares).digest(samples, 0) != hard
