"""The official openai client: the same requests, images read and encoded as base64 by this process."""

import asyncio
import base64
import sys
from typing import Any

from openai import AsyncOpenAI

from tests.benchmarks.clients.meter import Task, measured, task


async def ask_all(todo: Task, lines: list[dict[str, Any]]) -> None:
    """As many at once as the other client; measured once the connections are open."""
    gate = asyncio.Semaphore(todo.concurrency)

    async def one(line: dict[str, Any]) -> bool:
        async with gate:
            content: list[Any] = []
            for path in line["files"]:
                with open(path, "rb") as file:
                    data = base64.b64encode(file.read()).decode()
                content.append({"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{data}"}})
            content.append({"type": "text", "text": line["text"]})
            answer = await client.chat.completions.create(
                model="stub", messages=[{"role": "user", "content": content}], max_tokens=32, temperature=0
            )
            return bool(answer.choices[0].message.content)

    async with AsyncOpenAI(base_url=todo.url, api_key="none") as client:
        await asyncio.gather(*(one({**line, "text": "warm-up"}) for line in lines[: todo.concurrency]))
        with measured(todo.count):
            answered = sum(await asyncio.gather(*map(one, lines)))
    if answered != todo.count:
        sys.exit(f"{answered} answers to {todo.count} requests")


def main() -> None:
    """The lines are read before."""
    todo = task()
    asyncio.run(ask_all(todo, list(todo.lines())))


if __name__ == "__main__":
    main()
