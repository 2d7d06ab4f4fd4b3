"""Re-labelling with a million known items and nothing new: seconds and memory.

`python tests/benchmarks/relabel_scale.py [ITEMS]`: writes ITEMS (1,000,000) image files in folders of 1,000 and a
manifest that names them, and the state that a re-labelling of them leaves (`relabel.json` with the digest of what it
saw; a whole first run over a million items would ask a million questions). Then the flow is run in processes of their
own, through a real Prefect server: with nothing changed, and, to show that it would have seen it, with one file
changed, up to the moment when it decides. Goal: under 60 s.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from flows.service.server import apply_environment

apply_environment()

from flows.config import RelabelConfig  # noqa: E402
from tasks.items.settings import SourceConfig  # noqa: E402
from tasks.models.engines.spec import EngineSpec  # noqa: E402

GOAL_SECONDS = 60.0
A_FOLDER = 1000


def configuration(folder: Path) -> RelabelConfig:
    return RelabelConfig(
        pack="demo",
        unlabelled=SourceConfig(manifest=folder / "pool.jsonl", images=folder / "images"),
        teacher=EngineSpec(engine="scripted", model="scripted:hash"),
        output=folder / "run",
        ledger=folder / "ledger.sqlite",
        images=folder / "cache",
        texts=folder / "texts",
    )


def make(folder: Path, items: int) -> None:
    """The files; what is in them is not looked at when nothing changed."""
    with (folder / "pool.jsonl").open("w", encoding="utf-8") as manifest:
        for i in range(items):
            if i % A_FOLDER == 0:
                (folder / "images" / str(i // A_FOLDER)).mkdir(parents=True)
            name = f"{i // A_FOLDER}/{i}.png"
            (folder / "images" / name).write_bytes(b"\x89PNG")
            manifest.write(f'{{"id": "{i}", "instruction": "<image>\\n请对图片进行分类", "image": ["{name}"]}}\n')


def timed(what: str, folder: Path) -> float:
    """Seconds of a process of its own, printed with its peak memory."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, what, str(folder)], check=True, stdout=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - began
    print(f"{what}: {seconds:.1f} s in all; {done.stdout.strip().splitlines()[-1]}")
    return seconds


def look(folder: Path) -> None:
    """Part of the benchmark that runs in a process of its own: only the look at what is watched."""
    from flows.relabel import digest_watched_inputs
    from tasks.dataset.drift import read_state

    began = time.perf_counter()
    state, digest = read_state(folder / "run"), digest_watched_inputs(configuration(folder))
    seconds = time.perf_counter() - began
    same = state is not None and state.watched == digest
    print(f"{'unchanged' if same else 'changed'}, seen in {seconds:.1f} s, {_peak()}")


def run(folder: Path) -> None:
    """The same: the flow."""
    from flows.relabel import relabel

    began = time.perf_counter()
    state = relabel(configuration(folder))
    print(f"{state.outcome}, flow {time.perf_counter() - began:.1f} s, {_peak()}")  # pyright: ignore


def _peak() -> str:
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB"


def main() -> None:
    if sys.argv[1:2] in (["look"], ["flow"]):
        (look if sys.argv[1] == "look" else run)(Path(sys.argv[2]))
        return
    items = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    from flows.relabel import digest_watched_inputs
    from flows.service.server import find_or_start_server, get_project_root, get_server_program
    from tasks.dataset.drift import RelabelOutcome, RelabelState, write_state

    was_up = bool(get_server_program(get_project_root()).find())
    find_or_start_server()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.perf_counter()
        make(folder, items)
        print(f"{items:,} files and their manifest made in {time.perf_counter() - began:.0f} s")
        seen = RelabelState(watched=digest_watched_inputs(configuration(folder)), outcome=RelabelOutcome.PUBLISHED)
        write_state(folder / "run", seen)
        seconds = [timed("flow", folder) for _ in range(3)]
        (folder / "images" / "0" / "0.png").write_bytes(b"\x89PNG changed")
        timed("look", folder)
    worst = max(seconds)
    print(f"nothing changed: worst of three {worst:.1f} s (goal {GOAL_SECONDS:.0f} s)")
    if not was_up:
        get_server_program(get_project_root()).stop()
    sys.exit(worst > GOAL_SECONDS)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["LABELSTILL_SCRIPTED_STANDS_IN_FOR_A_MODEL"] = "1"
    main()
