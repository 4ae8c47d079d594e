"""Error causes: what wrongly classified photos have in common. Each reported photo is measured; wrong ones against
correct ones.

Corruptions (`frostline.evidence.robustness`) show what would cause errors; this shows what goes with the errors that
were made. A difference does not prove a cause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from frostline.cache.store import Key
from frostline.documents.study import ErrorCause
from frostline.files import write_csv
from frostline.parallel import ahead, groups
from frostline.photos.decoding import Pixels, Transform
from frostline.photos.loading import pixels
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.stats import intervals
from frostline.stats.clusters import Clusters
from frostline.stats.predictions import Prediction
from frostline.stats.ranks import RankEffect, compare_ranks
from frostline.training.prepare import Prepared

Floats = npt.NDArray[np.float64]

FILE = "photo_measures.csv"
SIDE = 224
"""Photos are measured at this size, so that sharpness means the same for all."""

NOTHING = "no difference shown"
_SHARE = 0.1
"""Of the 5 % of reports that may say something false, the causes get so much: the comparisons of strategies come first
(benchmarks/simulated/null.py)."""

MEASURES: dict[str, tuple[str, str, str]] = {
    # name: (what it is, which of the tutorial's causes it stands for, which way that would go: "low", "high" or
    # neither)
    "brightness": ("mean grey value, 0 to 1", "", ""),
    "extreme lighting": ("distance of the brightness from the middle one of all photos", "lighting", "high"),
    "contrast": ("standard deviation of grey values", "lighting", "low"),
    "colour cast": ("distance of the mean colour from grey", "lighting", "high"),
    "saturation": ("mean colourfulness, 0 to 1", "", ""),
    "sharpness": ("logarithm of the variance of the Laplacian", "blur", "low"),
    "subject size": ("share of the photo that the network looks at", "occlusion", "low"),
    "off centre": ("distance of what it looks at from the middle, in half sides", "viewing angle", "high"),
    "resolution": ("megapixels of the file", "", ""),
}


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(prepared: Prepared, progress: Progress) -> dict[str, Floats]:
    """Each reported photo's measures, (N,) each, in the order of `Prepared.reported`; NaN where there is none."""
    photos = prepared.reported()
    root = (prepared.others or prepared.photos).root
    task = progress.task("Measuring the reported photos", len(photos))
    rows: list[dict[str, float]] = []
    for _, row in ahead(lambda photo: _of_file(root / photo.path), photos, depth=32):
        rows.append(row)
        task.advance(1)
    task.finish()
    found = {name: np.array([row.get(name, np.nan) for row in rows]) for name in MEASURES}
    found["extreme lighting"] = np.abs(found["brightness"] - np.nanmedian(found["brightness"]))
    size, off = _subjects(prepared, photos)
    return {**found, "subject size": size, "off centre": off}


def _of_file(path: Path) -> dict[str, float]:
    photo = pixels(path, Transform(SIDE))
    if not isinstance(photo, np.ndarray):
        return {}
    return {**of_pixels(photo), "resolution": _megapixels(path)}


def of_pixels(photo: Pixels) -> dict[str, float]:
    """Brightness, contrast, colour cast, saturation and sharpness of a photo (H, W, 3)."""
    rgb = photo.astype(np.float32) / 255
    grey = rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    mean = rgb.mean((0, 1))
    top, low = rgb.max(2), rgb.min(2)
    return {
        "brightness": float(grey.mean()),
        "contrast": float(grey.std()),
        "colour cast": float(np.abs(mean - mean.mean()).max()),
        "saturation": float(np.divide(top - low, top, out=np.zeros_like(top), where=top > 0).mean()),
        "sharpness": float(np.log10(ndimage.laplace(grey).var() + 1e-8)),
    }


def _megapixels(path: Path) -> float:
    try:
        with Image.open(path) as image:  # the header alone
            return image.width * image.height / 1e6
    except (OSError, ValueError, Image.DecompressionBombError):
        return float("nan")


def _subjects(prepared: Prepared, photos: Sequence[Photo]) -> tuple[Floats, Floats]:
    """Size and distance from the middle of what the network looks at in each photo, from the activations that the
    cache has.

    The mask is that of SCDA (Wei et al., IEEE Transactions on Image Processing, 2017): where the sum of a late
    layer's activations is above its mean, the largest connected piece. NaN where no line of the run has maps.
    """
    none = np.full(len(photos), np.nan)
    maps = [
        t for t in prepared.taps.values() if t.line and len(t.store.shapes[0]) == 3 and min(t.store.shapes[0][1:]) >= 4
    ]
    if not maps:
        return none, none
    store = max(maps, key=lambda t: t.line).store
    read = (store.read([Key.of(p.sha256, 0, prepared.config.seed) for p in group])[0] for group in groups(photos, 32))
    found = [subject(np.maximum(one.astype(np.float32), 0).sum(0)) for some in read for one in some]
    size, off = np.array(found).T
    return size, off


def subject(energy: npt.NDArray[np.float32]) -> tuple[float, float]:
    """(share of the area, distance from the middle in half sides) of the largest piece of a map (h, w) that is above
    its mean.
    """
    pieces, count = ndimage.label(energy > energy.mean())
    if not count:
        return 1.0, 0.0
    largest = 1 + int(np.argmax(np.bincount(pieces.ravel())[1:]))
    mask = pieces == largest
    down, across = (np.arange(side) + 0.5 - side / 2 for side in energy.shape)
    y, x = np.nonzero(mask)
    return float(mask.mean()), float(np.hypot(down[y].mean() / (len(down) / 2), across[x].mean() / (len(across) / 2)))


def write(path: Path, photos: Sequence[Photo], found: Mapping[str, Floats]) -> None:
    """photo_measures.csv: a row for each reported photo; empty where a photo has no such measure."""

    def cells(i: int) -> list[str]:
        return ["" if np.isnan(values[i]) else f"{values[i]:.6f}" for values in found.values()]

    columns = ["path", "class", *(name.replace(" ", "_") for name in found)]
    write_csv(path, columns, ([photo.path, photo.label, *cells(i)] for i, photo in enumerate(photos)))


# ---- testing ---------------------------------------------------------------------------------------------------------


def tested(
    found: Mapping[str, Floats], predictions: Mapping[str, Sequence[Prediction]], clusters: Clusters | None = None
) -> dict[str, list[ErrorCause]]:
    """By strategy: wrong photos against correct ones, measure by measure (`ranks.compare_ranks`).

    The p values of all strategies and measures are corrected together (Holm), and so that without any cause one is
    found in at most 0.5 % of all reports. `found` and `clusters` are of the photos that `predictions` are of, in their
    order.
    """
    rows = {name: _rows(found, own, clusters) for name, own in predictions.items()}
    every = [row for own in rows.values() for row in own]
    for row, p in zip(every, intervals.holm([row["p_value"] for row in every]), strict=True):
        row["p_corrected"] = p = min(1.0, p / _SHARE)
        row["verdict"] = _verdict(row) if p < 0.05 else NOTHING
    return rows


def _rows(
    found: Mapping[str, Floats], predictions: Sequence[Prediction], clusters: Clusters | None
) -> list[ErrorCause]:
    wrong = np.array([not p.correct for p in predictions])
    rows = []
    for name, values in found.items():
        known = np.isfinite(values)
        if (wrong & known).sum() < 2 or (~wrong & known).sum() < 2:
            continue
        tested_on = None if clusters is None else clusters[known]
        rows.append(_row(name, values[known], wrong[known], compare_ranks(values[known], wrong[known], tested_on)))
    return rows


def _row(name: str, values: Floats, wrong: npt.NDArray[np.bool_], found: RankEffect) -> ErrorCause:
    what, blamed, way = MEASURES[name]
    return {
        "measure": name,
        "what": what,
        "blamed": blamed,
        "wrong": int(wrong.sum()),
        "right": int((~wrong).sum()),
        "wrong_median": float(np.median(values[wrong])),
        "right_median": float(np.median(values[~wrong])),
        "effect": found.effect,
        "effect_ci": found.ci,
        "expected": (way == "high" and found.effect > 0) or (way == "low" and found.effect < 0),
        "p_value": found.p_value,
        "p_corrected": found.p_value,
        "verdict": NOTHING,
    }


def _verdict(row: ErrorCause) -> str:
    size = abs(row["effect"])
    much = "much " if size >= 0.474 else "somewhat " if size >= 0.33 else "a little "
    return f"wrong photos have {much}{'more' if row['effect'] > 0 else 'less'} {row['measure']}"
