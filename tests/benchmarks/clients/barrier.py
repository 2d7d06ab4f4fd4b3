"""The usual loop: batches of 1,024, each gathered before the next begins; within one, as many in flight as ours."""

import asyncio
from itertools import islice

import aiohttp
import orjson

from tests.benchmarks.clients.meter import Task, measured, task

BATCH = 1024


async def ask_all(todo: Task) -> None:
    """Ask everything, a barrier each batch."""
    gate = asyncio.Semaphore(todo.concurrency)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def one(text: str) -> str:
            body = orjson.dumps({"model": "stub", "messages": [{"role": "user", "content": text}]})
            headers = {"Content-Type": "application/json"}
            async with gate, session.post(f"{todo.url}/chat/completions", data=body, headers=headers) as answer:
                return orjson.loads(await answer.read())["choices"][0]["message"]["content"]

        numbers = iter(range(todo.count))
        while batch := list(islice(numbers, BATCH)):
            await asyncio.gather(*(one(f"item-{number}") for number in batch))


def main() -> None:
    """Ask everything; the stub measures."""
    todo = task()
    with measured(todo.count):
        asyncio.run(ask_all(todo))


if __name__ == "__main__":
    main()
