"""One strategy: its row of study.json."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.documents.shared import Interval, Parameters, Unfrozen, WeightsOrigin
from frostline.recipes import Weights

PerClass = TypedDict(
    "PerClass",
    {"class": str, "precision": float | None, "recall": float | None, "f1": float | None, "support": int},
)
"""One class's figures; null where it has no photos (`support` 0): nothing was measured then."""


class CalibrationFigures(TypedDict):
    """How far confidence and accuracy are apart."""

    error: float
    """The calibration error as computed: biased upward by chance."""
    debiased: float
    """The true error for which the computed one is the median outcome; 0 where chance alone explains it."""
    ci: Interval
    p_value: float
    """How often a perfectly calibrated model would look as bad."""
    tendency: Literal["overconfident", "underconfident", "calibrated"]
    """`calibrated` where p is 0.05 or more."""
    confidence: float
    """Mean confidence."""
    accuracy: float
    confidence_right: float | None
    """Mean confidence of the correct predictions; None where there is none."""
    confidence_wrong: float | None


class CalibrationStages(TypedDict):
    """Before any temperature, and after one that never saw these photos' labels."""

    before: CalibrationFigures
    after: CalibrationFigures


class ReliabilityBin(TypedDict):
    """One bin of a reliability diagram."""

    confidence: float
    accuracy: float
    count: int
    ci: Interval


class ReliabilityStages(TypedDict):
    """Bins by rising confidence, before and after the temperature."""

    before: list[ReliabilityBin]
    after: list[ReliabilityBin]


class Epoch(TypedDict):
    """One pass over the training photos."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float


class Refit(TypedDict):
    """Training once more, on training and validation photos together."""

    photos: int
    head_epochs: int
    epochs: int
    seconds: float


class Seconds(TypedDict):
    """Time of one strategy, seconds. A point of a sweep over photos has no `prefix`: all points share one pass."""

    prefix: NotRequired[float]
    train: float
    evaluate: float
    total: float


class CorruptionFigures(TypedDict):
    """One corruption, at five severities."""

    cause: str
    title: str
    kind: str
    amounts: list[float]
    unit: str
    accuracy: list[float]
    ci: list[Interval]
    confidence: list[float]
    mean_drop: float
    mean_drop_ci: Interval


class RobustnessFigures(TypedDict):
    """A strategy on corrupted photos."""

    photos: int
    clean: float
    clean_ci: Interval
    causes: list[CorruptionFigures]
    worst: str
    mean_drop: float
    mean_drop_ci: Interval


class StrategyRow(TypedDict):
    """One strategy of study.json. Metrics that have no key here stand beside the others under their own name: see
    `stats.metrics`."""

    name: str
    backbone: str
    weights: Weights
    pretrained_weights: NotRequired[list[WeightsOrigin]]
    """Of each network that started from published weights."""
    freeze_line: int
    """Layers below the line, those without parameters included."""
    layers: int
    """In all, those without parameters included."""
    image_size: int
    label_smoothing: NotRequired[float]
    """Of the training that made this model; it lowers confidence."""
    parameters: Parameters
    unfrozen: NotRequired[Unfrozen]
    accuracy: float
    accuracy_ci: Interval
    balanced_accuracy: float
    balanced_accuracy_ci: Interval
    macro_f1: float
    log_loss: float
    log_loss_uncalibrated: float
    ece: float
    """The calibration error at temperature 1 as computed, which chance biases upward: 0 to 1."""
    ece_calibrated: float
    """The same at a temperature that never saw these photos' labels."""
    ece_shipped: float
    """The same of the model as it is saved."""
    calibration_error: NotRequired[float]
    """Of the model as it is saved, without the bias of chance (`calibration`, `debiased`): what people read, 0 to 1."""
    calibration_error_ci: NotRequired[Interval]
    temperature: float
    per_class: list[PerClass]
    confusion: list[list[int]]
    calibration: CalibrationStages
    reliability: ReliabilityStages
    validation_accuracy: float
    validation_balanced_accuracy: float
    history: list[Epoch]
    best_epoch: int
    head_history: list[Epoch]
    accuracy_as_given: NotRequired[float]
    accuracy_as_given_ci: NotRequired[Interval]
    photos_as_given: NotRequired[int]
    accuracy_with_known: NotRequired[float]
    accuracy_with_known_ci: NotRequired[Interval]
    photos_with_known: NotRequired[int]
    refit: NotRequired[Refit]
    seconds: Seconds
    peak_rss_mb: float
    peak_device_mb: NotRequired[float]
    """The most memory that PyTorch has held on the accelerator so far, in MB of 10^6 bytes."""
    robustness: NotRequired[RobustnessFigures]
