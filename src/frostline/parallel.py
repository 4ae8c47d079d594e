"""Work done ahead of whoever needs it: in threads, in order, never more than a few results in memory."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def thread_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def groups(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """`items`, which may be endless, `size` at a time; the last ones may be fewer."""
    rest = iter(items)
    while group := list(islice(rest, size)):
        yield group


def ahead(work: Callable[[T], R], items: Iterable[T], *, depth: int) -> Generator[tuple[T, R], None, None]:
    """Yield (item, result) in order; at most `depth` results wait. An error in `work` is raised here.

    `items` may be endless. There are two threads a core: while one waits for a file or for Python's lock, the other
    works. Measured on two cores, decoding and running MobileNetV2: 2 threads 267 photos/s, 3 threads 307, 4 threads
    337, 6 threads 328.
    """
    queue: deque[tuple[T, Future[R]]] = deque()
    with ThreadPoolExecutor(2 * thread_count()) as pool:
        try:
            for item in items:
                queue.append((item, pool.submit(work, item)))
                if len(queue) > depth:
                    first, future = queue.popleft()
                    yield first, future.result()
            while queue:
                first, future = queue.popleft()
                yield first, future.result()
        finally:  # the reader stopped early: what has not begun need not
            for _, future in queue:
                future.cancel()
