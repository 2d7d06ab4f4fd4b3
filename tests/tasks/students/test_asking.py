"""The engine that trained students are asked with."""

from pathlib import Path

from tasks.students.asking import choose_student_engine
from tasks.students.settings import StudentSpec


def test_the_keys_of_an_engine_can_be_set_for_the_students(tmp_path: Path) -> None:
    keys = {
        "engine": "vllm",
        "concurrency": 32,
        "tensor_parallel_size": 2,
        "api_server_count": 4,
        "gpu_memory_utilization": 0.8,
        "extra_args": ["--max-num-seqs", "64"],
    }
    spec = StudentSpec.model_validate({"base": "Qwen/Qwen2-VL-7B-Instruct", "revision": "v1", "scoring": keys})
    engine = choose_student_engine(spec, tmp_path / "a", [tmp_path / "a", tmp_path / "b"])
    assert engine.model_dump(mode="json", include=keys.keys()) == keys
    assert (engine.model, engine.revision) == (spec.base, "v1")
    assert engine.adapters == (str(tmp_path / "a"), str(tmp_path / "b"))
