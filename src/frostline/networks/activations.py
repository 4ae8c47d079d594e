"""The activation cache: what the frozen prefix makes of each photo, computed once and kept on disk.

One *store* per line. Its name is a digest of everything that shapes its bytes (network, weights, line, transform, engine, number
format, versions), and inside it each row is named by the photo's own SHA-256 and view: strategies, runs and data sets share
rows whenever they agree, and a photo that was added costs one row. At line 0 the store holds the resized photos themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from frostline.config import EngineKind, StoredAs
from frostline.errors import PhotoError
from frostline.networks import freeze_line
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import TorchEngine, compiled
from frostline.networks.engine import Arrays, Engine, settle, signature
from frostline.parallel import ahead, groups
from frostline.photos.decoding import Pixels, Transform, View
from frostline.photos.head_start import HeadStart
from frostline.photos.loading import pixels
from frostline.photos.manifest import Manifest, Photo, Skip
from frostline.progress import Progress

Item = tuple["Key", Photo]


_VERSION = 4


_NAME_BYTES = 70  # a row's line in names.txt, about


_AHEAD = 32  # photos that may wait, and rows that are written at a time


@dataclass(frozen=True)
class Tap:
    """Where one strategy draws its training data: a backbone's tensors at a line, and the store that keeps them."""

    backbone: Backbone
    line: int
    store: Store


def tap(backbone: Backbone, line: int, kind: EngineKind, device: torch.device, stored_as: StoredAs) -> Tap:
    """Open (or start) the store of `backbone` cut at `line`."""
    cut = freeze_line.cut(backbone.traced, line)
    dtypes = [np.dtype(np.uint8) if d == torch.uint8 else np.dtype(stored_as) for d in cut.dtypes]
    frame = backbone.transform.frame()
    shaped_by: dict[str, object] = {
        "version": _VERSION,
        "size": frame.size,
        "resize": frame.resize,
        "pillow": PIL.__version__,
        "line": line,
    }
    # what came later joins only where it is not as it always was: stores that are filled keep their names
    later = {"interpolation": frame.interpolation, "crop_pct": frame.crop_pct}
    shaped_by |= {k: v for k, v in later.items() if v != getattr(Transform, k)}
    if line > 0:
        engine = settle(kind, cuda=device.type == "cuda")
        shaped_by |= {
            "weights": freeze_line.identity(cut.prefix),
            "prefix": cut.prefix.code,
            "engine": f"{signature(engine)}, from torch {torch.__version__}"
            + (device.type if engine == "torch" else ""),
            "stored_as": stored_as,
        }
        what = f"{backbone.name} at line {line} ({stored_as})"
    else:
        what = f"photos of {frame.size} x {frame.size} pixels ({frame.resize})"
    return Tap(backbone, line, open_store(shaped_by, cut.shapes, dtypes, what=what, backbone=backbone.name))


def fill(
    taps: Sequence[Tap],
    manifest: Manifest,
    *,
    indices: Sequence[int] | None = None,
    views: Sequence[int] = (0,),
    seed: int = 0,
    kind: EngineKind = "auto",
    device: torch.device | None = None,
    head_start: HeadStart | None = None,
    progress: Progress,
) -> list[Skip]:
    """Compute every row that `taps` miss, in one pass: each photo is read and decoded once, whatever the number of lines.

    Parameters
    ----------
    indices
        Which photos of the manifest; None = all.
    views
        Which views of each.
    head_start
        May have decoded some of them already.

    Returns
    -------
    list of Skip
        Photos that could not be decoded, each with the reason. Their rows are absent.

    Raises
    ------
    RunError
        No room for the rows on the disk, or below FROSTLINE_CACHE_LIMIT, found before the work starts where it can be.
    """
    device = device or torch.device("cpu")
    chosen = range(len(manifest.photos)) if indices is None else indices
    wanted = {Key.of(manifest.photos[i].sha256, v, seed): manifest.photos[i] for i in chosen for v in views}
    lacking = {id(t): set(t.store.missing(wanted)) for t in taps}
    _check_room(taps, [lacking[id(t)] for t in taps])
    bad: dict[str, str] = {}
    for transform, group in _by_transform(taps).items():
        missed = [lacking[id(t)] for t in group]
        todo = [(key, photo) for key, photo in wanted.items() if any(key in m for m in missed)]
        if todo:
            bad |= _pass(group, missed, todo, transform, manifest.root, kind, device, head_start, progress)
    return [
        Skip(manifest.photos[i].path, bad[manifest.photos[i].sha256])
        for i in chosen
        if manifest.photos[i].sha256 in bad
    ]


def _by_transform(taps: Sequence[Tap]) -> dict[Transform, list[Tap]]:
    """Taps that can share decoded photos; what the graph normalises with makes no difference to those."""
    groups: dict[Transform, list[Tap]] = {}
    for t in taps:
        groups.setdefault(t.backbone.transform.frame(), []).append(t)
    return groups


def _check_room(taps: Sequence[Tap], lacking: Sequence[set[Key]]) -> None:
    """Make room on the disk, and below the limit that the user set; stores that no process uses go first."""
    needed = sum(len(m) * (t.store.row_bytes + _NAME_BYTES) for m, t in zip(lacking, taps, strict=True))
    make_room(needed, [t.store.folder for t in taps], limit())


def _pass(
    taps: Sequence[Tap],
    lacking: Sequence[set[Key]],
    todo: Sequence[Item],
    transform: Transform,
    root: Path,
    kind: EngineKind,
    device: torch.device,
    head_start: HeadStart | None,
    progress: Progress,
) -> dict[str, str]:
    """Decode photos and run the engines on them, in threads; append the rows. Returns {sha256: reason} of photos that failed."""
    bad: dict[str, str] = {}
    busy = [t for t, m in zip(taps, lacking, strict=True) if m]
    runs = engines(busy, kind, device)
    for engine, _ in runs:
        engine.expect(len(todo))
    task = progress.task("Photos through the frozen layers" if runs else "Reading photos", len(todo))
    group = max((engine.batch for engine, _ in runs), default=1)

    def load(key: Key, photo: Photo) -> Pixels | PhotoError:
        decoded = head_start.take(photo, transform) if head_start and key.view == 0 else None
        return pixels(root / photo.path, transform, View(key.seed, key.view)) if decoded is None else decoded

    def work(items: Sequence[Item]) -> _Worked:
        loaded = [load(key, photo) for key, photo in items]
        failed = {p.sha256: str(r) for (_, p), r in zip(items, loaded, strict=True) if isinstance(r, PhotoError)}
        good = [(key, r) for (key, _), r in zip(items, loaded, strict=True) if not isinstance(r, PhotoError)]
        return _Worked(
            failed, [k for k, _ in good], rows_of(busy, runs, np.stack([r for _, r in good])) if good else []
        )

    if head_start:
        head_start.stop()
    waiting = ahead(work, groups(todo, group), depth=max(1, _AHEAD // group))
    while several := list(islice(waiting, max(1, _AHEAD // group))):
        for _, worked in several:
            bad |= worked.bad
        done = [worked for _, worked in several if worked.keys]
        keys = [key for worked in done for key in worked.keys]
        for place, t in enumerate(busy if keys else ()):
            pieces = zip(*(worked.rows[place] for worked in done), strict=True)
            t.store.append(keys, [np.concatenate(piece) for piece in pieces])
        task.advance(sum(len(items) for items, _ in several))
    return bad


@dataclass(frozen=True)
class _Worked:
    """What became of a few photos."""

    bad: dict[str, str]
    """sha256: reason."""
    keys: list[Key]
    """The rest, whose rows these are."""
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


def engines(taps: Sequence[Tap], kind: EngineKind, device: torch.device) -> list[tuple[Engine, list[Tap]]]:
    """The engines that fill these taps: for each backbone one with an output for each of its lines, as far as that changes no bit.

    A row is what an engine of its line alone gives: it must not depend on who else was asked, and a bundle runs its own line alone. But an
    output in the middle of a network can keep a compiler from fusing the layers around it, and then the last bits differ. So one pass
    for several lines is tried on a few pictures first; lines that don't come out the same have an engine to themselves.
    """
    groups: dict[int, list[Tap]] = {}
    for t in taps:
        if t.line > 0:
            groups.setdefault(id(t.backbone), []).append(t)
    engines = []
    for group in groups.values():
        alone = [(_compiled([t], kind, device), [t]) for t in group]
        together = group
        while len(together) > 1:
            engine = _compiled(together, kind, device)
            same = _unchanged(engine, together, [e for e, (t,) in alone if t in together])
            if len(same) == len(together):
                engines.append((engine, together))
                break
            together = same
        else:
            together = []
        engines += [(engine, owners) for engine, owners in alone if owners[0] not in together]
    return engines


def _compiled(taps: Sequence[Tap], kind: EngineKind, device: torch.device) -> Engine:
    network = freeze_line.taps(taps[0].backbone.traced, [t.line for t in taps])
    return compiled(network, [taps[0].backbone.example()], kind, device, half=True, folder=cache_dir() / "engines")


def _unchanged(together: Engine, taps: Sequence[Tap], alone: Sequence[Engine]) -> list[Tap]:
    """Those taps to which one engine for all gives, bit for bit, what an engine of their own gives."""
    if isinstance(together, TorchEngine):  # runs layer by layer, whoever listens
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
