"""Resamples of photos for bootstraps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from frostline.stats.clusters import Clusters, numbered

RESAMPLES = 4000
_AT_A_TIME = 2_000_000  # counts of photos in memory at a time


def photo_counts(
    photos: int, seed: int, resamples: int = RESAMPLES, clusters: Clusters | None = None
) -> Iterator[npt.NDArray[np.float64]]:
    """How often each photo is drawn in `resamples` resamples of all photos: (B, photos) at a time, until all are
    done. Each row adds up to `photos`.

    Photos that share one of the `clusters` (photos,) are drawn together or not at all, G - 1 of G clusters: that makes
    the variance of the bootstrap unbiased (McCarthy and Snowden, The bootstrap and finite population sampling, 1985).
    Rows are then scaled to add up to `photos`, and are no whole numbers.
    """
    rng = np.random.default_rng(seed)
    step = max(1, _AT_A_TIME // photos)
    own = numbered(clusters)
    units = photos if own is None else int(own.max()) + 1
    for start in range(0, resamples, step):
        drawn = rng.multinomial(
            units if own is None else max(1, units - 1), np.full(units, 1 / units), min(step, resamples - start)
        ).astype(float)
        if own is None:
            yield drawn
        else:
            counts = drawn[:, own]
            yield counts * (photos / counts.sum(1, keepdims=True))
