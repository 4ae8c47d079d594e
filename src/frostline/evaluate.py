"""From logits to what a run folder holds of a model: its figures and its predictions, photo by photo."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from frostline import metrics
from frostline.files import write_text

DIGITS = 6


class Prediction(NamedTuple):
    """One photo's row."""

    path: str
    true: str
    """Its class where it is known, else empty."""
    probabilities: np.ndarray
    """(C,) after the bundle's temperature."""


class Calibration(NamedTuple):
    """How logits become probabilities."""

    temperature: float
    """What ships; 1 where no photos were left to fit it on."""
    on_validation: bool
    """Fitted on validation photos, so that the photos reported on never shaped it."""


def calibrate(logits: torch.Tensor, labels: np.ndarray, *, reported: bool) -> Calibration:
    """Fit the temperature on validation photos, unless those are the very photos reported on."""
    if reported:
        return Calibration(1.0, False)
    return Calibration(metrics.fit_temperature(logits, labels), True)


def figures(
    logits: torch.Tensor, labels: np.ndarray, classes: list[str], calibration: Calibration, seed: int
) -> metrics.Figures:
    """All figures of one model from logits (N, C) and class indices (N,)."""
    calibrated = (
        metrics.softmax(logits, calibration.temperature)
        if calibration.on_validation
        else metrics.cross_fitted(logits, labels, seed)
    )
    return metrics.figures(logits, labels, classes, calibration.temperature, calibrated, seed)


def header(classes: Sequence[str]) -> list[str]:
    """The columns of predictions.csv."""
    return ["path", "true", "predicted", "confidence", *(f"p_{c}" for c in classes)]


def row(prediction: Prediction, classes: Sequence[str]) -> list[str]:
    """One line of predictions.csv."""
    p = prediction.probabilities
    top = int(p.argmax())
    return [prediction.path, prediction.true, classes[top], f"{p[top]:.{DIGITS}f}", *(f"{x:.{DIGITS}f}" for x in p)]


def write_predictions(path: Path, predictions: Iterable[Prediction], classes: Sequence[str]) -> None:
    """Write predictions.csv, atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header(classes))
    writer.writerows(row(p, classes) for p in predictions)
    write_text(path, text.getvalue())
