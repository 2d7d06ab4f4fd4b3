"""Foreign trainers, with a small one in their place: what it is given, what it leaves, and every way it can fail."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from PIL import Image
from pydantic import ValidationError
from safetensors.numpy import load_file

from tasks.dataset.export.recordings import collect_recordings
from tasks.errors import ConfigError, EngineError
from tasks.media import ImageRef
from tasks.models.image_cache import ImageCache
from tasks.packs.pack import TEMPLATES
from tasks.prompts.prompter import Prompter
from tasks.records import Sample, content_digest
from tasks.students.external import ExternalRecipe
from tasks.students.external_output import find_student_checkpoint
from tasks.students.settings import ExternalSpec, ScoringSettings
from tests.recordings import read_frame_number
from tests.tasks.making import draw_numbered_video, prompter, sample

ROOT = Path(__file__).resolve().parents[3]
SMALL = Path(__file__).with_name("small_trainer.py")


@pytest.fixture
def train(tmp_path: Path) -> list[Sample]:
    """Three items: one of text, one with a literal tag in it, one with two images."""
    files = []
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (300, 500), colour).save(tmp_path / f"{name}.png")
        digest = hashlib.sha256((tmp_path / f"{name}.png").read_bytes()).hexdigest()
        files.append(ImageRef(path=str(tmp_path / f"{name}.png"), sha256=digest, width=300, height=500))
    return [
        sample("plain", "用户: 怎么退"),
        sample("literal", "用户: 我发了<image>", given="查询物流"),
        sample("pictures", "用户: 看", files[0], "还有", files[1], given="反馈破损"),
    ]


def spec(trainer: str = "llamafactory", way: str = "well", *more: str, **fields: Any) -> ExternalSpec:
    values: dict[str, Any] = {
        "trainer": trainer,
        "base": "Qwen/Qwen2-VL-2B-Instruct",
        "command": (sys.executable, str(SMALL), way, "${config}", *more),
    }
    return ExternalSpec(**values | fields)


def train_student(
    spec: ExternalSpec, train: list[Sample], folder: Path, fold: int = 1, seed: int = 7, **more: Any
) -> Path:
    return ExternalRecipe(spec, prompter(), seed, **more).train(train, fold, folder, lambda *_: None)


def has_ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


def test_llamafactory_is_given_its_files_and_leaves_an_adapter(train: list[Sample], tmp_path: Path) -> None:
    seen: list[tuple[int, int, float]] = []
    folder = tmp_path / "students" / "one"
    made = ExternalRecipe(spec(way="slowly"), prompter(), 7).train(train, 1, folder, lambda *step: seen.append(step))
    assert made == folder and [p.name for p in folder.parent.iterdir()] == ["one"]
    assert seen[-1] == (3, 3, 1 / 3) and len(seen) > 1
    checkpoint, adapter = find_student_checkpoint(folder)
    assert adapter
    names = ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "trainer_log.jsonl"]
    assert sorted(p.name for p in checkpoint.iterdir()) == names
    files = ["checkpoint", "data", "loss.png", "student.json", "train.log", "train.yaml"]
    assert sorted(p.name for p in folder.iterdir()) == files
    with Image.open(folder / "loss.png") as curve:
        assert curve.size == (800, 450)
    rows = json.loads((folder / "data" / "labelstill.json").read_text("utf-8"))
    assert [json.loads(row["messages"][1]["content"]) for row in rows] == [{"所属类别": s.given} for s in train]
    assert "＜image＞" in rows[1]["messages"][0]["content"]
    assert rows[2]["images"] == [image.path for image in train[2].images]
    config = yaml.safe_load((folder / "train.yaml").read_text("utf-8"))
    assert config["finetuning_type"] == "lora" and config["seed"] == 7 and config["learning_rate"] == 1e-4
    assert config["model_name_or_path"] == "Qwen/Qwen2-VL-2B-Instruct"
    assert (config["image_min_pixels"], config["image_max_pixels"]) == (56 * 56, 112 * 168)
    assert config["save_strategy"] == "no" and config["trust_remote_code"] is False
    assert "model_revision" not in config and "deepspeed" not in config
    assert "${" not in (folder / "train.yaml").read_text("utf-8")
    facts = json.loads((folder / "student.json").read_text("utf-8"))
    assert (facts["fold"], facts["seed"], facts["items"], facts["steps"]) == (1, 7, 3, 3)
    assert (facts["steps_logged"], facts["losses"]) == ([1, 2, 3], [1.0, 0.5, 0.3333])
    assert facts["trained_on"] == ["literal", "pictures", "plain"]
    assert facts["trained_on_content"] == sorted(content_digest(s) for s in train)


def test_swift_is_given_lines_and_its_newest_checkpoint_is_taken(train: list[Sample], tmp_path: Path) -> None:
    folder = train_student(spec("swift"), train, tmp_path / "one")
    rows = [json.loads(line) for line in (folder / "data" / "labelstill.jsonl").read_text("utf-8").splitlines()]
    assert set(rows[0]) == {"messages", "images"} and len(rows) == 3
    config = yaml.safe_load((folder / "train.yaml").read_text("utf-8"))
    assert config["tuner_type"] == "lora" and config["strict"] is True and config["data_seed"] == 7
    last = load_file(find_student_checkpoint(folder)[0] / "adapter_model.safetensors")["lora_A.weight"]
    other = train_student(spec("swift"), train[:1], tmp_path / "two")
    # the small trainer's earlier checkpoint is made from the first row alone
    first = load_file(find_student_checkpoint(other)[0] / "adapter_model.safetensors")["lora_A.weight"]
    assert last.tolist() != first.tolist()


def test_trainers_get_the_frames_at_the_size_that_students_are_asked_with(tmp_path: Path) -> None:
    """16 frames share the pixels of eight images, so each is smaller than an image may be."""
    clip = draw_numbered_video(tmp_path, frames=16, fps=4)
    items = [sample("film", "看", clip), sample("plain", "用户: 怎么退")]
    cache = ImageCache(tmp_path / "images")
    for trainer, name in (("llamafactory", "labelstill.json"), ("swift", "labelstill.jsonl")):
        folder = train_student(spec(trainer), items, tmp_path / trainer, images=cache)
        text = (folder / "data" / name).read_text("utf-8")
        row = json.loads(text)[0] if trainer == "llamafactory" else json.loads(text.splitlines()[0])
        ((*frames,),) = row["videos"]
        assert [read_frame_number(Image.open(frame)) for frame in frames] == [*range(16)]
        assert {Image.open(frame).size for frame in frames} == {(56, 112)}
    config = yaml.safe_load((tmp_path / "llamafactory" / "train.yaml").read_text("utf-8"))
    assert (config["video_fps"], config["video_maxlen"], config["video_max_pixels"]) == (4.0, 16, 112 * 168)
    info = json.loads((tmp_path / "llamafactory/data/dataset_info.json").read_text("utf-8"))
    assert info["labelstill"]["columns"]["videos"] == "videos"
    assert row["chat_template_kwargs"] == {"raw_fps": 4.0}
    environment = ExternalRecipe(spec("swift"), prompter(), 7)._make_environment(collect_recordings(items))
    assert (environment["FPS"], environment["VIDEO_MAX_PIXELS"]) == ("4.0", str(112 * 168))


def test_recordings_that_llamafactory_would_misread_are_refused(tmp_path: Path) -> None:
    clips = draw_numbered_video(tmp_path), draw_numbered_video(tmp_path, 20, frames=6)
    with pytest.raises(
        ConfigError, match=r"student\.trainer: item two: recordings of \[4, 6\] frames.*`trainer: swift`"
    ):
        train_student(spec(base="Qwen/Qwen3-VL-8B-Instruct"), [sample("two", *clips)], tmp_path / "one")


def test_the_usual_command_lines(train: list[Sample], tmp_path: Path) -> None:
    for name, verb in (("llamafactory-cli", "train"), ("swift", "sft")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f'#!/bin/sh\n[ $# = 2 ] && [ $1 = {verb} ] && exec {sys.executable} {SMALL} well "$2"\n')
        program.chmod(0o755)
        path = {"PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
        usual = spec(name.removesuffix("-cli"), command=(), environment=path)
        assert find_student_checkpoint(train_student(usual, train, tmp_path / name))[1]


def test_the_whole_model_is_tuned_where_asked_for(train: list[Sample], tmp_path: Path) -> None:
    for trainer in ("llamafactory", "swift"):
        whole = spec(trainer, adapter=False, deepspeed="zero3")
        folder = train_student(whole, train, tmp_path / trainer)
        checkpoint, adapter = find_student_checkpoint(folder)
        assert not adapter and (checkpoint / "model.safetensors").is_file()
        config = yaml.safe_load((folder / "train.yaml").read_text("utf-8"))
        assert json.loads(Path(config["deepspeed"]).read_text("utf-8"))["zero_optimization"]["stage"] == 3


def test_a_finished_student_is_not_trained_again(train: list[Sample], tmp_path: Path) -> None:
    folder = train_student(spec(), train, tmp_path / "one")
    before = (folder / "student.json").stat().st_mtime_ns
    assert train_student(spec(way="fail"), train, folder) == folder
    assert (folder / "student.json").stat().st_mtime_ns == before


def test_an_unfinished_folder_of_a_killed_run_is_replaced(train: list[Sample], tmp_path: Path) -> None:
    half = tmp_path / ".one.part" / "output"
    half.mkdir(parents=True)
    (half / "adapter_model.safetensors").write_bytes(b"half")
    folder = train_student(spec(), train, tmp_path / "one")
    assert load_file(find_student_checkpoint(folder)[0] / "adapter_model.safetensors")
    assert not half.exists()


def test_images_of_the_cache_are_the_size_that_is_seen(train: list[Sample], tmp_path: Path) -> None:
    folder = train_student(spec(), train, tmp_path / "one", images=ImageCache(tmp_path / "cache"))
    rows = json.loads((folder / "data" / "labelstill.json").read_text("utf-8"))
    for path in rows[2]["images"]:
        with Image.open(path) as picture:
            assert picture.width * picture.height <= 112 * 168 and picture.width % 28 == picture.height % 28 == 0


def test_options_and_environment_of_ones_own(train: list[Sample], tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "output_dir: ${output}\nseed: ${seed}\ndataset: ${file}\nnote: fold ${fold} of ${base}\nlists: ['${fold}', 2]\n"
        "finetuning_type: lora\n",
        "utf-8",
    )
    configured = ExternalSpec(
        trainer="swift",
        base="Qwen/Qwen2.5-VL-3B-Instruct",
        template=str(own),
        settings={"epochs": 2, "note2": "${dataset}", "finetuning_type": None},
        environment={"SAID": "aloud"},
        command=("sh", "-c", f"echo $SAID $MAX_PIXELS; exec {sys.executable} {SMALL} well ${{config}}"),
    )
    folder = train_student(configured, train, tmp_path / "one")
    config = yaml.safe_load((folder / "train.yaml").read_text("utf-8"))
    assert config.pop("output_dir") and config.pop("dataset")
    assert config == {
        "seed": 7,
        "note": "fold 1 of Qwen/Qwen2.5-VL-3B-Instruct",
        "lists": [1, 2],
        "epochs": 2,
        "note2": "labelstill",
    }
    assert (folder / "train.log").read_text("utf-8").startswith(f"aloud {112 * 168}\n")


@pytest.mark.parametrize(
    ("way", "says"),
    [
        ("fail", r"fold 1: llamafactory: ended with exit code 1 .*train\.log\)\nRuntimeError: CUDA out of memory"),
        ("pickle", r"saved adapter_model\.bin, a pickle.*\n  loaded 3 rows\n  3/3\n  epoch done$"),
        ("half", "adapter_model.safetensors of the checkpoint cannot be read"),
        ("nothing", "saved no checkpoint"),
    ],
)
def test_a_trainer_that_fails_is_an_error_with_its_log(
    way: str, says: str, train: list[Sample], tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=says):
        train_student(spec(way=way), train, tmp_path / "one")
    assert not (tmp_path / "one").exists()
    # the next try starts afresh
    assert find_student_checkpoint(train_student(spec(), train, tmp_path / "one"))[1]


def test_the_other_kind_of_checkpoint_is_not_taken_for_the_one_asked_for(train: list[Sample], tmp_path: Path) -> None:
    mixed = spec(adapter=True, settings={"finetuning_type": "full"})
    with pytest.raises(EngineError, match="set `adapter: false`"):
        train_student(mixed, train, tmp_path / "one")


def test_a_trainer_that_is_killed_is_an_error(train: list[Sample], tmp_path: Path) -> None:
    killed = spec(command=("sh", "-c", "echo working on ${config}; kill -9 $$"))
    with pytest.raises(EngineError, match=r"was killed by signal 9 .*\n  working on"):
        train_student(killed, train, tmp_path / "one")


def test_when_we_are_stopped_so_is_the_trainer(train: list[Sample], tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    forever = spec(command=("sh", "-c", f"{sys.executable} {SMALL} well ${{config}}; echo $$ > {pid}; sleep 600"))

    def stop(done: int, total: int, loss: float) -> None:
        if wait_for(pid.exists):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ExternalRecipe(forever, prompter(), 0).train(train, 0, tmp_path / "one", stop)
    assert wait_for(lambda: bool(pid.read_text().strip()) and has_ended(int(pid.read_text())))


def test_when_we_are_killed_the_trainer_ends_too(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    code = (
        "import os, sys; from pathlib import Path; from tasks.students.external_process import run_child\n"
        "run_child(sys.argv[2:], Path(sys.argv[1]), os.environ, lambda: None)"
    )
    trainer = [sys.executable, str(SMALL), "hang", "-", str(pids)]
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), *trainer], cwd=ROOT)
    assert wait_for(lambda: pids.exists() and len(pids.read_text().split()) == 2)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    assert all(wait_for(lambda pid=pid: has_ended(int(pid))) for pid in pids.read_text().split())


def test_what_cannot_be_run_is_said_before_anything_starts(train: list[Sample], tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("output_dir: ${outptu}\n", "utf-8")
    odd = tmp_path / "odd ${x}"
    odd.mkdir()
    (odd / "config.json").write_text('{"model_type": "qwen2_vl"}')
    cases = [
        (spec(template=str(bad)), r"bad\.yaml, `output_dir`: unknown word \$\{outptu\}; known words are base, data"),
        (spec(template="nowhere.yaml"), "student.template: no file nowhere.yaml.*swift_lora.yaml"),
        (spec(deepspeed="zero9"), "student.deepspeed: no file zero9.*deepspeed_zero2.json"),
        (spec(command=("no-such-trainer", "${config}")), "`no-such-trainer` is not on PATH"),
        (spec(base=str(odd)), "rename the path"),
    ]
    for case, says in cases:
        with pytest.raises(ConfigError, match=says):
            train_student(case, train, tmp_path / "one")
    with pytest.raises(ValidationError, match="must contain"):
        spec(command=("train",))
    with pytest.raises(EngineError, match="contains no checkpoint"):
        find_student_checkpoint(tmp_path)


def test_every_template_can_be_filled(train: list[Sample], tmp_path: Path) -> None:
    templates = sorted((TEMPLATES / "students").glob("*.yaml"))
    assert len(templates) == 4
    for template in templates:
        trainer, _, kind = template.stem.partition("_")
        folder = train_student(spec(trainer, adapter=kind == "lora"), train, tmp_path / template.stem)
        config = yaml.safe_load((folder / "train.yaml").read_text("utf-8"))
        assert {config.get("finetuning_type"), config.get("tuner_type")} == {kind, None}
        # the vision tower is frozen in all of them: vLLM serves no adapters of it
        assert config.get("freeze_vit", config.get("freeze_vision_tower")) is True


def test_the_digest_follows_what_a_student_is_made_of(train: list[Sample], tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("a: 1\n", "utf-8")
    digest = ExternalRecipe(spec(template=str(own)), prompter(), 0).digest(train, 0)
    same = spec(template=str(own), folds=9, scoring=ScoringSettings(batch_size=1))
    assert digest == ExternalRecipe(same, prompter(), 0).digest(train[::-1], 0)
    others = [
        ExternalRecipe(spec(template=str(own)), prompter(), 0).digest(train, 1),
        ExternalRecipe(spec(template=str(own)), prompter(), 1).digest(train, 0),
        ExternalRecipe(spec(template=str(own)), prompter(), 0).digest(train[1:], 0),
        ExternalRecipe(spec(template=str(own), settings={"a": 2}), prompter(), 0).digest(train, 0),
        ExternalRecipe(spec(template=str(own), deepspeed="zero2"), prompter(), 0).digest(train, 0),
    ]
    own.write_text("a: 2\n", "utf-8")
    others.append(ExternalRecipe(spec(template=str(own)), prompter(), 0).digest(train, 0))
    assert len({digest, *others}) == 7


def test_the_digest_follows_the_text_on_images(train: list[Sample]) -> None:
    plain = prompter()
    shown = train[2].images[0].sha256
    digests = [
        ExternalRecipe(
            spec(), Prompter(plain.pack, "base", max_pixels=112 * 168, min_pixels=56 * 56, texts=texts), 0
        ).digest(train, 0)
        for texts in ({}, {"elsewhere": "退款"}, {shown: "退款"}, {shown: "退货"})
    ]
    assert digests[0] == digests[1] and len(set(digests)) == 3
