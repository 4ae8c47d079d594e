"""A store of rows on disk: one append-only file of fixed-size rows, and the list of their names beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from filelock import FileLock

from frostline.cache.folder import cache_dir
from frostline.cache.marks import mark_used
from frostline.errors import ConfigError, RunError
from frostline.files import disk_errors, write_json

_ROW_NAME = re.compile(r"[0-9a-f]{64} -?\d+ \d+")
_ONE_AT_A_TIME = threading.Lock()


def open_store(
    shaped_by: Mapping[str, object],
    shapes: Sequence[tuple[int, ...]],
    dtypes: Sequence[np.dtype],
    *,
    what: str,
    backbone: str | None = None,
) -> Store:
    """Open the store whose rows are shaped by these values, or start it, and mark it as used by this process.

    The store's folder is named by a digest of `shaped_by`: rows are shared by all that agree on these values. A file
    `about.json` beside the rows says what they are; `frostline cache` shows that.

    Parameters
    ----------
    shaped_by
        Everything that shapes the bytes of a row, the photo and its view left aside; values that JSON has.
    shapes, dtypes
        Of the tensors in a row.
    what
        What the rows are, in a few words, e.g. "mobilenet_v2 at line 133 (float16)".
    backbone
        The network's name. It is written down only: its weights, in `shaped_by`, say which network it is.

    Raises
    ------
    RunError
        The cache folder can't be written.
    """
    name = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_dir() / "activations" / name
    mark_used(folder)  # first: what is seen in the folder from here on stays there
    store = Store(folder, shapes, dtypes)
    about = folder / "about.json"
    if not about.exists():
        named = {} if backbone is None else {"backbone": backbone}
        write_json(about, {"what": what, **named, **shaped_by, "bytes_per_row": store.row_bytes})
    return store


@dataclass(frozen=True)
class Key:
    """One row: a photo, by its bytes, and a view of it."""

    sha256: str
    """Hex digest of the photo's file."""
    view: int
    """0 = clean, `frostline.photos.decoding.MIRROR` = its mirror image, 1 and up = augmented."""
    seed: int
    """Of the augmented views; 0 for the other two, which no rng shapes."""

    @classmethod
    def of(cls, sha256: str, view: int, seed: int) -> Key:
        """The row of a view of the photo whose file has this digest."""
        return cls(sha256, view, seed if view > 0 else 0)

    def __str__(self) -> str:
        return f"{self.sha256} {self.view} {self.seed}"


class Store:
    """Rows of fixed size in one append-only file, and the list of their names beside it.

    A row counts once its name is on the list. The name is written after the row, so a process that is killed in between
    leaves only bytes that the next one overwrites.

    Parameters
    ----------
    folder
        Where it lives; made where it is missing.
    shapes, dtypes
        Of the tensors in a row.

    Raises
    ------
    RunError
        The folder can't be made.
    """

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype]) -> None:
        self.shapes, self.dtypes = tuple(shapes), tuple(np.dtype(d) for d in dtypes)
        sizes = [int(np.prod(s)) * d.itemsize for s, d in zip(self.shapes, self.dtypes, strict=True)]
        self._ends = np.cumsum(sizes).tolist()
        self.row_bytes: int = self._ends[-1]
        self.folder = folder
        """Where it lives."""
        self._rows = folder / "rows.bin"
        self._names = folder / "names.txt"
        self._lock = FileLock(folder / ".lock")
        self._opened: int | None = None
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._places = self._load()

    def _load(self) -> dict[str, int]:
        """The places of the rows that count, by name. A last line without its end was cut off by a process's death."""
        self._listed = self._names.stat().st_size if self._names.exists() else 0
        self._whole = True
        if not self._listed:
            return {}
        lines = self._names.read_bytes().decode("ascii", "replace").split("\n")[:-1]
        whole = self._rows.stat().st_size // self.row_bytes if self._rows.exists() else 0
        good = takewhile(_ROW_NAME.fullmatch, lines[:whole])  # what follows a damaged name is computed again
        places = {name: place for place, name in enumerate(good)}
        self._whole = self._listed == sum(len(name) + 1 for name in places)
        return places

    def _catch_up(self) -> None:
        """Under the lock: learn what other processes appended, and cut off a half-written end."""
        size = self._names.stat().st_size if self._names.exists() else 0
        if self._whole and size == self._listed:
            return
        self._places = self._load()
        kept = "".join(f"{name}\n" for name in self._places)
        if not self._whole:
            self._names.write_text(kept, encoding="ascii", newline="\n")
        self._listed, self._whole = len(kept), True

    def missing(self, keys: Iterable[Key]) -> list[Key]:
        """Those `keys` that have no row yet, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if str(key) not in self._places]

    def append(self, keys: Sequence[Key], arrays: Sequence[np.ndarray]) -> None:
        """Add a row per key; ``arrays[t]`` is (N, \\*shapes[t]).

        Raises
        ------
        ConfigError
            A value is too large for half precision.
        RunError
            No room on the disk.
        """
        flat = [a.reshape(len(keys), -1).view(np.uint8) for a in self.stored(arrays)]
        rows = np.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]
        with disk_errors(self.folder), self._lock:
            self._catch_up()
            fresh = [i for i, key in enumerate(keys) if str(key) not in self._places]
            count = len(self._places)
            with self._rows.open("r+b" if self._rows.exists() else "w+b") as file:
                file.seek(count * self.row_bytes)
                file.write((rows if len(fresh) == len(keys) else rows[fresh]).data)
            with self._names.open("a", encoding="ascii", newline="\n") as file:
                self._listed += file.write("".join(f"{keys[i]}\n" for i in fresh))
        self._places.update({str(keys[i]): count + n for n, i in enumerate(fresh)})

    def stored(self, arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The same tensors in the stored number format.

        Raises
        ------
        ConfigError
            A value is too large for half precision.
        """
        return [self._narrowed(a, dtype) for a, dtype in zip(arrays, self.dtypes, strict=True)]

    @staticmethod
    def _narrowed(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
        if array.dtype == dtype:
            return np.ascontiguousarray(array)
        with np.errstate(over="ignore"):
            narrow = np.ascontiguousarray(array, dtype=dtype)
        if dtype == np.float16 and not np.isfinite(narrow).all():
            raise ConfigError("an activation is too large for half precision: use --stored-as float32")
        return narrow

    def read(self, keys: Sequence[Key]) -> list[np.ndarray]:
        """The tensors of these rows, each (N, \\*shapes[t]).

        Raises
        ------
        RunError
            The cache was cleared while it was in use.
        """
        try:
            rows = self._rows_at([self._places[str(key)] for key in keys])
        except (KeyError, FileNotFoundError, EOFError) as error:
            raise RunError(f"the cache {self.folder} lost a row: run again, with --resume for a run folder") from error
        starts = [0, *self._ends[:-1]]
        return [
            np.ascontiguousarray(rows[:, start:end]).view(dtype).reshape(len(keys), *shape)
            for start, end, dtype, shape in zip(starts, self._ends, self.dtypes, self.shapes, strict=True)
        ]

    def _rows_at(self, places: Sequence[int]) -> np.ndarray:
        """Rows as bytes (N, row_bytes).

        Read, not mapped: a mapping takes up to 2 MB of memory for each row that is touched, and where such pages are
        handed back now and then, a batch takes four times as long.
        """
        if self._opened is None:
            opened = os.open(self._rows, os.O_RDONLY | getattr(os, "O_BINARY", 0))
            weakref.finalize(self, os.close, opened)  # of each, should two threads come first
            self._opened = opened
        rows = np.empty((len(places), self.row_bytes), np.uint8)
        view, size = rows.reshape(-1).data, self.row_bytes
        for n, place in enumerate(places):
            done = 0
            while done < size:  # some file systems give less than was asked for
                came = _read_into(self._opened, view[n * size + done : (n + 1) * size], place * size + done)
                if not came:
                    raise EOFError("shorter than its list of names")
                done += came
        return rows


def _read_at_once(file: int, row: memoryview, start: int) -> int:
    """Fill `row` from a place in an open file; the number of bytes that were there. Threads may share the file."""
    return os.preadv(file, (row,), start)


def _read_in_turns(file: int, row: memoryview, start: int) -> int:
    """The same on Windows, where the file has one place for all threads."""
    with _ONE_AT_A_TIME:
        os.lseek(file, start, os.SEEK_SET)
        data = os.read(file, len(row))
    row[: len(data)] = data
    return len(data)


_read_into = _read_at_once if hasattr(os, "preadv") else _read_in_turns
