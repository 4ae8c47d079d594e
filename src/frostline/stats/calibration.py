"""Whether probabilities mean what they say: calibration error with an interval that covers, a test, temperature.

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

from frostline.documents.strategy import CalibrationFigures
from frostline.stats import clusters as dependence
from frostline.stats.clusters import Clusters
from frostline.stats.probabilities import softmax

Floats = npt.NDArray[np.float64]
Labels = np.ndarray
Probabilities = np.ndarray

BINS = 15
SHRINKAGE = 0.25
"""Standard deviation of the prior of a temperature's logarithm; see `fit_temperature`."""

LEVEL = 0.05
_DRAWS = 1000
_EXACT = 1500  # beyond so many photos a bin's count of correct ones is as good as normal
_EDGE = 1e-6
_MOST = 64.0


def calibration_error(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """Mean gap between confidence and accuracy over bins of equal count (adaptive ECE; Nixon et al., 2019). Biased
    upward, see above."""
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.array_split(np.argsort(confidence, kind="stable"), min(bins, len(labels)))
    gaps = [len(p) * abs(float(confidence[p].mean()) - float(correct[p].mean())) for p in parts]
    return float(sum(gaps) / len(labels))


def calibration(
    probabilities: Probabilities, labels: Labels, seed: int, clusters: Clusters | None = None
) -> CalibrationFigures:
    """Calibration error, its estimate without bias, its 95 % CI, and a test of perfect calibration.

    The interval inverts a test by simulation (Carpenter, Test inversion bootstrap confidence intervals, 1999). Which
    confidences are off is not known, so several shapes of miscalibration are tried (`_shapes`). Each is scaled from
    none to more than was seen, and those sizes are kept that make the computed error neither too large nor too small.
    The interval spans the sizes of all shapes, and is never below what the difference of mean confidence and accuracy
    shows by itself. It is somewhat wide: benchmarks/coverage.py has its coverage in eight shapes. The test of perfect
    calibration asks the error (simulated calibrated outcomes; Broecker and Smith, 2007) and that difference; p is
    Bonferroni's, and below 0.05 exactly where the interval excludes 0. With clusters, outcomes are simulated with the
    intraclass correlation that these have (`clusters.uniforms`), and the difference has Student's t for their number.

    Parameters
    ----------
    probabilities
        (N, C).
    labels
        (N,) class indices.
    clusters
        (N,) Numbers shared by photos that are not independent (`stats.clusters`); None = all are.
    """
    top = probabilities.max(1).astype(np.float64)
    correct = (probabilities.argmax(1) == labels).astype(np.float64)
    order = np.argsort(top, kind="stable")
    own = dependence.numbered(clusters)
    found = _Simulation(top[order], correct[order], seed, None if own is None else own[order])
    sizes = {q: [found.size_at(q, shape) for shape in found.shapes] for q in (0.975, 0.5, 0.025)}
    mean, accuracy = float(top.mean()), float(correct.mean())
    gap, spread = abs(mean - accuracy), found.spread
    low = max(0.0, min(sizes[0.975]), gap - found.quantile(1 - LEVEL / 4) * spread)  # one of two tests
    high = min(1.0, max(*sizes[0.025], gap + found.quantile(1 - LEVEL / 2) * spread))
    p = found.p_value(gap)
    tendency: Literal["overconfident", "underconfident"] = "overconfident" if mean > accuracy else "underconfident"
    return {
        "error": found.error,
        "debiased": float(np.clip(max(gap, float(np.median(sizes[0.5]))), low, high)),
        "ci": (low, high),
        "p_value": p,
        "tendency": tendency if p < LEVEL else "calibrated",
        "confidence": mean,
        "accuracy": accuracy,
        "confidence_right": float(top[correct == 1].mean()) if correct.any() else None,
        "confidence_wrong": float(top[correct == 0].mean()) if not correct.all() else None,
    }


class _Simulation:
    """Outcomes for given confidences, simulated under miscalibration of any shape and size.

    The same random numbers serve every size, so that sizes compare smoothly.
    """

    def __init__(self, confidence: Floats, correct: Floats, seed: int, clusters: Clusters | None = None) -> None:
        """`confidence` (N,) ascending, `correct` (N,) of 0 and 1, `clusters` as `clusters.numbered` gives them."""
        self._confidence = np.clip(confidence, _EDGE, 1 - _EDGE)
        self._correct = correct
        sizes = np.array([len(part) for part in np.array_split(correct, min(BINS, len(correct)))])
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
        self.error = float(np.abs(self._per_bin(correct - self._confidence)).sum() / len(correct))
        effect = 1.0 if clusters is None else dependence.effect(correct > 0.5, clusters)
        self.shapes = _shapes(self._confidence, correct, effect)
        """Each (N,): by how much the chance of being correct differs from the confidence."""
        difference = correct - self._confidence
        null = float((self._confidence * (1 - self._confidence)).sum()) / len(correct) ** 2
        self.spread = float(np.sqrt(max(null, difference.var() / len(correct)) * effect))
        """Standard error of mean accuracy minus mean confidence."""
        self._gap = stats.norm() if clusters is None else stats.t(max(1, int(clusters.max())))
        self._exact = len(correct) <= _EXACT
        self._noise = self._drawn(np.random.default_rng([seed, 2]), sizes, clusters)
        self._calibrated = self.errors(0.0, self.shapes[0])  # without any miscalibration all shapes are alike

    def _drawn(self, rng: np.random.Generator, sizes: npt.NDArray[np.intp], clusters: Clusters | None) -> Floats:
        """What the outcomes are simulated with: (draws, photos) uniform, or (draws, bins) normal where photos are many.

        Those of a cluster have the correlation that the outcomes seen have.
        """
        draws, shape = _DRAWS, (_DRAWS, len(self._correct) if self._exact else len(sizes))
        if clusters is None:
            return np.asarray(rng.random(shape, dtype=np.float32) if self._exact else rng.standard_normal(shape))
        correlation = dependence.correlation(self._correct > 0.5, clusters)
        if self._exact:
            return dependence.uniforms(rng, draws, clusters, correlation, float(self._confidence.mean()))
        counts = np.zeros((len(sizes), int(clusters.max()) + 1))
        np.add.at(counts, (np.arange(len(sizes)).repeat(sizes), clusters), 1)
        scaled = counts / np.sqrt(sizes)[:, None]
        together = (1 - correlation) * np.eye(len(sizes)) + correlation * scaled @ scaled.T
        return np.asarray(rng.standard_normal(shape) @ np.linalg.cholesky(together).T)

    def quantile(self, share: float) -> float:
        """Of the gap between mean confidence and accuracy, in its standard errors."""
        return float(self._gap.ppf(share))

    def _per_bin(self, values: Floats) -> Floats:
        return np.asarray(np.add.reduceat(values, self._starts, axis=-1))

    def _chances(self, scale: float, shape: Floats) -> Floats:
        return np.clip(self._confidence + scale * shape, 0, 1)

    def errors(self, scale: float, shape: Floats) -> Floats:
        """Simulated calibration errors (draws,)."""
        chances = self._chances(scale, shape)
        if self._exact:
            gaps = self._per_bin((self._noise < chances).astype(np.float32)) - self._per_bin(self._confidence)
        else:
            expected = self._per_bin(chances - self._confidence)
            gaps = expected + self._noise * np.sqrt(self._per_bin(chances * (1 - chances)))
        return np.asarray(np.abs(gaps).sum(1) / len(self._correct))

    def size_at(self, quantile: float, shape: Floats) -> float:
        """The true error of this shape of which the computed one is this quantile; 0 where that is so without any."""
        if np.quantile(self._calibrated, quantile) >= self.error:
            return 0.0
        low, high = 0.0, 1.0
        while high < _MOST and np.quantile(self.errors(high, shape), quantile) < self.error:
            low, high = high, 2 * high
        for _ in range(9):
            middle = (low + high) / 2
            below = np.quantile(self.errors(middle, shape), quantile) < self.error
            low, high = (middle, high) if below else (low, middle)
        return float(np.abs(self._chances((low + high) / 2, shape) - self._confidence).mean())

    def p_value(self, gap: float) -> float:
        """Of perfect calibration, by the error and by the `gap` between mean confidence and accuracy."""
        by_error = (1 + (self._calibrated >= self.error - 1e-12).sum()) / (1 + _DRAWS)
        by_gap = 2 * float(self._gap.sf(gap / self.spread)) if self.spread > 0 else 1.0
        return float(min(1.0, 2 * min(by_error, by_gap)))


def _shapes(confidence: Floats, correct: Floats, effect: float) -> list[Floats]:
    """Ways in which confidence (N,), ascending, may be off, each (N,) of any size: a logistic curve (Cox, 1958:
    intercept and slope on the logit), the surest quarter alone, the middle half alone, and the differences seen in
    five equal parts, shrunk by their noise. `effect`: the design effect on that noise.
    """
    curve = recalibrated(confidence, correct) - confidence
    if np.abs(curve).mean() < 1e-4:  # nothing to scale: take the gap of a model that is a little too sure
        curve = -confidence * (1 - confidence)
    place = np.arange(len(correct)) / len(correct)
    parts = (place >= 0.75, (place >= 0.25) & (place < 0.75))
    signs = [1 if (correct - confidence)[part].sum() > 0 else -1 for part in parts]
    shapes = [curve, *(np.where(part, 0.2 * sign, 0.0) for part, sign in zip(parts, signs, strict=True) if part.any())]
    seen = np.zeros(len(correct))
    for some in np.array_split(np.arange(len(correct)), min(5, len(correct))):
        mean = float((correct - confidence)[some].mean())
        noise = effect * float((confidence * (1 - confidence))[some].mean() / len(some))
        seen[some] = mean**3 / (mean**2 + noise)
    return [*shapes, seen] if np.abs(seen).mean() > 1e-4 else shapes


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


def wilson(correct: float, count: float, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's interval (1927) of a share, within 0..1: holds the truth 95 times in 100 for 60 photos as for 6,000, at
    50 % as at 99 %."""
    share, width = correct / count, z * z / count
    centre = (share + width / 2) / (1 + width)
    half = float(np.sqrt(max(0.0, share * (1 - share) * width + width * width / 4))) / (1 + width)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def fit_temperature(logits: np.ndarray, labels: Labels, weights: np.ndarray | None = None) -> float:
    """The temperature of least log loss (Guo et al., ICML 2017), shrunk towards 1 by how few photos were seen.

    A handful of photos that are nearly all correct would send the temperature to 0, and every confidence to 100 %. So
    its logarithm has a normal prior around 0 with standard deviation `SHRINKAGE`: it weighs as much as a few dozen
    photos. tests/stats/test_temperature.py simulates sizes from 20 to 700: on average never worse than temperature 1 by
    more than 0.01 nats.

    Parameters
    ----------
    logits
        (N, C), uncalibrated.
    labels
        (N,) class indices.
    weights
        (N,) of the photos; None = all alike. Unequal weights count as fewer photos (Kish's effective sample size).

    Returns
    -------
    float
        0.05 to 20; 1 of no photos.
    """
    if not len(labels):
        return 1.0
    scores = logits.astype(np.float64)
    each = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    photos = each.sum() ** 2 / np.square(each).sum()

    def loss(log_temperature: float) -> float:
        scaled = scores / np.exp(log_temperature)
        top = scaled.max(1, keepdims=True)
        log_sum = np.log(np.exp(scaled - top).sum(1)) + top[:, 0]
        fit = float(np.average(log_sum - scaled[np.arange(len(labels)), labels], weights=each))
        return float(photos * fit + 0.5 * (log_temperature / SHRINKAGE) ** 2)

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded")
    return float(np.exp(best.x))


def cross_fitted(
    logits: np.ndarray, labels: Labels, seed: int, clusters: Clusters | None = None, folds: int = 5
) -> Probabilities:
    """Calibrated probabilities where each photo's temperature was fitted on the photos of other clusters.

    For the tutorial's protocol, which has no photos left to calibrate on but those it reports.
    """
    own = dependence.numbered(clusters)
    units = len(labels) if own is None else int(own.max()) + 1
    if units < 2:
        return softmax(logits, 1.0)
    fold = np.random.default_rng(seed).permutation(units) % min(folds, units)
    fold = fold if own is None else fold[own]
    result = np.empty(logits.shape)
    for k in np.unique(fold):
        result[fold == k] = softmax(logits[fold == k], fit_temperature(logits[fold != k], labels[fold != k]))
    return result
