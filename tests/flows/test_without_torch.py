"""A run whose models are asked over HTTP never imports torch, which is the servers' own affair."""

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.conftest import ROOT, PrefectServer
from tests.flows.small_run import dump_config, small_config
from tests.stub_server import running

RUN = """
import sys
from flows.commands.main import main
try:
    main()
finally:
    print(*sys.modules)
"""


def test_a_run_that_asks_servers_imports_no_torch(prefect_server: PrefectServer, tmp_path: Path) -> None:
    config = small_config(tmp_path, items=30)
    assert config.student is not None
    with running() as stub:
        model = {"engine": "server", "model": "stub", "base_urls": [stub.url], "tokenizer": str(config.student.base)}
        models = {"generator": model, "teacher": model, "student": {"kind": "probe", "folds": 2}}
        # the stub gives all items the same reason and label
        settings = dump_config(config) | models | {"max_failed_share": 1.0}
        file = tmp_path / "run.yaml"
        file.write_text(yaml.safe_dump(settings, allow_unicode=True), encoding="utf-8")
        done = subprocess.run(
            [sys.executable, "-c", RUN, "run", str(file)], cwd=ROOT, env=os.environ, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr[-3000:]
    for stage in ("rationales", "pseudo_labels"):
        assert json.loads((config.output / stage / "record.json").read_bytes())["costs"]["asked"] > 0
    imported = set(done.stdout.splitlines()[-1].split())
    assert not imported & {"torch", "torchvision", "transformers", "vllm", "peft", "trl", "ray"}
    assert "tokenizers" in imported  # prompts were counted
