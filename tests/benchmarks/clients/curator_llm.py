"""bespoke curator's LLM block with its openai backend and structured output; its limits a minute out of the way."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import Any, Literal

from bespokelabs import curator
from pydantic import BaseModel, create_model

from tests.benchmarks.clients.meter import measured, task

# curator counts tokens with an encoding that it would download; litellm's wheel carries that file.
LITELLM = Path(str((importlib.util.find_spec("litellm") or sys.exit("no litellm")).origin)).parent
os.environ["TIKTOKEN_CACHE_DIR"] = str(LITELLM / "litellm_core_utils" / "tokenizers")


class Labeller(curator.LLM):
    """The prompt as it stands; the answer as curator's structured output reads it."""

    def prompt(self, input: dict[str, Any]) -> str:
        return input["text"]

    def parse(self, input: dict[str, Any], response: BaseModel) -> dict[str, Any]:
        return {"id": input["id"], **response.model_dump()}


def main() -> None:
    """The block's construction, with its probes of the server, is not measured, as our engine's opening is not."""
    todo = task()
    rows = list(todo.lines())
    schema = rows[0]["format"]["json_schema"]["schema"]
    reason, label = schema["properties"]
    answer = create_model("Answer", **{reason: (str, ...), label: (Literal[tuple(rows[0]["labels"])], ...)})
    unlimited = 1_000_000_000
    labeller = Labeller(
        model_name="stub",
        response_format=answer,
        backend="openai",
        generation_params={"max_tokens": 128, "temperature": 0},
        backend_params={
            "base_url": todo.url,
            "api_key": "none",
            "max_concurrent_requests": todo.concurrency,
            "max_requests_per_minute": unlimited,
            "max_tokens_per_minute": unlimited,
        },
    )
    with measured(todo.count):
        found = labeller([{"id": row["id"], "text": row["text"]} for row in rows], working_dir=todo.folder)
    labelled = sum(value in rows[0]["labels"] for value in found.dataset[label])
    if labelled != todo.count:
        sys.exit(f"{labelled} labels for {todo.count} rows")


if __name__ == "__main__":
    main()
