"""Several seeds: the interval of a mean over photos and seeds, and of the difference of two strategies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from frostline.stats import across_seeds
from simulated.line import Line, Study

PHOTOS, SHARE = 600, 0.25  # of a data set, and the part that each seed tests


def drawn(rng: np.random.Generator, seeds: int, ratio: float, share: float, models: int = 1) -> list[np.ndarray]:
    """Which photos were tested, and which of them each model got right: (photos, seeds) each.

    Photos are of different difficulty, the same with every seed. Each seed adds luck of its own, whose standard
    deviation is `ratio` times that by which the choice of photos makes one seed's accuracy waver.
    """
    hard = rng.random((PHOTOS, 1)) < 0.3
    tested = np.zeros((PHOTOS, seeds))
    for seed in range(seeds):
        tested[rng.permutation(PHOTOS)[: round(share * PHOTOS)], seed] = 1
    luck = ratio * np.sqrt(0.85 * 0.15 / (share * PHOTOS))
    chances = [np.clip(np.where(hard, 0.64, 0.94) + rng.normal(0, luck, seeds), 0, 1) for _ in range(models)]
    return [tested, *((rng.random((PHOTOS, seeds)) < chance) * tested for chance in chances)]


TRUTH = 0.3 * 0.64 + 0.7 * 0.94


def mean(seeds: int, ratio: float, share: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        tested, right = drawn(rng, seeds, ratio, share)
        low, high = across_seeds.mean_across(right, tested, int(rng.integers(2**31))).ci
        return low <= TRUTH <= high

    return study


def told_apart(seeds: int, ratio: float, share: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        tested, a, b = drawn(rng, seeds, ratio, share, models=2)
        return " beats " in across_seeds.compare_across("a", a, "b", b, tested, int(rng.integers(2**31))).verdict

    return study


def lines() -> Iterator[Line]:
    for seeds in (2, 3, 5):
        for share, photos in ((SHARE, "photos of their own"), (1.0, "the same photos")):
            for ratio in (0.0, 0.3, 1.0):
                of = f"{seeds} seeds, {photos}, scattering {ratio:g} times as far as photos do"
                # few seeds can't prove that they scatter little, so there the interval is too wide
                yield Line("mean of seeds", of, mean(seeds, ratio, share), 0.92, 1.0 if ratio < 1 else 0.98)
    for ratio in (0.0, 0.3, 1.0):
        of = f"3 seeds, scattering {ratio:g} times as far as photos do"
        yield Line("equal strategies told apart over seeds", of, told_apart(3, ratio, SHARE), 0.0, 0.05)
