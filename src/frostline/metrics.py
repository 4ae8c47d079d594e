"""Figures from predictions, each with what is needed to judge it: intervals, paired tests, calibration error."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import optimize, stats
from sklearn import metrics as sk

from frostline.probabilities import softmax

Labels = np.ndarray
Probabilities = np.ndarray

RESAMPLES = 4000
BINS = 15


@dataclass(frozen=True)
class Figures:
    """How good one model is on the photos reported on; fractions of 1."""

    accuracy: float
    accuracy_ci: tuple[float, float]
    """95 % interval over photos."""
    macro_f1: float
    log_loss: float
    """Mean negative log probability of the true class in nats, of the probabilities as shipped (temperature applied)."""
    log_loss_uncalibrated: float
    """The same at temperature 1."""
    ece: float
    """Expected calibration error in equal-count bins, uncalibrated."""
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
    plain, shipped = softmax(logits, 1.0), softmax(logits, temperature)
    predicted = plain.argmax(1)
    index = list(range(len(classes)))
    precision, recall, f1, support = sk.precision_recall_fscore_support(
        labels, predicted, labels=index, zero_division=0.0
    )
    present = support > 0
    return Figures(
        accuracy=float((predicted == labels).mean()),
        accuracy_ci=mean_interval((predicted == labels).astype(float), seed),
        macro_f1=float(f1[present].mean()),
        log_loss=log_loss(shipped, labels),
        log_loss_uncalibrated=log_loss(plain, labels),
        ece=calibration_error(plain, labels),
        ece_calibrated=calibration_error(calibrated, labels),
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
    )


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean negative log probability of the true class, in nats."""
    return float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean())


def mean_interval(values: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval (BCa) of the mean of 0/1 `values` over photos.

    Where all values agree a bootstrap says nothing (it would claim certainty), so Wilson's interval stands in.
    """
    if values.min() == values.max():
        low, high = stats.binomtest(int(values.sum()), len(values)).proportion_ci(method="wilson")
        return float(low), float(high)
    return _bootstrap(values, seed)


def _bootstrap(values: np.ndarray, seed: int) -> tuple[float, float]:
    interval = stats.bootstrap(
        (values,), np.mean, n_resamples=RESAMPLES, batch=200, method="BCa", rng=np.random.default_rng(seed)
    ).confidence_interval
    return float(interval.low), float(interval.high)


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over bins of equal count (adaptive ECE; Nixon et al., 2019)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels)))
    gaps = [len(p) * abs(float(confidence[p].mean()) - float(right[p].mean())) for p in parts]
    return float(sum(gaps) / len(labels))


def fit_temperature(logits: np.ndarray, labels: Labels) -> float:
    """The temperature of least log loss, 0.05 to 20 (Guo et al., ICML 2017)."""
    scores = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        log_sum = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float((log_sum - scaled[np.arange(len(labels)), labels]).mean())

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(best.x))


def cross_fitted(logits: np.ndarray, labels: Labels, seed: int, folds: int = 5) -> Probabilities:
    """Calibrated probabilities where each photo's temperature was fitted on the other photos.

    For the tutorial's protocol, which has no photos left to calibrate on but those it reports.
    """
    if len(labels) < 2:
        return softmax(logits, 1.0)
    fold = np.random.default_rng(seed).permutation(len(labels)) % min(folds, len(labels))
    result = np.empty(logits.shape)
    for k in np.unique(fold):
        result[fold == k] = softmax(logits[fold == k], fit_temperature(logits[fold != k], labels[fold != k]))
    return result


@dataclass(frozen=True)
class Comparison:
    """Two models on the same photos."""

    a: str
    b: str
    difference: float
    """Accuracy of a minus that of b."""
    ci: tuple[float, float]
    """95 % paired bootstrap interval of the difference."""
    p_value: float
    """McNemar's exact test: how often chance alone would split the photos on which they disagree so unevenly."""
    verdict: str
    """The comparison in words."""


def compare(a: str, right_a: np.ndarray, b: str, right_b: np.ndarray, seed: int) -> Comparison:
    """Compare two models by which photos (N,) each got right.

    McNemar's exact test (McNemar, 1947) on the photos that exactly one got right.
    """
    difference = right_a.astype(float) - right_b.astype(float)
    only_a, only_b = int((difference > 0).sum()), int((difference < 0).sum())
    p = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    ci = _bootstrap(difference, seed) if difference.min() != difference.max() else _unanimous(difference)
    mean = float(difference.mean())
    return Comparison(a, b, mean, ci, p, _verdict(a, b, mean, ci, p))


def _unanimous(difference: np.ndarray) -> tuple[float, float]:
    """All photos say the same: the interval is what the rule of three leaves open (Hanley, 1983)."""
    value, margin = float(difference[0]), min(1.0, 3 / len(difference))
    return max(-1.0, value - margin), min(1.0, value + margin)


def _verdict(a: str, b: str, mean: float, ci: tuple[float, float], p: float) -> str:
    first, second, sign = (a, b, 1) if mean >= 0 else (b, a, -1)
    low, high = sorted((100 * sign * ci[0], 100 * sign * ci[1]))
    span = f"95 % interval {low:.1f} to {high:.1f}"
    if p < 0.05:
        return f"{first} beats {second} by {100 * abs(mean):.1f} points, {span}"
    if low > 0:
        return (
            f"{first} is {100 * abs(mean):.1f} points ahead of {second}, {span}, yet chance is not ruled out "
            f"(McNemar's exact test, p = {p:.2f})"
        )
    if mean == 0:
        return f"{a} and {b} are equally accurate here, {span} points"
    return f"{first} is {100 * abs(mean):.1f} points ahead of {second}, but that may be chance ({span}, p = {p:.2f})"
