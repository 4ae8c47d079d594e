"""Accuracy, macro recall, paired differences: photos that are independent of each other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from frostline.stats import intervals
from simulated.line import Line, Study


def accuracy(photos: int, low: float, high: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        truth = rng.uniform(low, high)
        ends = intervals.mean_interval(rng.random(photos) < truth)
        return ends[0] <= truth <= ends[1]

    return study


def macro_recall(photos: tuple[int, ...], recalls: tuple[float, ...]) -> Study:
    labels = np.repeat(np.arange(len(photos)), photos)

    def study(rng: np.random.Generator) -> bool:
        truth = np.clip(np.array(recalls) + rng.uniform(-0.02, 0.02, len(recalls)), 0, 1)
        ends = intervals.balanced_interval((rng.random(len(labels)) < truth[labels]).astype(float), labels)
        return bool(ends[0] <= truth.mean() <= ends[1])

    return study


def outcomes(rng: np.random.Generator, photos: int, only_a: float, only_b: float) -> tuple[np.ndarray, np.ndarray]:
    """Which photos each of two models gets right, of which these shares are right with one alone; the rest mostly with
    both."""
    kind = rng.random(photos)
    a, b = kind < only_a, (kind >= only_a) & (kind < only_a + only_b)
    both = kind > only_a + only_b + 0.04
    return a | both, b | both


def difference(photos: int, only_a: float, only_b: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        more = rng.uniform(0, 0.01)
        found = intervals.compare("a", (o := outcomes(rng, photos, only_a + more, only_b))[0], "b", o[1])
        return found.ci[0] <= only_a + more - only_b <= found.ci[1]

    return study


def told_apart(photos: int, each: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        a, b = outcomes(rng, photos, each, each)
        return intervals.compare("a", a, "b", b).p_value < 0.05

    return study


def made_worse(photos: int, drop: float) -> Study:
    """The mean drop over 60 changed versions of each photo; right ones withstand to different degrees."""

    def study(rng: np.random.Generator) -> bool:
        right = rng.random(photos) < 0.93
        kept = np.where(right, rng.beta(4 * (1 - drop), 4 * drop, photos), 0.2)
        ends = intervals.average_interval(right - rng.binomial(60, kept) / 60)
        return bool(ends[0] <= 0.93 * drop - 0.07 * 0.2 <= ends[1])

    return study


def lines() -> Iterator[Line]:
    for photos in (60, 138, 300, 690, 2000):
        for low, high in ((0.65, 0.75), (0.88, 0.92), (0.94, 0.96), (0.985, 0.995)):
            yield Line("accuracy", f"{photos} photos, {low} to {high}", accuracy(photos, low, high), 0.93, 0.97)
    for counts, recalls in (
        ((138,) * 5, (0.95, 0.96, 0.85, 0.95, 0.88)), ((20, 20, 20), (0.9, 0.8, 0.7)),
        ((50,) * 5, (0.97, 0.96, 0.95, 0.97, 0.96)),
        ((100, 60, 30, 20), (0.93, 0.9, 0.8, 0.7)), ((12,) * 10, (0.9,) * 10), ((200, 20), (0.95, 0.85)),
    ):  # fmt: skip
        of = f"{len(counts)} classes of {', '.join(map(str, dict.fromkeys(counts)))} photos"
        yield Line("macro recall", of, macro_recall(counts, recalls), 0.93, 0.97)
    for photos in (138, 300, 690, 2000):
        for a, b in ((0.05, 0.05), (0.04, 0.02), (0.1, 0.1), (0.25, 0.04)):
            yield Line("paired difference", f"{photos} photos, {a} and {b} alone", difference(photos, a, b), 0.93, 0.97)
    for photos in (48, 300):
        for drop in (0.05, 0.2):
            yield Line("mean drop", f"{photos} photos, {drop}", made_worse(photos, drop), 0.92, 0.97)
    for photos in (300, 690, 2000):
        for each in (0.02, 0.05, 0.1):
            yield Line(
                "equal models told apart", f"{photos} photos, {each} alone", told_apart(photos, each), 0.02, 0.06
            )
