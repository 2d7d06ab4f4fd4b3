"""One of three judged items has left the queue: the other two verdicts are imported, and the item is named."""

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


with tempfile.TemporaryDirectory() as name:
    run = Path(name) / "run"
    (run / "review").mkdir(parents=True)
    cases = [
        {"sample_id": i, "parts": [{"type": "text", "text": i}], "labels": ["a", "b"], "given": "a", "candidate": "b"}
        for i in ("one", "two")
    ]
    (run / "review" / "cases.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    lines = [{"id": i, "verdict": "b"} for i in ("one", "gone", "two")]
    file = run / "judged.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run_labelstill("review", "import", run, file, "--by", "anna")
    store = run / "review" / "verdicts.jsonl"
    kept = [json.loads(line)["id"] for line in store.read_text().splitlines()] if store.exists() else []
if kept != ["one", "two"] or "gone" not in done.stdout:
    sys.exit(f"imported: {kept}; {done.stderr.strip()}")
