"""datatrove's inference runner with checkpoints: documents in, documents with their answers out, uncompressed JSONL."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.inference.run_inference import InferenceConfig, InferenceRunner
from datatrove.pipeline.writers import JsonlWriter
from loguru import logger

from tests.benchmarks.clients.meter import Task, measured, task


def documents(todo: Task) -> Iterator[Document]:
    for line in todo.lines():
        yield Document(text=line["text"], id=line["id"], metadata={"format": line["format"], "labels": line["labels"]})


async def rollout(document: Document, generate: Any) -> Any:
    """Ask for the label and read it: what our loop does of validation, at its barest."""
    payload = {
        "messages": [{"role": "user", "content": document.text}],
        "response_format": document.metadata["format"],
        "max_tokens": 128,
        "temperature": 0,
    }
    result = await generate(payload)
    answer = json.loads(result.text)
    return answer if list(answer.values())[-1] in document.metadata["labels"] else None


def main() -> None:
    """One rank, as many in flight as the others; the runner's own start (a look at `/v1/models`) counts too."""
    todo = task()
    logger.remove()
    logger.add(sys.stderr, level="WARNING")
    config = InferenceConfig(
        server_type="endpoint",
        model_name_or_path="stub",
        endpoint_url=todo.url.removesuffix("/v1"),
        max_concurrent_generations=todo.concurrency,
    )
    out = Path(todo.folder) / "out"
    runner = InferenceRunner(
        rollout_fn=rollout,
        config=config,
        output_writer=JsonlWriter(str(out), output_filename="${rank}_chunk_${chunk_index}.jsonl", compression=None),
        checkpoints_local_dir=str(Path(todo.folder) / "checkpoints"),
    )
    with measured(todo.count):
        runner.run(documents(todo))
    written = [json.loads(line) for file in out.glob("*.jsonl") for line in file.read_text().splitlines()]
    labelled = sum(bool(line["metadata"]["rollout_results"]) for line in written)
    if labelled != todo.count:
        sys.exit(f"{labelled} labels for {todo.count} documents")


if __name__ == "__main__":
    main()
