import json
import math
from pathlib import Path

import pytest

from tasks.demo.checkpoint import new_checkpoint
from tasks.demo.dataset import draw_items, write_demo
from tasks.engines import Workplace, open_engine
from tasks.images import ImageCache
from tasks.packs import load_pack
from tasks.prompts import Prompter
from tasks.records import Sample, Sampling, Split
from tasks.samples import read_samples
from tasks.students import StudentSpec
from tasks.students.lora import base_spec, student_digest, train_student

PIXELS = 112 * 168


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StudentSpec:
    base = new_checkpoint(tmp_path_factory.mktemp("base"), [item.instruction for item in draw_items(60, seed=3)])
    return StudentSpec(
        base=str(base),
        epochs=12,
        batch_size=8,
        gradient_accumulation=1,
        gradient_checkpointing=False,
        learning_rate=1e-2,
        dtype="float32",
        min_pixels=PIXELS,
        max_pixels=PIXELS,
    )


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter(load_pack("demo"), "base", max_pixels=PIXELS, min_pixels=PIXELS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    paths = write_demo(tmp_path_factory.mktemp("data") / "d", labelled=40, unlabelled=4, test=4)
    kept = read_samples(paths.labelled_manifest, paths.labelled_images, load_pack("demo"), Split.LABELLED).kept
    images = [s for s in kept if s.task == "image"][:4]
    return images + [s for s in kept if s.task == "dialogue"][:4]


def surprise(spec: StudentSpec, prompter: Prompter, samples: list[Sample], adapter: Path | None, cache: Path) -> float:
    """Mean negative log-probability of the given labels."""
    adapted = base_spec(spec).model_copy(update={"adapter": str(adapter) if adapter else None})
    engine = open_engine(adapted, Workplace(ImageCache(cache), cache))
    sampling = Sampling(label_probabilities=True)
    given = {prompter.classify(s, sampling, with_reason=False).key: s.given for s in samples}
    requests = [prompter.classify(s, sampling, with_reason=False) for s in samples]
    scores = [(g.label_logprobs or {})[given[g.key] or ""] for g in engine.generate(requests)]
    engine.close()
    return -math.fsum(scores) / len(scores)


def test_a_student_learns_its_items_and_is_not_trained_twice(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    folder = train_student(
        spec, prompter, samples, 1, tmp_path / "students" / "student", lambda d, n, _: seen.append((d, n))
    )
    assert seen[-1] == (12, 12)
    taught, untaught = (surprise(spec, prompter, samples, adapter, tmp_path / "cache") for adapter in (folder, None))
    assert taught < 0.8 * untaught
    facts = json.loads((folder / "student.json").read_text("utf-8"))
    assert facts["trained_on"] == sorted(s.id for s in samples)
    assert facts["fold"] == 1
    assert facts["losses"][-1] < facts["losses"][0]
    assert (folder / "adapter_model.safetensors").stat().st_size > 1000
    assert not list(folder.rglob("*.bin")) and not list(folder.rglob("*.pt"))
    assert [p.name for p in folder.parent.iterdir()] == ["student"]
    seen.clear()
    assert train_student(spec, prompter, samples, 1, folder, lambda d, n, _: seen.append((d, n))) == folder
    assert seen == []


def test_a_fold_ends_when_its_seconds_are_used_up(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path: Path
) -> None:
    hasty = spec.model_copy(update={"seconds_a_fold": 0.01})
    folder = train_student(hasty, prompter, samples, 0, tmp_path / "student", lambda *_: None)
    assert json.loads((folder / "student.json").read_text("utf-8"))["steps"] == 1


def test_the_digest_follows_what_a_student_is_made_of(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample]
) -> None:
    digest = student_digest(spec, prompter, samples, 0)
    assert digest == student_digest(spec.model_copy(update={"scoring_batch_size": 2}), prompter, samples[::-1], 0)
    relabelled = samples[0].model_copy(update={"given": samples[1].given})
    others = [
        student_digest(spec, prompter, samples, 1),
        student_digest(spec, prompter, samples[1:], 0),
        student_digest(spec, prompter, [relabelled, *samples[1:]], 0),
        student_digest(spec.model_copy(update={"epochs": 1}), prompter, samples, 0),
    ]
    assert len({digest, *others}) == 5
