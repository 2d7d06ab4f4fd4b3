"""What Prefect costs: a stage of 20 shards of 500 items of 100 ms, one shard at a time. Goal: at most 1 % of the time.

`python tests/benchmarks/orchestration.py [SHARDS] [ITEMS] [SECONDS]`. The items are asked through the stage's own
loop (flows/asking.py: task runs, progress artifact, log, ledger) of an engine that answers one item at a time and
sleeps; the sleeps are measured, all else counts as cost. Takes 17 minutes, nearly all of it asleep.
"""

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from flows.service.server import apply_environment

apply_environment()

from prefect import flow  # noqa: E402

import flows.asking  # noqa: E402
from flows.config import CommonConfig  # noqa: E402
from flows.service.server import find_or_start_server, get_project_root, get_server_program  # noqa: E402
from tasks.models.engines.scripted import ScriptedEngine  # noqa: E402
from tasks.models.engines.spec import EngineSpec  # noqa: E402
from tasks.records import Generation, Request, Sampling  # noqa: E402
from tests.tasks.making import prompter, sample  # noqa: E402

GOAL = 0.01


class Sleeper(ScriptedEngine):
    """Answers one request after the other, each after a sleep that is measured."""

    def __init__(self, seconds: float) -> None:
        super().__init__(EngineSpec(engine="scripted", model="scripted:hash"))
        self._nap, self.slept = seconds, 0.0

    def generate(self, requests: Iterable[Request]) -> Iterator[Generation]:
        for request in requests:
            began = time.perf_counter()
            time.sleep(self._nap)
            self.slept += time.perf_counter() - began
            yield from super().generate([request])


@flow(name="orchestration")
def stage(folder: Path, shards: int, items: int, sleeper: Sleeper) -> int:
    config = CommonConfig(pack="demo", output=folder / "run", ledger=folder / "ledger.sqlite", shard_size=items)
    prompts = prompter()
    requests = [prompts.classify(sample(f"s{i}"), Sampling()) for i in range(shards * items)]
    flows.asking.open_where_configured = lambda *_: sleeper  # the sleeper, whatever the spec
    with flows.asking.open_asker(config, "orchestration") as asker:
        return len(asker.ask(requests, EngineSpec(engine="scripted", model="scripted:hash"), "items"))


def main() -> None:
    shards, items, seconds = (float(a) for a in (*sys.argv[1:], *("20", "500", "0.1")[len(sys.argv) - 1 :]))
    was_up = bool(get_server_program(get_project_root()).find())
    find_or_start_server()
    sleeper = Sleeper(seconds)
    with tempfile.TemporaryDirectory() as name:
        began = time.perf_counter()
        answered = stage.with_options(validate_parameters=False)(Path(name), int(shards), int(items), sleeper)
        wall = time.perf_counter() - began
    over = (wall - sleeper.slept) / wall
    print(f"{answered} items in {shards:.0f} shards: {wall:.1f} s, of these {sleeper.slept:.1f} s asleep in items")
    a_shard = 1e3 * (wall - sleeper.slept) / shards
    print(f"all else: {100 * over:.2f} % of the wall time (goal {100 * GOAL:.0f} %), {a_shard:.0f} ms a shard")
    if not was_up:
        get_server_program(get_project_root()).stop()
    sys.exit(over > GOAL)


if __name__ == "__main__":
    main()
