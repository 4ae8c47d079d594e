"""Whether two small grey pictures show the same photo: they are aligned, then their detail is compared place by place.

`align` finds the box of one picture that fits the other best (Gauss-Newton over the box's four edges, from coarse to
fine, blind to brightness and contrast: Lucas and Kanade 1981, in the inverse order of Baker and Matthews 2004 made
simple by boxes being separable). `agreement` then correlates what is left without the coarse forms, block by block, and
takes the mean over the blocks that have any detail. Look-alikes (two seed heads on dark ground, two pictures in the
same frame) agree in their outline alone, which is a few blocks; near-duplicates agree nearly everywhere. Near-uniform
pictures have no blocks to agree in.

All take many pairs at once: pictures are float32 (P, S, S) in grey levels, boxes (P, 4) as left, right, top, bottom in
fractions.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

SIDE = 64
"""Side of the pictures compared."""

_BLOCK = 8  # pixels; detail is correlated in blocks of this side
_FINE = 1.5  # pixels; what a Gaussian of this width leaves over is detail
_NOISE = 4.0  # grey levels of detail that JPEG at quality 40 and a change of size can make by themselves
_STEP = 0.08  # the furthest that an edge moves at once
_LEAST_OVERLAP = 0.5  # of the picture


def align(moved: Floats, fixed: Floats, boxes: Floats, side: int, steps: int) -> tuple[Floats, Floats]:
    """The boxes of `moved` that show what `fixed` shows, starting from `boxes`, and the correlation (P,) in each.

    Works at side x side pixels. A box may stick out of `moved`: then the pictures overlap in part.
    """
    a, b = _pooled(moved, side), _pooled(fixed, side)
    across = ((np.arange(side) + 0.5) / side).astype(np.float32)
    box = boxes.astype(np.float32)
    best, kept = np.full(len(box), -2, np.float32), box.copy()
    for step in range(steps + 1):
        shown, inside = _cut(a, box)
        x, y = _standard(shown, inside), _standard(b, inside)
        share = inside.mean((1, 2))
        fit = np.where(share < _LEAST_OVERLAP, -2, (x * y).mean((1, 2)) / np.maximum(share, 1e-6))
        better = fit > best
        best, kept = np.where(better, fit, best), np.where(better[:, None], box, kept)
        if step < steps:
            box = _sound(box + _update(x, y, inside, box, across), kept)
    return kept, best.astype(np.float32)


def agreement(
    moved: Floats, fixed: Floats, boxes: Floats, common: tuple[Floats, Floats] | None = None
) -> tuple[Floats, Floats]:
    """How far the detail agrees, 0 (or less) to 1, and in what share of the picture there is any; both (P,).

    Parameters
    ----------
    common
        Detail that all photos of a set have (the same background), for `moved` and for `fixed`: left out of the
        comparison.
    """
    here, there = detail(moved), detail(fixed)
    if common is not None:
        here, there = _without(here, common[0]), _without(there, common[1])
    here, inside = _cut(here, boxes)
    x, y = here * inside, there * inside
    x, y = _evened(x, y)
    n = _blocks(inside)
    xx, yy, xy = (_blocks(v) / np.maximum(n, 1) for v in (x * x, y * y, x * y))
    strength = np.sqrt(np.maximum(xx, yy))
    weight = np.where((n > 0.6 * _BLOCK**2) & (strength > _NOISE / 2), strength / (strength + _NOISE), 0)
    correlation = xy / np.sqrt((xx + 1e-6) * (yy + 1e-6))
    total = weight.sum((1, 2))
    covered = (weight > 1 / 3).sum((1, 2)) / np.maximum((n > 0.6 * _BLOCK**2).sum((1, 2)), 1)
    return ((correlation * weight).sum((1, 2)) / np.maximum(total, 1e-6)).astype(np.float32), covered.astype(np.float32)


def agreement_at(moved: Floats, fixed: Floats, boxes: Floats, side: int) -> Floats:
    """Correlation (P,) of the detail over the whole picture, at side x side pixels: a quick first look."""
    shown, inside = _cut(_pooled(moved, side), boxes)
    x, y = (_standard(detail(v), inside) for v in (shown, _pooled(fixed, side)))
    return np.asarray((x * y).sum((1, 2)) / np.maximum(inside.sum((1, 2)), 1), dtype=np.float32)


def repetition(pictures: Floats) -> Floats:
    """How well pictures agree with themselves when moved by over 5 pixels, 0 to 1 (P,): high for stripes and weaves."""
    spectrum = np.fft.rfft2(detail(pictures))
    same = np.fft.irfft2(np.abs(spectrum) ** 2)
    side = pictures.shape[1]
    away = np.minimum(np.arange(side), side - np.arange(side))
    far = (away[:, None] ** 2 + away**2) > 25
    return np.asarray(same[:, far].max(1) / np.maximum(same[:, 0, 0], 1e-6), dtype=np.float32)


def detail(pictures: Floats) -> Floats:
    """Pictures without their coarse forms."""
    smooth = _smoothing(pictures.shape[1])
    return np.asarray(pictures - smooth @ pictures @ smooth.T, dtype=np.float32)


@cache
def _smoothing(side: int) -> Floats:
    """A column's Gaussian filter as a matrix (side, side): five times as fast as SciPy's for pictures this small."""
    from scipy.ndimage import gaussian_filter1d  # 0.2 s, for those who look for near-duplicates

    return np.asarray(gaussian_filter1d(np.eye(side, dtype=np.float32), _FINE, axis=0, mode="nearest", truncate=3))


def area_means(side: int, low: float, high: float, count: int) -> Floats:
    """Matrix (count, side) that averages the pixels from low to high (fractions of `side`) into `count` equal cells."""
    edges = side * (low + (high - low) * np.arange(count + 1) / count)
    pixels = np.arange(side)
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    shares = np.clip(shares, 0, None)
    return np.asarray(shares / shares.sum(1, keepdims=True), dtype=np.float32)


def _pooled(pictures: Floats, side: int) -> Floats:
    factor = pictures.shape[1] // side
    cells = pictures.reshape(len(pictures), side, factor, side, factor)
    return np.asarray(cells.mean((2, 4)), dtype=np.float32) if factor > 1 else pictures


def _cut(pictures: Floats, boxes: Floats) -> tuple[Floats, Floats]:
    """What the boxes show, at the pictures' size, and 1 where that is inside the picture. Separable: two products."""
    across, inside_across = _samples(boxes[:, 0], boxes[:, 1], pictures.shape[2])
    down, inside_down = _samples(boxes[:, 2], boxes[:, 3], pictures.shape[1])
    inside = inside_down[:, :, None] * inside_across[:, None, :]
    return np.asarray(down @ pictures @ across.transpose(0, 2, 1), dtype=np.float32), inside


def _samples(low: Floats, high: Floats, side: int) -> tuple[Floats, Floats]:
    """Matrices (P, side, side) of linear interpolation at `side` cells' middles from low to high; 1 where inside."""
    at = (np.arange(side, dtype=np.float32) + 0.5) / side
    place = (low[:, None] + (high - low)[:, None] * at) * side - 0.5
    near = np.clip(place, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(near[:, :, None] - np.arange(side, dtype=np.float32)))
    return weights.astype(np.float32), ((place > -0.51) & (place < side - 0.49)).astype(np.float32)


def _standard(pictures: Floats, inside: Floats) -> Floats:
    """Mean 0 and spread 1 inside, 0 outside."""
    count = np.maximum(inside.sum((1, 2), keepdims=True), 1)
    centred = (pictures - (pictures * inside).sum((1, 2), keepdims=True) / count) * inside
    spread = np.sqrt((centred * centred).sum((1, 2), keepdims=True) / count)
    return np.asarray(centred / np.maximum(spread, 1e-3), dtype=np.float32)


def _update(x: Floats, y: Floats, inside: Floats, box: Floats, across: Floats) -> Floats:
    """The move (P, 4) of the edges that brings the shown `x` nearest to `y` where pictures are linear."""
    width, height = (box[:, 1] - box[:, 0])[:, None, None], (box[:, 3] - box[:, 2])[:, None, None]
    right, down = np.zeros_like(x), np.zeros_like(x)
    side = len(across)
    right[:, :, 1:-1] = (x[:, :, 2:] - x[:, :, :-2]) * (side / 2)
    down[:, 1:-1] = (x[:, 2:] - x[:, :-2]) * (side / 2)
    right, down = right * inside / width, down * inside / height
    u, v = across, across[:, None]
    slopes = np.stack([right * (1 - u), right * u, down * (1 - v), down * v], 1).reshape(len(x), 4, -1)
    slopes -= slopes.mean(2, keepdims=True)
    squared = slopes @ slopes.transpose(0, 2, 1)
    wanted = slopes @ ((y - x) * inside).reshape(len(x), -1, 1)
    damping = 1e-3 * np.asarray(np.trace(squared, axis1=1, axis2=2))[:, None, None] / 4 + 1e-6
    steps = np.linalg.solve(squared + damping * np.eye(4, dtype=np.float32), wanted)[..., 0]
    return np.asarray(np.clip(steps, -_STEP, _STEP), dtype=np.float32)


def _sound(box: Floats, otherwise: Floats) -> Floats:
    """Boxes that still show over half of the picture and under twice of it; for others the best one yet."""
    box = np.clip(box, -0.3, 1.3)
    sides = np.stack([box[:, 1] - box[:, 0], box[:, 3] - box[:, 2]], 1)
    good = (sides.min(1) > 0.6) & (sides.max(1) < 1.6)
    return np.asarray(np.where(good[:, None], box, otherwise), dtype=np.float32)


def _without(pictures: Floats, common: Floats) -> Floats:
    """Pictures less as much of what is common as is in them."""
    share = (pictures * common).sum((1, 2), keepdims=True) / np.maximum(
        (common * common).sum((1, 2), keepdims=True), 1e-6
    )
    return np.asarray(pictures - share * common, dtype=np.float32)


def _evened(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The two at the same contrast, the geometric mean of theirs: a dark copy has less of it."""
    a, b = (np.sqrt((v * v).mean((1, 2), keepdims=True)) for v in (x, y))
    both = np.sqrt(a * b)
    one, other = x * both / np.maximum(a, 0.1), y * both / np.maximum(b, 0.1)
    return one.astype(np.float32), other.astype(np.float32)


def _blocks(values: Floats) -> Floats:
    """Sums over blocks."""
    count = values.shape[1] // _BLOCK
    return np.asarray(values.reshape(len(values), count, _BLOCK, count, _BLOCK).sum((2, 4)), dtype=np.float32)
