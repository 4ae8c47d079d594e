"""Who uses what of the cache folder, so that nobody removes it meanwhile.

    .upkeep.lock      held while a process marks, clears or makes room: these exclude one another
    .users/ID/lock    held by a process for as long as it lives; the system frees it however the process ends
    .users/ID/MARK    an empty file, named after an entry of the cache: that process uses it
    KIND/NAME/.used   its time of change is the last use of that entry

A mark is the name of a file, not its content: it can be set on a full disk, which is where others make room.
"""

from __future__ import annotations

import atexit
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from frostline.cache.folder import cache_dir

USED = ".used"
PROMISE = "promise.json"
"""Beside a process's marks: what it was promised, see `frostline.cache.upkeep`."""

_USERS, _LOCK = ".users", "lock"
_PATIENCE = 10.0  # seconds to wait for this process's own lock, which another process may be probing

_locks: dict[tuple[int, Path], FileLock] = {}  # by process number and cache folder: a forked child is a user of its own
_marked: list[set[Path]] = [set()]  # entries: first those that no session marked, then those of each session that runs
_session: ContextVar[set[Path] | None] = ContextVar("_session", default=None)
registry = threading.RLock()
"""Held by a thread that changes what this process uses or is promised."""


def mark_used(folder: Path) -> None:
    """Say that this process uses an entry of the cache, until the current `session` ends, or else the process.

    Nobody removes the entry meanwhile. Call this before looking into its folder, so that what is seen there stays; the
    folder is made where it is missing. Where the cache can't be written nothing is marked; neither is what lies behind
    a link in it, which is never removed anyway.
    """
    place, cache = located(folder), cache_dir().resolve()
    with registry, suppress(OSError, ValueError):  # a cache that others filled may be read-only here
        mark = mark_of(place, cache)
        user = own_user(cache)
        if user is None or not (user / mark).exists() or not place.is_dir():
            with exclusive():
                place.mkdir(parents=True, exist_ok=True)
                (make_user(cache) / mark).touch()
        _current().add(place)
        (place / USED).touch()


def release(folder: Path) -> None:
    """Take back what was marked in the current `session`, or outside of one: the entry turned out to be of no use."""
    with registry:
        _current().discard(located(folder))
        _unmark({located(folder)})


@contextmanager
def session() -> Iterator[None]:
    """Take back at its end what was marked inside, and what was promised. A notebook lives on after its studies."""
    own: set[Path] = set()
    token = _session.set(own)
    with registry:
        _marked.append(own)
    try:
        yield
    finally:
        _session.reset(token)
        with registry:
            _marked[:] = [others for others in _marked if others is not own]
            _unmark(own)
            for user, _ in _own_users():
                _discard(user / PROMISE)


@contextmanager
def exclusive() -> Iterator[Path]:
    """Yield the cache folder while no other process marks, clears or makes room. Not to be nested."""
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".upkeep.lock", thread_local=False):
        yield cache.resolve()


def own_user(cache: Path) -> Path | None:
    """The folder with the marks of this process; None where it has none, or someone deleted it."""
    lock = _locks.get((os.getpid(), cache))
    return Path(lock.lock_file).parent if lock is not None and Path(lock.lock_file).exists() else None


def make_user(cache: Path) -> Path:
    """The folder with the marks of this process, made where it is missing. Under `registry` and `exclusive`."""
    folder = own_user(cache)
    if folder is None:
        users(cache, sweep=True)
        folder = cache / _USERS / f"{os.getpid()}-{uuid4().hex[:12]}"  # containers that share a cache share numbers
        folder.mkdir(parents=True)
        lock = FileLock(folder / _LOCK, thread_local=False)  # any thread may free it
        lock.acquire(timeout=_PATIENCE)
        _locks[os.getpid(), cache] = lock
        for place in set().union(*_marked):
            if place.is_relative_to(cache):
                (folder / mark_of(place, cache)).touch()
    return folder


def users(cache: Path, *, sweep: bool = False) -> list[Path]:
    """The folders of marks of living processes. With `sweep`, under `exclusive`, those of dead ones are removed."""
    living = []
    for folder in cache.glob(f"{_USERS}/*"):
        if is_held(folder / _LOCK):
            living.append(folder)
        elif sweep:
            shutil.rmtree(folder, ignore_errors=True)
    return living


def marks(cache: Path) -> set[str]:
    """The marks of all that living processes use, this one included."""
    found: set[str] = set()
    for user in users(cache):
        with suppress(OSError):  # that process has just ended
            found.update(mark.name for mark in user.iterdir())
    return found


def mark_of(place: Path, cache: Path) -> str:
    """What the mark of an entry is called that lies there (see `located`). Raises ValueError if not in the cache."""
    return place.relative_to(cache).as_posix().replace("/", "+")


def located(path: Path) -> Path:
    """The path from the root; links on the way are followed, one at its end is kept."""
    return path.parent.resolve() / path.name


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


def _current() -> set[Path]:
    """What was marked in the current session, or outside of any."""
    marked = _session.get()
    return _marked[0] if marked is None else marked


def _unmark(places: set[Path]) -> None:
    """Remove this process's marks of those places that no session, nor what runs outside of any, uses any longer."""
    for user, cache in _own_users():
        for place in places.difference(*_marked):
            if place.is_relative_to(cache):
                with suppress(OSError):
                    (place / USED).touch()
                _discard(user / mark_of(place, cache))


def _discard(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _own_users() -> list[tuple[Path, Path]]:
    """This process's folders of marks, each with its cache folder; not those of the process it was forked from."""
    return [(Path(lock.lock_file).parent, cache) for (pid, cache), lock in _locks.items() if pid == os.getpid()]


@atexit.register
def _end() -> None:
    for folder, cache in _own_users():
        with suppress(OSError):
            _locks.pop((os.getpid(), cache)).release()
        shutil.rmtree(folder, ignore_errors=True)
