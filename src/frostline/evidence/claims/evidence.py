"""What a claim is judged by, and the verdicts that it can get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from frostline.documents import StrategyRow
from frostline.documents.shared import Figures
from frostline.documents.study import DataCurve, ErrorCause
from frostline.evidence.robustness import CorruptionResults
from frostline.stats.predictions import Prediction

HOLDS = "holds"
FAILS = "does not hold"
PHOTOS = "not enough photos to say"
"""The interval leaves both open."""
EPOCHS = "not enough epochs to say"
UNMEASURED = "not measured"

FEWEST_EPOCHS = 5
"""Fewer epochs show no trend."""
RISE = 1.02
"""A validation loss within 2 % of its lowest has not risen."""


@dataclass(frozen=True)
class Evidence:
    """All that a study measured; a part is empty where the study did not measure it."""

    rows: Mapping[str, StrategyRow]
    """By strategy."""
    predictions: Mapping[str, Sequence[Prediction]]
    """By strategy, on the photos reported on: the same photos in the same order."""
    robustness: Mapping[str, CorruptionResults] = field(default_factory=dict)
    """By strategy."""
    causes: Mapping[str, Sequence[ErrorCause]] = field(default_factory=dict)
    """``error_causes`` of study.json, by strategy."""
    curve: DataCurve | None = None
    """``data_curve`` of study.json."""

    def correct(self, strategy: str) -> np.ndarray:
        """(N,) whether each photo's predicted class is the true one."""
        return np.array([p.correct for p in self.predictions[strategy]])


class Finding(NamedTuple):
    """A claim, measured."""

    measured: str
    """What was measured, in a sentence."""
    verdict: str
    figures: Figures
    """The numbers behind the sentence: fractions of 1, losses in nats."""


def above_zero(low: float, high: float) -> str:
    """The verdict on a claim that something is above 0, by its 95 % interval."""
    return HOLDS if low > 0 else FAILS if high < 0 else PHOTOS
