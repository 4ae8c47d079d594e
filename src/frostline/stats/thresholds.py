"""The confidence threshold for a wanted precision: below it a prediction is called unsure.

It is chosen on the validation photos and kept in the bundle. Photos are taken from the most confident on. The threshold
goes down as long as the lower end of the exact one-sided 95 % CI (Clopper and Pearson, 1934) of the share of
correct predictions stays at or above the wanted precision, and stops at the first one where it does not. So the whole
descent errs with probability 5 % at most (fixed-sequence testing; Angelopoulos et al., Learn then Test, 2021,
arXiv:2110.01052). It begins at the fewest photos that could show the precision if all were correct: 59 for 95 %, 299
for 99 %. The guarantee holds for photos like the validation photos; those also chose the epoch and the temperature,
which makes it a little optimistic. Where validation photos joined the training photos in the end, they were predicted
by the model of the first training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from frostline.documents.bundle import ThresholdRow
from frostline.errors import ConfigError
from frostline.stats.predictions import Prediction

PRECISIONS = (0.8, 0.85, 0.9, 0.925, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995)
RISK = 0.05
"""Probability that the precision at a threshold is below the wanted one."""


def of(validation: Sequence[Prediction]) -> list[ThresholdRow]:
    """`table` from what a model says of validation photos that are not reported on."""
    return table([p.confidence for p in validation], [p.correct for p in validation])


def table(confidence: Sequence[float], correct: Sequence[bool]) -> list[ThresholdRow]:
    """A row for each of `PRECISIONS` that these validation photos can show.

    Returns
    -------
    list
        ``{"precision", "threshold", "kept", "photos", "right", "lower"}``: at `threshold` and above are `photos`
        photos, the share `kept` of all; the share `right` of them is predicted correctly, and at least `lower` with 95
        % confidence.
    """
    order = np.argsort(-np.asarray(confidence, dtype=np.float64), kind="stable")
    sure, good = np.asarray(confidence, dtype=np.float64)[order], np.cumsum(np.asarray(correct, dtype=bool)[order])
    rows = (_row(wanted, sure, good) for wanted in PRECISIONS)
    return [row for row in rows if row]


def _row(wanted: float, sure: np.ndarray, good: np.ndarray) -> ThresholdRow | None:
    from scipy import stats

    count = len(sure)
    fewest = math.ceil(math.log(RISK) / math.log(wanted))
    photos = np.array(
        [n for n in range(fewest, count + 1) if n == count or sure[n] < sure[n - 1]]
    )  # equals go together
    if not len(photos):
        return None
    k = good[photos - 1]
    lower = np.where(k > 0, stats.beta.ppf(RISK, np.maximum(k, 1), photos - k + 1), 0.0)
    kept = int(np.argmin(np.append(lower >= wanted, False)))  # how many hold from the first on
    if not kept:
        return None
    n, correct = int(photos[kept - 1]), int(k[kept - 1])
    return {
        "precision": wanted,
        "threshold": float(sure[n - 1]),
        "kept": n / count,
        "photos": n,
        "right": correct / n,
        "lower": float(lower[kept - 1]),
    }


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
            "(protocol tutorial), or too few or too often wrong to promise a precision; give --threshold 0.7 instead"
        )
    enough = [row for row in rows if row["precision"] >= wanted]
    if not enough:
        most = max(row["precision"] for row in rows)
        raise ConfigError(
            f"precision {wanted:g}: this bundle's validation photos can promise {most:g} at most; ask for that, or "
            "give --threshold"
        )
    return min(enough, key=lambda row: row["precision"])


def problems(rows: object) -> list[str]:
    """What makes a table in bundle.json unusable."""
    whole = isinstance(rows, list) and all(
        isinstance(row, dict)
        and all(isinstance(row.get(k), int | float) for k in ("precision", "threshold", "kept", "lower"))
        for row in rows
    )
    return [] if whole else [f"thresholds {rows!r}: expected rows of precision, threshold, kept and lower"]
