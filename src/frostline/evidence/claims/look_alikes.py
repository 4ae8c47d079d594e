"""Claim 3: fine-tuning sharpens boundaries between classes that look alike."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TypedDict

import numpy as np

from frostline import wording
from frostline.documents import StrategyRow
from frostline.evidence.claims.evidence import Evidence, Finding
from frostline.stats import intervals
from frostline.stats.clusters import Clusters
from frostline.stats.intervals import Comparison
from frostline.stats.predictions import Prediction

_SIDES = ("baseline", "frozen", "fine-tuned")


class _Change(TypedDict):
    """How a share of photos changed from frozen to fine-tuned, paired by photo."""

    difference: float
    ci: tuple[float, float]
    p_value: float
    p_corrected: float
    """Corrected for the number of rows in the table (Holm)."""


class _PairRow(_Change):
    """Confusions between two classes, by strategy; the change is a share of the photos of both."""

    classes: list[str]
    look_alike: bool
    photos: int
    baseline: int
    frozen: int
    fine_tuned: int


_ClassRow = TypedDict(
    "_ClassRow",
    {
        "class": str,
        "photos": int,
        "baseline": float | None,
        "frozen": float | None,
        "fine_tuned": float | None,
        "difference": float,
        "ci": tuple[float, float],
        "p_value": float,
        "p_corrected": float,
    },
)
"""The recall of a class, by strategy."""


def measure(evidence: Evidence) -> Finding:
    """Whether photos of the pairs of classes that look most alike, confused within the pair by one model, are correct
    with the other.

    An error that moves to a third class is no sharper boundary: only correct answers count against confusions.
    """
    sides, clusters = [evidence.predictions[name] for name in _SIDES], evidence.clusters
    baseline = evidence.rows["baseline"]
    classes = [row["class"] for row in baseline["per_class"]]
    alike = _most_confused(baseline)
    pairs = [_pair(set(pair), sides, alike, clusters) for pair in combinations(classes, 2)]
    _correct_for_number(pairs)
    per_class = [_recall(name, sides, clusters) for name in classes]
    _correct_for_number(per_class)
    of_pairs = np.array([any(p.true in pair for pair in alike) for p in sides[1]])
    before, after = (np.array([_confused(p, alike) for p in side]) for side in sides[1:])
    correct_before, correct_after = (np.array([p.correct for p in side]) for side in sides[1:])
    sharper, blurred = before & correct_after, correct_before & after
    found = _compared(~sharper, ~blurred, of_pairs, clusters)
    elsewhere = int((before & ~after & ~correct_after).sum())
    named = " and ".join("/".join(sorted(pair)) for pair in alike)
    most = max(per_class, key=lambda row: row["difference"])
    measured = (
        f"look-alikes are the pairs that the baseline confuses most: {named}. Of their {int(of_pairs.sum())} photos "
        f"frozen confuses {int(before.sum())} within a pair, fine-tuned {int(after.sum())}; {int(sharper.sum())} of "
        f"frozen's are correct after fine-tuning{_moved(elsewhere)}, and {int(blurred.sum())} that frozen got right "
        f"are confused ({wording.points(found.difference)} points, {wording.interval(found.ci)}); recall changed most "
        f"in {most['class']} ({wording.points(most['difference'])} points, {wording.interval(most['ci'])})"
    )
    figures = {
        "look_alikes": [sorted(pair) for pair in alike],
        "photos": int(of_pairs.sum()),
        "frozen": int(before.sum()),
        "fine_tuned": int(after.sum()),
        "sharper": int(sharper.sum()),
        "blurred": int(blurred.sum()),
        "moved_to_a_third_class": elsewhere,
        "difference": found.difference,
        "ci": found.ci,
        "p_value": found.p_value,
        "pairs": pairs,
        "classes": per_class,
    }
    ahead = found.difference > 0
    return Finding(measured, figures, found.p_value if ahead else 1.0, 1.0 if ahead else found.p_value)


def _moved(photos: int) -> str:
    return f" ({photos} became errors of another kind, which count for neither)" if photos else ""


def _most_confused(row: StrategyRow) -> list[set[str]]:
    """The two pairs of classes that the baseline confuses most.

    The frozen model's own errors would find an improvement in pure chance: a count that was picked for being high
    falls when it is taken again.
    """
    classes = [entry["class"] for entry in row["per_class"]]
    confusion = np.array(row["confusion"])
    both = confusion + confusion.T
    upper = [(int(both[i, j]), i, j) for i, j in combinations(range(len(classes)), 2)]
    return [{classes[i], classes[j]} for _, i, j in sorted(upper, reverse=True)[:2]]


def _confused(photo: Prediction, pairs: Sequence[set[str]]) -> bool:
    return not photo.correct and {photo.true, photo.predicted} in pairs


def _pair(
    pair: set[str], sides: Sequence[Sequence[Prediction]], alike: Sequence[set[str]], clusters: Clusters | None
) -> _PairRow:
    of_pair = np.array([p.true in pair for p in sides[1]])
    scratch, before, after = (np.array([_confused(p, [pair]) for p in side]) for side in sides)
    return {
        "classes": sorted(pair),
        "look_alike": pair in alike,
        "photos": int(of_pair.sum()),
        "baseline": int(scratch.sum()),
        "frozen": int(before.sum()),
        "fine_tuned": int(after.sum()),
        **_change(before, after, of_pair, clusters),
    }


def _recall(name: str, sides: Sequence[Sequence[Prediction]], clusters: Clusters | None) -> _ClassRow:
    of_class = np.array([p.true == name for p in sides[1]])
    scratch, before, after = (np.array([p.correct for p in side]) for side in sides)
    return {
        "class": name,
        "photos": int(of_class.sum()),
        "baseline": _mean(scratch[of_class]),
        "frozen": _mean(before[of_class]),
        "fine_tuned": _mean(after[of_class]),
        **_change(before, after, of_class, clusters),
    }


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def _change(before: np.ndarray, after: np.ndarray, some: np.ndarray, clusters: Clusters | None) -> _Change:
    """How a share of the photos `some` (N,) changed, paired."""
    if not some.any():
        return {"difference": 0.0, "ci": (-1.0, 1.0), "p_value": 1.0, "p_corrected": 1.0}
    found = _compared(before, after, some, clusters)
    return {"difference": found.difference, "ci": found.ci, "p_value": found.p_value, "p_corrected": found.p_value}


def _compared(before: np.ndarray, after: np.ndarray, some: np.ndarray, clusters: Clusters | None) -> Comparison:
    """`after` against `before`, both (N,) of yes and no, on `some` of the photos."""
    own = None if clusters is None else clusters[some]
    return intervals.compare("fine-tuned", after[some], "frozen", before[some], own)


def _correct_for_number(table: Sequence[_PairRow] | Sequence[_ClassRow]) -> None:
    """Correct the p values of a table for the number of its rows."""
    for row, p in zip(table, intervals.holm([row["p_value"] for row in table]), strict=True):
        row["p_corrected"] = p
