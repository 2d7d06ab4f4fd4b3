from pathlib import Path

import pytest

from tasks.errors import EngineError
from tasks.models.engines.engine import Workplace
from tasks.models.engines.local.engine import LocalEngine
from tasks.models.engines.spec import EngineSpec


def test_loading_errors_say_what_is_wrong(checkpoint: Path, place: Workplace, tmp_path: Path):
    with pytest.raises(EngineError, match="does not exist"):
        LocalEngine(EngineSpec(engine="local", model=str(tmp_path / "nowhere")), place)
    with pytest.raises(EngineError, match="the folder must contain"):
        LocalEngine(EngineSpec(engine="local", model=str(tmp_path)), place)
    with pytest.raises(EngineError, match="no adapter_config"):
        LocalEngine(EngineSpec(engine="local", model=str(checkpoint), adapter=str(tmp_path)), place)
