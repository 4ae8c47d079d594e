"""What unfreezing gains on photos of another kind, less what it gains on photos like those trained on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from frostline.evidence import out_of_distribution
from frostline.stats import decision
from frostline.stats.decision import Difference
from simulated.groups import outcomes
from simulated.line import Line, Study

HERE, THERE = (0.05, 0.02), (0.11, 0.08)
"""The shares of photos that exactly one of both strategies gets right: equal gains of 3 points, more errors there."""


def gain(
    rng: np.random.Generator, photos: int, shares: tuple[float, float], size: int, unequal: bool = False
) -> Difference:
    """Of so many photos, in groups of `size`."""
    groups = np.arange(photos) // size
    a, b = outcomes(rng, groups, *shares, 0.3 if size > 1 else 0.0)
    return decision.difference(a, b, rng.permutation(np.arange(photos) % 5), unequal, groups)


def told_apart(here: int, there: int, size: int, unequal: bool) -> Study:
    def study(rng: np.random.Generator) -> bool:
        gains = [gain(rng, count, shares, size, unequal) for count, shares in ((there, THERE), (here, HERE))]
        return out_of_distribution.apart(*gains).p_value < 0.05

    return study


def difference(here: int, there: int, more: float) -> Study:
    """Whether the interval holds the true difference of two gains, of which that there is larger by `more`."""

    def study(rng: np.random.Generator) -> bool:
        own = gain(rng, here, HERE, 1)
        found = out_of_distribution.apart(gain(rng, there, (THERE[0], THERE[1] - more), 1), own)
        return found.ci[0] <= more <= found.ci[1]

    return study


def lines() -> Iterator[Line]:
    for here, there, size, unequal in ((60, 300, 1, False), (300, 300, 1, False), (300, 300, 1, True),
                                       (300, 300, 10, False)):  # fmt: skip
        of = f"{here} photos here, {there} there" + (f", groups of {size}" if size > 1 else "")
        of += ", macro recall" if unequal else ""
        yield Line("equal gains told apart", of, told_apart(here, there, size, unequal), 0.0, 0.05)
    for here, there in ((60, 300), (300, 300)):
        yield Line(
            "difference of two gains", f"{here} photos here, {there} there", difference(here, there, -0.06), 0.93, 0.97
        )
