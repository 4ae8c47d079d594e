"""The mean of a figure over photos: its interval, its test, and a test that it is small enough not to matter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Clusters = npt.NDArray[np.intp] | None
"""(N,) photos that are not independent share a number; None = all are independent."""


class Mean(NamedTuple):
    """A mean over photos."""

    value: float
    error: float
    """Its standard error."""
    freedom: int
    """Degrees of freedom of that error: independent photos (or clusters of them) less one."""

    @property
    def ci(self) -> tuple[float, float]:
        """95 % CI, Student's."""
        half = float(stats.t.ppf(0.975, max(1, self.freedom))) * self.error if self.freedom > 0 else np.inf
        return self.value - half, self.value + half

    @property
    def above(self) -> float:
        """Two-sided p value that the true mean is above 0; 1 where the mean is not."""
        return self._p(self.value)

    @property
    def below(self) -> float:
        """Two-sided p value that the true mean is below 0; 1 where the mean is not."""
        return self._p(-self.value)

    def under(self, margin: float) -> float:
        """The same for a true mean below `margin`: an interval that ends below it."""
        return self._p(margin - self.value)

    def _p(self, distance: float) -> float:
        if distance <= 0 or self.freedom < 1 or not self.error > 0:
            return 1.0
        return 2 * float(stats.t.sf(distance / self.error, self.freedom))


def mean(values: Floats, clusters: Clusters = None) -> Mean:
    """The mean of values (N,), one a photo, with a standard error from clusters of photos (Liang and Zeger, 1986)."""
    count = len(values)
    average = float(values.mean()) if count else 0.0
    sums = values - average if clusters is None else np.bincount(_numbered(clusters), values - average)
    groups = len(sums)
    if groups < 2:
        return Mean(average, np.inf, 0)
    error = float(np.sqrt((sums**2).sum() * groups / (groups - 1))) / count
    return Mean(average, error, groups - 1)


def folds(count: int, clusters: Clusters, number: int, seed: int = 0) -> npt.NDArray[np.intp]:
    """(count,) the part, 0 to number - 1, of each photo; photos of a cluster are in one part."""
    members = np.arange(count) if clusters is None else _numbered(clusters)
    groups = int(members.max()) + 1
    return np.asarray(np.random.default_rng(seed).permutation(groups)[members] % min(number, groups))


def _numbered(clusters: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return np.asarray(np.unique(clusters, return_inverse=True)[1], dtype=np.intp)
