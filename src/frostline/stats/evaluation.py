"""From logits to what a run folder holds of a model: its figures, and the temperature that ships."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from frostline.stats import calibration as calibrating
from frostline.stats import metrics
from frostline.stats.probabilities import softmax


class Calibration(NamedTuple):
    """How logits become probabilities."""

    temperature: float
    """What ships; 1 where no photos were left to fit it on."""
    on_validation: bool
    """Fitted on validation photos, so that the photos reported on never shaped it."""


def calibrate(
    logits: np.ndarray, labels: np.ndarray, *, reported: bool, weights: np.ndarray | None = None
) -> Calibration:
    """Fit the temperature on validation photos (of these `weights`), unless those are the very photos reported on."""
    if reported:
        return Calibration(1.0, False)
    return Calibration(calibrating.fit_temperature(logits, labels, weights), True)


def figures(
    logits: np.ndarray, labels: np.ndarray, classes: list[str], calibration: Calibration, seed: int
) -> metrics.Figures:
    """All figures of one model from logits (N, C) and class indices (N,)."""
    calibrated = (
        softmax(logits, calibration.temperature)
        if calibration.on_validation
        else calibrating.cross_fitted(logits, labels, seed)
    )
    return metrics.figures(logits, labels, classes, calibration.temperature, calibrated, seed)
