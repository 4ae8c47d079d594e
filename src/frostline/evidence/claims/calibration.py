"""Claim 4: fine-tuning improves calibration."""

from __future__ import annotations

from typing import NamedTuple, TypedDict

import numpy as np
import numpy.typing as npt

from frostline import wording
from frostline.evidence.claims.evidence import Evidence, Finding, all_of
from frostline.stats import intervals
from frostline.stats.calibration import recalibrated
from frostline.stats.clusters import Clusters
from frostline.stats.means import Mean, folds, mean

Floats = npt.NDArray[np.float64]

_SIDES = ("frozen", "fine-tuned")
_FOLDS = 10


class _ConfidenceChange(TypedDict):
    photos: int
    confidence_change: float | None
    ci: tuple[float, float] | None


class _Side(NamedTuple):
    """One strategy's confidence at temperature 1, without label smoothing, on the N photos reported on."""

    confidence: Floats
    correct: npt.NDArray[np.bool_]
    loss: Floats
    """(N,) what calibration adds to each photo's Brier score: its mean is the calibration term (Murphy, 1973)."""

    @property
    def too_sure(self) -> Floats:
        """(N,) confidence less 1 where the photo is correct, less 0 where not: its mean is the overconfidence."""
        return self.confidence - self.correct


def measure(evidence: Evidence) -> Finding:
    """Whether calibration is better after fine-tuning, before any temperature, and whether overconfidence is less.

    Calibration is measured by its term of the Brier score of the confidence: what would be saved if each confidence
    were replaced by the accuracy at that confidence. That accuracy is fitted on the other photos (ten folds), so each
    photo gives one number and the two strategies are compared photo by photo. The claim speaks of overconfidence: it is
    supported where the calibration term falls and mean confidence less accuracy falls too.
    """
    clusters = evidence.clusters
    frozen, tuned = (_side(evidence, name) for name in _SIDES)
    change = mean(tuned.loss - frozen.loss, clusters)
    less_sure = mean(tuned.too_sure - frozen.too_sure, clusters)
    gaps = {"frozen": mean(frozen.too_sure, clusters), "fine-tuned": mean(tuned.too_sure, clusters)}
    measured = (
        f"{_direction('frozen', gaps['frozen'])}, {_direction('fine-tuned', gaps['fine-tuned'])}; the change is "
        f"{wording.points(less_sure.value)} points ({wording.interval(less_sure.ci)}). Calibration's share of the "
        f"Brier score: {_loss(frozen)} frozen, {_loss(tuned)} fine-tuned (change "
        f"{wording.change(change.value, 4)}, 95 % CI {wording.changes(change.ci, 4)}). Confidence "
        f"{_confidences(frozen)} frozen, "
        f"{_confidences(tuned)} fine-tuned. All before any temperature{_smoothing_words(evidence)}"
    )
    figures = {
        "overconfidence": {name: {"mean": gap.value, "ci": gap.ci} for name, gap in gaps.items()},
        "brier_calibration": {"frozen": float(frozen.loss.mean()), "fine-tuned": float(tuned.loss.mean())},
        "change": {"difference": change.value, "ci": change.ci},
        "overconfidence_change": {"difference": less_sure.value, "ci": less_sure.ci},
        "label_smoothing": {name: evidence.rows[name].get("label_smoothing") for name in _SIDES},
        "strategies": {name: evidence.rows[name]["calibration"] for name in _SIDES},
        "temperature": {name: evidence.rows[name]["temperature"] for name in _SIDES},
        **_confidence_changes(frozen, tuned, clusters),
    }
    return Finding(measured, figures, all_of(change.below, less_sure.below), change.above)


def _side(evidence: Evidence, name: str) -> _Side:
    row, predictions = evidence.rows[name], evidence.predictions[name]
    classes = [entry["class"] for entry in row["per_class"]]
    shares = np.array([[p.probabilities[c] for c in classes] for p in predictions])
    raw = np.clip(shares, 1e-7, 1) ** row["temperature"]
    raw /= raw.sum(1, keepdims=True)
    smoothing = row.get("label_smoothing") or 0.0
    top = np.clip((raw.max(1) - smoothing / len(classes)) / (1 - smoothing), 1 / len(classes), 1)
    correct = np.asarray(raw.argmax(1) == np.array([classes.index(p.true) for p in predictions]))
    return _Side(top, correct, _calibration_loss(top, correct, evidence.clusters))


def _calibration_loss(confidence: Floats, correct: npt.NDArray[np.bool_], clusters: Clusters | None) -> Floats:
    """`loss` of a `_Side`."""
    hits = correct.astype(float)
    accuracy = np.empty(len(hits))
    part = folds(len(hits), clusters, _FOLDS)
    for number in np.unique(part):
        others = np.flatnonzero(part != number)
        if not len(others):  # all photos are of one cluster
            return np.zeros(len(hits))
        order = others[np.argsort(confidence[others], kind="stable")]
        fitted = recalibrated(confidence[order], hits[order])
        accuracy[part == number] = np.interp(confidence[part == number], confidence[order], fitted)
    return np.asarray((confidence - hits) ** 2 - (accuracy - hits) ** 2)


def _confidence_changes(frozen: _Side, tuned: _Side, clusters: Clusters | None) -> dict[str, _ConfidenceChange]:
    """How confidence changed on the photos that both got right, and on those that both got wrong."""
    change = tuned.confidence - frozen.confidence
    both = {"both_right": frozen.correct & tuned.correct, "both_wrong": ~frozen.correct & ~tuned.correct}
    return {
        name: _confidence_change(change[some], None if clusters is None else clusters[some])
        for name, some in both.items()
    }


def _confidence_change(values: Floats, clusters: Clusters | None) -> _ConfidenceChange:
    return {
        "photos": len(values),
        "confidence_change": float(values.mean()) if len(values) else None,
        "ci": intervals.average_interval(values, clusters) if len(values) > 1 else None,
    }


def _direction(name: str, gap: Mean) -> str:
    low, high = gap.ci
    size = f"confidence less accuracy {wording.points(gap.value)} points, {wording.interval(gap.ci)}"
    tendency = (
        "overconfident" if low > 0 else "underconfident" if high < 0 else "not shown to be over- or underconfident"
    )
    return f"{name} is {tendency} ({size})"


def _loss(side: _Side) -> str:
    """A share can't be below 0, its estimate on other photos can: then nothing of it was found."""
    return f"{max(0.0, float(side.loss.mean())):.4f}"


def _confidences(side: _Side) -> str:
    right, wrong = (
        f"{side.confidence[some].mean():.2f}" if some.any() else "none" for some in (side.correct, ~side.correct)
    )
    return f"{right} when right and {wrong} when wrong"


def _smoothing_words(evidence: Evidence) -> str:
    values = [evidence.rows[name].get("label_smoothing") for name in _SIDES]
    if any(value is None for value in values):
        return "; label smoothing, which makes models underconfident, is not taken out: this run did not record it"
    if not any(values):
        return ""
    told = " and ".join(dict.fromkeys(f"{value:g}" for value in values))
    return f", without what label smoothing of {told} takes from confidence"
