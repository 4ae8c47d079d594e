"""Claim 2: the frozen model's curves stay together, and it needs fewer epochs and less data than training from
scratch.
"""

from __future__ import annotations

from frostline import wording
from frostline.documents import StrategyRow
from frostline.documents.study import AgainstBaseline, DataCurve
from frostline.evidence.claims.evidence import EPOCHS, FAILS, FEWEST_EPOCHS, HOLDS, PHOTOS, RISE, Evidence, Finding


def measure(evidence: Evidence) -> Finding:
    """Epochs and photos to 95 % of the final accuracy, and whether the frozen model's validation loss stays low."""
    frozen, baseline = evidence.rows["frozen"], evidence.rows["baseline"]
    epochs = {"frozen": _epochs_to_most(frozen), "baseline": _epochs_to_most(baseline)}
    losses = [epoch["val_loss"] for epoch in frozen["history"]]
    together = losses[-1] <= RISE * min(losses)
    curve = evidence.curve if evidence.curve and "why_not" not in evidence.curve else None
    less = curve.get("against_baseline") if curve else None
    figures = {
        "epochs_to_95": epochs,
        "frozen_val_loss": {"lowest": min(losses), "last": losses[-1]},
        "stay_together": together,
        "photos_to_95": curve.get("photos_to_95", {}) if curve else {},
        "against_baseline": less,
    }
    measured = (
        f"95 % of the final validation accuracy after {_epochs(epochs['frozen'])} frozen, "
        f"{_epochs(epochs['baseline'])} from scratch; frozen validation loss {min(losses):.2f} at its lowest, "
        f"{losses[-1]:.2f} at the end"
    )
    if curve:
        measured += f"; {_data_words(curve, less)}"
    if len(baseline["history"]) < FEWEST_EPOCHS:
        return Finding(measured, EPOCHS, figures)
    return Finding(measured, _verdict(epochs["frozen"] < epochs["baseline"] and together, less), figures)


def _verdict(quicker: bool, less: AgainstBaseline | None) -> str:
    """The epochs decide; where the study measured fewer photos too, those have to agree."""
    if not quicker or (less and less["ci"][1] < 0):
        return FAILS
    return HOLDS if less is None or less["ci"][0] > 0 else PHOTOS


def _epochs_to_most(row: StrategyRow) -> int:
    """The first epoch with 95 % of the validation accuracy of the epoch that was kept."""
    final = row["history"][max(row["best_epoch"], 1) - 1]["val_accuracy"]
    return next(int(epoch["epoch"]) for epoch in row["history"] if epoch["val_accuracy"] >= 0.95 * final)


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _data_words(curve: DataCurve, less: AgainstBaseline | None) -> str:
    needed = curve["photos_to_95"]["frozen"]
    about = "at most" if needed["at_most"] else "about"
    text = f"frozen reaches 95 % of its final accuracy with {about} {needed['photos']:,.0f} photos"
    if not less:
        return text
    return (
        f"{text}, and trained on {less['photos']:,} it is {wording.points(less['difference'])} points from the "
        f"network trained from scratch on {less['baseline_photos']:,} ({wording.interval(less['ci'])})"
    )
