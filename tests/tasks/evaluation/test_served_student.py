"""The fused student's folder of its own."""

import json
from pathlib import Path

from tasks.evaluation.fold_team import FoldTeam
from tasks.evaluation.scores import make_rows, score
from tasks.evaluation.served_student import write_served_student
from tasks.models.engines.engine import Workplace
from tasks.models.image_cache import ImageCache
from tasks.students.settings import StudentSpec
from tests.checkpoints import make_small_tokenizer, write_random_checkpoint
from tests.tasks.making import prediction, sample


def test_the_readme_says_how_to_serve_the_student_and_how_good_it_is(tmp_path: Path) -> None:
    base = write_random_checkpoint(tmp_path / "base", make_small_tokenizer(["退款"]), "qwen2_vl")
    fused = tmp_path / "evaluate" / "fused"
    fused.mkdir(parents=True)
    (fused / "adapter_config.json").write_text(json.dumps({"r": 48}), "utf-8")
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "of an earlier run").touch()
    rows = make_rows("fused", 0, [sample("a")], {"a": "申请退款"}, {"a": prediction("a")})
    team = FoldTeam(0, (tmp_path / "1", tmp_path / "2", tmp_path / "3"), fused)
    place = Workplace(ImageCache(tmp_path / "images"), tmp_path / "logs", 2)
    folder = write_served_student(tmp_path, team, StudentSpec(base=str(base)), place, [score("fused", rows)])
    text = (folder / "README.md").read_text("utf-8")
    assert f"vllm serve {base}" in text
    assert "--max-lora-rank 64" in text
    assert str(folder) in text.partition("--lora-modules")[2]
    assert "`fused`: 100.0%" in text
    assert "the 3 fold students" in text.replace("\n", " ")
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "adapter_config.json"]
