"""Labels called wrong, and photos called unlike any class: none where there are none, and at the precision told."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from frostline.checks import chance
from simulated.line import Line, Study


def predictions(
    rng: np.random.Generator, photos: int, classes: int, wrong: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions (photos, classes), labels, and which labels are wrong.

    Right labels are drawn from the true probabilities; the predictions are less sure than these, as those of a
    penalised regression are, and err.
    """
    logits = rng.normal(size=(photos, classes)) * rng.uniform(2, 5)
    true = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (true.cumsum(1) < rng.random((photos, 1))).sum(1).clip(0, classes - 1)
    planted = rng.random(photos) < wrong
    labels = np.where(planted, (labels + rng.integers(1, classes, photos)) % classes, labels)
    told = np.exp(rng.uniform(0.4, 0.8) * (logits + 0.3 * rng.normal(size=logits.shape)))
    return told / told.sum(1, keepdims=True), labels, planted


def found(rng: np.random.Generator, photos: int, classes: int, wrong: float) -> tuple[chance.WrongLabels, np.ndarray]:
    told, labels, planted = predictions(rng, photos, classes, wrong)
    return chance.wrong_labels(told, labels, np.arange(photos), np.ones(photos, bool), hard=0.6), planted


def called(photos: int, classes: int) -> Study:
    """Whether any of so many right labels is called."""
    return lambda rng: bool(found(rng, photos, classes, 0)[0].called.any())


def precision(photos: int, classes: int, wrong: float) -> Study:
    """Whether the interval holds the share of wrong ones among the labels called; so it does where none is called."""

    def study(rng: np.random.Generator) -> bool:
        one, planted = found(rng, photos, classes, wrong)
        if one.precision_ci is None:
            return True
        low, high = one.precision_ci
        return bool(low <= planted[one.called].mean() <= high)

    return study


def outermost(photos: int, degrees: int) -> Study:
    """Whether any of so many distances, those of normal features in `degrees` dimensions, is called."""
    return lambda rng: bool(chance.outliers(np.sqrt(rng.chisquare(degrees, photos))).called.any())


def lines() -> Iterator[Line]:
    for photos, classes in ((100, 2), (300, 5), (1000, 5), (3000, 10)):
        yield Line("right labels called", f"{photos} photos, {classes} classes", called(photos, classes), 0, 0.05)
    for photos, classes in ((300, 2), (600, 5), (2000, 5)):
        for wrong in (0.03, 0.1):
            of = f"{photos} photos, {classes} classes, {100 * wrong:.0f} % wrong"
            yield Line("precision of labels called", of, precision(photos, classes, wrong), 0.93, 1)
    for photos, degrees in ((100, 3), (600, 3), (600, 30), (3000, 30)):
        of = f"{photos} photos, {degrees} dimensions"
        yield Line("usual photos called unlike any class", of, outermost(photos, degrees), 0, 0.05)
