"""Resamples of photos for bootstraps."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

RESAMPLES = 4000
_AT_A_TIME = 2_000_000  # counts of photos in memory at a time


def photo_counts(photos: int, seed: int, resamples: int = RESAMPLES) -> Iterator[npt.NDArray[np.float64]]:
    """How often each photo is drawn in `resamples` resamples of all photos: (B, photos) at a time, until all are
    done."""
    rng = np.random.default_rng(seed)
    step = max(1, _AT_A_TIME // photos)
    for start in range(0, resamples, step):
        yield rng.multinomial(photos, np.full(photos, 1 / photos), min(step, resamples - start)).astype(float)
