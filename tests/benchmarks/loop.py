"""Benchmark 1: our whole loop against datatrove's inference runner with checkpoints and bespoke curator.

The stub answers at once. Per item, from the item's text to its checked label on disk; start-up is not counted.
"""

import json
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tasks.user_turn import user_text
from tests.benchmarks.clients.peers import measure, medians, verdict
from tests.stub_server import running
from tests.tasks.engines.asking_stub import questions

ROUNDS, CONCURRENCY = 3, 64
# Fewer for the peers, whose cost an item does not fall with the number: it is per item that all are compared.
OURS, DATATROVE, CURATOR = 10_000, 2_000, 2_000


def write_items(file: Path, count: int) -> None:
    """The same prompts and labels that our loop makes, and a JSON schema, for the peers to read."""
    with file.open("w", encoding="utf-8") as out:
        for number, request in enumerate(questions(count)):
            answer = request.constraint
            assert answer.type == "label" and answer.reason_key
            schema = {
                "type": "object",
                "properties": {answer.reason_key: {"type": "string"}, answer.label_key: {"enum": list(answer.labels)}},
                "required": [answer.reason_key, answer.label_key],
                "additionalProperties": False,
            }
            form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
            line = {"id": f"s{number}", "text": user_text(request), "labels": answer.labels, "format": form}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")


def main() -> None:
    """Measure in turn, print medians and ratios."""
    figures: dict[str, list[dict[str, float]]] = {"labelstill": [], "datatrove": [], "curator": []}
    with running() as stub, tempfile.TemporaryDirectory() as folder:
        items = Path(folder) / "items.jsonl"
        write_items(items, max(DATATROVE, CURATOR))
        common = {"concurrency": CONCURRENCY, "items": str(items)}
        for _ in range(ROUNDS):
            figures["labelstill"].append(measure("our_loop", stub, count=OURS, **common))
            figures["datatrove"].append(measure("datatrove_runner", stub, peer="datatrove", count=DATATROVE, **common))
            figures["curator"].append(measure("curator_llm", stub, peer="curator", count=CURATOR, **common))
    names = ("cpu", "wall", "stub_cpu")
    found = {who: medians(rounds, names) for who, rounds in figures.items()}
    print(f"Milliseconds an item, instant answers, {CONCURRENCY} in flight, median of {ROUNDS} interleaved runs")
    print(f"  {'':12}{'items':>8}{'CPU':>8}{'wall, durable':>15}{'CPU of the stub':>17}")
    for who, row in found.items():
        items_each = int(figures[who][0]["count"])
        print(f"  {who:12}{items_each:>8,}{row['cpu']:>8.3f}{row['wall']:>15.3f}{row['stub_cpu']:>17.3f}")
    ours = found["labelstill"]
    print(verdict("CPU, ours / datatrove", ours["cpu"] / found["datatrove"]["cpu"], 0.25, at_most=True))
    print(verdict("CPU, ours / curator", ours["cpu"] / found["curator"]["cpu"], 0.2, at_most=True))
    print(verdict("durable wall, ours / datatrove", ours["wall"] / found["datatrove"]["wall"], 0.25, at_most=True))


if __name__ == "__main__":
    main()
