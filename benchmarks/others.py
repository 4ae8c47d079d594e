"""Photos of other kinds than flowers, made from any folder of photos and by formula, to see that a recipe serves them
too.

    python benchmarks/others.py DATA OUT [--seed 0]                     # make the sets
    python benchmarks/others.py DATA OUT --measure [--seeds 3]          # and measure the presets on them

Each set SET has further photos in SET-test, which nobody trains on: up to 100 a class (a small set is too few to
measure on). `--measure` studies frozen and fine-tuned with each preset and leaves OUT/others.json; runs that are
finished are not run again.

- ``twenty``: 20 photos a class as they are.
- ``few``: 50 photos a class at 200 x 200 (shorter side scaled, the centre cut out).
- ``two``: the two classes that stand first by name, 200 photos each.
- ``unequal``: the first class whole, each further one half of the one before, at least 20 photos.
- ``grey``: 80 photos a class, grey, JPEG quality 60.
- ``textures``: eight classes of grey textures by formula (120 pictures each): noise of several grains, gratings,
checks, cells, weaves.
  Each picture has a scale, an angle, a contrast and a brightness of its own.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

import frostline
from frostline.files import write_json
from frostline.photos.scan import scan
from frostline.stats.intervals import mean_interval
from frostline.stats.predictions import read_predictions

Field = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
SIDE = 256


SETS = ("twenty", "few", "two", "unequal", "grey", "textures")
MOST_TESTED = 100  # a class


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--presets", default="fast,balanced,best")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--backbone", default="", help="default: the preset's own")
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    if not (arguments.out / "textures-test").exists():
        make(arguments.data, arguments.out, np.random.default_rng(arguments.seed))
    if arguments.measure:
        measure(
            arguments.out, arguments.sets.split(","), arguments.presets.split(","), arguments.backbone, arguments.seeds
        )


def make(data: Path, out: Path, rng: np.random.Generator) -> None:
    photos: dict[str, list[Path]] = {}
    seen: set[str] = set()
    for photo in scan(data).photos:
        if photo.sha256 not in seen:
            seen.add(photo.sha256)
            photos.setdefault(photo.label, []).append(data / photo.path)
    for paths in photos.values():
        rng.shuffle(paths)  # type: ignore[arg-type]
    first = sorted(photos)
    halves = {c: max(20, (len(photos[first[0]]) - MOST_TESTED) // 2**i) for i, c in enumerate(first)}
    write(out / "twenty", photos, dict.fromkeys(first, 20), plain)
    write(out / "few", photos, dict.fromkeys(first, 50), small)
    write(out / "two", photos, dict.fromkeys(first[:2], 200), plain)
    write(out / "unequal", photos, halves, plain)
    write(out / "grey", photos, dict.fromkeys(first, 80), grey)
    textures(out / "textures", rng, 120)
    textures(out / "textures-test", rng, MOST_TESTED)


# ---- the presets on them ---------------------------------------------------------------------------------------------


def measure(out: Path, sets: list[str], presets: list[str], backbone: str, seeds: int) -> None:
    """Mean accuracy over seeds, with the interval over the photos of SET-test (their share of right answers in the mean
    over seeds)."""
    rows = []
    for name in sets:
        for preset in presets:
            for row in studied(out, name, preset, backbone, seeds):
                rows.append(row)
                low, high = (100 * end for end in row["ci"])
                print(
                    f"{name:9} {preset:9} {row['strategy']:10} {100 * row['accuracy']:5.1f} % ({low:.1f} to "
                    f"{high:.1f}) {row['photos']} photos, {row['seconds']:.0f} s",
                    flush=True,
                )
            write_json(out / "others.json", rows)


def studied(out: Path, name: str, preset: str, backbone: str, seeds: int) -> list[dict[str, object]]:
    right: dict[str, list[list[bool]]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(seeds):
        config = frostline.configure(
            out / name, test=str(out / f"{name}-test"), strategies=["frozen", "fine-tuned"],
            preset=preset, backbone=backbone, seed=seed, explain=0, robustness="0",
        )  # fmt: skip
        backbone = config.strategies[0].backbone
        run = out / "runs" / f"{name}-{preset}-{backbone}-{seed}"
        frostline.study(config, run, existing="resume")
        for row in json.loads((run / "study.json").read_text(encoding="utf-8"))["strategies"]:
            said = sorted(read_predictions(run / row["name"] / "predictions.csv"), key=lambda p: p.path)
            right.setdefault(row["name"], []).append([p.true == p.predicted for p in said])
            seconds.setdefault(row["name"], []).append(row["seconds"]["total"])
    return [
        {
            "set": name, "preset": preset, "backbone": backbone, "strategy": strategy, "seeds": seeds,
            "accuracy": float(np.mean(hits)), "ci": list(mean_interval(np.mean(hits, axis=0))),
            "photos": len(hits[0]), "seconds": fmean(seconds[strategy]),
        }
        for strategy, hits in right.items()
    ]  # fmt: skip


# ---- from photos -----------------------------------------------------------------------------------------------------


def write(folder: Path, photos: dict[str, list[Path]], counts: dict[str, int], change: Callable[[Path], bytes]) -> None:
    """The first photos of each class to `folder`, up to `MOST_TESTED` of those after them to the folder beside it."""
    beside = folder.with_name(f"{folder.name}-test")
    for label, count in counts.items():
        for place, paths in (
            (folder, photos[label][:count]),
            (beside, photos[label][count : count + MOST_TESTED]),
        ):
            (place / label).mkdir(parents=True, exist_ok=True)
            for path in paths:
                (place / label / f"{path.stem}.jpg").write_bytes(change(path))
    print(folder, counts)


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


def textures(folder: Path, rng: np.random.Generator, count: int) -> None:
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
