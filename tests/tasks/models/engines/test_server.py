import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import EngineError
from tasks.media import ImageRef
from tasks.models.engines.engine import Workplace, open_engine
from tasks.models.engines.server.engine import ServerEngine
from tasks.models.engines.server.pacing import Patience
from tasks.models.engines.spec import EngineSpec
from tasks.models.image_cache import ImageCache
from tasks.prompts.parsing import parse
from tasks.records import Outcome, Request, Sampling
from tests.stub_server import Fault, Gap, Options, Running, running
from tests.tasks.making import prompter, sample


def spec(stub: Running, **fields: Any) -> EngineSpec:
    values: dict[str, Any] = {"model": "stub", "concurrency": 8}
    return EngineSpec(engine="server", **values | {"base_urls": (stub.url,)} | fields)


def open_stub_engine(stub: Running, folder: Path, **fields: Any) -> ServerEngine:
    engine = open_engine(spec(stub, **fields), Workplace(ImageCache(folder / "images"), folder))
    assert isinstance(engine, ServerEngine)
    return engine


def questions(count: int, **sampling: Any) -> list[Request]:
    return [prompter().classify(sample(f"item-{i}", f"用户: item-{i}"), Sampling(**sampling)) for i in range(count)]


@pytest.fixture(scope="module")
def stub() -> Iterator[Running]:
    with running() as server:
        yield server


def test_every_request_is_answered_once(stub: Running, tmp_path: Path) -> None:
    engine, requests = open_stub_engine(stub, tmp_path), questions(200)
    answers = list(engine.generate(iter(requests)))
    engine.close()
    assert sorted(a.key for a in answers) == sorted(r.key for r in requests)
    assert {a.outcome for a in answers} == {Outcome.OK}
    by_key = {a.key: a for a in answers}
    assert all(parse(r, by_key[r.key], source="t", model="m").label in r.constraint.labels for r in requests)  # pyright: ignore
    assert all(a.tokens_in and a.tokens_out and a.engine == "server/stub@main" for a in answers)


def test_a_stream_that_is_left_early_leaves_no_worker_behind(stub: Running, tmp_path: Path) -> None:
    engine = open_stub_engine(stub, tmp_path)
    stream = engine.generate(iter(questions(100)))
    next(stream)
    stream.close()
    assert len(list(engine.generate(iter(questions(20))))) == 20
    engine.close()
    engine.close()
    assert not [t for t in threading.enumerate() if t.name == "server-engine"]
    with pytest.raises(EngineError, match="closed"):
        list(engine.generate(iter(questions(1))))


@pytest.mark.parametrize(
    ("gap", "missing", "note"),
    [
        (Gap.SCHEMA, "schema", "ignores JSON schemas"),
        (Gap.N_REFUSED, "several", "each vote is a separate request"),
        (Gap.N_IGNORED, "several", "each vote is a separate request"),
    ],
)
def test_missing_capabilities_are_found_reported_and_replaced(
    gap: Gap, missing: str, note: str, tmp_path: Path
) -> None:
    with running(Options(gaps=frozenset({gap}), unguided='好的：{"理由": "见文", "所属类别": "查询物流"}')) as stub:
        engine, (request,) = open_stub_engine(stub, tmp_path), questions(1, n=3, temperature=0.5)
        assert not getattr(engine.capabilities, missing)
        assert any(note in n for n in engine.notes)
        (answer,) = engine.generate([request])
        engine.close()
    assert len(answer.texts) == 3
    assert parse(request, answer, source="t", model="m").label in ("申请退款", "查询物流", "反馈破损")


def test_a_faultless_server_does_all_that_is_asked_for(stub: Running, tmp_path: Path) -> None:
    engine = open_stub_engine(stub, tmp_path)
    can = engine.capabilities
    engine.close()
    assert can.schema and can.several


@pytest.mark.parametrize("media", [True, False])
def test_images_go_by_file_where_the_server_reads_them_else_as_base64(
    media: bool, tmp_path: Path, images: list[ImageRef]
) -> None:
    cache = tmp_path / "images"
    cache.mkdir()
    with running(Options(media=str(cache) if media else None)) as stub:
        engine = open_stub_engine(stub, tmp_path)
        request = prompter().classify(sample("item-1", "图：", *images), Sampling())
        (answer,) = engine.generate([request])
        engine.close()
    assert engine.capabilities.local_files is media
    assert answer.outcome is Outcome.OK, answer.detail


def test_an_unreadable_image_concerns_its_item_only(stub: Running, tmp_path: Path, images: list[ImageRef]) -> None:
    engine = open_stub_engine(stub, tmp_path)
    gone = images[0].model_copy(update={"path": str(tmp_path / "gone.png"), "sha256": "f" * 64})
    requests = [prompter().classify(sample(f"item-{i}", f"图{i}：", image), Sampling()) for i, image in
                enumerate([images[0], gone, images[1]])]  # fmt: skip
    outcomes = {a.key: a.outcome for a in engine.generate(requests)}
    engine.close()
    assert [outcomes[r.key] for r in requests] == [Outcome.OK, Outcome.FAILED, Outcome.OK]


def test_a_400_is_not_sent_again(tmp_path: Path) -> None:
    always = {"item-1": Fault.BAD_REQUEST, "item-2": Fault.TOO_LONG}
    with running(Options(always=always)) as stub:
        engine, requests = open_stub_engine(stub, tmp_path), questions(4)
        outcomes = {a.key: a for a in engine.generate(requests)}
        engine.close()
        received = stub.stats()["received"]
    assert [outcomes[r.key].outcome for r in requests] == ["ok", "failed", "too_long", "ok"]
    assert "400" in outcomes[requests[1].key].detail
    assert received == 4


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(Options(api_key="geheim-4711")) as stub:
        with pytest.raises(EngineError, match="api_key_env"):
            open_stub_engine(stub, tmp_path)
        monkeypatch.delenv("STUB_KEY", raising=False)
        with pytest.raises(EngineError, match="STUB_KEY"):
            open_stub_engine(stub, tmp_path, api_key_env="STUB_KEY")
        monkeypatch.setenv("STUB_KEY", "falsch-0815")
        with pytest.raises(EngineError) as refused:
            open_stub_engine(stub, tmp_path, api_key_env="STUB_KEY")
        assert "falsch-0815" not in str(refused.value)
        monkeypatch.setenv("STUB_KEY", "geheim-4711")
        engine = open_stub_engine(stub, tmp_path, api_key_env="STUB_KEY")
        (answer,) = engine.generate(questions(1))
        engine.close()
    assert answer.outcome is Outcome.OK
    assert "geheim" not in answer.model_dump_json() + repr(engine.notes) + engine.fingerprint


def test_a_model_that_is_not_served_is_named_with_those_that_are(stub: Running, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no model `other`; it serves: stub"):
        open_stub_engine(stub, tmp_path, model="other")


def test_a_server_that_is_not_there_is_an_error_after_patience(tmp_path: Path) -> None:
    nobody = EngineSpec(engine="server", model="m", base_urls=("http://127.0.0.1:9/v1",))
    with pytest.raises(EngineError, match="no answer from any address"):
        ServerEngine(nobody, Workplace(ImageCache(tmp_path), tmp_path), patience=Patience(start=1))


def test_several_addresses_share_the_load(stub: Running, tmp_path: Path) -> None:
    with running() as other:
        stub.clear()
        engine = open_stub_engine(stub, tmp_path, base_urls=(stub.url, other.url))
        list(engine.generate(questions(400)))
        engine.close()
        counts = [s.stats()["received"] for s in (stub, other)]
    assert sum(counts) == 400
    assert min(counts) > 20  # on a busy machine, one of the servers may be much slower


def test_other_addresses_answer_when_one_is_away(stub: Running, tmp_path: Path) -> None:
    engine = open_stub_engine(stub, tmp_path, base_urls=(stub.url, "http://127.0.0.1:9/v1"))
    answers = list(engine.generate(questions(60)))
    engine.close()
    assert [a.outcome for a in answers] == [Outcome.OK] * 60


def test_usage_reports_how_busy_the_server_was(tmp_path: Path) -> None:
    with running(Options(median_seconds=0.05)) as stub:
        engine = open_stub_engine(stub, tmp_path, concurrency=4)
        list(engine.generate(iter(questions(80))))
        usage = engine.usage()
        engine.close()
    assert usage.target == 4
    assert 0.7 < usage.busy / (usage.target * usage.seconds) <= 1.0
    assert usage.seconds > 0.9


def test_a_dead_server_is_brought_back(tmp_path: Path) -> None:
    with running(Options(crash_every=30, down_seconds=1.0, journal=str(tmp_path / "journal"))) as stub:
        asked: list[str] = []

        def revive(base_url: str) -> str:
            asked.append(base_url)
            stub.stats()
            return base_url

        place = Workplace(ImageCache(tmp_path / "images"), tmp_path)
        engine = ServerEngine(spec(stub), place, revive=revive, patience=Patience(silence=0.5))
        answers = list(engine.generate(questions(100)))
        engine.close()
    assert [a.outcome for a in answers] == [Outcome.OK] * 100
    assert asked and set(asked) == {stub.url}
