"""The activation cache: what the frozen prefix makes of each photo, computed once and kept on disk.

One *store* per line. Its name is a digest of everything that shapes its bytes (network, weights, line, transform, engine, number
format, versions), and inside it each row is named by the photo's own SHA-256 and view: strategies, runs and data sets share
rows whenever they agree, and a photo that was added costs one row. At line 0 the store holds the resized photos themselves.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

import numpy as np
import onnxruntime
import PIL
import torch
from filelock import FileLock

from frostline import freeze
from frostline.backbone import Backbone
from frostline.config import EngineKind, StoredAs
from frostline.engine import BATCH, Engine, choose, compiled
from frostline.errors import ConfigError, PhotoError, RunError
from frostline.files import disk_errors, write_json
from frostline.images import Pixels, Transform, View
from frostline.manifest import Manifest, Photo, Skip
from frostline.progress import Progress
from frostline.reading import ahead, pixels
from frostline.weights import cache_dir

Item = tuple["Key", Photo]

_VERSION = 3
_ROW_NAME = re.compile(r"[0-9a-f]{64} \d+ \d+")
_RESIDENT = 256 * 1024**2  # bytes read through a mapping before its pages are handed back


@dataclass(frozen=True)
class Key:
    """One row: a photo, by its bytes, and a view of it."""

    sha256: str
    """Hex digest of the photo's file."""
    view: int
    """0 = clean."""
    seed: int
    """Of the augmented views; 0 for the clean one, which has none."""

    @classmethod
    def of(cls, photo: Photo, view: int, seed: int) -> Key:
        """The row of a photo's view."""
        return cls(photo.sha256, view, seed if view else 0)

    def __str__(self) -> str:
        return f"{self.sha256} {self.view} {self.seed}"


class Store:
    """Rows of fixed size in one append-only file, and the list of their names beside it.

    A row counts once its name is on the list, which is written after the row: a process killed in between leaves bytes that
    the next one overwrites.
    """

    def __init__(self, folder: Path, shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype]) -> None:
        self.shapes, self.dtypes = tuple(shapes), tuple(np.dtype(d) for d in dtypes)
        sizes = [int(np.prod(s)) * d.itemsize for s, d in zip(self.shapes, self.dtypes, strict=True)]
        self._ends = np.cumsum(sizes).tolist()
        self.row_bytes: int = self._ends[-1]
        self._folder = folder
        self._rows = folder / "rows.bin"
        self._names = folder / "names.txt"
        self._lock = FileLock(folder / ".lock")
        self._mapping: mmap.mmap | None = None
        self._read_bytes = 0
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self._places = self._load()

    def _load(self) -> dict[str, int]:
        """The rows that count, by name. A last line without its end was being written when a process died."""
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
        rows = np.concatenate([self._flat(a, t) for t, a in enumerate(arrays)], axis=1)
        with disk_errors(self._folder), self._lock:
            self._catch_up()
            fresh = [i for i, key in enumerate(keys) if str(key) not in self._places]
            count = len(self._places)
            with self._rows.open("r+b" if self._rows.exists() else "w+b") as file:
                file.seek(count * self.row_bytes)
                file.write(rows[fresh].tobytes())
            with self._names.open("a", encoding="ascii", newline="\n") as file:
                self._listed += file.write("".join(f"{keys[i]}\n" for i in fresh))
        self._places.update({str(keys[i]): count + n for n, i in enumerate(fresh)})

    def _flat(self, array: np.ndarray, tensor: int) -> np.ndarray:
        """(N, ...) to (N, bytes) in the stored number format."""
        dtype = self.dtypes[tensor]
        with np.errstate(over="ignore"):
            stored = np.ascontiguousarray(array, dtype=dtype)
        if dtype == np.float16 and not np.isfinite(stored).all():
            raise ConfigError("an activation is too large for half precision: use --stored-as float32")
        return stored.reshape(len(stored), -1).view(np.uint8)

    def read(self, keys: Sequence[Key]) -> list[np.ndarray]:
        """The tensors of these rows, each (N, \\*shapes[t]), copied out of the mapped file.

        Raises
        ------
        RunError
            The cache was cleared while it was in use.
        """
        try:
            rows = self._mapped([self._places[str(key)] for key in keys])
        except (KeyError, FileNotFoundError, IndexError) as error:  # IndexError: shorter than its list of names
            raise RunError(f"the cache {self._folder} lost a row: run again, with --resume for a run folder") from error
        starts = [0, *self._ends[:-1]]
        return [
            np.ascontiguousarray(rows[:, start:end]).view(dtype).reshape(len(keys), *shape)
            for start, end, dtype, shape in zip(starts, self._ends, self.dtypes, self.shapes, strict=True)
        ]

    def _mapped(self, places: Sequence[int]) -> np.ndarray:
        """Rows as bytes (N, row_bytes). Pages are given back now and then, so memory stays flat however large the file."""
        needed = (max(places, default=-1) + 1) * self.row_bytes
        if self._mapping is None or len(self._mapping) < needed:
            with self._rows.open("rb") as file:
                self._mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        whole = len(self._mapping) // self.row_bytes
        table = np.frombuffer(self._mapping, np.uint8, whole * self.row_bytes).reshape(whole, self.row_bytes)
        rows = table[np.asarray(places, dtype=np.int64)]
        self._read_bytes += rows.nbytes
        if self._read_bytes > _RESIDENT and hasattr(mmap, "MADV_DONTNEED"):
            self._mapping.madvise(mmap.MADV_DONTNEED)
            self._read_bytes = 0
        return rows


@dataclass(frozen=True)
class Tap:
    """Where one strategy draws its training data: a backbone's tensors at a line, and the store that keeps them."""

    backbone: Backbone
    line: int
    store: Store


def tap(backbone: Backbone, line: int, kind: EngineKind, device: torch.device, stored_as: StoredAs) -> Tap:
    """Open (or start) the store of `backbone` cut at `line`."""
    cut = freeze.cut(backbone.traced, line)
    dtypes = [np.dtype(np.uint8) if d == torch.uint8 else np.dtype(stored_as) for d in cut.dtypes]
    shaped_by: dict[str, object] = {
        "version": _VERSION,
        "size": backbone.transform.size,
        "resize": backbone.transform.resize,
        "pillow": PIL.__version__,
        "line": line,
    }
    if line > 0:
        engine = choose(kind, device)
        shaped_by |= {
            "weights": freeze.identity(cut.prefix),
            "prefix": cut.prefix.code,
            "engine": f"onnxruntime {onnxruntime.__version__}, exported by torch {torch.__version__}"
            if engine == "onnx"
            else f"torch {torch.__version__} {device.type}",
            "stored_as": stored_as,
        }
    name = hashlib.sha256(json.dumps(shaped_by, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_dir() / "activations" / name
    store = Store(folder, cut.shapes, dtypes)
    if not (folder / "about.json").exists():
        write_json(folder / "about.json", {"backbone": backbone.name, **shaped_by, "bytes_per_row": store.row_bytes})
    return Tap(backbone, line, store)


def fill(
    taps: Sequence[Tap],
    manifest: Manifest,
    *,
    indices: Sequence[int] | None = None,
    views: Sequence[int] = (0,),
    seed: int = 0,
    kind: EngineKind = "auto",
    device: torch.device | None = None,
    progress: Progress,
) -> list[Skip]:
    """Compute every row that `taps` miss, in one pass: each photo is read and decoded once, whatever the number of lines.

    Parameters
    ----------
    indices
        Which photos of the manifest; None = all.
    views
        Which views of each.

    Returns
    -------
    list of Skip
        Photos that could not be decoded, each with the reason. Their rows are absent.

    Raises
    ------
    RunError
        No room for the rows on the disk, found before the work starts where it can be.
    """
    device = device or torch.device("cpu")
    chosen = range(len(manifest.photos)) if indices is None else indices
    bad: dict[str, str] = {}
    for transform, group in _by_transform(taps).items():
        wanted = {Key.of(manifest.photos[i], v, seed): manifest.photos[i] for i in chosen for v in views}
        lacking = [set(t.store.missing(wanted)) for t in group]
        todo = [(key, photo) for key, photo in wanted.items() if any(key in m for m in lacking)]
        if todo:
            _check_room(group, lacking)
            bad |= _pass(group, lacking, todo, transform, manifest.root, kind, device, progress)
    return [
        Skip(manifest.photos[i].path, bad[manifest.photos[i].sha256])
        for i in chosen
        if manifest.photos[i].sha256 in bad
    ]


def _by_transform(taps: Sequence[Tap]) -> dict[Transform, list[Tap]]:
    """Taps that can share decoded photos; what the graph normalises with makes no difference to those."""
    groups: dict[Transform, list[Tap]] = {}
    for t in taps:
        groups.setdefault(Transform(t.backbone.transform.size, t.backbone.transform.resize), []).append(t)
    return groups


def _check_room(taps: Sequence[Tap], lacking: Sequence[set[Key]]) -> None:
    needed = sum(len(m) * t.store.row_bytes for m, t in zip(lacking, taps, strict=True))
    free = shutil.disk_usage(cache_dir()).free
    if needed > free:
        raise RunError(
            f"no room left on the disk for the cache {cache_dir()}: needs {needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free; "
            "free some space, or set FROSTLINE_CACHE to a folder on another disk"
        )


def _pass(
    taps: Sequence[Tap],
    lacking: Sequence[set[Key]],
    todo: Sequence[tuple[Key, Photo]],
    transform: Transform,
    root: Path,
    kind: EngineKind,
    device: torch.device,
    progress: Progress,
) -> dict[str, str]:
    """Decode ahead in threads, run the engines, append the rows; returns {sha256: reason} of photos that failed."""
    bad: dict[str, str] = {}
    busy = [t for t, m in zip(taps, lacking, strict=True) if m]
    runs = _engines(busy, kind, device)
    task = progress.task("Photos through the frozen layers" if runs else "Reading photos", len(todo))

    def load(item: Item) -> Pixels | PhotoError:
        key, photo = item
        return pixels(root / photo.path, transform, View(key.seed, key.view))

    waiting = ahead(load, todo, depth=3 * BATCH)
    while pairs := list(islice(waiting, BATCH)):
        bad |= {photo.sha256: str(result) for (_, photo), result in pairs if isinstance(result, PhotoError)}
        good = [(key, result) for (key, _), result in pairs if not isinstance(result, PhotoError)]
        if good:
            _store(busy, runs, [k for k, _ in good], np.stack([p for _, p in good]))
        task.advance(len(pairs))
    return bad


def _engines(taps: Sequence[Tap], kind: EngineKind, device: torch.device) -> list[tuple[Engine, list[Tap]]]:
    """One engine per backbone, with an output for each of its lines above 0.

    A line right below a batch norm has an engine to itself: an output there keeps ONNX Runtime from folding the norm into the
    convolution, which would change the last bits of the other lines' rows, and rows must not depend on who else was asked.
    """
    groups: dict[tuple[int, int], list[Tap]] = {}
    for t in taps:
        if t.line > 0:
            apart = t.line if freeze.below_norm(t.backbone.traced, t.line) else 0
            groups.setdefault((id(t.backbone), apart), []).append(t)
    engines = []
    for group in groups.values():
        first = group[0].backbone
        network = freeze.taps(first.traced, [t.line for t in group])
        size = first.transform.size
        folder = cache_dir() / "engines"
        engines.append((compiled(network, kind, device, size=size, folder=folder), group))
    return engines


def _store(taps: Sequence[Tap], runs: Sequence[tuple[Engine, list[Tap]]], keys: Sequence[Key], photos: Pixels) -> None:
    for t in taps:
        if t.line == 0:
            t.store.append(keys, [photos])
    for engine, group in runs:
        outputs = iter(engine.run(photos))
        for t in group:
            t.store.append(keys, list(islice(outputs, len(t.store.shapes))))
