"""Asking the LoRA students of an evaluation: which student is asked about what, and what becomes of the answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tasks.evaluation.fold_team import FoldTeam
from tasks.evaluation.lora_students import LoraStudents
from tasks.evaluation.variants import Variant
from tasks.models.ask import Asker
from tasks.models.engines.spec import EngineSpec
from tasks.packs.pack import load_pack
from tasks.records import Prediction, Request
from tasks.storage.json_lines import write_json
from tasks.students.settings import ScoringSettings, StudentSpec
from tests.tasks.making import prediction, sample

RIGHT, WRONG = "申请退款", "查询物流"
SURE = {"fold-0": {RIGHT: 0.9, WRONG: 0.1}, "fold-1": {RIGHT: 0.3, WRONG: 0.7}, "fused": {RIGHT: 0.2, WRONG: 0.8}}


@dataclass
class Answering:
    """Answers as the student in an adapter's folder, and keeps who was asked."""

    sources: list[str] = field(default_factory=list[str])

    def ask_for_labels(
        self, requests: Sequence[Request], spec: EngineSpec, what: str, *, source: str, model: str
    ) -> list[Prediction]:
        self.sources.append(source)
        shares = SURE[Path(str(spec.adapter)).name]
        label = max(shares, key=shares.__getitem__)
        return [prediction(r.sample_id, label, probabilities=shares, source=source) for r in requests]


@pytest.fixture
def team(tmp_path: Path) -> FoldTeam:
    for name in SURE:
        folder = tmp_path / name
        folder.mkdir()
        write_json(folder / "student.json", {})
        write_json(folder / "adapter_config.json", {"r": 16})
        (folder / "adapter_model.safetensors").write_bytes(name.encode())
    return FoldTeam(7, (tmp_path / "fold-0", tmp_path / "fold-1"), tmp_path / "fused")


def open_students(tmp_path: Path, teams: Sequence[FoldTeam], *wanted: Variant) -> tuple[LoraStudents, Answering]:
    base = tmp_path / "base"
    base.mkdir()
    write_json(base / "config.json", {"model_type": "qwen2_vl"})
    (base / "model.safetensors").write_bytes(b"weights")
    spec = StudentSpec(base=str(base), scoring=ScoringSettings(engine="local"))
    asker = Answering()
    return LoraStudents(load_pack("demo"), spec, (), teams, wanted, {}, cast(Asker, cast(Any, asker))), asker


def test_an_ensemble_asks_every_fold_and_a_fused_student_answers_alone(tmp_path: Path, team: FoldTeam) -> None:
    students, asker = open_students(tmp_path, [team], Variant.ENSEMBLE, Variant.FUSED)
    items = [sample("a", task="dialogue"), sample("b", task="dialogue")]
    rows = students.score(items, {"a": RIGHT, "b": RIGHT})
    assert [(r.variant, r.seed, r.sample_id, r.label) for r in rows] == [
        ("ensemble", 7, "a", RIGHT),
        ("ensemble", 7, "b", RIGHT),
        ("fused", 7, "a", WRONG),
        ("fused", 7, "b", WRONG),
    ]
    assert rows[0].p == pytest.approx(0.6)
    assert asker.sources == ["ensemble/seed=7/fold=0", "ensemble/seed=7/fold=1", "fused/seed=7"]
    assert students.variants == {Variant.ENSEMBLE, Variant.FUSED}
    assert students.count * len(items) == len(rows)


def test_without_fold_students_nothing_is_asked_of_them(tmp_path: Path) -> None:
    students, asker = open_students(tmp_path, [], Variant.FUSED)
    assert students.score([sample("a", task="dialogue")], {"a": RIGHT}) == []
    assert (students.variants, students.count, asker.sources) == (set(), 0, [])
