"""The activation cache: the output of the frozen prefix for each photo, computed once and kept on disk.

One *store* per line. Its name is a digest of everything that shapes its bytes (network, weights, line, transform,
engine, number format, versions), and inside it each row is named by the photo's own SHA-256 and view: strategies, runs
and data sets share rows whenever they agree, and a photo that was added costs one row. At line 0 the store holds the
resized photos themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import PIL
import torch

from frostline.cache.folder import cache_dir
from frostline.cache.sizes import limit
from frostline.cache.store import Key, Store, open_store
from frostline.cache.upkeep import make_room
from frostline.config import StoredAs
from frostline.errors import PhotoError
from frostline.networks import freeze_line
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import Runtime, TorchEngine, compiled
from frostline.networks.engine import Arrays, Engine
from frostline.parallel import ahead, groups
from frostline.photos.decoding import Pixels, Transform, View
from frostline.photos.head_start import HeadStart
from frostline.photos.loading import pixels
from frostline.photos.manifest import Manifest, Photo, Skip
from frostline.progress import Progress

Item = tuple["Key", Photo]


_VERSION = 4


_NAME_BYTES = 70  # a row's line in names.txt, about


_LARGEST = 65504 / 16  # half precision ends at 65,504; photos may give larger numbers than noise does

_AHEAD = 32  # photos that may wait, and rows that are written at a time


@dataclass(frozen=True)
class Tap:
    """The source of one strategy's training data: a backbone's tensors at a line, and the store that keeps them."""

    backbone: Backbone
    line: int
    store: Store
    stored_as: StoredAs
    """Number format of its activations: see `tap`."""


def tap(backbone: Backbone, line: int, runtime: Runtime, stored_as: StoredAs) -> Tap:
    """Open (or start) the store of `backbone` cut at `line`.

    Where an image of noise comes near the end of half precision's range, activations are stored in float32 whatever
    was asked for: photos would leave that range.
    """
    cut = freeze_line.cut(backbone.traced, line)
    if cut.largest > _LARGEST:
        stored_as = "float32"
    dtypes = [np.dtype(np.uint8) if d == torch.uint8 else np.dtype(stored_as) for d in cut.dtypes]
    frame = backbone.transform.frame()
    shaped_by: dict[str, object] = {
        "version": _VERSION,
        "size": frame.size,
        "resize": frame.resize,
        "pillow": PIL.__version__,
        "line": line,
    }
    # settings of later versions join only where they differ from the default: stores that are filled keep their names
    later = {"interpolation": frame.interpolation, "crop_pct": frame.crop_pct}
    shaped_by |= {k: v for k, v in later.items() if v != getattr(Transform, k)}
    if line > 0:
        shaped_by |= {
            "weights": freeze_line.identity(cut.prefix),
            "prefix": cut.prefix.code,
            "engine": runtime.signature,
            "stored_as": stored_as,
        }
        what = f"{backbone.name} at line {line} ({stored_as})"
    else:
        what = f"photos of {frame.size} x {frame.size} pixels ({frame.resize})"
    return Tap(backbone, line, open_store(shaped_by, cut.shapes, dtypes, what=what, backbone=backbone.name), stored_as)


def fill(
    taps: Sequence[Tap],
    manifest: Manifest,
    *,
    indices: Sequence[int] | None = None,
    views: Sequence[int] = (0,),
    seed: int = 0,
    runtime: Runtime | None = None,
    head_start: HeadStart | None = None,
    kept: KeptEngines | None = None,
    progress: Progress,
) -> list[Skip]:
    """Compute every row that `taps` miss, in one pass: each photo is read and decoded once, whatever the number of
    lines.

    Parameters
    ----------
    indices
        Which photos of the manifest; None = all.
    views
        Which views of each; 0 is the clean one.
    seed
        Of the augmented views.
    runtime
        Of the frozen layers; None = the best engine for this CPU.
    head_start
        May have decoded some of them already.
    kept
        Engines of earlier calls.

    Returns
    -------
    list of Skip
        Photos that could not be decoded, each with the reason. Their rows are absent.

    Raises
    ------
    RunError
        No room for the rows on the disk, or below FROSTLINE_CACHE_LIMIT, found before the work starts where it can be.
    """
    runtime = runtime or Runtime()
    chosen = range(len(manifest.photos)) if indices is None else indices
    wanted = {Key.of(manifest.photos[i].sha256, v, seed): manifest.photos[i] for i in chosen for v in views}
    lacking = {id(t): set(t.store.missing(wanted)) for t in taps}
    _check_room(taps, [lacking[id(t)] for t in taps])
    bad: dict[str, str] = {}
    for transform, group in by_transform(taps).items():
        missed = [lacking[id(t)] for t in group]
        todo = [(key, photo) for key, photo in wanted.items() if any(key in m for m in missed)]
        if todo:
            busy = [t for t, m in zip(group, missed, strict=True) if m]
            compiled_for = kept.engines if kept is not None else engines
            work = _Work(busy, compiled_for(busy, runtime), transform, manifest.root, head_start)
            bad |= _append_rows(work, todo, progress)
    return [
        Skip(manifest.photos[i].path, bad[manifest.photos[i].sha256])
        for i in chosen
        if manifest.photos[i].sha256 in bad
    ]


def by_transform(taps: Sequence[Tap]) -> dict[Transform, list[Tap]]:
    """Taps that can share decoded photos. Normalisation is part of the graph, so it makes no difference here."""
    groups: dict[Transform, list[Tap]] = {}
    for t in taps:
        groups.setdefault(t.backbone.transform.frame(), []).append(t)
    return groups


def _check_room(taps: Sequence[Tap], lacking: Sequence[set[Key]]) -> None:
    """Make room on the disk, and below the limit that the user set. Stores that no process uses are removed first."""
    needed = sum(len(m) * (t.store.row_bytes + _NAME_BYTES) for m, t in zip(lacking, taps, strict=True))
    make_room(needed, [t.store.folder for t in taps], limit())


def _append_rows(work: _Work, todo: Sequence[Item], progress: Progress) -> dict[str, str]:
    """Decode photos and run the engines on them, in threads; append the rows. Returns {sha256: reason} of photos that
    failed."""
    for engine, _ in work.engines:
        engine.expect(len(todo))
    size = max((engine.batch for engine, _ in work.engines), default=1)
    groups_at_a_time = max(1, _AHEAD // size)
    task = progress.task("Computing frozen activations" if work.engines else "Reading photos", len(todo))
    if work.head_start:
        work.head_start.stop()
    bad: dict[str, str] = {}
    waiting = work.ahead(todo, size, groups_at_a_time)
    while several := list(islice(waiting, groups_at_a_time)):
        for _, result in several:
            bad |= result.bad
        done = [result for _, result in several if result.keys]
        keys = [key for result in done for key in result.keys]
        for place, t in enumerate(work.taps if keys else ()):
            pieces = zip(*(result.rows[place] for result in done), strict=True)
            t.store.append(keys, [np.concatenate(piece) for piece in pieces])
        task.advance(sum(len(items) for items, _ in several))
    return bad


@dataclass(frozen=True)
class _Work:
    """What a thread needs to turn photo files into rows."""

    taps: Sequence[Tap]
    """Those that miss rows."""
    engines: Sequence[tuple[Engine, list[Tap]]]
    transform: Transform
    root: Path
    head_start: HeadStart | None

    def ahead(self, todo: Sequence[Item], size: int, depth: int) -> Iterator[tuple[Sequence[object], _Rows]]:
        """(photos, their rows), `size` photos at a time; at most `depth` of these wait.

        Where the engine takes few photos a thread decodes them and runs it. Where it takes many, and works beside the
        processor, each photo is decoded by a thread of its own, and the next batch while the engine has one.
        """
        if size < _AHEAD:
            return ahead(self._decoded_and_run, groups(todo, size), depth=depth)
        decoded = ahead(lambda item: self._load(*item), todo, depth=2 * size)
        return ahead(self._rows, groups(decoded, size), depth=1)

    def _decoded_and_run(self, items: Sequence[Item]) -> _Rows:
        return self._rows([(item, self._load(*item)) for item in items])

    def _rows(self, decoded: Sequence[tuple[Item, Pixels | PhotoError]]) -> _Rows:
        failed = {photo.sha256: str(r) for (_, photo), r in decoded if isinstance(r, PhotoError)}
        good = [(key, r) for (key, _), r in decoded if not isinstance(r, PhotoError)]
        rows = rows_of(self.taps, self.engines, np.stack([r for _, r in good])) if good else []
        return _Rows(failed, [key for key, _ in good], rows)

    def _load(self, key: Key, photo: Photo) -> Pixels | PhotoError:
        decoded = self.head_start.take(photo, self.transform) if self.head_start and key.view == 0 else None
        if decoded is not None:
            return decoded
        return pixels(self.root / photo.path, self.transform, View(key.seed, key.view))


@dataclass(frozen=True)
class _Rows:
    """The rows of a few photos."""

    bad: dict[str, str]
    """Photos that could not be decoded: {sha256: reason}."""
    keys: list[Key]
    """Of the other photos, in the order of their rows."""
    rows: list[Arrays]
    """``rows[i][t]``: tensor t of the i-th tap, (N, ...), in its stored number format."""


def rows_of(taps: Sequence[Tap], runs: Sequence[tuple[Engine, list[Tap]]], photos: Pixels) -> list[Arrays]:
    """The rows of these photos (N, H, W, 3) in every tap."""
    found: dict[int, Arrays] = {id(t): [photos] for t in taps if t.line == 0}
    for engine, group in runs:
        outputs = iter(engine.run([photos]))
        for t in group:
            found[id(t)] = t.store.stored(list(islice(outputs, len(t.store.shapes))))
    return [found[id(t)] for t in taps]


def engines(taps: Sequence[Tap], runtime: Runtime) -> list[tuple[Engine, list[Tap]]]:
    """The engines that fill these taps: for each backbone one engine with an output for each of its lines, where that
    changes no bit.

    A row must equal what an engine of its line alone gives: it must not depend on which other lines are filled at the
    same time, and a bundle runs its own line alone. But an output in the middle of a network can keep a compiler from
    fusing the layers around it, and then the last bits differ. So one pass for several lines is tried on random images
    first. Lines whose rows come out otherwise get an engine of their own.
    """
    groups: dict[int, list[Tap]] = {}
    for t in taps:
        if t.line > 0:
            groups.setdefault(id(t.backbone), []).append(t)
    engines = []
    for group in groups.values():
        alone = [(_compiled([t], runtime), [t]) for t in group]
        together = group
        while len(together) > 1:
            engine = _compiled(together, runtime)
            same = _unchanged(engine, together, [e for e, (t,) in alone if t in together])
            if len(same) == len(together):
                engines.append((engine, together))
                break
            together = same
        else:
            together = []
        engines += [(engine, owners) for engine, owners in alone if owners[0] not in together]
    return engines


class KeptEngines:
    """Engines that are compiled once for all passes over photos, until `clear`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, ...], tuple[Sequence[Tap], list[tuple[Engine, list[Tap]]]]] = {}

    def engines(self, taps: Sequence[Tap], runtime: Runtime) -> list[tuple[Engine, list[Tap]]]:
        """As `engines`."""
        key = tuple(map(id, taps))
        if key not in self._kept:
            self._kept[key] = (taps, engines(taps, runtime))  # the taps too: as long as they live, none has their id
        return self._kept[key][1]

    def clear(self) -> None:
        """Forget them: they hold a copy of the weights each."""
        self._kept.clear()


def _compiled(taps: Sequence[Tap], runtime: Runtime) -> Engine:
    network = freeze_line.taps(taps[0].backbone.traced, [t.line for t in taps])
    return compiled(network, [taps[0].backbone.example()], runtime, half=True, folder=cache_dir() / "engines")


def _unchanged(together: Engine, taps: Sequence[Tap], alone: Sequence[Engine]) -> list[Tap]:
    """The taps for which one engine for all gives, bit for bit, the rows of an engine of their own."""
    if isinstance(together, TorchEngine):  # runs layer by layer, whatever its outputs are
        return list(taps)
    size = taps[0].backbone.transform.size
    noise = np.random.default_rng(0).integers(0, 256, (2, size, size, 3), np.uint8)
    outputs = iter(together.run([noise]))
    same = []
    for t, engine in zip(taps, alone, strict=True):
        got = list(islice(outputs, len(t.store.shapes)))
        if all(np.array_equal(a, b) for a, b in zip(got, engine.run([noise]), strict=True)):
            same.append(t)
    return same
