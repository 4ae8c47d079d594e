"""Confidence intervals and paired tests.

Photos may come in `clusters` (N,): numbers that photos share which are not independent, such as those of one group; see
`stats.clusters`. None = all are independent, as are clusters of one photo each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from frostline import wording
from frostline.stats import clusters as dependence
from frostline.stats.calibration import wilson
from frostline.stats.clusters import Clusters

Labels = np.ndarray


def mean_interval(correct: np.ndarray, clusters: Clusters | None = None) -> tuple[float, float]:
    """95 % CI of the mean of 0/1 values (N,) over photos: Wilson's (1927).

    Measured against bootstraps (`benchmarks/coverage.py`): for 60 to 1,500 photos at 70 to 99 % it holds the truth 95
    to 96 times in 100; BCa falls below 93 where few photos are wrong, and claims certainty where none is. With clusters
    it is that of so many fewer photos as the design effect says, with Student's t (`clusters.freedom`).
    """
    count = len(correct)
    own = dependence.numbered(clusters)
    if own is None:
        return wilson(float(correct.sum()), count)
    effect = dependence.effect(correct > 0.5, own)
    z = dependence.quantile(effect, count, int(own.max()) + 1)
    return wilson(float(correct.mean()) * count / effect, count / effect, z)


def balanced_interval(correct: np.ndarray, labels: Labels, clusters: Clusters | None = None) -> tuple[float, float]:
    """95 % CI of the mean over classes of the mean of 0/1 `correct` (N,): Wilson's, for the number of photos that
    would waver as much.

    Each class's variance is that of its recall after adding half a photo on each side, so that two of two correct are
    no certainty. A class of few photos makes that variance itself uncertain: hence Student's t, with Satterthwaite's
    (1946) degrees of freedom, four at least. With clusters each class counts by its number of them.
    """
    counts = np.bincount(labels)
    n = counts[counts > 0]
    k = np.bincount(labels, weights=correct)[counts > 0].round()
    smoothed = (k + 0.5) / (n + 1)
    variances = smoothed * (1 - smoothed) / n / len(n) ** 2
    own = dependence.numbered(clusters)
    effect, units = (1.0, n) if own is None else _balanced_effect(correct, labels, own, variances)
    freedom = max(4.0, variances.sum() ** 2 / (variances**2 / np.maximum(units - 1, 1)).sum())
    mean, near = float((k / n).mean()), float(smoothed.mean())
    count = near * (1 - near) / float(variances.sum()) / effect
    return wilson(mean * count, count, float(stats.t.ppf(0.975, freedom)))


def _balanced_effect(
    correct: np.ndarray, labels: Labels, clusters: Clusters, variances: np.ndarray
) -> tuple[float, np.ndarray]:
    """The design effect on the mean over classes of recall, and the number of clusters in each class.

    Parameters
    ----------
    variances
        Of each class's part in that mean, of independent photos.
    """
    classes = np.unique(labels, return_inverse=True)[1]
    n = np.bincount(classes)
    of_photo = 1 / n[classes] / len(n)
    recall = np.bincount(classes, weights=correct) / n
    alone = float((recall * (1 - recall) / np.maximum(1, n - 1)).sum()) / len(n) ** 2
    seen = dependence.variance((correct - recall[classes]) * of_photo, clusters, classes) / alone if alone else 1.0
    groups = int(clusters.max()) + 1
    units = np.array([len(np.unique(clusters[classes == c])) for c in range(len(n))])
    nested = units.sum() < 1.5 * groups  # else most clusters have photos of several classes, which vary together
    correlation = dependence.correlation(correct > 0.5, clusters, classes if nested else None)
    deviation = np.sqrt(variances * n)[classes] / n[classes]  # of each photo's part
    together = float((np.bincount(clusters, weights=deviation) ** 2).sum() / (deviation**2).sum())
    return max(1.0, seen, 1 + (together - 1) * correlation), units if nested else np.minimum(units, groups / len(n))


def average_interval(values: np.ndarray, clusters: Clusters | None = None) -> tuple[float, float]:
    """95 % CI of the mean of values (N,) between -1 and 1, one a photo: Student's; where all agree, what the rule
    of three leaves open."""
    own = dependence.numbered(clusters)
    units = len(values) if own is None else int(own.max()) + 1
    if units < 2 or values.min() == values.max():
        return unanimous(values[:units])
    mean = float(values.mean())
    error = float(values.std(ddof=1) / np.sqrt(len(values)))
    effect = 1.0
    if own is not None:
        seen = dependence.variance((values - mean) / len(values), own)
        more = (dependence.spread(np.bincount(own)) - 1) * dependence.correlation(values > mean, own)
        effect = max(1 + more, seen / error**2)
    half = dependence.quantile(effect, len(values), units) * error * float(np.sqrt(effect))
    return max(-1.0, mean - half), min(1.0, mean + half)


@dataclass(frozen=True)
class Comparison:
    """Two models on the same photos."""

    a: str
    b: str
    difference: float
    """Accuracy of a minus that of b."""
    ci: tuple[float, float]
    """95 % CI of the difference; see `paired_interval`."""
    p_value: float
    """McNemar's mid-p test: how often chance alone would split the photos on which they disagree so unevenly."""
    verdict: str
    """The comparison in words; it rests on `p_corrected`."""
    p_corrected: float
    """`p_value`, corrected for the number of comparisons that are made together (Holm, 1979)."""


def compare(
    a: str, correct_a: np.ndarray, b: str, correct_b: np.ndarray, clusters: Clusters | None = None
) -> Comparison:
    """Compare two models by which photos (N,) each predicted correctly: Tango's interval and McNemar's mid-p test.

    With clusters the test flips the signs of their sums (`clusters.flipped`), and the interval is that of so many fewer
    photos as the design effect says, with Student's t (`clusters.freedom`).
    """
    difference = correct_a.astype(float) - correct_b.astype(float)
    only_a, only_b, mean = int((difference > 0).sum()), int((difference < 0).sum()), float(difference.mean())
    own = dependence.numbered(clusters)
    if own is None:
        p, ci = mid_p(only_a, only_b), paired_interval(only_a, only_b, len(difference))
    else:
        p = dependence.flipped(np.bincount(own, weights=difference).round().astype(np.intp))
        effect = _paired_effect(difference, own)
        z = dependence.quantile(effect, len(difference), int(own.max()) + 1)
        ci = paired_interval(only_a / effect, only_b / effect, len(difference) / effect, z)
    return Comparison(a, b, mean, ci, p, _verdict(a, b, mean, ci, p), p)


def _paired_effect(difference: np.ndarray, clusters: Clusters) -> float:
    """The design effect on the mean of `difference` (N,), of 1, 0 and -1."""
    count, mean = len(difference), float(difference.mean())
    alone = float(difference.var(ddof=1)) / count if count > 1 else 0.0
    seen = dependence.variance((difference - mean) / count, clusters) / alone if alone else 1.0
    more = dependence.spread(np.bincount(clusters)) - 1
    ahead, behind = (float((difference == sign).mean()) for sign in (1, -1))
    parts = [
        share * (1 - share) * (1 + more * dependence.correlation(difference == sign, clusters))
        for share, sign in ((ahead, 1), (behind, -1))
    ]
    apart = ahead + behind - mean**2
    assumed = (
        (sum(parts) + 2 * ahead * behind) / apart
        if apart
        else 1 + more * dependence.correlation(difference > 0, clusters)
    )
    telling = len(np.unique(clusters[difference != 0]))  # clusters that say anything of it
    return max(1.0, (telling * seen + 4 * assumed) / (telling + 4))


def compare_all(correct: Mapping[str, np.ndarray], clusters: Clusters | None = None) -> list[Comparison]:
    """Compare every pair of models by which photos (N,) each predicted correctly, the later one first.

    The verdicts are corrected for the number of pairs (`holm`): among three equal models "beats" is said of some pair
    in at most 5 % of all cases, as it is of a single pair.
    """
    pairs = [compare(a, correct[a], b, correct[b], clusters) for a, b in combinations(reversed(list(correct)), 2)]
    return corrected(pairs)


def corrected(pairs: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons that are made together: their verdicts corrected for their number (`holm`)."""
    return [
        replace(pair, p_corrected=p, verdict=_verdict(pair.a, pair.b, pair.difference, pair.ci, p, len(pairs)))
        for pair, p in zip(pairs, holm([pair.p_value for pair in pairs]), strict=True)
    ]


def mid_p(only_a: int, only_b: int) -> float:
    """McNemar's mid-p test (Fagerland, Lydersen and Laake, 2013) on the photos that exactly one of two
    models predicted correctly.

    The exact test finds a difference between two equally good models 1 to 4 times in 100 instead of 5, so it misses
    true ones; this one 3 to 5.
    """
    count = only_a + only_b
    if not count:
        return 1.0
    fewer = min(only_a, only_b)
    return float(min(1.0, 2 * stats.binom.cdf(fewer, count, 0.5) - stats.binom.pmf(fewer, count, 0.5)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for their number (Holm, 1979), in their order."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        corrected[place] = highest
    return corrected


def paired_interval(only_a: float, only_b: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """95 % CI of the difference of two models' accuracies on the same photos: Tango's score interval (Statistics
    in Medicine, 1998).

    Those differences d whose score test (b - c - n d) / sqrt(n (2 q + d - d^2)) stays within +-1.96, where q is the
    likeliest share of photos that only the second model predicts correctly.

    Parameters
    ----------
    only_a, only_b
        Photos that exactly one of them predicted correctly.
    count
        All photos.
    """
    ahead = only_a - only_b

    def score(d: float) -> float:
        linear = -only_a - only_b + (2 * count - ahead) * d
        share = (np.sqrt(max(0.0, linear**2 + 8 * count * only_b * d * (1 - d))) - linear) / (4 * count)
        variance = count * (2 * share + d * (1 - d))
        gap = ahead - count * d
        return float(gap / np.sqrt(variance)) if variance > 0 else float(np.sign(gap)) * np.inf

    middle = ahead / count
    ends = []
    for outside in (-1.0, 1.0):
        inside = middle
        for _ in range(40):
            d = (inside + outside) / 2
            inside, outside = (d, outside) if abs(score(d)) <= z else (inside, d)
        ends.append(outside)
    return ends[0], ends[1]


def unanimous(difference: np.ndarray) -> tuple[float, float]:
    """All photos say the same: the interval is what the rule of three leaves open (Hanley, 1983)."""
    value, margin = float(difference[0]), min(1.0, 3 / len(difference))
    return max(-1.0, value - margin), min(1.0, value + margin)


def p_in_words(p: float, comparisons: int) -> str:
    """ "p = 0.12", with a note where it is corrected for several comparisons."""
    return f"p = {p:.2f}" + (f" after correction for {comparisons} comparisons" if comparisons > 1 else "")


def _verdict(a: str, b: str, mean: float, ci: tuple[float, float], p: float, comparisons: int = 1) -> str:
    first, second, sign = (a, b, 1) if mean >= 0 else (b, a, -1)
    low, high = sorted((sign * ci[0], sign * ci[1]))
    span = wording.interval((low, high))
    if p < 0.05:
        return f"{first} beats {second} by {100 * abs(mean):.1f} points, {span}"
    if low > 0:
        return (
            f"{first} is {100 * abs(mean):.1f} points ahead of {second}, {span}, yet chance is not ruled out "
            f"(McNemar's mid-p test, {p_in_words(p, comparisons)})"
        )
    if mean == 0:
        return f"{a} and {b} are equally accurate here, {span} points"
    words = p_in_words(p, comparisons)
    return f"{first} is {100 * abs(mean):.1f} points ahead of {second}, but that may be chance ({span}, {words})"
