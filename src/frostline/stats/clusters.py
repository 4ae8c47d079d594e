"""Photos that are not independent: groups (one camera, one plant), near-duplicates, byte-identical copies.

A cluster is a set of such photos; photos of different clusters are independent. A model that errs on one photo of a
cluster is more likely to err on the others, so that 600 photos of 40 clusters tell less than 600 independent ones. By
how much is the design effect (Kish, Survey Sampling, 1965): the variance of a figure over that of as many independent
photos. `stats.intervals` divides the number of photos by it.

Clusters come as whole numbers (N,), one a photo; equal numbers = one cluster. None = all photos are independent.
`benchmarks/simulated/groups.py` simulates how often the intervals hold the truth.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

Clusters = npt.NDArray[np.intp]
Floats = npt.NDArray[np.float64]

FEW = 15
"""Fewer clusters are too few for an interval that holds the truth 95 times in 100."""

_CORRELATIONS = np.array([1e-4, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
_MEANS = 1 / (1 + np.exp(-np.linspace(-6, 6, 25)))


def numbered(clusters: Clusters | None) -> Clusters | None:
    """Clusters (N,) numbered from 0 without gaps; None where no two photos share one."""
    if clusters is None or not len(clusters):
        return None
    names, numbers = np.unique(clusters, return_inverse=True)
    return None if len(names) == len(clusters) else np.asarray(numbers, dtype=np.intp)


def words(photos: int, groups: int, *, grouped: bool) -> str:
    """What intervals over so many groups of reported photos are, with a warning where there are few.

    Parameters
    ----------
    grouped
        Whether the data set names groups; without, groups are near-duplicates and photos of the same bytes.
    """
    if groups < FEW:
        return (
            f"The {photos:,} reported photos come from {groups} {'group' if groups == 1 else 'groups'}: the intervals "
            "are a rough guide. Photos from more groups would tell."
        )
    if grouped:
        return f"Intervals are over {groups:,} groups, not {photos:,} photos."
    return f"Near-duplicates count as one photo in intervals: {groups:,} of {photos:,} photos."


def student(count: int) -> float:
    """The 97.5 % quantile of Student's t for figures over so many clusters."""
    from scipy import stats  # a third of a second, which `frostline predict` can do without

    return float(stats.t.ppf(0.975, max(1, count - 1)))


def freedom(effect: float, photos: float, groups: float) -> float:
    """Degrees of freedom of a variance that is `effect` times that of independent photos, given those of the two parts
    it is made of: what independent photos make, known from so many `photos`, and the rest, known from so many `groups`
    (Satterthwaite, 1946). Where groups hardly matter, few of them are no reason for a wide interval.
    """
    found = effect**2 / (1 / max(1.0, photos) + (effect - 1) ** 2 / max(1.0, groups))
    return float(max(groups, 1.0, found))


def quantile(effect: float, photos: int, groups: int) -> float:
    """The 97.5 % quantile of Student's t for a figure over so many photos of so many groups; see `freedom`."""
    from scipy import stats

    return float(stats.t.ppf(0.975, freedom(effect, photos - 1, groups - 1)))


def variance(influence: Floats, clusters: Clusters, strata: npt.NDArray[np.intp] | None = None) -> float:
    """Variance of a sum of `influence` (N,), whose mean in each of the `strata` (N,) is 0.

    The squared sums of clusters (Liang and Zeger, 1986), each made larger by the part that the cluster itself has in
    the mean of its stratum (CR2: Bell and McCaffrey, 2002). A stratum of one cluster tells nothing and adds nothing.
    """
    of = np.zeros(len(influence), np.intp) if strata is None else strata
    cells, cell = np.unique(np.stack([clusters, of]), axis=1, return_inverse=True)
    cell = cell.ravel()
    share = np.bincount(cell) / np.bincount(of)[cells[1]]
    sums = np.bincount(cell, weights=influence) / np.sqrt(np.where(share < 1, 1 - share, 1))
    return float((np.bincount(cells[0], weights=sums) ** 2).sum())


def spread(sizes: npt.NDArray[np.intp]) -> float:
    """The size of the cluster of a photo picked at random, for cluster sizes (G,)."""
    return float((sizes**2).sum() / sizes.sum())


def correlation(
    outcomes: npt.NDArray[np.bool_], clusters: Clusters, strata: npt.NDArray[np.intp] | None = None
) -> float:
    """Intraclass correlation of 0/1 `outcomes` (N,), 0 to 1: its posterior mean under beta-binomial clusters.

    The prior of the correlation is Beta(0.5, 1): few photos are of clusters that say nothing, and then a moderate
    correlation is assumed; squared sums alone would say 0 where a handful of photos are wrong, each in a cluster of its
    own. Outcomes of different `strata` (N,) have means of their own.
    """
    of = np.zeros(len(outcomes), np.intp) if strata is None else strata
    edges = np.concatenate([[0], (_CORRELATIONS[1:] + _CORRELATIONS[:-1]) / 2, [1]])
    log_posterior = np.log(np.diff(np.sqrt(edges)))
    for stratum in np.unique(of):
        own = of == stratum
        sizes = np.bincount(clusters[own])
        hits = np.bincount(clusters[own], weights=outcomes[own]).astype(np.intp)[sizes > 0]
        log_posterior = log_posterior + _log_likelihood(hits, sizes[sizes > 0])
    weights = np.exp(log_posterior - log_posterior.max())
    return float((weights * _CORRELATIONS).sum() / weights.sum())


def effect(outcomes: npt.NDArray[np.bool_], clusters: Clusters) -> float:
    """The design effect on the mean of 0/1 `outcomes` (N,), 1 or more, of `clusters` as `numbered` gives them.

    The larger of two: what the clusters' sums show, and what the correlation that is likely given these outcomes makes.
    """
    count, mean = len(outcomes), float(outcomes.mean())
    alone = mean * (1 - mean) / max(1, count - 1)
    seen = variance((outcomes - mean) / count, clusters) / alone if alone else 1.0
    return max(1.0, seen, 1 + (spread(np.bincount(clusters)) - 1) * correlation(outcomes, clusters))


def uniforms(rng: np.random.Generator, draws: int, clusters: Clusters, correlation: float, mean: float) -> Floats:
    """Random numbers (draws, N), each uniform from 0 to 1; those of a cluster are so alike that the outcomes "below
    `mean`" have this intraclass correlation (a Gaussian copula)."""
    from scipy import special

    shared = _latent(correlation, float(np.clip(mean, 0.01, 0.99)))
    own = rng.standard_normal((draws, len(clusters)), dtype=np.float32)
    of_cluster = rng.standard_normal((draws, int(clusters.max()) + 1), dtype=np.float32)[:, clusters]
    return np.asarray(special.ndtr(np.sqrt(1 - shared) * own + np.sqrt(shared) * of_cluster))


def _latent(correlation: float, mean: float) -> float:
    """The correlation of two normal variables whose outcomes "below the `mean` quantile" correlate so."""
    from scipy import optimize, stats

    edge = stats.norm.ppf(mean)
    both = mean**2 + correlation * mean * (1 - mean)

    def apart(shared: float) -> float:
        return float(stats.multivariate_normal.cdf([edge, edge], cov=[[1, shared], [shared, 1]]) - both)

    return float(optimize.brentq(apart, 0.0, 0.999, xtol=1e-3)) if 0 < both < mean and apart(0.999) > 0 else 0.999


def _log_likelihood(hits: npt.NDArray[np.intp], sizes: npt.NDArray[np.intp]) -> Floats:
    """Of each of `_CORRELATIONS`, for so many hits in clusters of these sizes (G,), the mean integrated out."""
    kinds, counts = np.unique(np.stack([hits, sizes]), axis=1, return_counts=True)
    hit, size = kinds
    ones, zeros, both = _rising(1 << int(sizes.max()).bit_length())
    found = (ones[..., hit] + zeros[..., size - hit] - both[..., size]) @ counts  # (means, correlations)
    top = found.max(0)
    return np.asarray(top + np.log(np.exp(found - top).sum(0)))


@lru_cache(maxsize=4)
def _rising(longest: int) -> tuple[Floats, Floats, Floats]:
    """Logarithms of rising factorials of a beta distribution's a, b and a + b: (means, correlations, 0..longest)."""
    total = 1 / _CORRELATIONS - 1
    a = _MEANS[:, None] * total
    steps = np.arange(longest)

    def table(start: Floats) -> Floats:
        logs = np.log(start[..., None] + steps).cumsum(-1)
        return np.concatenate([np.zeros((*start.shape, 1)), logs], -1)

    return table(a), table(total - a), table(np.broadcast_to(total, a.shape))


def flipped(sums: npt.NDArray[np.intp]) -> float:
    """Two-sided mid-p of the sum of `sums` (G,), whole numbers: how often random signs give one as far from 0.

    The exact sign-flip test over clusters; where all sums are 1 or -1 it is McNemar's mid-p test.
    """
    sizes = np.sort(np.abs(sums[sums != 0]))
    if not len(sizes):
        return 1.0
    total = int(sizes.sum())
    chances = np.zeros(2 * total + 1)  # of each sum from -total to total
    chances[total] = 1.0
    for size in sizes.tolist():
        moved = np.zeros_like(chances)
        moved[size:] += chances[:-size] / 2
        moved[:-size] += chances[size:] / 2
        chances = moved
    observed = abs(int(sums.sum()))
    beyond = chances[total + observed + 1 :].sum() + chances[total + observed] / 2
    return float(min(1.0, 2 * beyond))
