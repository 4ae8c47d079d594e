"""Photos of many requests on their way through a few threads, never more than fit.

A CPU engine takes one photo at a time on one core (`frostline.networks.engine`), so what serves many callers best is
a queue that two threads a core feed from: each decodes a photo and runs it, as `predict` does. An engine that wants
many photos at a time (PyTorch on CUDA) is given what came within a few milliseconds, up to its batch. All but the
threads' own loop runs in the event loop: no locks.
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

WAIT = 0.004
"""Seconds that a batch waits for company."""


class NoRoomError(Exception):
    """No room for so many more."""


@dataclass(eq=False)
class _Request(Generic[M, R]):
    model: M
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[list[R]]
    results: list[R | None]
    lock: threading.Lock = field(default_factory=threading.Lock)
    left: int = 0
    error: BaseException | None = None

    def done(self, place: int, result: R | None, error: BaseException | None = None) -> bool:
        """Keep one result; whether it was the last."""
        with self.lock:
            self.results[place], self.error = result, self.error or error
            self.left -= 1
            return self.left == 0


@dataclass(frozen=True)
class _Item(Generic[M, T, R]):
    request: _Request[M, R]
    place: int
    value: T


class Crew(Generic[M, T, R]):
    """Threads that work off a bounded queue.

    Parameters
    ----------
    work
        Called in a thread with a model and some items; returns a result for each.
    batch
        How many items a model wants at a time.
    depth
        Items that may wait or be under way.
    """

    def __init__(
        self, work: Callable[[M, Sequence[T]], Sequence[R]], batch: Callable[[M], int], *, threads: int, depth: int
    ) -> None:
        self._work, self._batch, self._depth = work, batch, depth
        self._queue: queue.SimpleQueue[_Item[M, T, R] | None] = queue.SimpleQueue()
        self._ended = False
        self.waiting = 0
        """Items that wait or are under way."""
        self._threads = [threading.Thread(target=self._run, name=f"photos-{i}", daemon=True) for i in range(threads)]
        for thread in self._threads:
            thread.start()

    async def ask(self, model: M, items: Sequence[T]) -> list[R]:
        """The results of some items, in order.

        Raises
        ------
        NoRoomError
            They would be more than may wait, or the threads were told to end.
        """
        if self._ended or self.waiting + len(items) > self._depth:
            raise NoRoomError
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
        self._ended = True
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    # -- in a thread

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group = [first]
            if self._batch(first.request.model) > 1:
                group += self._company(self._batch(first.request.model) - 1)
            models = {id(item.request.model): item.request.model for item in group}  # two, just after a new one came
            for name, model in models.items():
                self._answer(model, [item for item in group if id(item.request.model) == name])

    def _company(self, most: int) -> list[_Item[M, T, R]]:
        """What else comes within a few milliseconds."""
        found: list[_Item[M, T, R]] = []
        until = time.monotonic() + WAIT
        while len(found) < most:
            try:
                item = self._queue.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if item is None:
                self._queue.put(None)  # the end, which is told again
                break
            found.append(item)
        return found

    def _answer(self, model: M, items: Sequence[_Item[M, T, R]]) -> None:
        results: Sequence[R | None]
        error: BaseException | None = None
        try:
            results = self._work(model, [item.value for item in items])
        except BaseException as caught:  # whatever it is goes to whoever asked; the thread goes on
            results, error = [None] * len(items), caught
        for item, result in zip(items, results, strict=True):
            if item.request.done(item.place, result, error):
                item.request.loop.call_soon_threadsafe(self._hand_over, item.request)

    # -- in the event loop

    def _hand_over(self, request: _Request[M, R]) -> None:
        self.waiting -= len(request.results)
        if request.answer.done():  # its caller has gone
            return
        if request.error is not None:
            request.answer.set_exception(request.error)
        else:
            request.answer.set_result(request.results)  # type: ignore[arg-type]  # all are there
