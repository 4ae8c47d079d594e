"""Claim 2: the frozen model's curves stay together, and it needs fewer epochs and less data than training from
scratch.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from frostline import wording
from frostline.documents import StrategyRow
from frostline.documents.study import AgainstBaseline, DataCurve
from frostline.evidence.claims.evidence import Evidence, Finding, all_of, any_of, untested
from frostline.evidence.claims.features import comparison
from frostline.evidence.claims.overfitting import of_any_epoch, rises
from frostline.stats.intervals import Comparison
from frostline.stats.means import Mean, mean
from frostline.stats.resampling import photo_counts

_RESAMPLES = 2000
_MOST = 0.95  # of the final accuracy


class _Epochs(NamedTuple):
    """Epochs to 95 % of the final accuracy: frozen less baseline."""

    difference: int
    ci: tuple[float, float]
    fewer: float
    """Two-sided p value that frozen needs fewer; 1 where it does not."""


def measure(evidence: Evidence) -> Finding:
    """Whether the frozen strategy needs fewer epochs, and does better with few photos than the baseline with all.

    Supported where both are shown. Contradicted where the frozen strategy is shown to be less accurate with all photos,
    or to have a validation loss that rises more after its lowest epoch. That frozen on few photos loses to the baseline
    on all of them refutes nothing; nor does an epoch more in a single training run, whose luck has no interval.
    """
    curve = evidence.curve
    if curve is None:
        return untested("no learning curve was measured", "frostline robustness RUN")
    less = curve.get("against_baseline")
    if "why_not" in curve or less is None:
        why = curve.get("why_not", "no frozen model was trained on fewer photos beside a baseline")
        return untested(why, "frostline study DATA, with more photos" if "why_not" in curve else "frostline study DATA")
    frozen, baseline = evidence.rows["frozen"], evidence.rows["baseline"]
    needed = {"frozen": _epochs_to_most(frozen), "baseline": _epochs_to_most(baseline)}
    epochs = _epochs(evidence)
    apart = _apart(evidence)
    all_photos = comparison(evidence, "frozen", "baseline")
    figures = {
        "epochs_to_95": needed,
        "epochs_difference_ci": epochs.ci if epochs else None,
        "rise_against_baseline": {"difference": apart.value, "ci": apart.ci} if apart else None,
        "photos_to_95": curve.get("photos_to_95", {}),
        "against_baseline": less,
        "all_photos": {"difference": all_photos.difference, "ci": all_photos.ci},
    }
    measured = f"{_data_words(curve, less)}; {_epoch_words(needed, epochs)}"
    if apart:
        measured += (
            f"; its validation loss rises by {wording.change(apart.value)} (95 % CI {wording.changes(apart.ci)}) "
            "more after its lowest epoch than the baseline's"
        )
    supports = all_of(_ahead(less), epochs.fewer if epochs else 0.0)
    longest = max(len(frozen["history"]), len(baseline["history"]))
    contradicts = any_of(_p_behind(all_photos), of_any_epoch(apart.above, longest) if apart else 1.0)
    return Finding(measured, figures, supports, contradicts)


def _ahead(less: AgainstBaseline) -> float:
    return less["p_value"] if less["difference"] > 0 else 1.0


def _p_behind(found: Comparison) -> float:
    return found.p_value if found.difference < 0 else 1.0


def _epochs(evidence: Evidence) -> _Epochs | None:
    """The difference of epochs, with a bootstrap of validation photos, the same for both strategies; None where the run
    did not keep them."""
    sides = [(evidence.rows[name], evidence.validation.get(name)) for name in ("frozen", "baseline")]
    (frozen, of_frozen), (baseline, of_baseline) = sides
    if of_frozen is None or of_baseline is None or of_frozen.correct.shape[1] != of_baseline.correct.shape[1]:
        return None
    photos = of_frozen.correct.shape[1]
    counts = np.concatenate(list(photo_counts(photos, 0, _RESAMPLES, evidence.validation_clusters)))
    a, b = (
        _first(counts @ side.correct.T.astype(float), _kept(row))
        for row, side in ((frozen, of_frozen), (baseline, of_baseline))
    )
    difference = a - b
    low, high = np.quantile(difference, (0.025, 0.975), method="inverted_cdf")
    own = _epochs_to_most(frozen) - _epochs_to_most(baseline)
    fewer = float((1 + (difference >= 0).sum()) / (1 + len(difference)))
    return _Epochs(own, (float(low), float(high)), min(1.0, 2 * fewer))


def _first(correct: npt.NDArray[np.float64], kept: int) -> npt.NDArray[np.intp]:
    """(B,) the first epoch, from 1, with 95 % of the correct photos of epoch `kept`; `correct` is (B, E)."""
    enough = correct >= _MOST * correct[:, [kept - 1]]
    return np.asarray(enough.argmax(1) + 1)


def _kept(row: StrategyRow) -> int:
    return max(row["best_epoch"], 1)


def _epochs_to_most(row: StrategyRow) -> int:
    """The first epoch with 95 % of the validation accuracy of the epoch that was kept."""
    final = row["history"][_kept(row) - 1]["val_accuracy"]
    return next(int(epoch["epoch"]) for epoch in row["history"] if epoch["val_accuracy"] >= _MOST * final)


def _apart(evidence: Evidence) -> Mean | None:
    """How much more the validation loss of frozen rises after its lowest epoch than that of the baseline."""
    frozen, baseline = (evidence.validation.get(name) for name in ("frozen", "baseline"))
    if frozen is None or baseline is None or frozen.loss.shape[1] != baseline.loss.shape[1]:
        return None
    clusters = evidence.validation_clusters
    return mean(rises(frozen, clusters) - rises(baseline, clusters), clusters)


def _epoch_words(needed: dict[str, int], found: _Epochs | None) -> str:
    text = (
        f"95 % of the final validation accuracy after {_counted(needed['frozen'])} frozen, "
        f"{_counted(needed['baseline'])} from scratch"
    )
    if found is None:
        return f"{text} (this run kept no validation predictions of each epoch: no interval, so it decides nothing)"
    return (
        f"{text} (difference {wording.change(found.difference, 0)}, 95 % CI {wording.changes(found.ci, 0)}; "
        "one training run)"
    )


def _counted(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _data_words(curve: DataCurve, less: AgainstBaseline) -> str:
    text = (
        f"frozen, trained on {less['photos']:,} photos, less the network trained from scratch on "
        f"{less['baseline_photos']:,}: {wording.points(less['difference'])} points ({wording.interval(less['ci'])})"
    )
    needed = curve.get("photos_to_95", {}).get("frozen")
    if needed is None:
        return text
    about = "at most" if needed["at_most"] else "about"
    return f"{text}; {about} {needed['photos']:,.0f} photos bring frozen to 95 % of its final accuracy"
