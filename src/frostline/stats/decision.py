"""Which strategy, and which freeze line: every choice of the package is made in this file.

All choices are made on the validation set. The test set is used only for reporting, so none of these functions sees it.

    one study       `best_strategy`      the highest validation accuracy (macro recall where classes are unequal)
    several seeds   `best_over_seeds`    the highest mean validation accuracy
    a sweep         `recommended_line`   the highest line that is not clearly below the best one

Where strategies are equal, the one with fewer trainable parameters is chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from frostline import wording
from frostline.documents.sweep import Recommendation, RecommendedLine
from frostline.stats import intervals
from frostline.stats.resampling import photo_counts

R = TypeVar("R", bound=Mapping[str, object])

Floats = npt.NDArray[np.float64]

_LEAST_SHARE = 5e-7  # half of the last digit that predictions.csv holds


# ---- one study, several seeds ----------------------------------------------------------------------------------------


def best_strategy(rows: Sequence[R], unequal: bool) -> R | None:
    """The strategy with the highest validation accuracy; None where no row has an accuracy.

    Documents of older versions lack the validation accuracy of some strategies. Then, and only then, the accuracy on
    the photos reported on decides.

    Parameters
    ----------
    rows
        Rows of study.json.
    unequal
        The classes are of unequal size: macro recall (balanced accuracy) decides in place of accuracy.
    """
    metric = "balanced_accuracy" if unequal else "accuracy"
    if all(wording.known(row.get(f"validation_{metric}")) for row in rows):
        metric = f"validation_{metric}"
    return _highest([row for row in rows if wording.known(row.get(metric))], metric)


def best_over_seeds(rows: Sequence[R]) -> R:
    """The strategy with the highest validation accuracy, averaged over the seeds.

    Parameters
    ----------
    rows
        Rows of seeds.json; one or more.
    """
    best = _highest(rows, "validation_mean")
    if best is None:
        raise ValueError("expected the rows of one strategy or more")
    return best


def _highest(rows: Sequence[R], metric: str) -> R | None:
    """The row with the highest value; between equals the one with the fewest trainable parameters, then the first."""

    def rank(row: R) -> tuple[float, float]:
        value, parameters = row[metric], row.get("parameters")
        trainable = parameters.get("trainable") if isinstance(parameters, Mapping) else None
        return (value if wording.known(value) else -np.inf, -(trainable or 0))

    return max(rows, key=rank, default=None)


# ---- a sweep over freeze lines ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LineOnValidation:
    """How one freeze line did on the validation photos."""

    name: str
    correct: npt.NDArray[np.bool_]
    """(N,) whether each photo's predicted class is the true one."""
    loss: Floats
    """(N,) negative log probability of each photo's true class, nats."""

    @classmethod
    def of(cls, name: str, true: Sequence[str], probabilities: Sequence[Mapping[str, float]]) -> LineOnValidation:
        """From what predictions.csv holds: each photo's class, and the probability of every class."""
        pairs = list(zip(true, probabilities, strict=True))
        of_true = np.array([by_class[label] for label, by_class in pairs])
        correct = np.array([max(by_class, key=by_class.__getitem__) == label for label, by_class in pairs])
        return cls(name, correct, -np.log(np.clip(of_true, _LEAST_SHARE, 1)))


def recommended_line(lines: Sequence[LineOnValidation], seed: int) -> Recommendation:
    """Choose a freeze line.

    The best line has the most photos correct; between equals, the lower log loss. The recommended one is the highest
    line (fewest trainable parameters) that is not clearly below it: the 95 % CI of their paired difference
    reaches zero. A line's `best_share` is the share of resamples of the photos in which it is the best.

    Parameters
    ----------
    lines
        From the top down, all on the same N photos.
    seed
        Decides the resamples.
    """
    best = max(lines, key=lambda line: (line.correct.mean(), -line.loss.mean()))
    shares = _best_shares(lines, seed)
    rows = [_line_row(line, best, float(share)) for line, share in zip(lines, shares, strict=True)]
    recommended = next(row["name"] for row in rows if not row["clearly_below"])
    return {"recommended": recommended, "best": best.name, "photos": len(best.correct), "lines": rows}


def _line_row(line: LineOnValidation, best: LineOnValidation, best_share: float) -> RecommendedLine:
    behind = intervals.compare(line.name, line.correct, best.name, best.correct)
    return {
        "name": line.name,
        "accuracy": float(line.correct.mean()),
        "accuracy_ci": intervals.mean_interval(line.correct),
        "log_loss": float(line.loss.mean()),
        "best_share": best_share,
        "difference": behind.difference,
        "difference_ci": behind.ci,
        "p_value": behind.p_value,
        "clearly_below": behind.ci[1] < 0,
    }


def _best_shares(lines: Sequence[LineOnValidation], seed: int) -> Floats:
    """(L,) the share of resamples in which each line is the best."""
    correct = np.array([line.correct for line in lines], dtype=float)
    loss = np.array([line.loss for line in lines])
    wins = np.zeros(len(lines))
    for counts in photo_counts(correct.shape[1], seed):
        score = correct @ counts.T  # whole numbers: equals are equal
        behind = score < score.max(0)
        first = np.where(behind, np.inf, loss @ counts.T).argmin(0)
        wins += np.bincount(first, minlength=len(lines))
    return np.asarray(wins / wins.sum())
