"""What follows from a sweep over numbers of photos: from how many on fine-tuning pays, and what more photos would
bring.

Everything here works on predictions, with intervals from resampling photos (and repeats). Nothing here trains.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import optimize

from frostline.documents.study import Crossing, CurvePoint
from frostline.documents.sweep import Forecast
from frostline.stats import intervals
from frostline.stats.clusters import Clusters
from frostline.stats.resampling import photo_counts

Floats = npt.NDArray[np.float64]

FEWEST_SIZES, LEAST_SPAN = 4, 8
"""A power law of three numbers wants more sizes than that, over a wide span: fewer, or closer ones, fit any
forecast."""
_REFITS = 400


# ---- how many photos -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Grid:
    """The points of a sweep over numbers of photos that are done: every strategy at every size, repeat after repeat."""

    strategies: list[str]
    per_class: Floats
    """(K,) photos of a class, in the mean over classes, ascending."""
    correct: npt.NDArray[np.bool_] | Floats
    """(S, K, R, N): whether strategy s, trained on size k in repeat r, predicts photo n correctly; or what that photo
    counts, with a mean of 1 over the photos, where it does."""


@dataclass(frozen=True)
class Resampled:
    """Accuracies of a grid, and those of resampled photos and repeats."""

    mean: Floats
    """(S, K)."""
    draws: Floats
    """(B, S, K)."""

    def interval(self, values: Floats) -> tuple[float, float]:
        """95 % percentile interval of B draws; infinite ones are allowed."""
        low, high = np.quantile(values, (0.025, 0.975), method="inverted_cdf")
        return float(low), float(high)


def resample(grid: Grid, seed: int, clusters: Clusters | None = None) -> Resampled:
    """Bootstrap over photos and repeats, both paired: one draw serves all strategies and sizes.

    Of R repeats R - 1 are drawn, which makes the variance of so small a bootstrap unbiased (McCarthy and Snowden, The
    bootstrap and finite population sampling, 1985). A single repeat is kept as it is: the intervals are then over
    photos alone. Photos that share one of the `clusters` (N,) are drawn together: see `stats.clusters`.
    """
    s, k, repeats, photos = grid.correct.shape
    flat = grid.correct.reshape(-1, photos).astype(float)
    rng = np.random.default_rng([seed, 1])
    draws = []
    for counts in photo_counts(photos, seed, clusters=clusters):
        cells = (counts @ flat.T / photos).reshape(len(counts), s, k, repeats)
        drawn = max(1, repeats - 1)
        weights = rng.multinomial(drawn, np.full(repeats, 1 / repeats), len(counts)) / drawn
        draws.append(np.einsum("bskr,br->bsk", cells, weights))
    return Resampled(grid.correct.mean((2, 3)), np.concatenate(draws))


def curves(grid: Grid, found: Resampled) -> list[CurvePoint]:
    """One row for each strategy and size: mean accuracy, its 95 % CI, and each repeat's own accuracy."""
    return [
        {
            "strategy": name,
            "per_class": float(size),
            "accuracy": float(found.mean[i, j]),
            "accuracy_ci": found.interval(found.draws[:, i, j]),
            "repeats": grid.correct[i, j].mean(1).tolist(),
        }
        for i, name in enumerate(grid.strategies)
        for j, size in enumerate(grid.per_class)
    ]


def crossing(grid: Grid, found: Resampled, challenger: int, reference: int) -> Crossing:
    """From how many photos of a class on one strategy stays ahead of another.

    Between two sizes the difference is read off a straight line over the logarithm of the size. ``at`` is None where
    the challenger is not shown to be ahead at the largest size (``shown``: the 95 % CI of the paired difference is
    above 0), and the smallest size where it is ahead from there on. Ends of ``at_ci`` that lie outside the sizes are
    "below" or "beyond". ``shown_from`` is the smallest size from which on it is shown to be ahead at every size. Sizes
    are tested from the largest down until one is not shown, so no correction is needed (a fixed sequence; Maurer et
    al., 1995).
    """
    difference = found.draws[:, challenger] - found.draws[:, reference]
    mean = found.mean[challenger] - found.mean[reference]
    last = found.interval(difference[:, -1])
    p = _p_value(difference[:, -1])
    places = np.array([_crossing(grid.per_class, d) for d in difference])
    at = _crossing(grid.per_class, mean)
    smallest = float(grid.per_class[0])
    each = [found.interval(difference[:, j]) for j in range(len(mean))]
    unshown = max((j for j, (low, _) in enumerate(each) if low <= 0), default=-1)
    return {
        "challenger": grid.strategies[challenger],
        "reference": grid.strategies[reference],
        "at": None if at == math.inf or last[0] <= 0 else max(at, smallest),
        "from_the_start": at == -math.inf,
        "at_ci": [_end(end) for end in found.interval(places)],
        "share": float(np.mean(places < math.inf)),
        "difference_at_most": float(mean[-1]),
        "difference_ci": last,
        "shown": last[0] > 0 and p < 0.05,
        "shown_from": float(grid.per_class[unshown + 1]) if unshown + 1 < len(mean) else None,
        "p_value": p,
        "p_corrected": p,
        "differences": [
            {"per_class": float(x), "difference": float(m), "ci": ci}
            for x, m, ci in zip(grid.per_class, mean, each, strict=True)
        ],
    }


def corrected(crossings: Sequence[Crossing]) -> list[Crossing]:
    """Crossings that are told together: what is shown rests on p values corrected for their number (Holm)."""
    p_values = intervals.holm([c["p_value"] for c in crossings])
    return [{**c, "p_corrected": p, "shown": c["shown"] and p < 0.05} for c, p in zip(crossings, p_values, strict=True)]


def _p_value(draws: Floats) -> float:
    """Two-sided, of a difference's resamples (B,): how often chance alone would turn its sign."""
    against = min((draws <= 0).sum(), (draws >= 0).sum())
    return float(min(1.0, 2 * (against + 1) / (len(draws) + 1)))


def _end(place: float) -> float | str:
    return place if math.isfinite(place) else "below" if place < 0 else "beyond"


def _crossing(sizes: Floats, difference: Floats) -> float:
    """Where `difference` (K,) becomes positive for good; -inf: it always is, inf: it is not at the largest size."""
    behind = np.flatnonzero(difference <= 0)
    if not len(behind):
        return -math.inf
    i = int(behind[-1])
    if i == len(sizes) - 1:
        return math.inf
    share = -difference[i] / (difference[i + 1] - difference[i])
    return float(np.exp(np.log(sizes[i]) + share * np.log(sizes[i + 1] / sizes[i])))


# ---- more photos -----------------------------------------------------------------------------------------------------


def forecast(grid: Grid, found: Resampled, strategy: int) -> Forecast:
    """What twice the photos would bring: the power law error = a + b n^-c, fitted to the curve and followed from n to 2
    n.

    Such a law describes most learning curves well (Viering and Loog, The shape of learning curves, 2022); that this one
    goes on to follow it is an assumption that the interval does not cover. The interval is that of fits to 400
    resamples.

    Returns
    -------
    dict
        ``why_not`` alone says why there is no forecast; else ``per_class`` (2 n), ``accuracy`` and ``gain`` over the
        largest size, each with its 95 % CI, and the law's ``a``, ``b``, ``c``.
    """
    name, sizes = grid.strategies[strategy], grid.per_class
    span = float(sizes[-1] / sizes[0])
    if len(sizes) < FEWEST_SIZES or span < LEAST_SPAN:
        had = f"{len(sizes)} size{'s' if len(sizes) > 1 else ''} over a factor of {span:.3g}"
        wanted = f"{FEWEST_SIZES} over a factor of {LEAST_SPAN}"
        why_not = f"the curve is too short for a forecast: {had}, wanted at least {wanted}"
        return {"strategy": name, "why_not": why_not}
    spread = np.maximum(found.draws[:, strategy].std(0), 1e-3)
    law = _power_law(sizes, 1 - found.mean[strategy], spread)
    if law is None:
        return {"strategy": name, "why_not": "no power law can be fitted to its curve"}
    step = max(1, len(found.draws) // _REFITS)
    draws = found.draws[::step, strategy]
    refits = [(draw[-1], _power_law(sizes, 1 - draw, spread)) for draw in draws]
    gains = np.array([(now, _gain(sizes[-1], refit)) for now, refit in refits if refit is not None])
    return {
        "strategy": name,
        "per_class": float(2 * sizes[-1]),
        "accuracy": float(found.mean[strategy, -1] + _gain(sizes[-1], law)),
        "accuracy_ci": found.interval(gains.sum(1)),
        "gain": _gain(sizes[-1], law),
        "gain_ci": found.interval(gains[:, 1]),
        "a": float(law[0]),
        "b": float(law[1]),
        "c": float(law[2]),
    }


def _gain(n: float, law: Floats) -> float:
    """How far the error falls from n photos to 2 n."""
    return float(_law(n, *law) - _law(2 * n, *law))


def _law(n: Any, a: Any, b: Any, c: Any) -> Any:
    return a + b * n**-c


def _power_law(sizes: Floats, error: Floats, spread: Floats) -> Floats | None:
    """(a, b, c) with a in 0..1, b in 0..10, c in 0.05..2; None where the fit does not settle."""
    start = (max(0.0, 0.8 * float(error.min())), min(9.0, max(1e-3, float(error[0] * sizes[0] ** 0.5))), 0.5)
    try:
        law, _ = optimize.curve_fit(
            _law, sizes, error, p0=start, sigma=spread, bounds=([0, 0, 0.05], [1, 10, 2]), maxfev=2000
        )
    except RuntimeError:
        return None
    return np.asarray(law, dtype=np.float64)
