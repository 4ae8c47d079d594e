"""What the cache folder holds.

    activations/<32 hex digits>/   a store of rows, computed again when it is missed
    engines/                       compiled layers, made again when they are missed
    photos/<32 hex digits>/        unpacked archives and data sets, unpacked again when they are missed
    downloads/                     archives of photos that are being fetched, or wait to be unpacked
    weights/                       published weights, fetched again when they are missed
    sample/                        the built-in sample, rendered again when it is missed

Links are passed over: what they lead to is not the cache's, so it is neither counted nor removed. Nothing heavy is
imported here, so that `frostline cache` answers at once.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from frostline.cache.folder import SAMPLE_MARKER, cache_dir
from frostline.cache.marks import USED, is_held, located, mark_of, marks
from frostline.errors import ConfigError, nearest

KINDS = ("activations", "engines", "photos", "downloads", "weights", "sample")
COMPUTED = ("activations", "engines", "photos")
"""What can be made again from the user's own files and weights."""

_STORE_NAME = re.compile(r"[0-9a-f]{32}")
_UNFINISHED = re.compile(r"\.(?P<target>.+?)\.(?:part|wheel|[0-9]+\.tmp)")
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

    def to_dict(self) -> dict[str, object]:
        """For JSON: the time as ISO 8601, the path as text."""
        return {**asdict(self), "used": self.used.isoformat(timespec="seconds"), "path": str(self.path)}


def entries(kinds: Iterable[str] = KINDS) -> list[Entry]:
    """What the cache folder holds, largest first. What can't be read, or was not made by frostline, is passed over.

    Raises
    ------
    ConfigError
        An unknown kind.
    """
    marked = marks(cache_dir().resolve())
    found = []
    for kind in checked(kinds):
        folder = cache_dir() / kind
        for path in [folder] if kind == "sample" else _children(folder) if _is_own(folder) else []:
            with suppress(OSError):  # it vanishes while it is looked at
                if _is_own(path) and (entry := _entry(kind, path, marked)) is not None:
                    found.append(entry)
    return sorted(found, key=lambda e: (-e.bytes, e.kind, e.name))


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


def checked(kinds: Iterable[str]) -> list[str]:
    """These kinds, each once. Raises ConfigError for an unknown one."""
    chosen = list(dict.fromkeys(kinds))
    for kind in chosen:
        if kind not in KINDS:
            raise ConfigError(f"unknown kind of cache entry '{kind}'{nearest(kind, KINDS)}")
    return chosen


def _entry(kind: str, path: Path, marked: set[str]) -> Entry | None:
    """The entry at `path`; None where something stands there that frostline did not make."""
    about = read_json(path / "about.json") if kind in ("activations", "photos") else {}
    what = _what(kind, path, about)
    if what is None:
        return None
    given = about.get("bytes_per_row")
    row_bytes = given if isinstance(given, int) and given > 0 else None
    rows = _rows(path, row_bytes) if kind == "activations" else None
    in_use = mark_of(located(path), cache_dir().resolve()) in marked or _is_being_written(path)
    return Entry(kind, path.name, what, rows, size(path), row_bytes, _last_use(path), in_use, path)


def _what(kind: str, path: Path, about: Mapping[str, object]) -> str | None:
    """What an entry is, in words; None where it is none."""
    if kind == "sample":
        return "built-in sample" if (path / SAMPLE_MARKER).is_file() else None
    if kind in ("activations", "photos"):
        return _described(kind, about) if _STORE_NAME.fullmatch(path.name) and path.is_dir() else None
    unfinished = _UNFINISHED.fullmatch(path.name)
    if path.suffix == ".lock" or (path.name.startswith(".") and not unfinished):
        return None
    target = unfinished["target"] if unfinished else path.name
    compiled = "compiled layers" if path.suffix == ".onnx" else "compiled file"
    what = {"engines": compiled, "downloads": f"archive {target}", "weights": "weights"}[kind]
    return f"unfinished: {what}" if unfinished else what


def _described(kind: str, about: Mapping[str, object]) -> str:
    """What a folder's description says. That of an older store has no words, but names the backbone and the line."""
    if about.get("what"):
        what = str(about["what"])
    elif kind == "photos":
        what = f"unpacked from {about['source']}" if about.get("source") else "unfinished: unpacked photos"
    elif type(about.get("line")) is int:
        what = f"{about.get('backbone', '?')} at line {about['line']}"
    else:
        what = "unknown: about.json is missing or damaged"
    return " ".join(what.split())[:100]


def _is_being_written(path: Path) -> bool:
    """Whether a download or a compiler works on it: it holds the lock beside it, or has just written a part of it."""
    unfinished = _UNFINISHED.fullmatch(path.name)
    target = path.with_name(unfinished["target"]) if unfinished else path
    if is_held(target.with_suffix(".lock")) or is_held(target.with_name(f".{target.name}.lock")):
        return True
    return unfinished is not None and path.is_file() and time.time() - path.stat().st_mtime < _FRESH


def _rows(folder: Path, row_bytes: int | None) -> int | None:
    """Rows that count: those on the list of names, as far as their bytes are there."""
    try:
        listed = (folder / "names.txt").read_bytes().count(b"\n")
        whole = (folder / "rows.bin").stat().st_size // row_bytes if row_bytes else listed
    except FileNotFoundError:
        return 0
    except OSError:
        return None
    return min(listed, whole)


def _is_own(path: Path) -> bool:
    """Whether `path` exists and is no link (nor a junction, as Windows has them) to another place."""
    try:
        return path.resolve(strict=True) == located(path)
    except (OSError, RuntimeError):  # RuntimeError: links in a circle
        return False


def _children(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links count nothing."""
    try:
        if path.is_symlink():
            return 0
        if not path.is_dir():
            return path.stat().st_size
        return sum(map(size, path.iterdir()))
    except OSError:
        return 0


def _last_use(path: Path) -> datetime:
    """When a file was last read or written; of a folder, when it was last marked as used, or else changed."""
    mark = path / USED
    state = (mark if mark.exists() else path).stat()
    seconds = state.st_mtime if path.is_dir() else max(state.st_atime, state.st_mtime)
    return datetime.fromtimestamp(min(max(seconds, 0.0), 253_402_300_799.0), UTC)  # the years 1970 to 9999


def read_json(path: Path) -> dict[str, object]:
    """What a file of JSON says; {} when it is missing, damaged or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
