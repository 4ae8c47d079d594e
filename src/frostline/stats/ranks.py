"""Whether the values of some photos are higher than those of others: a rank test that heeds clusters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from frostline.stats.clusters import Clusters, numbered, variance

Floats = npt.NDArray[np.float64]


class RankEffect(NamedTuple):
    """How the values of one set of photos stand to those of the others."""

    effect: float
    """How much oftener the larger value of a pair is the first set's, -1 to 1 (rank-biserial correlation; Cureton,
    Psychometrika, 1956)."""
    ci: tuple[float, float]
    """95 % CI of the effect."""
    p_value: float


def compare_ranks(values: Floats, chosen: npt.NDArray[np.bool_], clusters: Clusters | None = None) -> RankEffect:
    """The chosen photos against the others.

    Of independent photos the p value is that of Mann and Whitney's test. Of clusters it is Student's t of the effect
    over its standard error, which sums each photo's part in the effect over its cluster (Obuchowski, Biometrics, 1997).

    Parameters
    ----------
    values
        (N,) one a photo, finite.
    chosen
        (N,) at least two, and not all but one.
    clusters
        (N,) photos with the same number are not independent; None: all are.
    """
    a, b = values[chosen], values[~chosen]
    above = (stats.rankdata(values)[chosen] - stats.rankdata(a)) / len(b)  # (A,) share of b that each of a exceeds
    below = 1 - (stats.rankdata(values)[~chosen] - stats.rankdata(b)) / len(a)  # (B,) share of a that exceeds each of b
    area = float(above.mean())
    effect = 2 * area - 1
    own = numbered(clusters)
    if own is None:
        by_chance = float(np.sqrt((len(values) + 1) / (3 * len(a) * len(b))))
        return RankEffect(effect, _around(effect, 1.96 * by_chance), float(stats.mannwhitneyu(a, b).pvalue))
    parts = np.zeros(len(values))
    parts[chosen], parts[~chosen] = (above - area) / len(a), (below - area) / len(b)
    error = 2 * float(np.sqrt(variance(parts, own, chosen.astype(np.intp))))
    freedom = max(1, min(len(np.unique(own[side])) for side in (chosen, ~chosen)) - 1)
    if error == 0:
        return RankEffect(effect, (-1.0, 1.0), 1.0)  # one cluster on each side: nothing to judge by
    p = float(2 * stats.t.sf(abs(effect) / error, freedom))
    return RankEffect(effect, _around(effect, float(stats.t.ppf(0.975, freedom)) * error), p)


def _around(effect: float, margin: float) -> tuple[float, float]:
    return max(-1.0, effect - margin), min(1.0, effect + margin)
