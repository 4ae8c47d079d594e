"""Two models' macro recall on the same photos: the mean over classes, in place of photos, of the paired differences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.intp]

_FLIPS = 4000


def weights(labels: Places) -> Floats:
    """(N,) What each photo counts in the macro recall, 1 on average: N / (classes x photos of its class)."""
    counts = np.bincount(labels)
    return np.asarray(len(labels) / ((counts > 0).sum() * counts[labels]))


def parts(difference: Floats, labels: Places, clusters: Places | None = None) -> Floats:
    """(G,) What each cluster of photos adds to N times the difference of two macro recalls.

    Parameters
    ----------
    difference
        (N,) 1 where the first model alone is right about a photo, -1 where the second alone is, else 0.
    labels
        (N,) class of each photo.
    clusters
        (N,) photos with the same number are not independent; None: all are.
    """
    each = weights(labels) * difference
    return each if clusters is None else np.bincount(clusters, weights=each).astype(np.float64)


def interval(difference: Floats, labels: Places, clusters: Places | None = None) -> tuple[float, float]:
    """95 % CI of the difference of two macro recalls: Student's t over the clusters' parts, as for a stratified mean.

    One more photo is added on which the models disagree, half on each side (Agresti and Min, Biometrics, 2005): without
    it, models that never disagree would differ by 0 with certainty. Parameters as for `parts`.
    """
    count, mass = len(labels), weights(labels)
    mean = float((mass * difference).sum() / count)
    sizes = np.bincount(labels)
    of_class = np.bincount(labels, weights=difference) / np.maximum(sizes, 1)
    apart = parts(difference - of_class[labels], labels, clusters)
    squares = apart**2
    total = float(squares.sum() + (mass**2).mean())
    freedom = max(4.0, total**2 / max(float((squares**2).sum()), 1e-12))
    half = float(stats.t.ppf(0.975, min(freedom, len(apart) - 1 or 1)) * np.sqrt(total) / count)
    return max(-1.0, mean - half), min(1.0, mean + half)


def p_value(difference: Floats, labels: Places, clusters: Places | None = None) -> float:
    """How often chance alone would set two equal models' macro recalls so far apart.

    A permutation test: equal models could change places on every cluster of photos, so each cluster's part has either
    sign. Outcomes exactly as far apart count half, as in McNemar's mid-p test, which this one is where classes are
    equal and photos independent. 4,000 permutations. Parameters as for `parts`.
    """
    return sign_flips(parts(difference, labels, clusters))


def sign_flips(parts: Floats) -> float:
    """The permutation test of `p_value` for parts (G,) of a sum that is 0 on average under equal models."""
    found = parts[np.abs(parts) > 1e-12]
    if not len(found):
        return 1.0
    seen = abs(float(found.sum())) - 1e-9
    signs = np.random.default_rng(0).integers(0, 2, (_FLIPS, len(found)), dtype=np.int8)
    drawn = np.abs((2.0 * signs - 1.0) @ found)
    beyond, level = (drawn > seen + 2e-9).sum(), ((drawn >= seen) & (drawn <= seen + 2e-9)).sum()
    return float(min(1.0, (beyond + 0.5 * level + 0.5) / (_FLIPS + 0.5)))
