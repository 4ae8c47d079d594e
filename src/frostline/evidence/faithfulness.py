"""Whether a heat map tells the truth: what becomes of the answer when the places it names are taken away, or shown
alone.

Deletion and insertion (Petsiuk, Das and Saenko, RISE, BMVC 2018, arXiv:1806.07421). Deletion: the hottest parts of
the photo are painted over with its mean colour, a share at a time; the probability of the class falls early if the
map names what the model looked at, so a small area under that curve is good. Insertion: a blurred photo is sharpened
from the hottest part on; a large area is good. The same with the map's own values in random places says what any map
of that coarseness would get; the difference is what the map knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from frostline.bundles.bundle import Bundle
from frostline.parallel import ahead
from frostline.photos.decoding import Pixels

STEPS = 6
"""Equal shares of the photo that are taken away one after the other."""
RESAMPLES = 4000


class Areas(NamedTuple):
    """Areas under one photo's curves, probability from 0 to 1."""

    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float


def areas(
    model: Bundle, photos: Pixels, classes: Sequence[int], maps: npt.NDArray[np.float32], seed: int
) -> list[Areas]:
    """Deletion and insertion of each photo, in the model as it ships. Costs 4 * `STEPS` - 1 runs of the model a photo.

    Parameters
    ----------
    photos
        (N, H, W, 3) uint8, prepared as the network sees them.
    classes
        N class indices: the class that each map is of.
    maps
        (N, h, w).
    seed
        Decides the random places.
    """

    def work(i: int) -> Areas:
        shuffled = np.random.default_rng((seed, i)).permutation(maps[i].ravel()).reshape(maps[i].shape)
        return _areas(model, photos[i], classes[i], maps[i], shuffled)

    return [found for _, found in ahead(work, range(len(photos)), depth=8)]


def _areas(model: Bundle, photo: Pixels, wanted: int, heat: np.ndarray, shuffled: np.ndarray) -> Areas:
    """The four curves of one photo. Their ends are shared: the whole photo, and nothing but its colour or its blur."""
    plain = np.broadcast_to(photo.mean((0, 1)).round().astype(np.uint8), photo.shape)
    radius = photo.shape[0] / 12
    blurred = np.asarray(Image.fromarray(photo).filter(ImageFilter.GaussianBlur(radius)))
    orders = [_order(values, photo.shape[0]) for values in (heat, shuffled)]
    curves = [(order, base) for order in orders for base in (plain, blurred)]
    shares = np.arange(1, STEPS) / STEPS
    pictures = [photo, plain, blurred]
    for order, base in curves:
        pictures += [_mixed(photo, base, order < share, hottest_gone=base is plain) for share in shares]
    found = model.probabilities(np.stack(pictures))[:, wanted]
    whole, no_colour, no_blur = found[:3]
    inner = found[3:].reshape(4, STEPS - 1)
    deletion, random_deletion = (np.trapezoid([whole, *inner[i], no_colour]) / STEPS for i in (0, 2))
    insertion, random_insertion = (np.trapezoid([no_blur, *inner[i], whole]) / STEPS for i in (1, 3))
    return Areas(float(deletion), float(insertion), float(random_deletion), float(random_insertion))


def _order(values: np.ndarray, side: int) -> npt.NDArray[np.float64]:
    """Each pixel's place in the order from hottest (0) to coldest (1), (side, side)."""
    fine = np.asarray(Image.fromarray(values.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
    places = np.empty(side * side)
    places[np.argsort(-fine.ravel(), kind="stable")] = np.arange(side * side) / (side * side)
    return places.reshape(side, side)


def _mixed(photo: Pixels, base: Pixels, hottest: npt.NDArray[np.bool_], *, hottest_gone: bool) -> Pixels:
    """The photo with its hottest part replaced, or with nothing but that part."""
    return np.where((hottest == hottest_gone)[..., None], base, photo)


def summary(found: Sequence[Areas], seed: int) -> dict[str, Any]:
    """Means over photos, and by how much the maps beat random ones, with 95 % bootstrap intervals over photos."""
    table = np.array(found)  # (N, 4)
    means = dict(zip(Areas._fields, (round(float(m), 4) for m in table.mean(0)), strict=True))
    gains = {"deletion": table[:, 2] - table[:, 0], "insertion": table[:, 1] - table[:, 3]}
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(table), (RESAMPLES, len(table)))
    better = {name: round(float(values.mean()), 4) for name, values in gains.items()}
    intervals = {
        name: [round(float(x), 4) for x in np.quantile(values[draws].mean(1), (0.025, 0.975))]
        for name, values in gains.items()
    }
    return {**means, "photos": len(table), "steps": STEPS, "better_than_random": better, "ci": intervals}
