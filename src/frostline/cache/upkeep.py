"""Upkeep of the cache folder: what it holds, emptying it, and keeping it within a limit.

    activations/<32 hex digits>/   a store of rows, computed again when it is missed
    engines/                       compiled layers, made again when they are missed
    photos/<32 hex digits>/        unpacked archives and data sets, unpacked again when they are missed
    downloads/                     archives of photos that are being fetched, or wait to be unpacked
    weights/                       published weights, fetched again when they are missed
    sample/                        the built-in sample, rendered again when it is missed

Several processes share the folder. A process that opens a store marks it as used and holds a lock on that mark until it ends,
so the mark of a killed process is known by its free lock. Marking, clearing and making room exclude one another: a store is
either marked before it could be removed, or removed before it is opened. Links are left alone: what they lead to is not the
cache's, so it is neither counted nor removed. Nothing heavy is imported here: the listing answers at once.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from frostline.cache.folder import SAMPLE_MARKER, cache_dir
from frostline.cache.marks import PROMISED, Mark, absolute, alone, discard, is_held, is_marked, promises, registry
from frostline.cache.sizes import limit, readable
from frostline.errors import ConfigError, FrostlineError, RunError, nearest
from frostline.files import disk_errors, write_json

KINDS = ("activations", "engines", "photos", "downloads", "weights", "sample")


COMPUTED = ("activations", "engines", "photos")
"""What can be made again from the user's own files and weights: `clear` takes no other kind unless it is told to."""


_STORE_NAME = re.compile(r"[0-9a-f]{32}")


_UNFINISHED = re.compile(r"\.(?P<target>.+?)\.(?:part|wheel|[0-9]+\.tmp)")


_GOING = ".going-"  # a folder that is being deleted


_FRESH = 60.0  # seconds in which an unfinished file may still be written to


@dataclass(frozen=True)
class Entry:
    """One thing in the cache folder that can be removed on its own."""

    kind: str
    """One of `KINDS`."""
    name: str
    """Of the folder or file."""
    what: str
    """In words, e.g. "mobilenet_v2 at line 133 (float16)"."""
    rows: int | None
    """Stored views of photos; None where the entry holds no rows, or the list of them can't be read."""
    bytes: int
    """Of all files in it."""
    bytes_per_row: int | None
    """None where the entry holds no rows, or its description is damaged."""
    used: datetime
    """Last use, in UTC. Of a file outside the stores as well as the file system keeps it."""
    in_use: bool
    """Whether a process, this one included, has it open: it is not removed then."""
    path: Path

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the time as ISO 8601, the path as text."""
        return {**asdict(self), "used": self.used.isoformat(timespec="seconds"), "path": str(self.path)}


# ---- what there is ---------------------------------------------------------------------------------------------------


def entries(kinds: Iterable[str] = KINDS) -> list[Entry]:
    """What the cache folder holds, largest first. What can't be read, or was not made by frostline, is passed over.

    Raises
    ------
    ConfigError
        An unknown kind.
    """
    now = time.time()
    found = [entry for kind in dict.fromkeys(_checked(kinds)) for entry in _of_kind(kind, now)]
    return sorted(found, key=lambda e: (-e.bytes, e.kind, e.name))


def _checked(kinds: Iterable[str]) -> list[str]:
    chosen = list(kinds)
    for kind in chosen:
        if kind not in KINDS:
            raise ConfigError(f"unknown kind of cache entry '{kind}'{nearest(kind, KINDS)}")
    return chosen


def _of_kind(kind: str, now: float) -> Iterator[Entry]:
    """The entries of one kind. What vanishes while it is looked at is passed over."""
    folder = cache_dir() / kind
    look = {
        "activations": _store,
        "engines": _engine,
        "photos": _photos,
        "downloads": _download,
        "weights": _weights,
        "sample": _sample,
    }[kind]
    for path in [folder] if kind == "sample" else _children(folder) if _own(folder) else []:
        with suppress(OSError):
            if _own(path) and (entry := look(path, now)) is not None:
                yield entry


def _store(folder: Path, _now: float) -> Entry | None:
    if not _STORE_NAME.fullmatch(folder.name) or not folder.is_dir():
        return None
    about = _json(folder / "about.json")
    given = about.get("bytes_per_row")
    per_row = given if type(given) is int and given > 0 else None
    return Entry(
        "activations", folder.name, _words(about), _rows(folder, per_row), _size(folder), per_row, _last_use(folder),
        is_marked(folder), folder,
    )  # fmt: skip


def _photos(folder: Path, _now: float) -> Entry | None:
    if not _STORE_NAME.fullmatch(folder.name) or not folder.is_dir():
        return None
    about = _json(folder / "about.json")
    what = f"unpacked from {about['source']}" if about.get("source") else "unfinished: unpacked photos"
    return Entry(
        "photos",
        folder.name,
        " ".join(what.split())[:100],
        None,
        _size(folder),
        None,
        _last_use(folder),
        is_marked(folder),
        folder,
    )


def _words(about: dict[str, Any]) -> str:
    """What a store's description says its rows are. Earlier descriptions have no words: they name backbone and line."""
    what = about.get("what")
    if not isinstance(what, str):
        if type(about.get("line")) is not int:
            return "unknown: about.json is missing or damaged"
        what = f"{about.get('backbone', '?')} at line {about['line']}"
    return " ".join(what.split())[:100]


def _rows(folder: Path, per_row: int | None) -> int | None:
    """Rows that count: those on the list of names, as far as their bytes are there."""
    try:
        listed = (folder / "names.txt").read_bytes().count(b"\n")
        whole = (folder / "rows.bin").stat().st_size // per_row if per_row else listed
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    return min(listed, whole)


def _engine(path: Path, now: float) -> Entry | None:
    return _file("engines", path, "compiled layers" if path.suffix == ".onnx" else "compiled file", now)


def _download(path: Path, now: float) -> Entry | None:
    return _file("downloads", path, f"archive {path.name.removeprefix('.').removesuffix('.part')}", now)


def _weights(path: Path, now: float) -> Entry | None:
    return _file("weights", path, "weights", now)


def _file(kind: str, path: Path, what: str, now: float) -> Entry | None:
    """An entry that is one file, or a folder of compiled files. Its user holds the lock beside it while it writes it."""
    unfinished = _UNFINISHED.fullmatch(path.name)
    if path.suffix == ".lock" or (path.name.startswith(".") and not unfinished):
        return None
    target = path.with_name(unfinished["target"]) if unfinished else path
    state = path.stat()
    in_use = any(is_held(p) for p in (target.with_suffix(".lock"), target.with_name(f".{target.name}.lock")))
    in_use |= is_marked(path) if path.is_dir() else bool(unfinished) and now - state.st_mtime < _FRESH
    used = _last_use(path) if path.is_dir() else _moment(max(state.st_atime, state.st_mtime))
    return Entry(
        kind, path.name, f"unfinished: {what}" if unfinished else what, None, _size(path), None, used, in_use, path
    )


def _sample(folder: Path, _now: float) -> Entry | None:
    if not (folder / SAMPLE_MARKER).is_file():  # the folder is someone else's
        return None
    return Entry(
        "sample", "sample", "built-in sample", None, _size(folder), None, _last_use(folder), is_marked(folder), folder
    )


def _own(path: Path) -> bool:
    """Whether `path` exists and is no link (nor a junction, as Windows has them) to another place."""
    try:
        return path.resolve(strict=True) == path.parent.resolve() / path.name
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return False


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count nothing."""
    try:
        if path.is_symlink():
            return 0
        if not path.is_dir():
            return path.stat().st_size
        return sum(map(_size, path.iterdir()))
    except OSError:
        return 0


def _last_use(folder: Path) -> datetime:
    """The latest change of a file in the folder: its mark of use, or rows that were added."""
    times = []
    for path in _children(folder):
        with suppress(OSError):
            if path.is_file() and not path.name.endswith(".lock"):
                times.append(path.stat().st_mtime)
    return _moment(max(times, default=folder.stat().st_mtime))


def _moment(seconds: float) -> datetime:
    """A file's time; times that no calendar has are moved to its ends."""
    return datetime.fromtimestamp(min(max(seconds, 0.0), 253_402_300_799.0), UTC)


def _json(path: Path) -> dict[str, Any]:
    """What a file of JSON says; {} when it is missing, damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


# ---- clearing --------------------------------------------------------------------------------------------------------


def clear(
    kinds: Iterable[str] = COMPUTED, older_than_days: float | None = None, names: Collection[str] | None = None
) -> tuple[list[Entry], list[Entry]]:
    """Remove entries of the cache folder.

    Parameters
    ----------
    kinds
        Of `KINDS`.
    older_than_days
        Only what was last used longer ago; None: whatever its age.
    names
        Only entries of these names; None: all.

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
    chosen = _checked(kinds)
    if not cache_dir().is_dir():
        return [], []
    removed: list[Entry] = []
    kept: list[Entry] = []
    with disk_errors(cache_dir()), alone() as folder:
        _sweep(folder)
        for entry in older_than(entries(chosen), older_than_days):
            if names is None or entry.name in names:
                gone = not entry.in_use and _remove(entry.path)
                (removed if gone else kept).append(entry)
    return removed, kept


def older_than(found: Iterable[Entry], days: float | None) -> list[Entry]:
    """Those entries that were last used more than so many days ago; None: all.

    Raises
    ------
    ConfigError
        `days` is no number, or below 0.
    """
    if days is None:
        return list(found)
    if not (math.isfinite(days) and days >= 0):
        raise ConfigError(f"an age of {days:g} days: expected a number of 0 or more, e.g. 30")
    before = time.time() - days * 86_400
    return [entry for entry in found if entry.used.timestamp() < before]


def _remove(path: Path) -> bool:
    """Whether `path` is gone. A folder vanishes in one step; what its deletion leaves when it is killed, `_sweep` finds."""
    try:
        if not path.is_dir():
            path.unlink()
            return True
        going = path.rename(path.with_name(f"{_GOING}{uuid4().hex}"))
    except FileNotFoundError:
        return True
    except OSError:  # Windows: a file in it is open
        return False
    shutil.rmtree(going, ignore_errors=True)
    return True


def _sweep(folder: Path) -> None:
    """Finish what a killed process began to delete."""
    for parent in (folder, *(folder / kind for kind in KINDS if kind != "sample")):
        if parent == folder or _own(parent):
            for path in parent.glob(f"{_GOING}*"):
                shutil.rmtree(path, ignore_errors=True)  # refuses links


# ---- a limit ---------------------------------------------------------------------------------------------------------


def make_room(
    needed: int, keep: Collection[Path], limit: int | None, *, what: Literal["activations", "photos"] = "activations"
) -> list[Entry]:
    """Before rows are written, or photos unpacked: remove what was not used for longest until they fit.

    All the cache holds counts, and what other processes were promised and have not written yet. Only what is `COMPUTED`
    is removed, and nothing is when that would not be enough. What is promised here holds until the next call or the process's end.

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
    kept = {absolute(path) for path in keep}
    removed: list[Entry] = []
    with registry, disk_errors(cache_dir()), alone() as folder:
        _sweep(folder)
        held = entries()
        idle = _idle(held, kept)
        others = _promised(folder)
        excess = 0 if limit is None else sum(e.bytes for e in held) + others + needed - limit
        most = sum(e.bytes for e in idle)
        for entry in idle if excess <= most and _lacking(folder, needed) <= most else ():
            if excess <= 0 and _lacking(folder, needed) <= 0:
                break
            if _remove(entry.path):
                removed.append(entry)
                excess -= entry.bytes
        if limit is not None and excess > 0:
            raise RunError(_over_limit(limit, needed, [e for e in held if e not in idle], kept, others, what))
        if _lacking(folder, needed) > 0:
            free = shutil.disk_usage(folder).free
            raise RunError(
                f"no room left on the disk for the cache {folder}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; "
                "free some space, or set FROSTLINE_CACHE to a folder on another disk"
            )
        _promise(folder, needed, kept)
    return removed


def trim() -> None:
    """Bring the cache within FROSTLINE_CACHE_LIMIT, as far as what is in use allows. For the end of a run: it raises nothing."""
    with suppress(FrostlineError):
        most = limit()
        if most is None or not cache_dir().is_dir():
            return
        with registry, disk_errors(cache_dir()), alone() as folder:
            _sweep(folder)
            held = entries()
            excess = sum(e.bytes for e in held) + _promised(folder) - most
            for entry in _idle(held, set()):
                if excess > 0 and _remove(entry.path):
                    excess -= entry.bytes


def _idle(held: Iterable[Entry], kept: Collection[Path]) -> list[Entry]:
    """What may be removed to make room, the longest unused first."""
    idle = [e for e in held if e.kind in COMPUTED and not e.in_use and absolute(e.path) not in kept]
    return sorted(idle, key=lambda e: (e.used, e.name))


def _lacking(folder: Path, needed: int) -> int:
    """Bytes that the disk has too few; negative: to spare."""
    return needed - shutil.disk_usage(folder).free


def _over_limit(limit: int, needed: int, fixed: list[Entry], kept: set[Path], others: int, what: str) -> str:
    run = needed + sum(e.bytes for e in fixed if absolute(e.path) in kept)
    used = others + sum(e.bytes for e in fixed if e.kind == what and absolute(e.path) not in kept)
    rest = sum(e.bytes for e in fixed if e.kind != what and absolute(e.path) not in kept)
    parts = [f"{readable(run)} of {what}", f"{readable(rest)} of weights and compiled files"]
    if any(e.kind in ("photos", "activations") and e.kind != what and absolute(e.path) not in kept for e in fixed):
        parts[1] = f"{readable(rest)} of weights and other files in use"
    parts += [f"{readable(used)} that other runs use"] if used else []
    ways = {
        "activations": "a larger --cache-limit, a freeze line nearer the top (--line) or --preset fast",
        "photos": "a larger --cache-limit, or unpack the photos yourself and give their folder",
    }
    return (
        f"the cache needs {readable(run + used + rest)} for this run ({', '.join(parts)}) and its limit is {readable(limit)}: give "
        f"{ways[what]}" + (", or empty it (frostline cache clear)" if run > needed else "")
    )


def _promise(folder: Path, needed: int, kept: set[Path]) -> None:
    """Note what this process is about to write, so that two that make room at once don't count on the same bytes."""
    place = absolute(folder)
    if place in promises and not (needed and promises[place].lives()):
        promises.pop(place).end()
    if not needed:
        return
    if place not in promises:
        promises[place] = Mark.set(place, PROMISED)
    stores = {str(path): _size(path) for path in kept}
    write_json(promises[place].path.with_suffix(".json"), {"bytes": needed, "stores": stores})


def _promised(folder: Path) -> int:
    """Bytes that other living processes were promised, less those by which their stores have grown since."""
    own = promises.get(absolute(folder))
    promised = 0
    for path in folder.glob(f"{PROMISED}*.lock"):
        note = path.with_suffix(".json")
        if own is not None and path.name == own.path.name:
            continue
        if not is_held(path):
            discard(note)
            discard(path)
            continue
        said = _json(note)
        with suppress(TypeError, ValueError, AttributeError):  # a note that is none
            grown = sum(max(_size(Path(store)) - int(was), 0) for store, was in said.get("stores", {}).items())
            promised += max(int(said.get("bytes", 0)) - grown, 0)
    return promised
