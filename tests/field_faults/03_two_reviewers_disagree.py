"""Two reviewers differ on one item: both verdicts are kept with their names, and the item is open and marked again."""

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
    for by, verdicts in (("anna", {"one": "a", "two": "b"}), ("ben", {"one": "b", "two": "b"})):
        file = run / f"{by}.jsonl"
        file.write_text("".join(json.dumps({"id": i, "verdict": v}) + "\n" for i, v in verdicts.items()))
        done = run_labelstill("review", "import", run, file, "--by", by)
        if done.returncode:
            sys.exit(done.stderr)
    listed = run_labelstill("review", "list", run)
    run_labelstill("review", "page", run)
    marked = [case.get("disagreed") for case in map(json.loads, (run / "review" / "cases.jsonl").open())]
if "disagreement, to be judged again: one (anna: a, ben: b)" not in done.stdout:
    sys.exit(f"the second import does not report the disagreement: {done.stdout.strip()}")
if "1 of 2 judged" not in listed.stdout or marked != [True, False]:
    sys.exit(f"the item is not open and marked: {marked}; {listed.stdout.strip().splitlines()[-1]}")
