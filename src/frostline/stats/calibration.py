"""Whether probabilities mean what they say: calibration error with an interval that covers, a test, reliability bins,
temperature.

The calibration error is the mean gap between confidence and accuracy over bins of equal count (adaptive ECE; Nixon et
al., 2019). As computed it is biased upward: in each bin chance makes a gap, and gaps can't cancel, so a perfectly
calibrated model of 690 photos shows 0.02 to 0.03 (Roelofs et al., Mitigating bias in calibration error estimation,
2022; Kumar et al., Verified uncertainty calibration, 2019). A bootstrap adds the same bias once more and its intervals
miss the truth nearly always (`benchmarks/coverage.py`). So the estimate without bias and its interval come from
simulation: see `calibration`.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from frostline.documents.strategy import CalibrationFigures, ReliabilityBin
from frostline.stats.probabilities import softmax

Floats = npt.NDArray[np.float64]
Labels = np.ndarray
Probabilities = np.ndarray

BINS = 15
LEVEL = 0.05
_DRAWS = 1000
_EXACT = 4000  # beyond so many photos a bin's count of correct ones is as good as normal
_EDGE = 1e-6
_MOST = 64.0


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over bins of equal count (adaptive ECE; Nixon et al., 2019). Biased
    upward, see above."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels)))
    gaps = [len(p) * abs(float(confidence[p].mean()) - float(correct[p].mean())) for p in parts]
    return float(sum(gaps) / len(labels))


def calibration(probabilities: Probabilities, labels: Labels, seed: int) -> CalibrationFigures:
    """Calibration error, its estimate without bias, its 95 % CI, and a test of perfect calibration.

    The interval inverts a test by simulation (Carpenter, Test inversion bootstrap confidence intervals, 1999): a
    recalibration curve (Cox, 1958: intercept and slope on the logit) gives the shape of the gap; scaled from none to
    more than was seen, each size is simulated, and those sizes are kept that make the computed error neither too large
    nor too small. The test asks two statistics of simulated calibrated outcomes (Broecker and Smith, 2007): the error
    itself, and Spiegelhalter's (1986), which sees under- and overconfidence better; p is Bonferroni's.

    Parameters
    ----------
    probabilities
        (N, C).
    labels
        (N,) class indices.
    """
    top = probabilities.max(1).astype(np.float64)
    correct = (probabilities.argmax(1) == labels).astype(np.float64)
    order = np.argsort(top, kind="stable")
    found = _Simulation(top[order], correct[order], seed)
    p = found.p_value()
    leaning: Literal["overconfident", "underconfident"]
    leaning = "overconfident" if found.leaning() > 0 else "underconfident"
    return {
        "error": found.error,
        "debiased": found.size_at(0.5),
        "ci": (found.size_at(0.975), found.size_at(0.025)),
        "p_value": p,
        "tendency": leaning if p < LEVEL else "calibrated",
        "confidence": float(top.mean()),
        "accuracy": float(correct.mean()),
        "confidence_right": float(top[correct == 1].mean()) if correct.any() else None,
        "confidence_wrong": float(top[correct == 0].mean()) if not correct.all() else None,
    }


class _Simulation:
    """Outcomes for given confidences, simulated under gaps of any size; the same dice for each size, so that sizes
    compare smoothly."""

    def __init__(self, confidence: Floats, correct: Floats, seed: int) -> None:
        """`confidence` (N,) ascending, `correct` (N,) of 0 and 1."""
        self._confidence = np.clip(confidence, _EDGE, 1 - _EDGE)
        self._correct = correct
        sizes = np.array([len(part) for part in np.array_split(correct, min(BINS, len(correct)))])
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.error = float(np.abs(self._per_bin(correct - self._confidence)).sum() / len(correct))
        gap = recalibrated(self._confidence, correct) - self._confidence
        none = np.abs(gap).mean() < 1e-4  # nothing to scale: take the gap of a model that is a little too sure
        self._gap = -self._confidence * (1 - self._confidence) if none else gap
        rng = np.random.default_rng([seed, 2])
        exact = len(correct) <= _EXACT
        shape = (_DRAWS, len(correct) if exact else len(sizes))
        self._noise = rng.random(shape, dtype=np.float32) if exact else rng.standard_normal(shape)
        self._exact = exact

    def _per_bin(self, values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, self._starts, axis=-1))

    def _chances(self, scale: float) -> Floats:
        return np.clip(self._confidence + scale * self._gap, 0, 1)

    def _gaps(self, scale: float) -> Floats:
        """Simulated sums of correct - confidence by bin, (draws, bins)."""
        chances = self._chances(scale)
        expected = self._per_bin(chances - self._confidence)
        if self._exact:
            return self._per_bin((self._noise < chances).astype(np.float32)) - self._per_bin(self._confidence)
        return np.asarray(expected + self._noise * np.sqrt(self._per_bin(chances * (1 - chances))))

    def errors(self, scale: float) -> Floats:
        """Simulated calibration errors (draws,)."""
        return np.asarray(np.abs(self._gaps(scale)).sum(1) / len(self._correct))

    def size_at(self, quantile: float) -> float:
        """The true error of which the computed one is this quantile; 0 where that is so without any."""
        if np.quantile(self.errors(0.0), quantile) >= self.error:
            return 0.0
        low, high = 0.0, 1.0
        while high < _MOST and np.quantile(self.errors(high), quantile) < self.error:
            low, high = high, 2 * high
        for _ in range(9):
            middle = (low + high) / 2
            below = np.quantile(self.errors(middle), quantile) < self.error
            low, high = (middle, high) if below else (low, middle)
        return float(np.abs(self._chances((low + high) / 2) - self._confidence).mean())

    def leaning(self) -> float:
        """Above 0: confidence is above accuracy where it matters (Spiegelhalter's statistic; its variance under
        calibration is 1)."""
        c = self._confidence
        spread = np.sqrt(((1 - 2 * c) ** 2 * c * (1 - c)).sum())
        return float(((self._correct - c) * (1 - 2 * c)).sum() / spread) if spread > 0 else 0.0

    def p_value(self) -> float:
        by_error = (1 + (self.errors(0.0) >= self.error - 1e-12).sum()) / (1 + _DRAWS)
        by_leaning = 2 * float(stats.norm.sf(abs(self.leaning())))
        return float(min(1.0, 2 * min(by_error, by_leaning)))


def recalibrated(confidence: Floats, correct: Floats) -> Floats:
    """The chance of being correct (N,) by confidence (N,): logistic regression on its logit (Cox, 1958), a little held
    back towards none."""
    x = special.logit(np.clip(confidence, _EDGE, 1 - _EDGE))
    design = np.stack([np.ones_like(x), x], 1)
    none = np.array([0.0, 1.0])

    def loss(weights: Floats) -> tuple[float, Floats]:
        score = design @ weights
        value = np.logaddexp(0, score).sum() - correct @ score + 5e-4 * ((weights - none) ** 2).sum()
        slope = design.T @ (special.expit(score) - correct) + 1e-3 * (weights - none)
        return float(value), np.asarray(slope)

    best = optimize.minimize(loss, none, jac=True, method="BFGS")
    return np.asarray(special.expit(design @ best.x))


def reliability(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> list[ReliabilityBin]:
    """The points of a reliability diagram, by rising confidence: bins of equal count, each with Wilson's 95 % CI
    of its accuracy."""
    top, correct = probabilities.max(1), probabilities.argmax(1) == labels
    rows: list[ReliabilityBin] = []
    for part in np.array_split(np.argsort(top, kind="stable"), min(bins, len(labels))):
        low, high = wilson(int(correct[part].sum()), len(part))
        rows.append(
            {
                "confidence": float(top[part].mean()),
                "accuracy": float(correct[part].mean()),
                "count": len(part),
                "ci": (low, high),
            }
        )
    return rows


def wilson(correct: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval (1927) of a share, within 0..1: holds the truth 95 times in 100 for 60 photos as for 6,000, at
    50 % as at 99 %."""
    share, width = correct / count, z * z / count
    centre = (share + width / 2) / (1 + width)
    half = float(np.sqrt(max(0.0, share * (1 - share) * width + width * width / 4))) / (1 + width)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def fit_temperature(logits: np.ndarray, labels: Labels, weights: np.ndarray | None = None) -> float:
    """The temperature of least log loss, 0.05 to 20 (Guo et al., ICML 2017); `weights` (N,) of the photos, None = all
    alike."""
    scores = logits.astype(np.float64)

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        log_sum = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        return float(np.average(log_sum - scaled[np.arange(len(labels)), labels], weights=weights))

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
