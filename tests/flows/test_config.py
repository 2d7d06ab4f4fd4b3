from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from flows.config import (
    CorrectionConfig,
    DistillConfig,
    EmitConfig,
    PseudoLabelsConfig,
    RationalesConfig,
    load_config,
)
from tasks.errors import ConfigError
from tasks.settings import is_internal, list_models

WHOLE = """
pack: www2025
labelled:   {manifest: data/train/train.json, images: data/train/images}
unlabelled: {manifest: data/test1/test1.json, images: data/test1/images}
generator:  {engine: vllm, model: Qwen/Qwen2-VL-7B-Instruct}
teacher:    {engine: vllm, model: Qwen/Qwen2-VL-72B-Instruct, tensor_parallel_size: 4}
student:    {base: Qwen/Qwen2-VL-7B-Instruct, folds: 5}
output: artifacts/www2025
"""
LABELLED = "labelled: {manifest: a.json, images: a}\n"
POOL = "unlabelled: {manifest: b.json, images: b}\n"
HEAD = "pack: demo\noutput: out\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "mine.yaml"


def test_the_readmes_example_is_read(file: Path) -> None:
    file.write_text(WHOLE, encoding="utf-8")
    config = load_config(file)
    assert config.labelled is not None and config.labelled.manifest == Path("data/train/train.json")
    assert config.teacher is not None and config.teacher.tensor_parallel_size == 4
    assert config.student is not None and config.student.folds == 5
    rationales, correction, pseudo_labels, emit = config.list_stage_configs()
    assert isinstance(rationales, RationalesConfig) and rationales.generator == config.generator
    assert isinstance(pseudo_labels, PseudoLabelsConfig) and pseudo_labels.teacher == config.teacher
    assert (pseudo_labels.labelled, pseudo_labels.student) == (config.labelled, config.student)
    assert isinstance(correction, CorrectionConfig) and correction.student == config.student
    assert isinstance(emit, EmitConfig) and emit.stages == ("rationales", "correction", "pseudo_labels")
    assert {stage.output for stage in config.list_stage_configs()} == {Path("artifacts/www2025")}


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        (LABELLED, ()),
        (LABELLED + "generator: {model: g}\n", ("rationales",)),
        (POOL + "teacher: {model: t}\n", ("pseudo_labels",)),
        (LABELLED + POOL + "teacher: {model: t}\nstudent: {base: b}\n", ("correction", "pseudo_labels")),
        (LABELLED + "teacher: {model: t}\nstudent: {base: b}\n", ("correction",)),
        (LABELLED + "teacher: {model: t}\n", ()),
    ],
)
def test_stages_left_out_are_skipped(file: Path, text: str, stages: tuple[str, ...]) -> None:
    file.write_text(HEAD + text, encoding="utf-8")
    emit = load_config(file).list_stage_configs()[-1]
    assert isinstance(emit, EmitConfig) and emit.stages == stages


@pytest.mark.parametrize(
    ("text", "named"),
    [
        pytest.param(HEAD + LABELLED + "techer: {model: t}\n", "techer", id="unknown key"),
        pytest.param(HEAD + LABELLED + "generator: {model: g, revison: x}\n", "generator.revison", id="unknown inside"),
        pytest.param(HEAD + "labelled: {images: a}\n", "labelled.manifest", id="missing key"),
        pytest.param(LABELLED, "pack", id="no pack"),
        pytest.param(HEAD, "labelled", id="nothing to do"),
        pytest.param(HEAD + POOL + "teacher: {model: t}\nstudent: {base: b}\n", "labelled", id="student without items"),
        pytest.param(HEAD + POOL + "generator: {model: t}\n", "labelled", id="generator without items"),
        pytest.param(
            HEAD + POOL + "teacher: {model: t}\nrationales: {teach_thinking: true}\n",
            "thinking_tokens",
            id="no thoughts to teach",
        ),
        pytest.param(HEAD + LABELLED + "generator: {engine: vlm, model: g}\n", "generator.engine", id="unknown engine"),
        pytest.param(HEAD + LABELLED + "shard_size: many\n", "shard_size", id="not a number"),
        pytest.param(HEAD + LABELLED + "shard_size: 0\n", "shard_size", id="out of bounds"),
        pytest.param(HEAD + LABELLED + "ask: {votes: 3, temperature: 0}\n", "temperature", id="greedy votes"),
        pytest.param(
            HEAD + LABELLED + "generator: {model: g, max_pixels: 9999}\n", "generator: `max_pixels`", id="set once"
        ),
        pytest.param(HEAD + LABELLED + "correction: {stand_in: x}\n", "`stand_in` cannot be set", id="demo's own"),
        pytest.param(HEAD + LABELLED + "emit: {name: ../x}\n", "emit.name", id="name that is a path"),
        pytest.param(HEAD + LABELLED + "generator: {model: g}\nbudget: {cost: 5}\n", "prices", id="cost, no prices"),
        pytest.param("pack: [\n", "line 2", id="not YAML"),
        pytest.param("- pack\n", "mapping", id="a list"),
        pytest.param("", "mapping", id="empty"),
    ],
)
def test_a_wrong_key_is_named_with_its_file(file: Path, text: str, named: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(file) in str(caught.value) and named in str(caught.value)


def test_files_that_cannot_be_read_are_named(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml: missing"):
        load_config(file)
    file.write_bytes("pack: 演示".encode("gbk"))
    with pytest.raises(ConfigError, match=r"mine\.yaml: not UTF-8"):
        load_config(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_every_key_is_described() -> None:
    import flows.config
    from tasks.records import Record

    found = vars(flows.config).values()
    models = [m for m in found if isinstance(m, type) and issubclass(m, BaseModel) and not issubclass(m, Record)]
    bare = [f"{m.__name__}.{name}" for m in models for name, f in m.model_fields.items() if not f.description]
    assert len(models) > 10 and bare == []


def list_settings(model: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """Every key that a user can set, as (the model that defines it, key), wherever it stands."""
    for name, field in model.model_fields.items():
        nested = list(list_models(field.annotation))
        if nested:
            yield from (found for inner in nested for found in list_settings(inner))
        elif not is_internal(field):
            owner = next(c for c in reversed(model.__mro__) if name in vars(c).get("__annotations__", {}))
            yield (owner.__name__, name)


def test_there_are_few_settings_and_most_are_optional(file: Path) -> None:
    assert len(set(list_settings(DistillConfig))) <= 112
    file.write_text("pack: demo\nlabelled: {manifest: data/items.json}\n", "utf-8")
    config = load_config(file)
    assert (config.output, config.labelled and config.labelled.images) == (Path("artifacts/demo"), Path("data"))


def test_what_is_set_once_holds_everywhere(file: Path) -> None:
    models = "generator: {model: g}\nteacher: {model: t}\nstudent: {base: b, revision: r}\n"
    models += "rationales: {judge: {model: j}}\n"
    file.write_text(f"{HEAD}{LABELLED}{models}max_pixels: 99999\nseed: 7\ntrust_remote_code: true\n", "utf-8")
    config = load_config(file)
    blocks = (config.generator, config.teacher, config.student, config.emit.export, config.rationales.judge)
    assert [block.max_pixels for block in blocks] == [99999] * 5
    assert [block.trust_remote_code for block in blocks] == [True] * 5
    assert [spec.model for spec in config.engines] == ["g", "j", "t"]
    assert config.student.seed == config.emit.export.seed == 7
    assert (config.emit.export.base, config.emit.export.revision) == ("b", "r")
    assert config.list_stage_configs()[0].generator == config.generator


def test_the_form_shows_common_keys_first_and_none_that_follow_others() -> None:
    schema = DistillConfig.model_json_schema()
    assert list(schema["properties"])[:4] == ["pack", "labelled", "unlabelled", "evaluation"]
    assert "max_pixels" in schema["properties"] and "max_pixels" not in schema["$defs"]["EngineSpec"]["properties"]
    assert "stand_in" not in schema["$defs"]["CorrectionSettings"]["properties"]


# --- teachers ----------------------------------------------------------------------------------------------


def test_one_teacher_or_several_each_with_what_it_is_asked(file: Path) -> None:
    several = "{model: a}, {model: b, prices: {prompt: 9}}, {model: c, ask: 0.2}, {model: d, ask: all}"
    file.write_text(f"{HEAD}{POOL}teachers: [{several}]\nmax_pixels: 99999\n", "utf-8")
    config = load_config(file)
    assert [(t.model, t.ask, t.share) for t in config.panel] == [
        ("a", "all", None), ("b", "uncertain", 1.0), ("c", 0.2, 0.2), ("d", "all", None)
    ]  # fmt: skip
    assert {t.max_pixels for t in config.panel} == {99999}
    assert config.list_stage_configs()[0].panel == config.panel and len(config.engines) == 4
    file.write_text(HEAD + POOL + "teacher: {model: a}\n", "utf-8")
    assert [(t.model, t.share) for t in load_config(file).panel] == [("a", None)]


@pytest.mark.parametrize(
    ("teachers", "wrong"),
    [
        ("teacher: {model: a}\nteachers: [{model: b}]\n", "both set"),
        ("teachers: [{model: a, ask: uncertain}]\n", "the first of `teachers` is asked about all"),
        ("teachers: [{model: a}, {model: b, ask: 2}]\n", "ask"),
        ("teachers: [{model: a, max_pixels: 7000}]\n", "cannot be set here"),
        ("teachers: [7]\n", "teachers"),
    ],
)
def test_teachers_that_make_no_sense_are_explained(teachers: str, wrong: str, file: Path) -> None:
    file.write_text(HEAD + POOL + teachers, "utf-8")
    with pytest.raises(ConfigError, match=wrong):
        load_config(file)
