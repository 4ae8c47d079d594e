"""Accuracy, macro recall and paired differences of photos in groups: those of a group are alike.

Each group has a chance of its own of being right, beta-distributed with the intraclass correlation given. The means of
a small share of wrong photos and a high correlation are the hardest: few groups hold all that is wrong.

One case can't be told from the photos. Of macro recall with mixed classes at correlation 0.6, an eighth of the groups
are nearly all wrong and the rest hold single errors. An eighth of the draws of 15 groups hold no wrong group, and so
look like independent photos of a better model. There 88 % is meant; an interval that held more would be too wide
wherever photos are independent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import numpy as np

from frostline.stats import intervals
from simulated.line import Line, Study

Sizes = Callable[[np.random.Generator, int], np.ndarray]


def _unequal(rng: np.random.Generator, groups: int) -> np.ndarray:
    """A fifth of the groups are of 30 photos, the rest of 2 to 4."""
    return np.where(rng.random(groups) < 0.2, 30, rng.integers(2, 5, groups))


SIZES: dict[str, Sizes] = {
    "4": lambda _, groups: np.full(groups, 4),
    "15": lambda _, groups: np.full(groups, 15),
    "30": lambda _, groups: np.full(groups, 30),
    "2 to 30": lambda rng, groups: rng.integers(2, 31, groups),
    "2 to 4, a fifth 30,": _unequal,
}


def _chances(rng: np.random.Generator, means: np.ndarray, correlation: float) -> np.ndarray:
    """Of each group, (G,)."""
    if not correlation:
        return means
    total = 1 / correlation - 1
    return rng.beta(means * total, (1 - means) * total)


def _kinds(rng: np.random.Generator, groups: np.ndarray, shares: np.ndarray, correlation: float) -> np.ndarray:
    """For each photo which of the `shares` it falls in (N,); a group has shares of its own (Dirichlet)."""
    count = int(groups.max()) + 1
    if correlation:
        drawn = rng.standard_gamma(np.broadcast_to(shares * (1 / correlation - 1), (count, len(shares))))
        own = drawn / np.maximum(drawn.sum(1, keepdims=True), 1e-300)
    else:
        own = np.broadcast_to(shares, (count, len(shares)))
    return np.asarray((rng.random(len(groups))[:, None] > own[groups].cumsum(1)[:, :-1]).sum(1))


def accuracy(count: int, sizes: Sizes, mean: float, correlation: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        truth = rng.uniform(mean - 0.02, min(0.99, mean + 0.02))
        groups = np.arange(count).repeat(sizes(rng, count))
        right = rng.random(len(groups)) < _chances(rng, np.full(count, truth), correlation)[groups]
        ends = intervals.mean_interval(right.astype(float), groups)
        return ends[0] <= truth <= ends[1]

    return study


def macro_recall(count: int, sizes: Sizes, recalls: tuple[float, ...], correlation: float, *, nested: bool) -> Study:
    """`nested`: all photos of a group are of one class."""

    def study(rng: np.random.Generator) -> bool:
        truth = np.clip(np.array(recalls) + rng.uniform(-0.02, 0.02, len(recalls)), 0, 1)
        groups = np.arange(count).repeat(sizes(rng, count))
        labels = groups % len(recalls) if nested else rng.permutation(np.arange(len(groups)) % len(recalls))
        shift = _chances(rng, np.full(count, truth.mean()), correlation)
        if nested:
            shift = _chances(rng, truth[np.arange(count) % len(recalls)], correlation)
            right = rng.random(len(groups)) < shift[groups]
        else:
            right = rng.random(len(groups)) < np.clip(shift[groups] + truth[labels] - truth.mean(), 0, 1)
            truth = truth if not correlation else _clipped(truth, correlation)
        ends = intervals.balanced_interval(right.astype(float), labels, groups)
        return bool(ends[0] <= truth.mean() <= ends[1])

    return study


def _clipped(recalls: np.ndarray, correlation: float) -> np.ndarray:
    """The mean over groups of each class's recall, where a group moves all classes alike and ends at 0 and 1."""
    total = 1 / correlation - 1
    draws = np.random.default_rng(0).beta(recalls.mean() * total, (1 - recalls.mean()) * total, 4000)
    return np.asarray(np.clip(draws[:, None] + recalls - recalls.mean(), 0, 1).mean(0))


def outcomes(
    rng: np.random.Generator, groups: np.ndarray, only_a: float, only_b: float, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    wrong = 0.05
    shares = np.array([only_a, only_b, 1 - only_a - only_b - wrong, wrong])
    kind = _kinds(rng, groups, shares, correlation)
    return (kind == 0) | (kind == 2), (kind == 1) | (kind == 2)


def difference(count: int, sizes: Sizes, shares: tuple[float, float], correlation: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        more = rng.uniform(0, 0.01)
        groups = np.arange(count).repeat(sizes(rng, count))
        a, b = outcomes(rng, groups, shares[0] + more, shares[1], correlation)
        found = intervals.compare("a", a, "b", b, groups)
        return found.ci[0] <= shares[0] + more - shares[1] <= found.ci[1]

    return study


def told_apart(count: int, sizes: Sizes, each: float, correlation: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        groups = np.arange(count).repeat(sizes(rng, count))
        a, b = outcomes(rng, groups, each, each, correlation)
        return "beats" in intervals.compare("a", a, "b", b, groups).verdict

    return study


def made_worse(count: int, sizes: Sizes, drop: float, correlation: float) -> Study:
    """The mean drop over 60 changed versions of each photo; photos withstand to different degrees, as often as the
    correlation says to that of their group."""

    def study(rng: np.random.Generator) -> bool:
        groups = np.arange(count).repeat(sizes(rng, count))
        right = rng.random(len(groups)) < _chances(rng, np.full(count, 0.93), correlation)[groups]
        own, shared = (rng.beta(4 * (1 - drop), 4 * drop, many) for many in (len(groups), count))
        withstands = np.where(rng.random(len(groups)) < correlation, shared[groups], own)
        ends = intervals.average_interval(right - rng.binomial(60, np.where(right, withstands, 0.2)) / 60, groups)
        return bool(ends[0] <= 0.93 * drop - 0.07 * 0.2 <= ends[1])

    return study


def _cells(counts: tuple[int, ...], names: tuple[str, ...]) -> Iterator[tuple[int, Sizes, float, str]]:
    for count, name, correlation in product(counts, names, (0.0, 0.1, 0.3, 0.6)):
        yield count, SIZES[name], correlation, f"{count} groups of {name} photos, correlation {correlation}"


def _most(correlation: float) -> float:
    """Groups that say nothing are not known to: there intervals are a little too wide."""
    return 0.98 if correlation else 0.99


def lines() -> Iterator[Line]:
    for count, sizes, correlation, of in _cells((15, 20, 30, 40, 100), tuple(SIZES)):
        for mean in (0.7, 0.85, 0.93, 0.97):
            yield Line(
                "accuracy, groups", f"{of}, {mean}", accuracy(count, sizes, mean, correlation), 0.93, _most(correlation)
            )
    for count, sizes, correlation, of in _cells((15, 30, 100), ("4", "15", "2 to 30")):
        for shares in ((0.06, 0.06), (0.08, 0.03)):
            study = difference(count, sizes, shares, correlation)
            yield Line(
                "paired difference, groups", f"{of}, {shares[0]} and {shares[1]} alone", study, 0.93, _most(correlation)
            )
        for each in (0.03, 0.08):
            study = told_apart(count, sizes, each, correlation)
            yield Line("equal models told apart, groups", f"{of}, {each} alone", study, 0.0, 0.06)
        for recalls, nested in product(((0.95, 0.9, 0.8), (0.9, 0.9, 0.9, 0.85, 0.8)), (True, False)):
            study = macro_recall(count, sizes, recalls, correlation, nested=nested)
            what = "each of one class" if nested else "classes mixed"
            least = 0.88 if (count, correlation, nested) == (15, 0.6, False) else 0.92
            name = f"{of}, {len(recalls)} classes, {what}"
            yield Line("macro recall, groups", name, study, least, _most(correlation))
        yield Line("mean drop, groups", of, made_worse(count, sizes, 0.1, correlation), 0.92, _most(correlation))
