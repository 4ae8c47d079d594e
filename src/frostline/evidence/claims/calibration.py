"""Claim 4: fine-tuning improves calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from frostline.documents import StrategyRow
from frostline.documents.strategy import CalibrationFigures
from frostline.evidence.claims.evidence import Evidence, Finding, above_zero
from frostline.stats import intervals
from frostline.stats.predictions import Prediction

_SIDES = ("frozen", "fine-tuned")


class _ErrorChange(TypedDict):
    difference: float
    ci: tuple[float, float]


class _ConfidenceChange(TypedDict):
    photos: int
    confidence_change: float | None
    ci: tuple[float, float] | None


def measure(evidence: Evidence) -> Finding:
    """Whether the calibration error is lower after fine-tuning, before any temperature; both estimated without bias."""
    stages = {name: evidence.rows[name]["calibration"] for name in _SIDES}
    frozen, tuned = stages["frozen"], stages["fine-tuned"]
    before = _error_change(frozen["before"], tuned["before"])
    after = _error_change(frozen["after"], tuned["after"])
    low, high = before["ci"]
    measured = (
        f"calibration error, without the bias of chance and before any temperature: {_error_words(frozen['before'])} "
        f"frozen, {_error_words(tuned['before'])} fine-tuned (change {before['difference']:+.3f}, 95 % CI {low:+.3f} "
        f"to {high:+.3f}); mean confidence {_confidences(frozen['before'])} frozen, "
        f"{_confidences(tuned['before'])} fine-tuned; with a temperature from other photos "
        f"{frozen['after']['debiased']:.3f} and {tuned['after']['debiased']:.3f}"
    )
    figures = {
        "strategies": stages,
        "change": {"before": before, "after": after},
        "temperature": {name: evidence.rows[name]["temperature"] for name in stages},
        **_confidence_changes(evidence),
    }
    return Finding(measured, above_zero(-high, -low), figures)


def _error_change(frozen: CalibrationFigures, tuned: CalibrationFigures) -> _ErrorChange:
    """The difference of two estimates by their intervals (Zou and Donner, 2008).

    That method takes the photos of both for different ones, so the interval is rather too wide.
    """
    a, b = frozen["debiased"], tuned["debiased"]
    (low_a, high_a), (low_b, high_b) = frozen["ci"], tuned["ci"]
    down, up = np.hypot(b - low_b, high_a - a), np.hypot(high_b - b, a - low_a)
    return {"difference": b - a, "ci": (float(b - a - down), float(b - a + up))}


def _confidence_changes(evidence: Evidence) -> dict[str, _ConfidenceChange]:
    """How confidence at temperature 1 changed on the photos that both got right, and on those that both got wrong."""
    (frozen, labels), (tuned, _) = (_untempered(evidence.rows[n], evidence.predictions[n]) for n in _SIDES)
    correct = [side.argmax(1) == labels for side in (frozen, tuned)]
    change = tuned.max(1) - frozen.max(1)
    return {
        "both_right": _confidence_change(change[correct[0] & correct[1]]),
        "both_wrong": _confidence_change(change[~correct[0] & ~correct[1]]),
    }


def _confidence_change(values: np.ndarray) -> _ConfidenceChange:
    return {
        "photos": len(values),
        "confidence_change": float(values.mean()) if len(values) else None,
        "ci": intervals.average_interval(values) if len(values) > 1 else None,
    }


def _untempered(row: StrategyRow, predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities at temperature 1, (N, C), and class indices (N,)."""
    classes = [entry["class"] for entry in row["per_class"]]
    shares = np.array([[p.probabilities[c] for c in classes] for p in predictions])
    raw = np.clip(shares, 1e-7, 1) ** row["temperature"]
    return raw / raw.sum(1, keepdims=True), np.array([classes.index(p.true) for p in predictions])


def _error_words(stage: CalibrationFigures) -> str:
    low, high = stage["ci"]
    return f"{stage['debiased']:.3f} ({low:.3f} to {high:.3f}, {stage['tendency']})"


def _confidences(stage: CalibrationFigures) -> str:
    right, wrong = ("none" if x is None else f"{x:.2f}" for x in (stage["confidence_right"], stage["confidence_wrong"]))
    return f"{right} when right and {wrong} when wrong"
