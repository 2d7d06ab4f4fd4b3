"""Four audited wins are too few to change labels without a person; twenty are enough."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def run_labelstill(*words):
    """Run `labelstill` from this checkout, or from an old one whose command is another module."""
    for module in ("flows.commands.main", "flows.cli"):
        if Path(*module.split(".")).with_suffix(".py").exists():
            program = f"from {module} import main; main()"
            return subprocess.run([sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True)
    sys.exit("run this script in a checkout of labelstill")


def read_gate(folder, reviews):
    old = any(Path("flows", name).exists() for name in ("commands/correct.py", "correct_cli.py", "cli.py"))
    command = "correct" if old else "find-errors"
    done = run_labelstill(
        *(command, "--probabilities", folder / "p.jsonl", "--verdicts", folder / "v.jsonl"),
        *("--reviews", reviews, "--out", folder / "out.jsonl"),
    )
    if done.returncode:
        sys.exit(done.stderr)
    summary = json.loads(done.stdout)
    return summary["gate"], summary["wins"]


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    ids = [f"i{n}" for n in range(60)]
    rows = [{"id": i, "given": "a", "probabilities": {"a": 0.1, "b": 0.9}} for i in ids]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "v.jsonl").write_text("".join(json.dumps({"id": i, "verdict": "b"}) + "\n" for i in ids))
    found = [read_gate(folder, reviews) for reviews in (4, 20)]
if found != [("closed", 4), ("open", 20)]:
    sys.exit(f"gate and wins after 4 and after 20 verdicts: {found}")
