"""The queue of a server: answers in order, bounded length, batches where wanted, errors to the caller."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from frostline.serving.batching import QueueFullError, WorkerPool


def test_answers_come_in_order_and_in_batches() -> None:
    sizes: list[int] = []

    def work(model: str, items: Sequence[int]) -> list[str]:
        sizes.append(len(items))
        return [f"{model}{item}" for item in items]

    async def ask(pool: WorkerPool[str, int, str]) -> list[list[str]]:
        return await asyncio.gather(*(pool.submit("ab"[n % 2], range(n, n + 3)) for n in range(20)))

    for batch in (1, 8):
        sizes.clear()
        pool = WorkerPool(work, lambda _, b=batch: b, threads=2, depth=100)  # type: ignore[misc]
        found = asyncio.run(ask(pool))
        pool.stop()
        assert found == [[f"{'ab'[n % 2]}{i}" for i in range(n, n + 3)] for n in range(20)]
        assert sum(sizes) == 60
        assert max(sizes) <= batch
        assert (max(sizes) > 1) is (batch > 1)
        assert pool.waiting == 0


def test_no_more_than_fit_and_all_that_were_begun() -> None:
    go = threading.Event()

    def work(_: None, items: Sequence[int]) -> list[int]:
        go.wait(30)
        return list(items)

    async def crowded(pool: WorkerPool[None, int, int]) -> None:
        first = asyncio.ensure_future(pool.submit(None, [1, 2, 3]))
        await asyncio.sleep(0)
        assert pool.waiting == 3
        with pytest.raises(QueueFullError):
            await pool.submit(None, [4, 5])
        second = asyncio.ensure_future(pool.submit(None, [4]))
        gone = asyncio.ensure_future(pool.submit(None, []))
        await asyncio.sleep(0)
        gone.cancel()
        stopping = asyncio.ensure_future(asyncio.to_thread(pool.stop))
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFullError):
            await pool.submit(None, [6])
        go.set()
        assert (await first, await second) == ([1, 2, 3], [4])
        await stopping

    asyncio.run(crowded(WorkerPool(work, lambda _: 1, threads=1, depth=4)))


def test_an_error_goes_to_who_asked_and_the_thread_goes_on() -> None:
    def work(_: None, items: Sequence[int]) -> list[int]:
        if 0 in items:
            raise MemoryError("too much")
        return list(items)

    async def ask(pool: WorkerPool[None, int, int]) -> None:
        with pytest.raises(MemoryError, match="too much"):
            await pool.submit(None, [1, 0, 2])
        assert await pool.submit(None, [3]) == [3]
        lost = asyncio.ensure_future(pool.submit(None, [4]))
        await asyncio.sleep(0)
        lost.cancel()
        while pool.waiting:
            await asyncio.sleep(0.01)
        assert await pool.submit(None, [5]) == [5]

    pool = WorkerPool(work, lambda _: 1, threads=1, depth=9)
    asyncio.run(ask(pool))
    pool.stop()
