"""The confidence threshold that is offered for a wanted precision: is the true precision there as high?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
from scipy import optimize, special, stats

from frostline.documents.bundle import ThresholdRow
from frostline.stats import clusters, thresholds
from simulated.line import Line, Study

PHOTOS = (50, 110, 200, 400, 700)
ACCURACIES = (0.8, 0.86, 0.9, 0.93, 0.95, 0.97)
_QUANTILES = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)


class Model:
    """The chance of being correct has a normal logit; the confidence is that logit times `sharpness`: 1 is
    calibrated, more is overconfident. Photos come in groups of `size`, whose outcomes correlate by 0.3 beyond what the
    confidence says."""

    def __init__(self, accuracy: float, spread: float, sharpness: float, size: int = 1) -> None:
        self._accuracy, self._size = accuracy, size
        self._spread, self._sharpness = spread, sharpness
        self._mean = _mean_logit(accuracy, spread)
        sure = self._mean + spread * _QUANTILES[::-1]
        self._confidences = special.expit(sharpness * sure)
        self._precisions = np.cumsum(special.expit(sure)) / np.arange(1, len(sure) + 1)

    def table(self, rng: np.random.Generator, photos: int) -> list[ThresholdRow]:
        """The thresholds that a draw of validation photos offers."""
        logit = rng.normal(self._mean, self._spread, photos)
        groups = np.arange(photos) // self._size
        luck = rng.random(photos)
        if self._size > 1:
            luck = clusters.uniforms(rng, 1, groups, 0.3, self._accuracy)[0]
        correct = luck < special.expit(logit)
        return thresholds.table(special.expit(self._sharpness * logit).tolist(), correct.tolist(), groups)

    def breaks(self, row: ThresholdRow) -> bool:
        """Whether the true precision at a row's threshold is below the one it promises."""
        above = int(np.searchsorted(-self._confidences, -row["threshold"], side="right"))
        return bool(self._precisions[max(above, 1) - 1] < row["precision"])


@cache
def _mean_logit(accuracy: float, spread: float) -> float:
    return float(optimize.brentq(lambda m: special.expit(m + spread * _QUANTILES).mean() - accuracy, -5, 30))


def broken(photos: int, model: Model) -> Study:
    """Some row of the table promises more than is true."""
    return lambda rng: any(map(model.breaks, model.table(rng, photos)))


def topmost_broken(photos: int, models: list[Model]) -> Study:
    """Of the draws that offer any: the row of the highest precision promises more than is true."""

    def study(rng: np.random.Generator) -> bool:
        while True:
            model = models[rng.integers(len(models))]
            if rows := model.table(rng, photos):
                return model.breaks(rows[-1])

    return study


def lines() -> Iterator[Line]:
    shapes = {"calibrated": (1.6, 1.0), "overconfident": (1.6, 1.4), "hardly sorted by confidence": (0.6, 1.0)}
    for photos in PHOTOS:
        for shape, how in shapes.items():
            for accuracy in ACCURACIES:
                of = f"{photos} photos, accuracy {accuracy}, {shape}"
                yield Line("thresholds, any broken", of, broken(photos, Model(accuracy, *how)), 0.0, 0.05)
            models = [Model(accuracy, *how) for accuracy in np.linspace(ACCURACIES[0], ACCURACIES[-1], 18)]
            of = f"{photos} photos, accuracy {ACCURACIES[0]} to {ACCURACIES[-1]}, {shape}"
            yield Line("highest threshold offered, broken", of, topmost_broken(photos, models), 0.0, 0.05)
    for photos in (200, 700):
        for shape, how in shapes.items():
            for accuracy in (0.9, 0.95):
                of = f"{photos} photos in groups of 10, accuracy {accuracy}, {shape}"
                yield Line(
                    "thresholds, any broken, groups", of, broken(photos, Model(accuracy, *how, size=10)), 0.0, 0.05
                )
