"""Where there is a GPU, the local engine answers in a child process, as it does in this one."""

from pathlib import Path

import psutil
import pytest

from tasks.errors import EngineError
from tasks.media import ImageRef
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.local.child_engine import ChildEngine
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tests.fake_gpus import plug_in_gpus
from tests.tasks.models.engines.local_requests import varied


def list_children() -> list[psutil.Process]:
    return [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())]


def test_it_answers_as_in_this_process_and_its_process_ends_with_it(
    engine: LocalEngine,
    checkpoint: Path,
    images: list[ImageRef],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plug_in_gpus(tmp_path, 1, monkeypatch)
    spec = EngineSpec(engine="local", model=str(checkpoint), batch_size=4, dtype="float32")
    child = open_engine(spec, Workplace(ImageCache(tmp_path / "cache"), tmp_path))
    assert isinstance(child, ChildEngine)
    assert child.fingerprint == engine.fingerprint
    requests = varied(images, "reason")
    expected = {g.key: g for g in engine.generate(requests)}
    for generation in child.generate(requests):
        assert generation.texts == expected[generation.key].texts
        assert generation.label_logprobs == pytest.approx(expected[generation.key].label_logprobs, abs=1e-4)
    assert child.usage().target == 4 and child.usage().busy > 0
    assert len(list_children()) == 1
    child.close()
    assert list_children() == []


@pytest.mark.slow
def test_after_questions_that_were_given_up_it_answers_again(
    checkpoint: Path, images: list[ImageRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in_gpus(tmp_path, 1, monkeypatch)
    spec = EngineSpec(engine="local", model=str(checkpoint), batch_size=1)
    child = open_engine(spec, Workplace(ImageCache(tmp_path / "cache"), tmp_path))
    requests = varied(images, "reason")
    stream = iter(child.generate(requests))
    next(stream)
    del stream  # as when a run is cancelled
    assert list_children() == []
    assert {g.key for g in child.generate(requests)} == {r.key for r in requests}
    child.close()


def test_a_model_that_cannot_be_loaded_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in_gpus(tmp_path, 1, monkeypatch)
    spec = EngineSpec(engine="local", model=str(tmp_path / "nowhere"))
    with pytest.raises(EngineError, match="nowhere does not exist; set `model`"):
        open_engine(spec, Workplace(ImageCache(tmp_path / "cache"), tmp_path))
    assert list_children() == []
