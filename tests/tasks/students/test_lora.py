import importlib.util
import json
import math
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import TrainerControl, TrainerState

from tasks.demo.checkpoint import write_checkpoint
from tasks.demo.dataset import draw_items, write_demo
from tasks.errors import ConfigError
from tasks.items.samples import read_samples
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import load_pack
from tasks.prompts.prompter import Prompter
from tasks.prompts.turns import make_user_content
from tasks.records import LabelAnswer, Sample, Sampling, Split
from tasks.students import lora_checkpoints
from tasks.students.asking import choose_base_engine
from tasks.students.lora import LoraRecipe, choose_taught_items
from tasks.students.lora_checkpoints import Watch, find_newest_checkpoint
from tasks.students.lora_dataset import make_dataset
from tasks.students.settings import ScoringSettings, StudentSpec

PIXELS = 112 * 168
PICKLED = {".bin", ".pt", ".pth", ".pkl"}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> StudentSpec:
    base = write_checkpoint(tmp_path_factory.mktemp("base"), [item.instruction for item in draw_items(60, seed=3)])
    return StudentSpec(
        base=str(base),
        epochs=12,
        batch_size=8,
        gradient_accumulation=1,
        gradient_checkpointing=False,
        learning_rate=1e-2,
        min_pixels=PIXELS,
        max_pixels=PIXELS,
    )


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return demo_prompter()


def demo_prompter() -> Prompter:
    return Prompter(load_pack("demo"), "base", max_pixels=PIXELS, min_pixels=PIXELS)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    paths = write_demo(tmp_path_factory.mktemp("data") / "d", labelled=40, unlabelled=4, test=4)
    kept = read_samples(paths.labelled.manifest, paths.labelled.images, load_pack("demo"), Split.LABELLED).kept
    images = [s for s in kept if s.task == "image"][:4]
    return images + [s for s in kept if s.task == "dialogue"][:4]


def measure_log_loss(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], adapter: Path | None, cache: Path
) -> float:
    """Mean negative log-probability of the given labels."""
    adapted = choose_base_engine(spec).model_copy(update={"adapter": str(adapter) if adapter else None})
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
    home = tmp_path / "students" / "student"
    folder = LoraRecipe(spec, prompter).train(samples, 1, home, lambda d, n, _: seen.append((d, n)))
    assert seen[-1] == (12, 12)
    taught, untaught = (
        measure_log_loss(spec, prompter, samples, adapter, tmp_path / "cache") for adapter in (folder, None)
    )
    assert taught < 0.8 * untaught
    facts = json.loads((folder / "student.json").read_text("utf-8"))
    assert facts["trained_on"] == sorted(s.id for s in samples)
    assert facts["fold"] == 1
    assert facts["repeat"] == 0
    assert facts["steps_logged"] == list(range(1, 13))
    assert facts["losses"][-1] < facts["losses"][0]
    assert facts["epochs"][-1] == 12
    assert max(facts["learning_rates"]) == pytest.approx(1e-2)
    assert (folder / "adapter_model.safetensors").stat().st_size > 1000
    assert not [file for file in folder.rglob("*") if file.suffix in PICKLED]
    with Image.open(folder / "loss.png") as picture:
        assert picture.size == (800, 450)
        assert len(picture.convert("RGB").getcolors(1 << 20) or ()) > 10
    assert [p.name for p in folder.parent.iterdir()] == ["student"]
    seen.clear()
    assert LoraRecipe(spec, prompter).train(samples, 1, folder, lambda d, n, _: seen.append((d, n))) == folder
    assert seen == []


class _Interrupted(Exception):
    pass


def train_until(end: str, spec: StudentSpec, samples: list[Sample], folder: Path, step: int) -> None:
    """Train the test's student and end, by `kill -9` on this very process or by an error, when `step` is done."""

    def moved(done: int, total: int, loss: float) -> None:
        if done == step and end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if done == step:
            raise _Interrupted

    with patch.multiple(lora_checkpoints, FIRST_SECONDS=0.0, SAVING_SHARE=1e9):  # a checkpoint after each step
        LoraRecipe(spec, demo_prompter(), repeat=2).train(samples, 1, folder, moved)


@pytest.mark.parametrize("end", ["error", pytest.param("kill", marks=pytest.mark.slow)])
def test_an_interrupted_fold_goes_on_from_its_newest_whole_checkpoint_as_if_nothing_had_been(
    end: str, spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path: Path
) -> None:
    # 8 steps, 4 an epoch: ended in the middle of the second
    short = spec.model_copy(update={"epochs": 2, "batch_size": 2})
    folder = tmp_path / "student"
    if end == "kill":
        arguments = (end, short, samples, folder, 7)
        child = multiprocessing.get_context("spawn").Process(target=train_until, args=arguments)
        child.start()
        child.join()
        assert child.exitcode == -signal.SIGKILL
    else:
        with pytest.raises(_Interrupted):
            train_until(end, short, samples, folder, 7)
    assert not folder.exists()
    saved = sorted((tmp_path / ".student.part" / "trainer").glob("checkpoint-*"))
    assert [c.name for c in saved] == ["checkpoint-5", "checkpoint-6"]
    # as if the kill had come while the newest was written
    with (saved[-1] / "optimizer.pt").open("r+b") as file:
        file.truncate(100)

    seen: list[int] = []
    assert LoraRecipe(short, prompter, repeat=2).train(samples[::-1], 1, folder, lambda d, *_: seen.append(d)) == folder
    assert seen == [6, 7, 8]
    whole = LoraRecipe(short, prompter, repeat=2).train(samples, 1, tmp_path / "whole", lambda *_: None)

    assert not [file for file in folder.rglob("*") if file.suffix in PICKLED]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["student", "whole"]
    resumed_facts, whole_facts = (json.loads((f / "student.json").read_text("utf-8")) for f in (folder, whole))
    assert resumed_facts["repeat"] == 2
    for name in ("steps_logged", "learning_rates", "epochs", "trained_on_content"):
        assert resumed_facts[name] == whole_facts[name]
    # a batch of other items would lose otherwise: at this rate, losses of neighbouring steps differ by tenths
    assert resumed_facts["losses"] == pytest.approx(whole_facts["losses"], rel=1e-4)
    resumed, uninterrupted = (load_file(f / "adapter_model.safetensors") for f in (folder, whole))
    assert resumed.keys() == uninterrupted.keys()
    for name, weights in uninterrupted.items():
        torch.testing.assert_close(resumed[name], weights, rtol=1e-4, atol=1e-6)


def test_what_another_recipe_left_is_not_resumed(tmp_path: Path) -> None:
    work = tmp_path / ".student.part"
    assert find_newest_checkpoint(work, "recipe") is None
    checkpoint = work / "trainer" / "checkpoint-10"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter_model.safetensors").write_bytes(b"weights")
    (checkpoint / "files.json").write_text('{"adapter_model.safetensors": 7}')
    unlisted = work / "trainer" / "checkpoint-20"
    unlisted.mkdir()
    assert find_newest_checkpoint(work, "recipe") == checkpoint
    assert not unlisted.exists()
    assert find_newest_checkpoint(work, "other") is None
    assert not checkpoint.exists()


def test_seconds_before_a_kill_count() -> None:
    watch = Watch(lambda *_: None)
    state = TrainerState(
        global_step=3, max_steps=9, log_history=[{"loss": 1.0, "seconds": 50.0, "seconds_waiting": 5.0}]
    )
    watch.on_train_begin(None, state, TrainerControl())
    assert 50 <= watch.spent < 55
    assert watch.waiting_share == pytest.approx(0.1, rel=0.1)


def test_saving_takes_a_small_share_of_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr(lora_checkpoints.time, "monotonic", lambda: now[0])
    watch, state, arguments = (
        Watch(lambda *_: None),
        TrainerState(global_step=1, max_steps=900),
        SimpleNamespace(output_dir=tmp_path),
    )
    (tmp_path / "checkpoint-1").mkdir()
    watch.on_train_begin(None, state, TrainerControl())
    saved: list[float] = []
    for second in range(1, 200):
        control, now[0] = TrainerControl(), max(now[0], float(second))
        watch.on_step_end(None, state, control)
        if control.should_save:
            saved.append(now[0])
            now[0] += 4  # seconds that saving takes
            watch.on_save(arguments, state, control)
    assert saved == [2, 87, 172]


def test_two_that_want_the_same_student_train_it_once(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path: Path
) -> None:
    short = spec.model_copy(update={"epochs": 2})
    seen: list[int] = []

    def train(_: int) -> Path:
        return LoraRecipe(short, prompter).train(samples, 0, tmp_path / "student", lambda d, *_: seen.append(d))

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(train, range(2))) == [tmp_path / "student"] * 2
    assert seen == [1, 2]


def test_with_reasons_a_student_learns_the_form_in_which_it_is_asked(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path: Path
) -> None:
    reasoned = spec.model_copy(update={"reasons": "always", "epochs": 1})
    taught, untaught = samples[:6], samples[6:]
    reasons = {s.id: f"用户提到{s.given}" for s in taught} | {untaught[0].id: " "}
    items = choose_taught_items(reasoned, samples, reasons)
    rows = make_dataset(prompter, items, patch_size=14)
    for (sample, reason), row in zip(items, rows, strict=True):
        answer = row["completion"][0]["content"][0]["text"]
        request = prompter.classify(sample, Sampling(), with_reason=True)
        form = request.constraint
        assert isinstance(form, LabelAnswer)
        assert answer == form.opening + reason + str(form.between) + str(sample.given) + form.closing
        asked = make_user_content(request)
        texts = [e["text"] for e in row["prompt"][0]["content"] if e["type"] == "text"]
        assert texts == [e["text"] for e in asked if e["type"] == "text"]
    folder = LoraRecipe(reasoned, prompter, reasons=reasons).train(samples, 0, tmp_path / "student", lambda *_: None)
    facts = json.loads((folder / "student.json").read_text("utf-8"))
    assert facts["trained_on"] == sorted(s.id for s in taught)
    assert facts["without_reason"] == sorted(s.id for s in untaught)
    for none in ({}, {samples[0].id: ""}):
        with pytest.raises(ConfigError, match=r"student\.reasons.*rationales"):
            LoraRecipe(reasoned, prompter, reasons=none).train(samples, 0, tmp_path / "other", lambda *_: None)


def test_a_reporter_without_its_package_is_refused_by_name(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path: Path
) -> None:
    missing = next(n for n in ("swanlab", "wandb", "mlflow", "clearml") if importlib.util.find_spec(n) is None)
    for name, said in ((missing, f"pip install {missing}"), ("paper", r"report_to: `paper` is not one of .*swanlab")):
        reporting = spec.model_copy(update={"report_to": (name,)})
        with pytest.raises(ConfigError, match=said):
            LoraRecipe(reporting, prompter).train(samples, 0, tmp_path / "student", lambda *_: None)
    assert not list(tmp_path.iterdir())


def test_tensorboard_files_stay_with_the_student(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample], tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard")
    reporting = spec.model_copy(update={"report_to": ("tensorboard",), "epochs": 1})
    folder = LoraRecipe(reporting, prompter).train(samples, 0, tmp_path / "student", lambda *_: None)
    assert list((folder / "runs").rglob("events.out.tfevents.*"))


def test_the_digest_follows_what_a_student_is_made_of(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample]
) -> None:
    digest = LoraRecipe(spec, prompter).digest(samples, 0)
    same = {
        "scoring": ScoringSettings(batch_size=2),
        "folds": 3,
        "repeats": 2,
        "report_to": ("wandb",),
    }
    assert digest == LoraRecipe(spec.model_copy(update=same), prompter, reasons={}).digest(samples[::-1], 0)
    relabelled = samples[0].model_copy(update={"given": samples[1].given})
    others = [
        LoraRecipe(spec, prompter).digest(samples, 1),
        LoraRecipe(spec, prompter).digest(samples[1:], 0),
        LoraRecipe(spec, prompter).digest([relabelled, *samples[1:]], 0),
        LoraRecipe(spec.model_copy(update={"epochs": 1}), prompter).digest(samples, 0),
        LoraRecipe(spec, prompter, repeat=1).digest(samples, 0),
        *(
            LoraRecipe(spec.model_copy(update={"reasons": "always"}), prompter, reasons=reasons).digest(samples, 0)
            for reasons in ({samples[0].id: "因为"}, {samples[0].id: "所以"}, {s.id: "因为" for s in samples})
        ),
    ]
    assert len({digest, *others}) == 9


def test_the_digest_follows_the_text_on_images_and_the_labels_that_are_offered(
    spec: StudentSpec, prompter: Prompter, samples: list[Sample]
) -> None:
    shown, other = samples[0].images[0].sha256, "0" * 64
    digests = [
        LoraRecipe(spec, Prompter(prompter.pack, "base", max_pixels=PIXELS, min_pixels=PIXELS, texts=texts)).digest(
            samples, 0
        )
        for texts in ({}, {other: "退款"}, {shown: "退款"}, {shown: "退货"})
    ]
    assert digests[0] == digests[1]
    fewer = samples[0].model_copy(update={"labels": samples[0].labels[::-1]})
    digests.append(LoraRecipe(spec, prompter).digest([fewer, *samples[1:]], 0))
    assert len(set(digests)) == 4
