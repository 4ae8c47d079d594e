"""What a claim is judged by, and the verdicts that it can get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from frostline.documents import StrategyRow
from frostline.documents.decision import Unfreezing
from frostline.documents.shared import Figures
from frostline.documents.study import DataCurve, ErrorCause
from frostline.evidence.robustness import CorruptionResults
from frostline.stats.predictions import Prediction
from frostline.training.stages import ValidationByEpoch

SUPPORTED = "supported"
CONTRADICTED = "contradicted"
PHOTOS = "not enough photos"
"""The interval leaves both open."""
UNTESTED = "not tested in this run"
LEVEL = 0.05
"""A verdict needs a corrected p value below this."""


@dataclass(frozen=True)
class Evidence:
    """All that a study measured; a part is empty where the study did not measure it."""

    rows: Mapping[str, StrategyRow]
    """By strategy."""
    predictions: Mapping[str, Sequence[Prediction]]
    """By strategy, on the N photos reported on: the same photos in the same order."""
    robustness: Mapping[str, CorruptionResults] = field(default_factory=dict)
    """By strategy."""
    causes: Mapping[str, Sequence[ErrorCause]] = field(default_factory=dict)
    """``error_causes`` of study.json, by strategy."""
    curve: DataCurve | None = None
    """``data_curve`` of study.json."""
    clusters: npt.NDArray[np.intp] | None = None
    """(N,) photos reported on that are not independent share a number; None: all are independent."""
    validation: Mapping[str, ValidationByEpoch] = field(default_factory=dict)
    """By strategy: the V validation photos in each epoch; none of runs that didn't keep them."""
    validation_clusters: npt.NDArray[np.intp] | None = None
    """(V,) like `clusters`."""
    training_photos: int | None = None
    """How many photos the strategies were trained on, before any refit."""
    unfreezing: Unfreezing | None = None
    """What the study's decision says of fine-tuned against frozen; None in runs of older versions."""

    def correct(self, strategy: str) -> npt.NDArray[np.bool_]:
        """(N,) whether each photo's predicted class is the true one."""
        return np.array([p.correct for p in self.predictions[strategy]])


class Finding(NamedTuple):
    """A claim, measured. `measure` turns its p values into a verdict, corrected for the number of claims."""

    measured: str
    """What was measured, in a sentence; of an untested claim: why it was not tested."""
    figures: Figures
    """The numbers behind the sentence: fractions of 1, losses in nats."""
    supports: float = 1.0
    """Two-sided p value of what speaks for the claim; where it has several parts, the largest of them."""
    contradicts: float = 1.0
    """Two-sided p value of what speaks against it; where it has several parts, the smallest times their number."""
    corrected: float | None = None
    """The smaller of both where it was corrected already, with the comparisons of the report; None = to be done."""
    tested_by: str | None = None
    """The command that would test an untested claim; None = it was tested."""


def untested(why: str, tested_by: str, figures: Figures | None = None) -> Finding:
    """A claim that this run could not test: why, and the command that would."""
    return Finding(why, figures or {}, tested_by=tested_by)


def all_of(*parts: float) -> float:
    """The p value of several parts that must all hold (an intersection-union test; Berger, 1982)."""
    return max(parts)


def any_of(*parts: float) -> float:
    """The p value of several parts of which one is enough (Bonferroni's)."""
    return min(1.0, len(parts) * min(parts))
