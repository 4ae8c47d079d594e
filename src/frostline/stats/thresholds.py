"""The confidence threshold for a wanted precision: below it a prediction is called unsure.

It is chosen on the validation photos and kept in the bundle. Photos are taken from the most confident on. The threshold
goes down as long as the lower end of an exact one-sided CI (Clopper and Pearson, 1934) of the share of correct
predictions stays at or above the wanted precision, and stops at the first one where it does not. So the choice among
many thresholds costs nothing (fixed-sequence testing; Angelopoulos et al., Learn then Test, 2021, arXiv:2110.01052).
The choice among the precisions is paid for by Bonferroni's correction: in at least 95 of 100 draws of validation photos
every row of the table holds, whatever the model. The descent begins at the fewest photos that could show the precision
if all were correct: 51 for 90 %, 104 for 95 %, 528 for 99 % (`photos_needed`).

Where photos come in clusters (`stats.clusters`), they count as fewer: their number is divided by the design effect, and
by how much wider Student's t for that many clusters is than the normal (Korn and Graubard, Survey Methodology, 1998).

A precision that few draws offer is another matter: where the model does not reach it, the few draws that offer it are
all wrong. benchmarks/simulated/thresholds.py has the share of offered rows that are broken, over models of accuracy 0.8
to 0.97. All of it holds for photos like the validation photos. Those also chose the epoch and the temperature, which
makes it a little optimistic. Where validation photos joined the training photos in the end, they were predicted by the
model of the first training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from frostline.documents.bundle import ThresholdRow
from frostline.errors import ConfigError
from frostline.stats import clusters as dependence
from frostline.stats.clusters import Clusters
from frostline.stats.predictions import Prediction, clusters

PRECISIONS = (0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
RISK = 0.05
"""Probability, at most, that the precision at some threshold of the table is below the wanted one."""
_EACH = RISK / len(PRECISIONS)


def of(validation: Sequence[Prediction]) -> list[ThresholdRow]:
    """`table` from what a model says of validation photos that are not reported on."""
    return table([p.confidence for p in validation], [p.correct for p in validation], clusters(validation))


def table(confidence: Sequence[float], correct: Sequence[bool], clusters: Clusters | None = None) -> list[ThresholdRow]:
    """A row for each of `PRECISIONS` that these validation photos (N,) can show.

    Returns
    -------
    list
        ``{"precision", "threshold", "kept", "photos", "right", "lower"}``: at `threshold` and above are `photos`
        photos, the share `kept` of all; the share `right` of them is predicted correctly, and at least `lower` with 95
        % confidence, for all rows together.
    """
    order = np.argsort(-np.asarray(confidence, dtype=np.float64), kind="stable")
    right = np.asarray(correct, dtype=bool)
    sure, good = np.asarray(confidence, dtype=np.float64)[order], np.cumsum(right[order])
    own = dependence.numbered(clusters)
    effects = np.ones(len(order)) if own is None else _effects(own[order], dependence.correlation(right, own))
    rows = (_row(wanted, sure, good, effects) for wanted in PRECISIONS)
    return [row for row in rows if row]


def photos_needed(wanted: float) -> int:
    """The fewest photos at or above a threshold that could show this precision: if all of them were correct."""
    return math.ceil(math.log(_EACH) / math.log(wanted))


def _effects(clusters: Clusters, correlation: float) -> np.ndarray:
    """(N,) For the first photo, the first two, ...: how many of them tell as much as one independent photo."""
    from scipy import stats

    order = np.argsort(clusters, kind="stable")
    sizes = np.bincount(clusters)
    before = np.empty(len(clusters), np.intp)  # how many of a photo's cluster came before it
    before[order] = np.arange(len(clusters)) - (np.cumsum(sizes) - sizes).repeat(sizes)
    spread = np.cumsum(2 * before + 1) / np.arange(1, len(clusters) + 1)
    groups = np.cumsum(before == 0)
    widening = stats.t.isf(_EACH, np.maximum(groups - 1, 1)) / stats.norm.isf(_EACH)
    return np.asarray((1 + (spread - 1) * correlation) * widening**2)


def _row(wanted: float, sure: np.ndarray, good: np.ndarray, effects: np.ndarray) -> ThresholdRow | None:
    from scipy import special

    count = len(sure)
    enough = np.arange(1, count + 1) >= photos_needed(wanted) * effects
    fewest = int(enough.argmax()) + 1 if enough.any() else count + 1
    # photos of equal confidence go together
    photos = np.array([n for n in range(fewest, count + 1) if n == count or sure[n] < sure[n - 1]])
    if not len(photos):
        return None
    k, effect = good[photos - 1], effects[photos - 1]
    wrong = (photos - k) / effect
    chance = np.where(k > 0, special.betainc(np.maximum(k, 1) / effect, wrong + 1, wanted), 1.0)  # of k or more by luck
    kept = int(np.argmin(np.append(chance <= _EACH, False)))  # how many hold from the first on
    if not kept:
        return None
    n, correct = int(photos[kept - 1]), int(k[kept - 1])
    told = correct / float(effect[kept - 1])
    return {
        "precision": wanted,
        "threshold": float(sure[n - 1]),
        "kept": n / count,
        "photos": n,
        "right": correct / n,
        "lower": float(special.betaincinv(told, float(wrong[kept - 1]) + 1, _EACH)),
    }


def of_half_the_errors(validation: Sequence[Prediction]) -> ThresholdRow | None:
    """The row of `of` at which at most half as many predictions are wrong as in all; else the one of highest precision
    above the accuracy of all; None where no row is above that."""
    if not validation:
        return None
    accuracy = sum(p.correct for p in validation) / len(validation)
    better = [row for row in of(validation) if row["precision"] > accuracy]
    halved = [row for row in better if row["precision"] >= (1 + accuracy) / 2]
    return halved[0] if halved else better[-1] if better else None


def for_precision(rows: Sequence[ThresholdRow], wanted: float) -> ThresholdRow:
    """The row of the table that promises `wanted` at least, at the least confidence.

    Raises
    ------
    ConfigError
        There is none: the table is empty, or its photos can't show so much.
    """
    if not 0 < wanted < 1:
        raise ConfigError(f"precision {wanted:g}: expected a share above 0 and below 1, such as 0.95")
    if not rows:
        raise ConfigError(
            "this bundle has no thresholds: it is of an older version, its validation photos were the ones reported on "
            f"(protocol tutorial), or too few or too often wrong to promise a precision ({_takes(wanted)}); give "
            "--threshold 0.7 instead"
        )
    enough = [row for row in rows if row["precision"] >= wanted]
    if not enough:
        most = max(row["precision"] for row in rows)
        raise ConfigError(
            f"precision {wanted:g}: this bundle's validation photos can promise {most:g} at most ({_takes(wanted)}); "
            "ask for that, or give --threshold"
        )
    return min(enough, key=lambda row: row["precision"])


def _takes(wanted: float) -> str:
    return (
        f"{wanted:g} takes at least {photos_needed(wanted):,} validation photos above the threshold, more where some "
        "are wrong"
    )


def problems(rows: object) -> list[str]:
    """What makes a table in bundle.json unusable."""
    whole = isinstance(rows, list) and all(
        isinstance(row, dict)
        and all(isinstance(row.get(k), int | float) for k in ("precision", "threshold", "kept", "lower"))
        for row in rows
    )
    return [] if whole else [f"thresholds {rows!r}: expected rows of precision, threshold, kept and lower"]
