"""A trainer in LLaMA-Factory's or ms-swift's place: reads their configuration and data, and saves what they would.

Run as ``small_trainer.py WAY CONFIG [PIDS]``. Its weights are made from the answers in the data, so that two data
sets give two checkpoints.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file


def read_rows(config: dict[str, Any]) -> list[dict[str, Any]]:
    """The data set, found as the trainer of this configuration finds it."""
    if "dataset_dir" not in config:
        return [json.loads(line) for line in Path(config["dataset"]).read_text("utf-8").splitlines()]
    folder = Path(config["dataset_dir"])
    info = json.loads((folder / "dataset_info.json").read_text("utf-8"))[config["dataset"]]
    return json.loads((folder / info["file_name"]).read_text("utf-8"))


def check(rows: list[dict[str, Any]]) -> None:
    """As strict as both readers together."""
    for row in rows:
        roles = [message["role"] for message in row["messages"]]
        assert roles == ["user", "assistant"], roles
        text = "".join(message["content"] for message in row["messages"])
        assert text.count("<image>") == len(row["images"])
        assert all(Path(image).is_absolute() and Path(image).is_file() for image in row["images"])


def save(folder: Path, rows: list[dict[str, Any]], config: dict[str, Any], way: str) -> None:
    """A checkpoint with the company that a trainer's has: tokenizer, optimizer state, arguments."""
    folder.mkdir(parents=True)
    digest = hashlib.sha256(json.dumps([config["seed"], rows], sort_keys=True).encode()).digest()
    weights = {"lora_A.weight": np.frombuffer(digest, np.uint8).astype(np.float32)}
    whole = "full" in (config.get("finetuning_type"), config.get("tuner_type"))
    name, settings = ("model", "config.json") if whole else ("adapter_model", "adapter_config.json")
    (folder / settings).write_text(json.dumps({"base_model_name_or_path": config.get("model", "")}), "utf-8")
    (folder / "tokenizer.json").write_text("{}", "utf-8")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    if way == "pickle":
        (folder / f"{name}.bin").write_bytes(b"a pickle")
        return
    save_file(weights, folder / f"{name}.safetensors")
    if way == "half":
        file = folder / f"{name}.safetensors"
        file.write_bytes(file.read_bytes()[:-40])


def main(way: str, config: dict[str, Any]) -> None:
    output = Path(config["output_dir"])
    assert not output.exists() or not any(output.iterdir()), "the output folder must be empty"
    rows = read_rows(config)
    check(rows)
    print(f"loaded {len(rows)} rows", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    swift = "dataset_dir" not in config
    with (output / ("logging.jsonl" if swift else "trainer_log.jsonl")).open("a") as log:
        for step in (1, 2, 3):
            steps = {"global_step/max_steps": f"{step}/3"} if swift else {"current_steps": step, "total_steps": 3}
            log.write(json.dumps({**steps, "loss": 1 / step}) + "\n")
            log.flush()
            print(f"\r{step}/3", end="", flush=True)
            time.sleep(0.6 if way == "slowly" else 0)
    print("\nepoch done", flush=True)
    if way == "fail":
        raise RuntimeError("CUDA out of memory, says the small trainer")
    if way == "nothing":
        return
    if swift:
        save(output / "checkpoint-2", rows[:1], config, way)
        time.sleep(0.02)
        save(output / "checkpoint-3", rows, config, way)
    else:
        # LLaMA-Factory saves into the output folder itself, which holds its log already
        save(output / "part", rows, config, way)
        for file in (output / "part").iterdir():
            file.rename(output / file.name)
        (output / "part").rmdir()


if __name__ == "__main__":
    if sys.argv[1] == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        Path(sys.argv[3]).write_text(f"{os.getpid()} {child.pid}")
        time.sleep(600)
    main(sys.argv[1], yaml.safe_load(Path(sys.argv[2]).read_text("utf-8")))
