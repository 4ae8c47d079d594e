"""Probabilities of classes, and the table of them that runs and `frostline predict` write: predictions.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from frostline.files import write_text

DIGITS = 6


class Prediction(NamedTuple):
    """One photo's row."""

    path: str
    true: str
    """Its class where it is known, else empty."""
    probabilities: np.ndarray
    """(C,) after the bundle's temperature."""


def softmax(logits: npt.NDArray[np.floating[Any]], temperature: float) -> npt.NDArray[np.float64]:
    """(N, C) probabilities in float64, so that a row sums to 1 to fifteen digits."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


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
