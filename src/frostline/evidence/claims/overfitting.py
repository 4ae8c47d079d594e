"""Claim 1: training from scratch overfits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from frostline import wording
from frostline.documents.strategy import Epoch
from frostline.evidence.claims.evidence import Evidence, Finding, untested
from frostline.stats.clusters import Clusters
from frostline.stats.means import Mean, folds, mean
from frostline.training.stages import ValidationByEpoch

Floats = npt.NDArray[np.float64]

FEWEST_EPOCHS = 5
"""Fewer epochs show no trend."""
_MATTERS = 0.02
"""A validation loss that rose by less than this share of its lowest has not risen so as to matter."""
_FOLDS = 10
_LAST = 3  # epochs in which a loss that still falls is looked for
_LONGER = "frostline study DATA --epochs 40"


def measure(evidence: Evidence) -> Finding:
    """Whether the validation loss rises after its lowest epoch while the training loss goes on falling."""
    history = evidence.rows["baseline"]["history"]
    lowest, last = min(history, key=lambda e: e["val_loss"]), history[-1]
    figures = {
        "turning_point": lowest["epoch"],
        "epochs": len(history),
        "lowest": _losses(lowest),
        "last": _losses(last),
    }
    losses = f"validation loss {lowest['val_loss']:.2f} at its lowest, in epoch {lowest['epoch']} of {len(history)}"
    if len(history) < FEWEST_EPOCHS:
        why = f"too short to tell: {len(history)} epochs, at least {FEWEST_EPOCHS} show a trend"
        return untested(why, _LONGER, figures)
    by_epoch = evidence.validation.get("baseline")
    if by_epoch is None:
        why = "this run did not keep the validation loss of each photo, so its rise has no interval"
        return untested(why, "frostline study DATA, anew", figures)
    falling = still_falling(by_epoch, evidence.validation_clusters)
    if lowest is last or falling.ci[1] < 0:
        why = f"too short to tell: the loss still falls at the end ({losses}, {last['val_loss']:.2f} in the last epoch)"
        return untested(why, _LONGER, figures)
    rise = mean(rises(by_epoch, evidence.validation_clusters), evidence.validation_clusters)
    measured = (
        f"{losses}, {last['val_loss']:.2f} at the end: a rise of {wording.change(rise.value)} (95 % CI "
        f"{wording.changes(rise.ci)}; for each photo the lowest epoch is that of other photos). Training loss "
        f"{lowest['train_loss']:.2f} then, {last['train_loss']:.2f} at the end: the gap between them went from "
        f"{wording.change(_gap(lowest), 2)} to {wording.change(_gap(last), 2)}. One training run"
    )
    figures |= {"rise": rise.value, "ci": rise.ci}
    matters = _MATTERS * lowest["val_loss"]
    above = of_any_epoch(rise.above, len(history))
    if last["train_loss"] < lowest["train_loss"]:
        return Finding(measured, figures, above, rise.under(matters))
    return Finding(measured, figures, 1.0, above)  # both rise: that is no overfitting


def of_any_epoch(p: float, epochs: int) -> float:
    """A p value of the last epoch, where training might have ended after any of so many (Bonferroni's).

    Early stopping ends it when the same validation photos look bad, which makes the last epoch look worse than it is.
    """
    return min(1.0, epochs * p)


def rises(by_epoch: ValidationByEpoch, clusters: Clusters | None) -> Floats:
    """(V,) how much higher each photo's loss is in the last epoch than in the lowest one.

    The lowest of all epochs is low in part by chance. So it is chosen for each tenth of the photos by the other photos.
    """
    loss = by_epoch.loss
    part = folds(loss.shape[1], clusters, _FOLDS)
    found = np.zeros(loss.shape[1])
    for number in np.unique(part):
        own = part == number
        if not own.all():
            found[own] = loss[-1, own] - loss[int(loss[:, ~own].mean(1).argmin()), own]
    return found


def still_falling(by_epoch: ValidationByEpoch, clusters: Clusters | None) -> Mean:
    """The change of the loss over the last epochs: the last one less the mean of those before it."""
    last = by_epoch.loss[-_LAST:]
    return mean(last[-1] - last[:-1].mean(0), clusters)


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
