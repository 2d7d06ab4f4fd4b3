"""A fixed number of requests in flight, without any time limit; what fails is sent again after a moment."""

import asyncio

import aiohttp
import orjson

from tests.benchmarks.clients.meter import Task, measured, task

PAUSE = 0.2


async def ask_all(todo: Task) -> None:
    """Ask everything until it is answered."""
    numbers = iter(range(todo.count))

    async def work(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            body = orjson.dumps({"model": "stub", "messages": [{"role": "user", "content": f"item-{number}"}]})
            while True:
                async with session.post(f"{todo.url}/chat/completions", data=body) as answer:
                    if answer.status == 200 and orjson.loads(await answer.read())["choices"]:
                        break
                await asyncio.sleep(PAUSE)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(work(session) for _ in range(todo.concurrency)))


def main() -> None:
    """Ask everything."""
    todo = task()
    with measured(todo.count):
        asyncio.run(ask_all(todo))


if __name__ == "__main__":
    main()
