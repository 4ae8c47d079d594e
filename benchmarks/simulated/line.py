"""A line of the table of coverage."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Study = Callable[[np.random.Generator], bool]
"""Draws one study and says whether what is counted happened: the interval held the truth, a verdict was false."""


class Line(NamedTuple):
    """Something counted over many simulated studies."""

    what: str
    of: str
    """Of which studies: photos, shares, shapes."""
    study: Study
    least: float
    """The lowest share of studies that is meant."""
    most: float
    """The highest."""
