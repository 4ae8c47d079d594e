"""Figures from predictions, each with what is needed to judge it: intervals, paired tests, calibration error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from frostline.stats.calibration import Calibrated, calibration, calibration_error, reliability
from frostline.stats.class_balance import class_mean
from frostline.stats.intervals import Labels, balanced_interval, mean_interval
from frostline.stats.probabilities import softmax

Probabilities = np.ndarray


@dataclass(frozen=True)
class Figures:
    """How good one model is on the photos reported on; fractions of 1."""

    accuracy: float
    accuracy_ci: tuple[float, float]
    """95 % interval over photos."""
    balanced_accuracy: float
    """Macro recall: the mean of the recalls of the classes that have photos, each class counting the same."""
    balanced_accuracy_ci: tuple[float, float]
    """95 % interval over photos, drawn class by class."""
    macro_f1: float
    log_loss: float
    """Mean negative log probability of the true class in nats, of the probabilities as shipped (temperature applied)."""
    log_loss_uncalibrated: float
    """The same at temperature 1."""
    ece: float
    """Expected calibration error in equal-count bins, uncalibrated. Biased upward by chance, as everywhere; `calibration` is not."""
    ece_calibrated: float
    """The same after temperature scaling that never saw these photos' labels."""
    ece_shipped: float
    """The same of the probabilities as shipped: `ece_calibrated`, or `ece` where no temperature could be fitted."""
    temperature: float
    """What the logits are divided by in the bundle."""
    per_class: list[dict[str, Any]]
    """class, precision, recall, f1, support."""
    confusion: list[list[int]]
    """Rows: true class; columns: predicted."""
    calibration: dict[str, Calibrated]
    """`before` any temperature and `after` one that never saw these photos' labels: error without bias, interval, test; see
    `frostline.stats.calibration`."""
    reliability: dict[str, list[dict[str, Any]]]
    """The bins of a reliability diagram, `before` and `after`."""

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return asdict(self)


def figures(
    logits: np.ndarray, labels: Labels, classes: list[str], temperature: float, calibrated: Probabilities, seed: int
) -> Figures:
    """All figures of one model.

    Parameters
    ----------
    logits
        (N, C), uncalibrated.
    labels
        (N,) class indices.
    temperature
        The one that ships.
    calibrated
        (N, C) probabilities after temperature scaling that never saw these photos' labels.
    """
    from sklearn import metrics as sk  # half a second, when the photos have long gone through the network

    plain, shipped = softmax(logits, 1.0), softmax(logits, temperature)
    predicted = plain.argmax(1)
    index = list(range(len(classes)))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=index, zero_division=0.0
    )
    present = support > 0
    right = (predicted == labels).astype(float)
    stages = {"before": plain, "after": calibrated}
    found = {stage: calibration(shares, labels, seed) for stage, shares in stages.items()}
    return Figures(
        accuracy=float((predicted == labels).mean()),
        accuracy_ci=mean_interval(right),
        balanced_accuracy=class_mean(right, labels),
        balanced_accuracy_ci=balanced_interval(right, labels),
        macro_f1=float(f1[present].mean()),
        log_loss=log_loss(shipped, labels),
        log_loss_uncalibrated=log_loss(plain, labels),
        ece=found["before"].error,
        ece_calibrated=found["after"].error,
        ece_shipped=calibration_error(shipped, labels),
        temperature=temperature,
        per_class=[
            {
                "class": c,
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, c in enumerate(classes)
        ],
        confusion=sk.confusion_matrix(labels, predicted, labels=index).tolist(),
        calibration=found,
        reliability={stage: reliability(shares, labels) for stage, shares in stages.items()},
    )


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean negative log probability of the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())
