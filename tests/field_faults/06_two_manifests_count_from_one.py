"""`labelstill diff` does not call an item relabelled because another manifest has an item of the same id."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

NAMES = ("sample_id", "label", "reason", "origin", "why", "subset", "task", "source", "content")


def write_version(file: Path, rows: list[tuple[str, str, str]]) -> None:
    """Write the (id, label, manifest) of each row as a snapshot."""
    table = [
        dict.fromkeys(NAMES, "") | {"sample_id": i, "label": label, "source": source, "content": f"{source}{i}",
                                    "origin": "given", "subset": "train"}
        for i, label, source in rows
    ]  # fmt: skip
    pd.DataFrame(table, columns=list(NAMES)).to_parquet(file)


def main() -> int:
    train = [(str(n), "a", "/data/train.json") for n in range(1, 9)]
    pool = [(str(n), "b", "/data/pool.json") for n in range(1, 9)]
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "before.parquet", Path(scratch) / "after.parquet"
        write_version(before, train + pool[1:])
        write_version(after, train[1:] + pool)
        for module in ("flows.commands.main", "flows.cli"):
            command = [sys.executable, "-m", module, "diff", str(before), str(after)]
            environment = {**os.environ, "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            if "No module named" not in done.stderr:
                break
    if done.returncode != 0 or "relabelled" in done.stdout:
        print(f"an item was paired with that of another manifest: {(done.stdout + done.stderr)[-300:]}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
