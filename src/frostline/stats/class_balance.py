"""Unequal classes: class weights for the loss, class-balanced sampling, and means over classes in place of photos."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from frostline.recipes import Balance

Labels = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

BETA = 0.9999
"""Of the effective number of samples (Cui et al., Class-Balanced Loss Based on Effective Number of Samples, CVPR 2019).
Close to 1: only beyond some thousand photos of a class does one more count for less."""
UNEQUAL = 1.5
"""Classes are called unequal from this ratio of the largest to the smallest on."""


def unequal(counts: Iterable[int]) -> bool:
    """Whether the largest class has at least 1.5 times the photos of the smallest; classes without any are not
    counted."""
    some = [count for count in counts if count]
    return bool(some) and max(some) >= UNEQUAL * min(some)


def class_mean(values: npt.ArrayLike, labels: Labels) -> float:
    """Mean over the classes present in `labels` (N,) of the mean of `values` (N,) in each: every class counts the
    same."""
    counts = np.bincount(labels)
    sums = np.bincount(labels, weights=np.asarray(values, dtype=np.float64))
    return float((sums[counts > 0] / counts[counts > 0]).mean())


def class_weights(counts: npt.ArrayLike) -> Floats:
    """Weights (C,) of the class-balanced loss: the inverse of the effective number of samples (Cui et al., CVPR 2019).

    The effective number of n photos is ``(1 - BETA ** n) / (1 - BETA)``. The weights have mean 1 over the photos, so
    that learning rates mean the same as without them. A class without photos has weight 0.

    Parameters
    ----------
    counts
        (C,) training photos of each class.
    """
    photos = np.asarray(counts, dtype=np.float64)
    effective = -np.expm1(photos * np.log(BETA)) / (1 - BETA)
    weights = np.divide(1, effective, out=np.zeros_like(effective), where=photos > 0)
    return np.asarray(weights * (photos.sum() / (weights * photos).sum()))


def represented(counts: npt.ArrayLike, balance: Balance) -> Floats:
    """The class shares (C,) that a model's probabilities stand for after training on `counts` (C,) photos.

    A loss weighted by class moves its minimum to the posterior under shares in proportion to weight times count (Elkan,
    The foundations of cost-sensitive learning, IJCAI 2001). Corrections of the prior have to start from these shares.
    """
    photos = np.asarray(counts, dtype=np.float64)
    mass = {"none": photos, "sampling": (photos > 0).astype(np.float64), "loss": class_weights(photos) * photos}[
        balance
    ]
    return np.asarray(mass / mass.sum())


def photo_weights(labels: Labels, prior: Floats) -> Floats:
    """Weights (N,), mean 1, under which photos with these `labels` (N,) have the class shares `prior` (C,)."""
    counts = np.bincount(labels, minlength=len(prior))
    weights = (prior / np.maximum(counts, 1))[labels]
    total = weights.sum()
    return np.asarray(weights * (len(labels) / total) if total else np.ones(len(labels)))


def equal_draw(
    labels: Labels, views: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Class-balanced sampling: as many draws as there are photos, from each class equally often (to within one).

    Returns photos (N,) and a view of each (N,).

    A photo comes again only once all of its class were drawn, and with a view it has not yet been seen in as long as
    there is one. What is left over when the classes don't divide the photos goes to classes chosen at random. The order
    is by class: shuffle it.

    Parameters
    ----------
    labels
        (N,) class of each photo.
    views
        Stored views of each photo.
    """
    present = np.unique(labels)
    quotas = np.full(len(present), len(labels) // len(present))
    quotas[rng.permutation(len(present))[: len(labels) % len(present)]] += 1
    drawn = [
        _draw(np.flatnonzero(labels == c), int(quota), views, rng) for c, quota in zip(present, quotas, strict=True)
    ]
    return np.concatenate([photos for photos, _ in drawn]), np.concatenate([seen for _, seen in drawn])


def _draw(
    members: npt.NDArray[np.intp], quota: int, views: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """`quota` draws from the photos of one class, in rounds that each hold every photo once."""
    rounds = -(-quota // len(members))
    turns = [rng.permutation(len(members)) for _ in range(rounds)]
    places = np.concatenate([np.zeros(0, dtype=np.intp), *turns])[:quota]
    order = rng.permuted(np.tile(np.arange(views), (len(members), 1)), axis=1)
    return members[places], order[places, np.arange(quota) // len(members) % views]
