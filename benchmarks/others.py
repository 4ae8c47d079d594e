"""Photos of other kinds than flowers, made from any folder of photos and by formula, to see that a recipe serves them too.

    python benchmarks/others.py DATA OUT [--seed 0]

- ``few``: 50 photos a class at 200 x 200 (shorter side scaled, the centre cut out).
- ``two``: the two classes that stand first by name, 200 photos each.
- ``unequal``: the first class whole, each further one half of the one before, at least 20 photos.
- ``grey``: 80 photos a class, grey, JPEG quality 60.
- ``textures``: eight classes of grey textures by formula (120 pictures each): noise of several grains, gratings, checks, cells, weaves.
  Each picture has a scale, an angle, a contrast and a brightness of its own.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

from frostline.manifest import scan

Field = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    photos: dict[str, list[Path]] = {}
    seen: set[str] = set()
    for photo in scan(arguments.data).photos:
        if photo.sha256 not in seen:
            seen.add(photo.sha256)
            photos.setdefault(photo.label, []).append(arguments.data / photo.path)
    for paths in photos.values():
        rng.shuffle(paths)  # type: ignore[arg-type]
    first = sorted(photos)
    write(arguments.out / "few", {c: photos[c][:50] for c in first}, small)
    write(arguments.out / "two", {c: photos[c][:200] for c in first[:2]}, plain)
    counts = {c: max(20, len(photos[first[0]]) // 2**i) for i, c in enumerate(first)}
    write(arguments.out / "unequal", {c: photos[c][:n] for c, n in counts.items()}, plain)
    write(arguments.out / "grey", {c: photos[c][:80] for c in first}, grey)
    textures(arguments.out / "textures", rng)


# ---- from photos -----------------------------------------------------------------------------------------------------


def write(folder: Path, classes: dict[str, list[Path]], change: Callable[[Path], bytes]) -> None:
    for label, paths in classes.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for path in paths:
            (folder / label / f"{path.stem}.jpg").write_bytes(change(path))
    print(folder, {label: len(paths) for label, paths in classes.items()})


def plain(path: Path) -> bytes:
    return path.read_bytes()


def small(path: Path) -> bytes:
    return jpeg(ImageOps.fit(Image.open(path).convert("RGB"), (200, 200)), 85)


def grey(path: Path) -> bytes:
    return jpeg(Image.open(path).convert("L"), 60)


def jpeg(image: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


# ---- by formula ------------------------------------------------------------------------------------------------------


def grain(low: float, high: float) -> Field:
    """Noise of one grain: white noise between two blurs."""

    def field(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:  # noqa: ARG001
        noise, scale = rng.normal(size=x.shape), rng.uniform(0.85, 1.18)
        return np.asarray(ndimage.gaussian_filter(noise, low * scale) - ndimage.gaussian_filter(noise, high * scale))

    return field


def grating(square: bool) -> Field:
    def field(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        period, bend = rng.uniform(14, 30), ndimage.gaussian_filter(rng.normal(size=x.shape), 20) * 60
        wave = np.sin(2 * np.pi * (x + bend) / period)
        return np.sign(wave) + 0.2 * np.sin(y / 9) if square else wave

    return field


def checks(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    period = rng.uniform(18, 40)
    return np.asarray(np.sign(np.sin(2 * np.pi * x / period) * np.sin(2 * np.pi * y / period)))


def cells(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Distance to the nearest of some points, as in leather or dried mud."""
    points = np.zeros(x.shape, bool)
    count = int(rng.integers(80, 200))
    points[rng.integers(0, SIDE, count), rng.integers(0, SIDE, count)] = True
    return np.asarray(ndimage.distance_transform_edt(~points)) + 0 * y


def weave(rng: np.random.Generator, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    period = rng.uniform(16, 32)
    over = np.sin(2 * np.pi * x / period) > np.sin(2 * np.pi * y / period)
    return np.where(over, np.abs(np.sin(np.pi * x / period)), np.abs(np.sin(np.pi * y / period)))


FIELDS: dict[str, Field] = {
    "cells": cells,
    "checks": checks,
    "grain_coarse": grain(4, 8),
    "grain_fine": grain(1.0, 2),
    "grain_middle": grain(2.2, 4.4),
    "stripes_soft": grating(square=False),
    "stripes_sharp": grating(square=True),
    "weave": weave,
}


def textures(folder: Path, rng: np.random.Generator, count: int = 120) -> None:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE].astype(float)
    for label, field in FIELDS.items():
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            turn = rng.uniform(0, np.pi)
            x, y = columns * np.cos(turn) + rows * np.sin(turn), rows * np.cos(turn) - columns * np.sin(turn)
            values = field(rng, x, y)
            values = (values - values.mean()) / (values.std() + 1e-9) + rng.normal(size=values.shape) * rng.uniform(
                0.4, 1.6
            )
            picture = np.clip(rng.uniform(90, 160) + rng.uniform(12, 40) * values, 0, 255).astype(np.uint8)
            (folder / label / f"{number:03d}.jpg").write_bytes(jpeg(Image.fromarray(picture), 75))
    print(folder, dict.fromkeys(FIELDS, count))


if __name__ == "__main__":
    main()
