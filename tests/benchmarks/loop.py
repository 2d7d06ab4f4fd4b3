"""Benchmark 1: our whole loop against datatrove's inference runner with checkpoints and bespoke curator.

The stub answers at once. Per item, from a finished prompt in a file to its checked label on disk; processes are up and
servers looked at before.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks.prompts.turns import make_user_text
from tests.benchmarks.clients.peers import measure, medians, verdict
from tests.stub_server import running
from tests.tasks.models.engines.asking_stub import make_requests

ROUNDS, CONCURRENCY, ITEMS = 3, 64, 10_000
PEERS_ITEMS = 5_000
"""Half, because they take minutes: datatrove took 1.75 ms an item with 2,000 and 1.76 with 10,000 of them."""


def write_items(prompts: Path, requests: Path) -> None:
    """The same questions twice: prompts, labels and a JSON schema for the peers to read, requests for ours."""
    with prompts.open("w", encoding="utf-8") as out, requests.open("w", encoding="utf-8") as ours:
        for number, request in enumerate(make_requests(ITEMS)):
            ours.write(request.model_dump_json() + "\n")
            answer = request.constraint
            assert answer.type == "label" and answer.reason_key
            schema = {
                "type": "object",
                "properties": {answer.reason_key: {"type": "string"}, answer.label_key: {"enum": list(answer.labels)}},
                "required": [answer.reason_key, answer.label_key],
                "additionalProperties": False,
            }
            form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
            line = {"id": f"s{number}", "text": make_user_text(request), "labels": answer.labels, "format": form}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def main() -> None:
    """Measure in turn, print medians and ratios."""
    figures: dict[str, list[dict[str, float]]] = {}
    with running() as stub, tempfile.TemporaryDirectory() as folder:
        prompts, requests = Path(folder) / "prompts.jsonl", Path(folder) / "requests.jsonl"
        write_items(prompts, requests)
        sides = {
            "labelstill": ("our_loop", None, requests),
            "  with prompts": ("our_loop", None, ""),
            "datatrove": ("datatrove_runner", "datatrove", prompts),
            "curator": ("curator_llm", "curator", prompts),
        }
        for _ in range(ROUNDS):
            for who, (client, peer, items) in sides.items():
                count = PEERS_ITEMS if peer else ITEMS
                one = measure(client, stub, peer=peer, count=count, concurrency=CONCURRENCY, items=str(items))
                figures.setdefault(who, []).append(one)
    found = {who: medians(rounds, ("cpu", "wall", "stub_cpu")) for who, rounds in figures.items()}
    print(f"{ITEMS:,} text requests (peers: {PEERS_ITEMS:,}), instant answers, {CONCURRENCY} in flight:")
    print(f"milliseconds an item, median of {ROUNDS} interleaved runs")
    print(f"  {'':16}{'CPU':>8}{'wall, durable':>15}{'CPU of the stub':>17}")
    for who, row in found.items():
        print(f"  {who:16}{row['cpu']:>8.3f}{row['wall']:>15.3f}{row['stub_cpu']:>17.3f}")
    print("  (with prompts: the prompts rendered as well, which the peers are given finished)")
    ours = found["labelstill"]
    print(verdict("CPU, ours / datatrove", ours["cpu"] / found["datatrove"]["cpu"], 0.25, at_most=True))
    print(verdict("CPU, ours / curator", ours["cpu"] / found["curator"]["cpu"], 0.2, at_most=True))
    print(verdict("durable wall, ours / datatrove", ours["wall"] / found["datatrove"]["wall"], 0.25, at_most=True))


if __name__ == "__main__":
    main()
