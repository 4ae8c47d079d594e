"""A bounded queue of photos, worked off by a few threads, alone or in batches.

A CPU engine takes one photo at a time on one core (`frostline.networks.engine`), so the best way to serve many clients
is one queue for two threads per core: each thread decodes a photo and runs the network on it, as `predict` does. An
engine that wants batches (PyTorch on CUDA) gets the photos that arrive within a few milliseconds, up to its batch size.
All but the threads' own loop runs in the event loop and needs no locks.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

M = TypeVar("M")
T = TypeVar("T")
R = TypeVar("R")

BATCH_SECONDS = 0.004
"""How long an incomplete batch waits for more items."""


class QueueFullError(Exception):
    """There is no room for so many more items."""


@dataclass(eq=False)
class _Request(Generic[M, R]):
    model: M
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[R]]
    results: list[R | None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    left: int = 0
    error: BaseException | None = None

    def complete(self, place: int, result: R | None, error: BaseException | None = None) -> bool:
        """Keep the result of one item; whether it was the last one."""
        with self.lock:
            self.results[place], self.error = result, self.error or error
            self.left -= 1
            return self.left == 0


@dataclass(frozen=True)
class _Item(Generic[M, T, R]):
    request: _Request[M, R]
    place: int
    value: T


class WorkerPool(Generic[M, T, R]):
    """Threads that work off a bounded queue.

    Parameters
    ----------
    work
        Called in a thread with a model and some items; returns a result for each item.
    batch
        The largest batch that a model wants.
    depth
        Most items that may wait or be worked on.
    """

    def __init__(
        self, work: Callable[[M, Sequence[T]], Sequence[R]], batch: Callable[[M], int], *, threads: int, depth: int
    ) -> None:
        self._work, self._batch, self._depth = work, batch, depth
        self._queue: queue.SimpleQueue[_Item[M, T, R] | None] = queue.SimpleQueue()
        self._stopped = False
        self.waiting = 0
        """Items that wait or are worked on."""
        self._threads = [threading.Thread(target=self._run, name=f"photos-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    async def submit(self, model: M, items: Sequence[T]) -> list[R]:
        """The results of some items, in their order.

        Raises
        ------
        QueueFullError
            They are more than may wait, or the threads were told to stop.
        """
        if self._stopped or self.waiting + len(items) > self._depth:
            raise QueueFullError
        loop = asyncio.get_running_loop()
        request: _Request[M, R] = _Request(model, loop, loop.create_future(), [None] * len(items), left=len(items))
        if not items:
            return []
        self.waiting += len(items)
        for place, value in enumerate(items):
            self._queue.put(_Item(request, place, value))
        return await request.answer

    def stop(self) -> None:
        """Let the threads end once the queue is empty, and wait for them."""
        self._stopped = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    # -- in a thread

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            if self._batch(first.request.model) > 1:
                group += self._more_items(self._batch(first.request.model) - 1)
            models = {id(item.request.model): item.request.model for item in group}  # two, just after a reload
            for name, model in models.items():
                self._process(model, [item for item in group if id(item.request.model) == name])

    def _more_items(self, most: int) -> list[_Item[M, T, R]]:
        """Further items that arrive within `BATCH_SECONDS`."""
        found: list[_Item[M, T, R]] = []
        until = time.monotonic() + BATCH_SECONDS
        while len(found) < most:
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                self._queue.put(None)  # the end of this thread, which it sees again after this batch
                break
            found.append(item)
        return found

    def _process(self, model: M, items: Sequence[_Item[M, T, R]]) -> None:
        results: Sequence[R | None]
        error: BaseException | None = None
        try:
            results = self._work(model, [item.value for item in items])
        except BaseException as caught:  # raised where the items were submitted; the thread goes on
            results, error = [None] * len(items), caught
        for item, result in zip(items, results, strict=True):
            if item.request.complete(item.place, result, error):
                item.request.loop.call_soon_threadsafe(self._deliver, item.request)

    # -- in the event loop

    def _deliver(self, request: _Request[M, R]) -> None:
        self.waiting -= len(request.results)
        if request.answer.done():  # its client has gone
            return
        if request.error is not None:
            request.answer.set_exception(request.error)
        else:
            request.answer.set_result(request.results)  # type: ignore[arg-type]  # every place is filled
