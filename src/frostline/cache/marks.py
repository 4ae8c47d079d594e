"""Marks of use: who uses what of the cache folder, so that nobody removes it meanwhile."""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from frostline.cache.folder import cache_dir

_USED_BY = ".used-by-"


_USED = ".used"  # its time of change is the last use


PROMISED = ".promised-"


_PATIENCE = 10.0  # seconds for the lock on a mark of our own, which another process may be probing


# ---- marks of use ----------------------------------------------------------------------------------------------------


@dataclass
class Mark:
    """A file whose lock says that its process lives."""

    lock: FileLock
    path: Path
    process: int
    count: int = 0

    @classmethod
    def set(cls, folder: Path, prefix: str) -> Mark:
        """Names are unique: in containers that share a cache, process numbers are not."""
        path = folder / f"{prefix}{os.getpid()}-{uuid4().hex[:12]}.lock"
        lock = FileLock(path, thread_local=False)  # whichever thread ends it
        lock.acquire(timeout=_PATIENCE)
        return cls(lock, path, os.getpid())

    def lives(self) -> bool:
        """Whether it still says so: not in a forked child, nor where someone deleted the folder."""
        return self.process == os.getpid() and self.path.exists()

    def end(self) -> None:
        """Give the lock back; a forked child must not, it would free its parent's."""
        if self.process == os.getpid():
            with suppress(OSError):
                self.lock.release()
            discard(self.path.with_suffix(".json"))  # a promise has one
            discard(self.path)


_session: ContextVar[list[Path] | None] = ContextVar("_session", default=None)  # what the current `session` marked


_marks: dict[Path, Mark] = {}  # of opened folders


promises: dict[Path, Mark] = {}  # of cache folders


registry = threading.RLock()


@contextmanager
def session() -> Iterator[None]:
    """Take back at its end what `mark_used` said inside, and what was promised: a notebook goes on, its finished studies need nothing."""
    marked: list[Path] = []
    token = _session.set(marked)
    try:
        yield
    finally:
        _session.reset(token)
        for folder in marked:
            release(folder)
        with registry:
            while promises:
                promises.popitem()[1].end()


def mark_used(folder: Path) -> None:
    """Say that this process uses `folder`, now and until `release`, the end of a `session` or its own: nobody removes it meanwhile.

    Call it before the folder is looked into, so that what is seen there stays. The folder is made where it is missing. May be
    called again for the same folder; each call has a `release` of its own. Where the folder can't be written nothing is marked.
    """
    place = absolute(folder)
    with registry, suppress(OSError):  # a cache that others filled may be read-only here
        mark = _marks.get(place)
        if mark is None or not mark.lives():
            with alone():
                place.mkdir(parents=True, exist_ok=True)
                is_marked(place, sweep=True)
                _marks[place] = Mark.set(place, _USED_BY)
            _marks[place].count = mark.count if mark else 0
        _marks[place].count += 1
        marked = _session.get()
        if marked is not None:
            marked.append(place)
        (place / _USED).touch()


def release(folder: Path) -> None:
    """Take one `mark_used` of this process back; after the last one the folder may be removed."""
    with registry:
        mark = _marks.get(absolute(folder))
        if mark is not None:
            mark.count -= 1
            if mark.count < 1:
                del _marks[absolute(folder)]
                mark.end()


@atexit.register
def _end() -> None:
    for mark in [*_marks.values(), *promises.values()]:
        mark.end()


def is_marked(folder: Path, *, sweep: bool = False) -> bool:
    """Whether a living process has its mark in `folder`. With `sweep` (under `alone`) the marks of dead ones are removed."""
    alive = False
    for path in folder.glob(f"{_USED_BY}*.lock"):
        if is_held(path):
            alive = True
        elif sweep:
            discard(path)
    return alive


def is_held(path: Path) -> bool:
    """Whether some process, this one included, holds the lock in `path`. Where that can't be found out, one does."""
    if not path.exists():  # probing would make it
        return False
    probe = FileLock(path, thread_local=False)
    try:
        probe.acquire(timeout=0)
    except OSError:  # filelock's Timeout, or a file that is not ours to open
        return path.exists()
    probe.release()
    return False


def discard(path: Path) -> None:
    """Remove a file if the system lets it go."""
    with suppress(OSError):  # gone already, or open on Windows: the next sweep takes it
        path.unlink()


def absolute(path: Path) -> Path:
    """The path from the root, links kept as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links


@contextmanager
def alone() -> Iterator[Path]:
    """Yield the cache folder while no other process marks, clears or makes room. Not to be nested."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".upkeep.lock", thread_local=False):
        yield folder
