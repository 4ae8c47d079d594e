"""The tutorial's claims: each verdict must follow the figures that it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from frostline.evidence import claims
from frostline.stats.calibration import calibration
from frostline.stats.predictions import Prediction

CLASSES = ["a", "b", "c"]


def row(losses: list[tuple[float, float]], accuracies: list[float], **rest: Any) -> dict[str, Any]:
    history = [
        {"epoch": i + 1, "train_loss": t, "val_loss": v, "train_accuracy": a, "val_accuracy": a, "seconds": 1.0}
        for i, ((t, v), a) in enumerate(zip(losses, accuracies, strict=True))
    ]
    best = min(range(len(losses)), key=lambda i: losses[i][1]) + 1
    return {
        "history": history, "best_epoch": best, "temperature": 1.0, "per_class": [{"class": c} for c in CLASSES],
        "confusion": [[5, 9, 0], [9, 5, 1], [0, 1, 9]], "parameters": {"total": 100, "trainable": 100}, **rest,
    }  # fmt: skip


def calibrated(said: list[Prediction]) -> dict[str, Any]:
    shares = np.array([list(p.probabilities.values()) for p in said])
    labels = np.array([CLASSES.index(p.true) for p in said])
    return dict.fromkeys(("before", "after"), calibration(shares, labels, 0))


def photos(wrong: float, confidence: float, seed: int, count: int = 600) -> list[Prediction]:
    """Predictions that are wrong (a for b and b for a) with a probability, and always as confident."""
    dice = np.random.default_rng(seed)
    out = []
    for i in range(count):
        true = CLASSES[i % 2]
        predicted = CLASSES[1 - i % 2] if dice.random() < wrong else true
        shares = {c: confidence if c == predicted else (1 - confidence) / 2 for c in CLASSES}
        out.append(Prediction(str(i), true, predicted, confidence, shares))
    return out


OVERFIT = [(1.0, 1.0), (0.8, 0.8), (0.5, 0.7), (0.3, 0.9), (0.1, 1.4)]
STEADY = [(1.0, 1.0), (0.8, 0.8), (0.6, 0.7), (0.5, 0.6), (0.45, 0.55)]
SLOW, QUICK = [0.3, 0.4, 0.5, 0.6, 0.7], [0.88, 0.89, 0.9, 0.9, 0.9]


def verdicts(rows: dict[str, dict[str, Any]], said: dict[str, list[Prediction]]) -> dict[str, str]:
    for name, one in said.items():
        rows[name]["calibration"] = calibrated(one)
    found = claims.measure(rows, said)
    assert len(found) == 7
    return {c["claim"].split(":")[0].split(",")[0]: c["verdict"] for c in found if c["verdict"] != claims.UNMEASURED}


def all_of(frozen: list[Prediction], tuned: list[Prediction], baseline: list[Prediction]) -> dict[str, str]:
    small = {"total": 50, "trainable": 10}
    rows = {
        "baseline": row(OVERFIT, SLOW), "frozen": row(STEADY, QUICK, parameters=small),
        "fine-tuned": row(STEADY, QUICK, parameters=small),
    }  # fmt: skip
    return verdicts(rows, {"baseline": baseline, "frozen": frozen, "fine-tuned": tuned})


def test_clear_figures_hold() -> None:
    found = all_of(photos(0.2, 0.99, 1), photos(0.05, 0.95, 2), photos(0.5, 0.9, 3))
    assert len(found) == 5
    assert set(found.values()) == {"holds"}


def test_the_opposite_does_not_hold() -> None:
    found = all_of(photos(0.05, 0.95, 1), photos(0.3, 0.99, 2), photos(0.01, 0.9, 3))
    assert found["Fine-tuning sharpens boundaries"] == "does not hold"
    assert found["Fine-tuning improves calibration"] == "does not hold"
    assert found["Feature quality matters more than parameter count."] == "does not hold"


def test_equal_models_are_left_open() -> None:
    same = photos(0.1, 0.9, 1)
    found = all_of(same, same, photos(0.5, 0.9, 3))
    assert found["Fine-tuning sharpens boundaries"] == "not enough photos to say"
    assert found["Fine-tuning improves calibration"] == "not enough photos to say"


@pytest.mark.parametrize(
    ("losses", "verdict"), [(OVERFIT, "holds"), (STEADY, "does not hold"), (OVERFIT[:4], "not enough epochs to say")]
)
def test_overfitting(losses: list[tuple[float, float]], verdict: str) -> None:
    assert list(verdicts({"baseline": row(losses, SLOW[: len(losses)])}, {}).values()) == [verdict]


def test_claims_without_their_strategies_say_so() -> None:
    found = claims.measure({"fine-tuned": row(STEADY, QUICK)}, {"fine-tuned": photos(0.1, 0.9, 1)})
    assert [c["verdict"] for c in found] == [claims.UNMEASURED] * 7
    assert found[0]["measured"] == "needs the strategies baseline; this study has no baseline"
