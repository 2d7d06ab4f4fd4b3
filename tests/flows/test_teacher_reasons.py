"""What the stages `correction` and `pseudo_labels` need to choose the reasons of teachers."""

import shutil
from pathlib import Path

import pytest

from flows.teacher_reasons import identify_reason_settings
from tasks.errors import PackError
from tasks.models.engines.spec import EngineSpec
from tasks.packs.pack import TEMPLATES, load_pack
from tasks.rationales.settings import RationaleSettings
from tests.flows.test_pseudo_labels import make_config


def test_a_pack_that_no_judge_can_use_is_refused_before_a_teacher_is_asked(tmp_path: Path) -> None:
    judge = EngineSpec(engine="scripted", model="scripted:hash")
    config = make_config(tmp_path).model_copy(update={"rationales": RationaleSettings(judge=judge)})
    shutil.copytree(TEMPLATES / "demo", tmp_path / "pack")
    (tmp_path / "pack" / "judge.jinja").unlink()
    assert identify_reason_settings(config, load_pack("demo")) == [None, None]
    with pytest.raises(PackError, match=r"rationales\.judge"):
        identify_reason_settings(config, load_pack(str(tmp_path / "pack")))
    without = config.model_copy(update={"rationales": RationaleSettings()})
    identify_reason_settings(without, load_pack(str(tmp_path / "pack")))
