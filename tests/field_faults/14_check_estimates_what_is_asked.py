"""`labelstill check` must estimate within 10 % how many questions a run with an empty ledger asks.

Run it in a checkout: `python tests/field_faults/14_check_estimates_what_is_asked.py`. Exits 0 if that is so, else 1.
"""

import os
import re
import socket
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

COMMAND = "flows.commands.main" if Path("flows/commands/main.py").exists() else "flows.cli"
_MAKE = """
import sys, yaml, pathlib
from tests.flows.small_run import small_config
folder = pathlib.Path(sys.argv[1])
config = small_config(folder)
once = config.rationales.model_copy(update={"attempts": 1})  # how many reasons are refused depends on the model
config = config.model_copy(update={"rationales": once}).model_dump(mode="json", exclude_defaults=True)
(folder / "run.yaml").write_text(yaml.safe_dump(config))
"""


def call(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def check(folder: Path) -> str:
    """Return what is wrong, or an empty text."""
    call("-c", _MAKE, str(folder))
    estimates = [
        line for line in call("-m", COMMAND, "check", str(folder / "run.yaml")).splitlines() if "total" not in line
    ]
    found = (re.search(r"(?:about )?([\d,]+) (?:requests|questions)", line) for line in estimates)
    estimate = sum(int(match[1].replace(",", "")) for match in found if match)
    call("-m", COMMAND, "run", str(folder / "run.yaml"))
    with sqlite3.connect(folder / "ledger.sqlite") as connection:
        [(asked,)] = connection.execute("select count(*) from questions").fetchall()
    off = abs(estimate - asked) / asked
    return f"check estimates {estimate} questions, the run asked {asked}" if off > 0.1 else ""


with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    os.environ["LABELSTILL_PORT"] = str(probe.getsockname()[1])
os.environ |= {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "PYTHONPATH": os.getcwd()}
with tempfile.TemporaryDirectory() as scratch:
    try:
        wrong = check(Path(scratch))
    finally:
        subprocess.run([sys.executable, "-m", COMMAND, "stop"], capture_output=True, check=False)
print(wrong or "ok")
sys.exit(bool(wrong))
