"""Upkeep of the cache folder: emptying it, and keeping it within a limit.

Several processes share the folder; `frostline.cache.marks` says which of them uses what. Marking, clearing and making
room exclude one another: a store is either marked before it could be removed, or removed before it is opened.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from uuid import uuid4

from frostline.cache.contents import COMPUTED, Entry, checked, entries, older_than, read_json, size
from frostline.cache.folder import cache_dir
from frostline.cache.marks import PROMISE, exclusive, located, make_user, own_user, registry, users
from frostline.cache.sizes import limit, readable
from frostline.errors import FrostlineError, RunError
from frostline.files import disk_errors, write_json

_GOING = ".going-"  # how the name of a folder begins that is being deleted


def clear(kinds: Iterable[str] = COMPUTED, older_than_days: float | None = None) -> tuple[list[Entry], list[Entry]]:
    """Remove entries of the cache folder.

    Parameters
    ----------
    kinds
        Of `frostline.cache.contents.KINDS`; what can't be made from the user's own files goes only when it is named.
    older_than_days
        Only what was last used longer ago; None: whatever its age.

    Returns
    -------
    removed, kept
        Entries that are gone, and entries that stayed because they are in use (or can't be removed by this user).

    Raises
    ------
    ConfigError
        An unknown kind, or an age that is no number of days.
    RunError
        The cache folder can't be written.
    """
    chosen = checked(kinds)
    if not cache_dir().is_dir():
        return [], []
    removed: list[Entry] = []
    kept: list[Entry] = []
    with _upkeep():
        for entry in older_than(entries(chosen), older_than_days):
            (removed if not entry.in_use and _remove(entry.path) else kept).append(entry)
    return removed, kept


def make_room(
    needed: int, keep: Collection[Path], limit: int | None, *, what: Literal["activations", "photos"] = "activations"
) -> list[Entry]:
    """Before rows are written, or photos unpacked: remove what was not used for longest until they fit.

    All the cache holds counts, and what other processes were promised and have not written yet. Only what can be
    computed again is removed, and nothing is when that would not be enough. What is promised here holds until the next
    call, the end of a `frostline.cache.marks.session` or the process's end.

    Parameters
    ----------
    needed
        Bytes that will be written; 0 only brings the cache within its limit.
    keep
        Folders of the stores that this run reads or writes.
    limit
        Bytes that the whole cache may hold; None: as much as the disk.
    what
        What will be written, for the words of an error.

    Returns
    -------
    list of Entry
        What was removed, the longest unused first.

    Raises
    ------
    RunError
        The limit or the disk has no room for the rows, or the cache folder can't be written.
    """
    kept = {located(path) for path in keep}
    with _upkeep() as cache:
        held, others = entries(), _promised_to_others(cache)
        idle = _idle(held, kept)
        over = 0 if limit is None else sum(e.bytes for e in held) + others + needed - limit

        def lacking(freed: int) -> int:
            """Bytes that the limit or the disk has too few once so many are freed; 0 or less: none."""
            return max(over - freed, needed - shutil.disk_usage(cache).free)

        removed = _remove_oldest(idle, lacking) if lacking(0) <= sum(e.bytes for e in idle) else []
        freed = sum(e.bytes for e in removed)
        if limit is not None and over > freed:
            raise RunError(_over_limit(limit, needed, [e for e in held if e not in idle], kept, others, what))
        if lacking(freed) > 0:
            free = shutil.disk_usage(cache).free
            raise RunError(
                f"no room left on the disk for the cache {cache_dir()}: needs {needed / 1e6:,.0f} MB, "
                f"{free / 1e6:,.0f} MB are free; free some space, or set FROSTLINE_CACHE to a folder on another disk"
            )
        _promise(cache, needed, kept)
    return removed


def trim() -> None:
    """Bring the cache within FROSTLINE_CACHE_LIMIT as far as what is in use allows. For a run's end: raises nothing."""
    with suppress(FrostlineError):
        most = limit()
        if most is None or not cache_dir().is_dir():
            return
        with _upkeep() as cache:
            held = entries()
            over = sum(e.bytes for e in held) + _promised_to_others(cache) - most
            _remove_oldest(_idle(held, set()), lambda freed: over - freed)


@contextmanager
def _upkeep() -> Iterator[Path]:
    """Yield the cache folder while nobody else marks, clears or makes room, what killed processes left put in order."""
    with registry, disk_errors(cache_dir()), exclusive() as cache:
        users(cache, sweep=True)
        for path in (*cache.glob(f"{_GOING}*"), *cache.glob(f"*/{_GOING}*")):
            if path.resolve() == path:  # not behind a link
                shutil.rmtree(path, ignore_errors=True)
        yield cache


def _remove(path: Path) -> bool:
    """Whether `path` is gone. A folder vanishes in one step, so that nobody finds half of one."""
    try:
        if path.is_dir():
            shutil.rmtree(path.rename(path.with_name(f"{_GOING}{uuid4().hex}")), ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except OSError:  # Windows: a file in it is open
        return not path.exists()
    return True


def _idle(held: Iterable[Entry], kept: Collection[Path]) -> list[Entry]:
    """What may be removed to make room, the longest unused first."""
    idle = [e for e in held if e.kind in COMPUTED and not e.in_use and located(e.path) not in kept]
    return sorted(idle, key=lambda e: (e.used, e.name))


def _remove_oldest(idle: Iterable[Entry], lacking: Callable[[int], int]) -> list[Entry]:
    """Remove one after the other while there is too little room: `lacking` takes the bytes freed so far."""
    removed: list[Entry] = []
    for entry in idle:
        if lacking(sum(e.bytes for e in removed)) <= 0:
            break
        if _remove(entry.path):
            removed.append(entry)
    return removed


def _over_limit(limit: int, needed: int, fixed: list[Entry], kept: set[Path], others: int, what: str) -> str:
    """What the limit has no room for, and what to do.

    `fixed` are the entries that can't be removed, among them those `kept` for this run; `others` are bytes promised to
    other processes.
    """
    rest = [e for e in fixed if located(e.path) not in kept]
    run = needed + sum(e.bytes for e in fixed) - sum(e.bytes for e in rest)
    used = others + sum(e.bytes for e in rest if e.kind == what)
    files = sum(e.bytes for e in rest if e.kind != what)
    parts = [f"{readable(run)} of {what}", f"{readable(files)} of weights and other files"]
    parts += [f"{readable(used)} that other runs use"] if used else []
    ways = {
        "activations": "a larger --cache-limit, a freeze line nearer the top (--line) or --preset fast",
        "photos": "a larger --cache-limit, or unpack the photos yourself and give their folder",
    }[what] + (", or empty it (frostline cache clear)" if run > needed else "")
    return (
        f"the cache needs {readable(run + used + files)} for this run ({', '.join(parts)}) "
        f"and its limit is {readable(limit)}: give {ways}"
    )


def _promise(cache: Path, needed: int, kept: set[Path]) -> None:
    """Note what this process is about to write, so that two that make room at once don't count on the same bytes."""
    if (user := own_user(cache)) is not None:
        (user / PROMISE).unlink(missing_ok=True)
    if needed:
        note = make_user(cache) / PROMISE
        folders = [place.relative_to(cache).as_posix() for place in kept if place.is_relative_to(cache)]
        write_json(note, {"folders": folders, "bytes_then": needed + sum(size(cache / name) for name in folders)})


def _promised_to_others(cache: Path) -> int:
    """Bytes that other living processes were promised, less those by which their folders have grown since."""
    own, promised = own_user(cache), 0
    for user in users(cache):
        note = {} if user == own else read_json(user / PROMISE)
        folders, most = note.get("folders"), note.get("bytes_then")
        if isinstance(folders, list) and isinstance(most, int):  # else nothing was promised, or the note is damaged
            promised += max(most - sum(size(cache / str(name)) for name in folders), 0)
    return promised
