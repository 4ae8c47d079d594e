"""The mean of a figure over photos: its interval, its test, and a test that it is small enough not to matter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

from frostline.stats.clusters import Clusters, numbered, variance

Floats = npt.NDArray[np.float64]


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


def mean(values: Floats, clusters: Clusters | None = None) -> Mean:
    """The mean of values (N,), one a photo; with clusters its error is that of their sums (`stats.clusters`)."""
    count = len(values)
    own = numbered(clusters)
    units = count if own is None else int(own.max()) + 1
    if units < 2:
        return Mean(float(values.mean()) if count else 0.0, np.inf, 0)
    average, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(count))
    if own is not None:
        error = max(error, float(np.sqrt(variance((values - average) / count, own))))
    return Mean(average, error, units - 1)


def folds(count: int, clusters: Clusters | None, number: int) -> npt.NDArray[np.intp]:
    """(count,) the part, 0 to number - 1, of each photo; photos of a cluster are in one part."""
    own = numbered(clusters)
    members = np.arange(count) if own is None else own
    groups = int(members.max()) + 1
    return np.asarray(np.random.default_rng(0).permutation(groups)[members] % min(number, groups))
