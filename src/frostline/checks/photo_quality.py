"""Measures of a photo without a network: its size, light, sharpness, border, and what its file tells.

A photo is decoded once, at the size of a thumbnail, and its measures are kept in the cache by its SHA-256: about 2 ms a
photo and core the first time (320 x 240 JPEG), nothing after that.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL

from frostline.cache.store import Key, Store, open_store
from frostline.documents.check import Sizes
from frostline.errors import PhotoError
from frostline.parallel import ahead
from frostline.photos import decoding
from frostline.photos.loading import decoded
from frostline.photos.manifest import Manifest, Skip
from frostline.progress import Progress

SIDE = 224
"""Pixels of the longer side at which light and sharpness are measured; a smaller photo keeps its size."""

TINY = 64
"""Pixels: a shorter side below this holds too little for a network that sees 224."""

_VERSION = 3
_RING = 0.015  # of the shorter side: the outermost pixels, one at least
_TILES = 6  # a side: the photo is cut into so many, to find its sharpest place
_DARK, _BRIGHT = 48.0, 200.0  # luma that 95 % of the pixels stay below, or above
_EMPTY = 0.985  # share of the pixels that look like the median one
_SAME = 4  # luma within which a pixel looks like it
_SHARP = 0.012  # of the contrast's square; see `_sharpness`

Floats = npt.NDArray[np.float32]


class Measures(NamedTuple):
    """Measures of one photo, or (as columns) of many. Luma and colours run 0..255."""

    width: float
    """Of the upright photo, pixels."""
    height: float
    size: float
    """Of the file, kB."""
    format: float
    """Place in `FORMATS`."""
    camera: float
    """A number for maker and model as EXIF names them (see `images.Glance`); 0: none."""
    brightness: float
    """Mean luma."""
    low: float
    """Luma that 5 % of the pixels stay below."""
    high: float
    """Luma that 95 % stay below."""
    sharpness: float
    """Of the sharpest tile: the Laplacian's mean square over 20 times the luma's variance, so about 1 for noise."""
    same: float
    """Share of the pixels that look like the median one."""
    ring: float
    """Mean distance of the outermost pixels from their median colour: 0 = a border of one colour."""
    red: float
    """Median colour of the outermost pixels."""
    green: float
    blue: float


FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "HEIF", "AVIF")
COLUMNS = Measures._fields


@dataclass(frozen=True)
class Fault:
    """A photo that shows too little."""

    index: int
    kind: str
    confidence: float
    detail: str
    """What was measured, in words."""


def measure(data: bytes) -> Measures:
    """Measure one photo's file. Raises PhotoError for whatever is wrong with the bytes."""
    glance = decoding.glance(data, SIDE)
    grey = glance.small.convert("L")
    counts = np.array(grey.histogram())
    shares = counts.cumsum() / counts.sum()
    low, middle, high = (int(np.searchsorted(shares, share)) for share in (0.05, 0.5, 0.95))
    ring, (red, green, blue) = _ring(np.asarray(glance.small))
    return Measures(
        width=glance.width,
        height=glance.height,
        size=len(data) / 1000,
        format=FORMATS.index(glance.format) if glance.format in FORMATS else len(FORMATS),
        camera=zlib.crc32(glance.camera.encode()) & 0xFFFFFF if glance.camera else 0,  # 24 bits are exact in float32
        brightness=float(counts @ np.arange(256) / counts.sum()),
        low=low,
        high=high,
        sharpness=_sharpness(np.asarray(grey, np.float32)),
        same=float(counts[max(0, middle - _SAME) : middle + _SAME + 1].sum() / counts.sum()),
        ring=ring,
        red=red,
        green=green,
        blue=blue,
    )


def _ring(rgb: decoding.Pixels) -> tuple[float, list[float]]:
    """How far the outermost pixels are from one colour, and which that is. rgb: (H, W, 3)."""
    wide = max(1, round(_RING * min(rgb.shape[:2])))
    sides = (rgb[:wide], rgb[-wide:], rgb[:, :wide], rgb[:, -wide:])
    outer = np.concatenate([side.reshape(-1, 3) for side in sides])
    colour = np.median(outer, axis=0)
    return float(np.abs(outer - colour).mean()), colour.tolist()


def _sharpness(luma: Floats) -> float:
    """Strength of the finest detail in the sharpest tile. luma: (H, W).

    Not the measure of that name in `evidence.error_causes`: there the whole photo counts, and its contrast too, as
    photos are compared with one another. Here a fixed limit says that a photo is blurred, whatever its background and
    contrast.
    """
    if min(luma.shape) < 3 * _TILES:
        return 1.0  # too small to tell
    fine = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    high, wide = (side // _TILES for side in fine.shape)
    tiles = fine[: high * _TILES, : wide * _TILES].reshape(_TILES, high, _TILES, wide)
    energy = (tiles**2).mean((1, 3))
    inner = luma[1:-1, 1:-1][: high * _TILES, : wide * _TILES].reshape(_TILES, high, _TILES, wide)
    spread = inner.var((1, 3))
    return float((energy / (20 * spread + 20 * 16.0)).max())


# ---- all photos of a data set ----------------------------------------------------------------------------------------


def survey(manifest: Manifest, progress: Progress) -> tuple[Floats, list[Skip]]:
    """Measure every photo: (N, len(COLUMNS)) in manifest order, NaN where a photo can't be decoded; and those photos.

    Raises RunError when there is no room for the measures in the cache.
    """
    store = _store()
    keys = [Key.of(photo.sha256, 0, 0) for photo in manifest.photos]
    lacking = set(store.missing(keys))
    todo = list({key: photo for key, photo in zip(keys, manifest.photos, strict=True) if key in lacking}.items())
    task = progress.task("Measuring light, sharpness and files", len(todo)) if todo else None
    bad: dict[Key, str] = {}
    rows: list[tuple[Key, Measures]] = []

    def keep() -> None:
        if rows:
            store.append([key for key, _ in rows], [np.array([row for _, row in rows], np.float32)])
            rows.clear()

    for (key, _), found in ahead(lambda item: decoded(manifest.root / item[1].path, measure), todo, depth=64):
        if isinstance(found, PhotoError):
            bad[key] = str(found)
        else:
            rows.append((key, found))
        if len(rows) == 256:
            keep()
        if task:
            task.advance(1)
    keep()
    table = np.full((len(keys), len(COLUMNS)), np.nan, np.float32)
    good = [i for i, key in enumerate(keys) if key not in bad]
    if good:
        table[good] = store.read([keys[i] for i in good])[0]
    skipped = [Skip(p.path, bad[k]) for p, k in zip(manifest.photos, keys, strict=True) if k in bad]
    return table, skipped


def _store() -> Store:
    shaped_by = {"version": _VERSION, "measures": list(COLUMNS), "pillow": PIL.__version__}
    what = "light, sharpness and files of photos, for check"
    return open_store(shaped_by, [(len(COLUMNS),)], [np.dtype(np.float32)], what=what)


# ---- what is wrong with them -----------------------------------------------------------------------------------------


def faults(table: Floats) -> list[Fault]:
    """Photos that show too little (nearly empty, tiny, dark, over-bright or blurred), in table order, once each."""
    of = {name: table[:, i] for i, name in enumerate(COLUMNS)}
    side = np.minimum(of["width"], of["height"])
    checks = (  # kind, how far past its limit each photo is (above 0 is a fault, 1 is beyond doubt), what was measured
        ("empty", (of["same"] - _EMPTY) / (1 - _EMPTY), "{same:.1%} of it is of one brightness"),
        ("tiny", 1 - side / TINY, "{width:.0f} x {height:.0f} pixels"),
        ("dark", 1 - of["high"] / _DARK, "95 % of it is darker than {high:.0f} of 255"),
        ("bright", (of["low"] - _BRIGHT) / (255 - _BRIGHT), "95 % of it is brighter than {low:.0f} of 255"),
        ("blurred", 1 - of["sharpness"] / _SHARP, "no sharp edge: detail {sharpness:.4f}, usual is 0.05 to 0.5"),
    )
    found: dict[int, Fault] = {}
    for kind, past, detail in checks:
        for i in np.flatnonzero(past > 0).tolist():
            measures = dict(zip(COLUMNS, table[i].tolist(), strict=True))
            confidence = round(min(1.0, 0.5 + float(past[i])), 3)
            found.setdefault(i, Fault(i, kind, confidence, detail.format(**measures)))
    return [found[i] for i in sorted(found)]


def formats(table: Floats) -> dict[str, int]:
    """Photos of each file format, the commonest first."""
    places = table[:, COLUMNS.index("format")]
    names = [*FORMATS, "other"]
    counts = {names[int(place)]: int((places == place).sum()) for place in np.unique(places)}
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def sizes(table: Floats) -> Sizes:
    """Width and height of the smallest, the middle and the largest photo, by area."""
    wide, high = (table[:, COLUMNS.index(name)] for name in ("width", "height"))
    order = np.argsort(wide * high, kind="stable")
    smallest, middle, largest = ([int(wide[i]), int(high[i])] for i in order[[0, len(order) // 2, -1]])
    return {"smallest": smallest, "middle": middle, "largest": largest}
