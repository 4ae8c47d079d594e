"""Photos that come packed in a file are unpacked once, into a folder of the cache that the file's digest names.

    photos/<32 hex digits>/photos/    the files
    photos/<32 hex digits>/about.json what they were unpacked from, and which files of it were left out

The folder of photos appears in one step and `about.json` after it, so nothing that a killed process leaves is taken for
complete. Like stores of activations it counts towards the cache's limit; the one that was not used for longest goes
first.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from filelock import FileLock

from frostline import documents
from frostline.cache import marks, sizes, upkeep
from frostline.cache.folder import cache_dir
from frostline.errors import RunError
from frostline.files import disk_errors, replacing, write_json
from frostline.progress import Progress

Left = list[tuple[str, str]]
"""The files left out: (path inside the archive, why)."""

_RULES = 1  # raised when files are unpacked by other rules: what older ones left is not used then


class Packed(Protocol):
    """Something that can be unpacked into a folder of photos."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    def digest(self) -> str:
        """64 hex digits that change with its content."""

    def size(self) -> int:
        """Bytes that the unpacked files will take, as far as that is known before."""

    def unpack(self, folder: Path, progress: Progress) -> Left:
        """Write the files into `folder`, which is there and empty."""


def folder(packed: Packed, progress: Progress) -> tuple[Path, Left]:
    """The folder that `packed` is unpacked in, and what was left out. Unpacks it unless that was done before.

    The folder stays as long as this process (or its `marks.session`) runs.

    Raises
    ------
    DataError
        It can't be unpacked at all.
    RunError
        The cache folder can't be written, or has no room for it.
    """
    home = cache_dir() / "photos" / f"{_RULES:02x}{packed.digest()[:30]}"
    marks.mark_used(home)
    try:
        left = _done(home)
        return home / "photos", _unpack(packed, home, progress) if left is None else left
    except BaseException:
        marks.release(home)
        raise


def _unpack(packed: Packed, home: Path, progress: Progress) -> Left:
    photos = home / "photos"
    with _cache_errors(home), _lock(home):
        if (left := _done(home)) is not None:  # another process has just done it
            return left
        for old in (photos, *home.glob(".photos.*.tmp")):  # a killed process left it, or files are missing
            shutil.rmtree(old, ignore_errors=True)
        upkeep.make_room(packed.size(), [home], sizes.limit(), what="photos")
        with replacing(photos) as temporary:
            temporary.mkdir()
            left = packed.unpack(temporary, progress)
        write_json(home / "about.json", {"source": packed.name, "files": _count(photos), "left_out": left})
    return left


def _lock(home: Path) -> FileLock:
    home.mkdir(parents=True, exist_ok=True)
    return FileLock(home / ".unpacking.lock")


@contextmanager
def _cache_errors(home: Path) -> Iterator[None]:
    """Errors of writing into the cache folder say how to choose another one."""
    try:
        with disk_errors(home):
            yield
    except RunError as error:
        if "FROSTLINE_CACHE" in str(error) or "--cache-limit" in str(error):
            raise
        raise RunError(f"{error} (the variable FROSTLINE_CACHE names the folder)") from error


def _done(home: Path) -> Left | None:
    """What was left out when it was unpacked; None when it was not unpacked, or files are missing since."""
    with suppress(OSError, RunError, ValueError, KeyError, TypeError):
        about = documents.read_object(home / "about.json")
        if about["files"] == _count(home / "photos"):
            return [(str(path), str(why)) for path, why in about["left_out"]]
    return None


def _count(folder: Path) -> int:
    return sum(file.is_file() for file in folder.rglob("*"))
