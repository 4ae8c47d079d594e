"""What several seeds say together: means, intervals and differences over photos and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from scipy import optimize, special, stats

from frostline import wording
from frostline.stats.clusters import Clusters, flipped, numbered, student
from frostline.stats.intervals import holm, mean_interval, mid_p, p_in_words, unanimous

RESAMPLES = 4000
_QUANTILES = (np.arange(60) + 0.5) / 60
Z = 1.959964
LUCK, LUCK_OF_TWO = 0.5, 0.8
"""How far seeds scatter, of one model's figure and of the difference of two: the medians of the priors, as shares of
what the choice of photos makes a seed's figure waver."""


# ---- several seeds ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Across:
    """A figure over several seeds, each of which tests photos of its own that overlap with those of the others."""

    seeds: list[float]
    """The figure of each seed."""
    mean: float
    """Of `seeds`."""
    sd: float
    """Standard deviation of `seeds`, with one less than their number below the line."""
    range: tuple[float, float]
    """The lowest and the highest of `seeds`."""
    ci: tuple[float, float]
    """95 % CI of the mean over photos and seeds; see `mean_across`."""


@dataclass(frozen=True)
class PairAcross(Across):
    """Two models on the same photos with each of several seeds; the figure is the accuracy of `a` minus that of `b`."""

    a: str
    b: str
    p_value: float
    """McNemar's mid-p test over photos: each counts once, for the model that was correct about it with more seeds."""
    verdict: str
    """The comparison in words; it rests on `p_corrected`."""
    p_corrected: float
    """`p_value`, corrected for the number of comparisons that are made together (Holm, 1979)."""


def mean_across(sums: np.ndarray, counts: np.ndarray, seed: int, clusters: Clusters | None = None) -> Across:
    """The mean of the seeds' accuracies, with an interval that accounts for chance in both photos and seeds.

    Photos and seeds are resampled independently and their weights multiply: the pigeonhole bootstrap (Owen, Annals of
    Applied Statistics, 2007). A photo that several seeds tested is one cluster: it comes with all its answers or not at
    all. That bootstrap counts the noise of a single answer three times, as Owen shows: little where each photo has many
    answers, but here most have one, and intervals would be half as wide again as they should be. The excess sits in
    what the drawing of seeds adds, for seeds differ through their photos too. So that part is scaled to the variance
    that seeds have beyond their photos' (`_beyond_photos`).

    Few seeds tell little of how far seeds scatter, and that bootstrap does not know it. So the interval is widened
    twice. First, seeds' scatter is not estimated but averaged over (`_widening`): a half-Cauchy prior (Gelman, Bayesian
    Analysis, 2006), whose median is half of what the choice of photos makes a seed's figure waver. Second, where seeds
    scatter more than their photos explain (p < 0.05), the interval is at least Student's t over the seeds, with one
    degree of freedom less than there are seeds. `benchmarks/simulated/seeds.py` counts how often this function's
    interval holds the truth: that of three seeds, each with photos of its own, 95 times in 100 where seeds scatter as
    far as photos make one waver (1,000 draws), more often where they scatter less.

    The interval is for other photos of this kind and other seeds (split, starting weights, order of photos). It is not
    for another collection to train on: all seeds share one.

    Parameters
    ----------
    sums
        (N photos, S seeds) How many of the answers about photo i with seed s were correct.
    counts
        (N, S) How many answers there were: 0 where the seed did not test the photo, 2 for identical photos. S is 2 or
        more, and each seed tested a photo.
    seed
        Of the resampling.
    clusters
        (N,) Numbers shared by photos that are not independent (`stats.clusters`); None = all are independent. A cluster
        comes with all its photos or not at all.
    """
    return _across(sums, counts, seed, 0.0, clusters, LUCK)


def compare_across(
    a: str,
    correct_a: np.ndarray,
    b: str,
    correct_b: np.ndarray,
    counts: np.ndarray,
    seed: int,
    clusters: Clusters | None = None,
) -> PairAcross:
    """Compare two models over photos and seeds: `mean_across` of the paired differences.

    Each of two models brings training luck of its own, while they err on much the same photos. So the prior of how far
    seeds scatter has a larger median, `LUCK_OF_TWO` of what the choice of photos makes a seed's difference waver.

    "Beats" asks for both: an interval that leaves 0 out, which accounts for photos and seeds, and McNemar's mid-p test
    over photos, since where models disagree on a handful of photos a bootstrap is too sure.

    Parameters
    ----------
    correct_a, correct_b
        (N photos, S seeds) How many of each model's answers about a photo were correct.
    counts
        (N, S) How many answers there were of each.
    clusters
        (N,) As `mean_across` takes them. The test then flips the signs of their sums (`clusters.flipped`).
    """
    found = _across(correct_a - correct_b, counts, seed, -1.0, clusters, LUCK_OF_TWO)
    ahead = np.sign((correct_a - correct_b).sum(1))
    own = numbered(clusters)
    if own is None:
        p = mid_p(int((ahead > 0).sum()), int((ahead < 0).sum()))
    else:
        p = flipped(np.bincount(own, weights=ahead).round().astype(np.intp))
    return PairAcross(**asdict(found), a=a, b=b, p_value=p, verdict=_verdict_across(a, b, found, p), p_corrected=p)


def corrected(pairs: Sequence[PairAcross]) -> list[PairAcross]:
    """Comparisons that are made together: their verdicts corrected for their number (`intervals.holm`)."""
    p_values = holm([pair.p_value for pair in pairs])
    return [
        replace(pair, p_corrected=p, verdict=_verdict_across(pair.a, pair.b, pair, p, len(pairs)))
        for pair, p in zip(pairs, p_values, strict=True)
    ]


def _across(
    sums: np.ndarray, counts: np.ndarray, seed: int, least: float, clusters: Clusters | None, luck: float
) -> Across:
    own, widening = numbered(clusters), 1.0
    if own is not None:  # a cluster is then what a photo is without
        groups = int(own.max()) + 1
        sums, counts = (_added(rows, own, groups) for rows in (sums, counts))
        widening = student(groups) / Z * float(np.sqrt(groups / max(1, groups - 1)))
    means = sums.sum(0) / counts.sum(0)
    values = sums[counts > 0] / counts[counts > 0]
    if values.min() < values.max():
        ends = np.quantile(_pigeonhole(sums, counts, seed), (0.025, 0.975))
        if own is not None:  # a bootstrap of few clusters is too narrow
            ends = means.mean() + widening * (ends - means.mean())
        low, high = ends
    else:  # a bootstrap would claim certainty
        same = np.full(len(sums), values[0])
        low, high = mean_interval(same) if least == 0 else unanimous(same)
    low, high = _over_seeds(sums, counts, float(low), float(high), luck)
    return Across(
        seeds=means.tolist(),
        mean=float(means.mean()),
        sd=float(means.std(ddof=1)),
        range=(float(means.min()), float(means.max())),
        ci=(max(least, float(low)), min(1.0, float(high))),
    )


def _added(rows: np.ndarray, clusters: Clusters, groups: int) -> np.ndarray:
    """Rows (N, S) added up by cluster: (groups, S)."""
    total = np.zeros((groups, rows.shape[1]))
    np.add.at(total, clusters, rows)
    return total


def _pigeonhole(sums: np.ndarray, counts: np.ndarray, seed: int, batch: int = 200) -> np.ndarray:
    """Means (RESAMPLES,) of the seeds' accuracies, photos and seeds drawn anew for each; see `mean_across`."""
    rng = np.random.default_rng(seed)
    photos, seeds = sums.shape
    observed = sums.sum(0) / counts.sum(0)
    by_photos, by_seeds = [], []
    for _ in range(RESAMPLES // batch):
        drawn = _times_drawn(rng, batch, photos)
        asked = drawn @ counts  # (batch, seeds)
        each = np.where(
            asked > 0, (drawn @ sums) / np.maximum(asked, 1), observed
        )  # few photos: a seed's may all be missing
        by_photos.append(each.mean(1))
        by_seeds.append(
            ((_times_drawn(rng, batch, seeds) - 1) * each).mean(1)
        )  # their sum is the bootstrap as Owen has it
    shift = np.concatenate(by_seeds)
    scale = np.sqrt(_beyond_photos(sums, counts) / shift.var()) if shift.any() else 0.0
    draws: np.ndarray = np.concatenate(by_photos) + scale * shift
    return draws


def _times_drawn(rng: np.random.Generator, draws: int, things: int) -> np.ndarray:
    """How often each of so many things is picked when as many are drawn with replacement: (draws, things)."""
    picked = rng.integers(things, size=(draws, things)) + things * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * things).reshape(draws, things).astype(float)


def _beyond_photos(sums: np.ndarray, counts: np.ndarray) -> float:
    """Variance of the mean that seeds give beyond what their photos do (method of moments; 0 where that comes out below
    0).
    """
    _, between, by_photos = _variances(sums, counts)
    return max(0.0, between - by_photos)


def _variances(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Of the mean over seeds: its variance through the photos; the variance that the seeds' figures show; and how much
    of that the photos explain.

    Seeds that don't differ at all still show different accuracies, for their photos differ. How far they would follows
    from each photo's part in each seed's accuracy, less what seeds have in common through the photos that they share.
    """
    seeds = sums.shape[1]
    means = sums.sum(0) / counts.sum(0)
    parts = (sums - means * counts) / counts.sum(0) / seeds  # (photos, seeds), each column adds up to 0
    alone = float((parts**2).sum())
    total = float((parts.sum(1) ** 2).sum())
    return total, float(means.var(ddof=1)) / seeds, alone - (total - alone) / (seeds - 1)


def _over_seeds(sums: np.ndarray, counts: np.ndarray, low: float, high: float, luck: float) -> tuple[float, float]:
    """An interval, widened by how little few seeds tell of how far seeds scatter; see `mean_across`."""
    means = sums.sum(0) / counts.sum(0)
    mean, freedom = float(means.mean()), len(means) - 1
    photos, between, explained = _variances(sums, counts)
    factor = _widening(photos, between, max(explained, 1e-9), freedom, luck)
    low, high = mean + factor * (low - mean), mean + factor * (high - mean)
    if freedom * between > max(explained, 0.0) * stats.chi2.isf(0.05, freedom):
        half = float(stats.t.ppf(0.975, freedom)) * between**0.5
        low, high = min(low, mean - half), max(high, mean + half)
    return low, high


def _widening(photos: float, between: float, explained: float, freedom: int, luck: float) -> float:
    """How much wider the interval of a mean over seeds is where the scatter of seeds is averaged over, not estimated.

    Parameters
    ----------
    photos, between, explained
        As `_variances` gives them.
    freedom
        Seeds less one.
    luck
        The prior's median; see `LUCK`.
    """
    known = photos + max(0.0, between - explained)
    if known <= 0:
        return 1.0
    beyond = explained * (luck * np.tan(np.pi / 2 * _QUANTILES)) ** 2  # of seeds, at even steps of the prior
    total = explained + beyond
    log_likelihood = -freedom / 2 * (np.log(total) + between / total)
    weights = np.exp(log_likelihood - log_likelihood.max())
    weights /= weights.sum()
    error = np.sqrt(photos + beyond)

    def outside(half: float) -> float:
        return float((weights * 2 * special.ndtr(-half / error)).sum()) - 0.05

    half = float(optimize.brentq(outside, 0.0, 50 * float(error.max())))
    return float(max(1.0, half / (Z * known**0.5)))


def _verdict_across(a: str, b: str, found: Across, p: float, comparisons: int = 1) -> str:
    first, second, sign = (a, b, 1) if found.mean >= 0 else (b, a, -1)
    low, high = sorted(sign * end for end in found.ci)
    span, points = wording.interval((low, high)), f"{100 * abs(found.mean):.1f} points"
    ahead = f"ahead with {sum(sign * d > 0 for d in found.seeds)} of {len(found.seeds)} seeds"
    if low > 0 and p < 0.05:
        return f"{first} beats {second} by {points} on average, {span}, {ahead}"
    if abs(found.mean) < 1e-9:  # seeds that cancel out
        return f"{a} and {b} are equally accurate here on average, {span} points"
    words = p_in_words(p, comparisons)
    return f"{first} is {points} ahead of {second} on average, but that may be chance ({span}, {ahead}, {words})"
