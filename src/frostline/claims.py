"""The tutorial's claims, measured on the photos at hand. A claim without the strategies or figures it needs is left out.

Verdicts: "holds", "does not hold", "not enough photos to say" (the interval leaves both open) or "not enough epochs to say".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from frostline import metrics, words
from frostline.predict import Classified

Row = dict[str, Any]
Claim = dict[str, str]

HOLDS, FAILS, PHOTOS, EPOCHS = "holds", "does not hold", "not enough photos to say", "not enough epochs to say"
_FEW_EPOCHS = 5
_RISE = 1.02  # a validation loss within 2 % of its lowest has not risen


def measure(rows: Mapping[str, Row], predictions: Mapping[str, Sequence[Classified]], seed: int) -> list[Claim]:
    """All claims that the finished strategies allow.

    Parameters
    ----------
    rows
        Rows of study.json by strategy.
    predictions
        The photos reported on, in the same order for every strategy.
    """
    names = set(rows)
    claims: list[Claim] = []
    if "baseline" in names:
        claims.append(_overfits(rows["baseline"]))
    if {"baseline", "frozen"} <= names:
        claims.append(_converges(rows["frozen"], rows["baseline"]))
    if {"baseline", "frozen", "fine-tuned"} <= names:
        claims.append(_look_alikes(rows["baseline"], predictions["frozen"], predictions["fine-tuned"]))
    if {"frozen", "fine-tuned"} <= names:
        claims.append(_calibrates(rows, predictions, seed))
    if {"baseline", "frozen"} <= names:
        claims.append(_features(rows["baseline"], rows["frozen"], predictions))
    return claims


def _claim(claim: str, measured: str, verdict: str) -> Claim:
    return {"claim": claim, "measured": measured, "verdict": verdict}


def _overfits(row: Row) -> Claim:
    """Training loss falls while validation loss rises after some epoch."""
    text = "Training from scratch overfits: training loss falls while validation loss rises after some epochs."
    history = row["history"]
    lowest = min(history, key=lambda e: e["val_loss"])
    last = history[-1]
    measured = (
        f"validation loss lowest in epoch {lowest['epoch']} of {len(history)} ({lowest['val_loss']:.2f}), at the end "
        f"{last['val_loss']:.2f}; training loss {lowest['train_loss']:.2f} then, {last['train_loss']:.2f} at the end"
    )
    if len(history) < _FEW_EPOCHS:
        return _claim(text, measured, EPOCHS)
    rose = last["val_loss"] > _RISE * lowest["val_loss"] and last["train_loss"] < lowest["train_loss"]
    return _claim(text, measured, HOLDS if rose else FAILS)


def _converges(frozen: Row, baseline: Row) -> Claim:
    """The frozen model's curves stay together, and it needs fewer epochs to 95 % of its final accuracy."""
    text = "The frozen model's curves stay together, and it converges in fewer epochs than training from scratch."
    quick, slow = _epochs_to_most(frozen), _epochs_to_most(baseline)
    losses = [e["val_loss"] for e in frozen["history"]]
    measured = (
        f"95 % of the final validation accuracy after {_epochs(quick)} frozen, {_epochs(slow)} from scratch; frozen validation loss "
        f"{min(losses):.2f} at its lowest, {losses[-1]:.2f} at the end"
    )
    if len(baseline["history"]) < _FEW_EPOCHS:
        return _claim(text, measured, EPOCHS)
    return _claim(text, measured, HOLDS if quick < slow and losses[-1] <= _RISE * min(losses) else FAILS)


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _epochs_to_most(row: Row) -> int:
    final = row["history"][max(row["best_epoch"], 1) - 1]["val_accuracy"]
    return next(int(e["epoch"]) for e in row["history"] if e["val_accuracy"] >= 0.95 * final)


def _look_alikes(baseline: Row, frozen: Sequence[Classified], tuned: Sequence[Classified]) -> Claim:
    """Fewer confusions within the pairs of classes that look most alike.

    The pairs are those that the baseline confuses most: to pick them by the frozen model's own errors would find an
    improvement in pure chance, since a count picked for being high falls when it is taken again.
    """
    text = "Fine-tuning sharpens boundaries: fewer confusions between look-alike classes."
    confusion = np.array(baseline["confusion"])
    classes = [r["class"] for r in baseline["per_class"]]
    both = confusion + confusion.T
    upper = [(int(both[i, j]), i, j) for i in range(len(classes)) for j in range(i + 1, len(classes))]
    pairs = [{classes[i], classes[j]} for _, i, j in sorted(upper, reverse=True)[:2]]
    before, after = (np.array([_confused(p, pairs) for p in side]) for side in (frozen, tuned))
    better, worse = int((before & ~after).sum()), int((after & ~before).sum())
    p = float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    named = " and ".join("/".join(sorted(pair)) for pair in pairs)
    measured = f"{named}: {int(before.sum())} confusions frozen, {int(after.sum())} fine-tuned (McNemar's exact test, {words.p_value(p)})"
    return _claim(text, measured, PHOTOS if p >= 0.05 else HOLDS if better > worse else FAILS)


def _confused(photo: Classified, pairs: Sequence[set[str]]) -> bool:
    return photo.true != photo.predicted and {photo.true, photo.predicted} in pairs


def _calibrates(rows: Mapping[str, Row], predictions: Mapping[str, Sequence[Classified]], seed: int) -> Claim:
    """Expected calibration error before any temperature, frozen against fine-tuned, with a paired bootstrap interval."""
    text = "Fine-tuning improves calibration: more confident when right, less overconfident when wrong."
    sides = [_untempered(rows[name], predictions[name]) for name in ("frozen", "fine-tuned")]
    rng = np.random.default_rng(seed)
    count = len(sides[0][1])
    draws = [rng.integers(0, count, count) for _ in range(1000)]
    errors = [metrics.calibration_error(p, y) for p, y in sides]
    gaps = [
        metrics.calibration_error(sides[1][0][d], sides[1][1][d])
        - metrics.calibration_error(sides[0][0][d], sides[0][1][d])
        for d in draws
    ]
    low, high = np.quantile(gaps, (0.025, 0.975))
    measured = (
        f"calibration error {errors[0]:.3f} frozen, {errors[1]:.3f} fine-tuned (change {errors[1] - errors[0]:+.3f}, 95 % interval "
        f"{low:+.3f} to {high:+.3f}); mean confidence {_confidences(*sides[0])} frozen, {_confidences(*sides[1])} fine-tuned"
    )
    return _claim(text, measured, PHOTOS if low <= 0 <= high else HOLDS if high < 0 else FAILS)


def _untempered(row: Row, predictions: Sequence[Classified]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities at temperature 1, (N, C), and class indices (N,)."""
    classes = [r["class"] for r in row["per_class"]]
    shares = np.array([[p.probabilities[c] for c in classes] for p in predictions])
    raw = np.clip(shares, 1e-7, 1) ** row["temperature"]
    return raw / raw.sum(1, keepdims=True), np.array([classes.index(p.true) for p in predictions])


def _confidences(probabilities: np.ndarray, labels: np.ndarray) -> str:
    right = probabilities.argmax(1) == labels
    top = probabilities.max(1)
    mean: Callable[[np.ndarray], str] = lambda side: f"{top[side].mean():.2f}" if side.any() else "none"  # noqa: E731
    return f"{mean(right)} when right and {mean(~right)} when wrong"


def _features(baseline: Row, frozen: Row, predictions: Mapping[str, Sequence[Classified]]) -> Claim:
    """A frozen network with few trainable weights against a network from scratch with many."""
    text = "Feature quality matters more than parameter count."
    right = [np.array([p.true == p.predicted for p in predictions[n]]) for n in ("frozen", "baseline")]
    result = metrics.compare("frozen", right[0], "baseline", right[1], 0)
    measured = (
        f"{result.verdict}; {frozen['parameters']['trainable']:,} against {baseline['parameters']['trainable']:,} trainable "
        f"parameters, {frozen['parameters']['total']:,} against {baseline['parameters']['total']:,} in all"
    )
    fewer = frozen["parameters"]["total"] < baseline["parameters"]["total"]
    verdict = PHOTOS if result.p_value >= 0.05 else HOLDS if result.difference > 0 and fewer else FAILS
    return _claim(text, measured, verdict)
