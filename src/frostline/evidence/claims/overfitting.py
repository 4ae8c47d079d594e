"""Claim 1: training from scratch overfits."""

from __future__ import annotations

from frostline.documents.strategy import Epoch
from frostline.evidence.claims.evidence import EPOCHS, FAILS, FEWEST_EPOCHS, HOLDS, RISE, Evidence, Finding


def measure(evidence: Evidence) -> Finding:
    """Whether the training loss still falls while the validation loss rises after its lowest epoch."""
    history = evidence.rows["baseline"]["history"]
    lowest, last = min(history, key=lambda e: e["val_loss"]), history[-1]
    figures = {
        "turning_point": lowest["epoch"],
        "epochs": len(history),
        "lowest": _losses(lowest),
        "last": _losses(last),
        "rise": last["val_loss"] / lowest["val_loss"] - 1 if lowest["val_loss"] else 0.0,
    }
    measured = (
        f"validation loss lowest in epoch {lowest['epoch']} of {len(history)} ({lowest['val_loss']:.2f}), at the end "
        f"{last['val_loss']:.2f}; training loss {lowest['train_loss']:.2f} then, {last['train_loss']:.2f} at the end: "
        f"the gap between them {_gap(lowest):+.2f}, then {_gap(last):+.2f}"
    )
    if len(history) < FEWEST_EPOCHS:
        return Finding(measured, EPOCHS, figures)
    rose = last["val_loss"] > RISE * lowest["val_loss"] and last["train_loss"] < lowest["train_loss"]
    return Finding(measured, HOLDS if rose else FAILS, figures)


def _losses(epoch: Epoch) -> dict[str, float]:
    return {
        "epoch": epoch["epoch"],
        "train_loss": epoch["train_loss"],
        "val_loss": epoch["val_loss"],
        "gap": _gap(epoch),
        "accuracy_gap": epoch["train_accuracy"] - epoch["val_accuracy"],
    }


def _gap(epoch: Epoch) -> float:
    return epoch["val_loss"] - epoch["train_loss"]
