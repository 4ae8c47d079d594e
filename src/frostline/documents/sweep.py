"""sweep.json: freeze lines, or numbers of photos, side by side."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.documents.decision import Decision
from frostline.documents.shared import Interval, Parameters, Run
from frostline.documents.strategy import Seconds, StrategyRow
from frostline.documents.study import Crossing, CurvePoint


class PlanFigures(TypedDict):
    """What a sweep moves."""

    kind: Literal["lines", "photos"]
    photos: list[int | str]
    repeats: int


class LineRow(StrategyRow):
    """A freeze line of a sweep: a strategy like any other."""

    first_trained: str
    bytes_per_photo: int


class PhotosRow(TypedDict):
    """A strategy trained on some of the photos."""

    name: str
    strategy: str
    photos: int | str
    repeat: int
    train: int
    per_class: float
    accuracy: float
    accuracy_ci: Interval
    macro_f1: float
    log_loss: float
    ece_shipped: float
    temperature: float
    validation_accuracy: float
    validation_balanced_accuracy: NotRequired[float]
    """Macro recall, which decides where classes are unequal; older sweeps have none."""
    best_epoch: int
    parameters: Parameters
    freeze_line: int
    seconds: Seconds


class RecommendedLine(TypedDict):
    """A line by validation photos alone."""

    name: str
    accuracy: float
    accuracy_ci: Interval
    log_loss: float
    best_share: float
    smoothed: NotRequired[float]
    """The metric averaged with the neighbouring lines', which decides."""
    macro_recall: NotRequired[float]
    """Where classes are unequal: the metric of `smoothed` and `difference`."""
    difference: float
    """From the `best` line."""
    difference_ci: Interval
    p_value: float
    p_corrected: NotRequired[float]
    clearly_below: bool


class Recommendation(TypedDict):
    """The line to take, by validation photos alone."""

    recommended: str
    best: str
    photos: int
    lines: list[RecommendedLine]


class LineAgainstTop(TypedDict):
    """A line against the topmost one, where only a head is trained, on the photos reported on."""

    name: str
    difference: float
    ci: Interval
    p_value: float
    p_corrected: float


class Forecast(TypedDict):
    """What twice the photos would bring; `why_not` where that can't be said."""

    strategy: str
    why_not: NotRequired[str]
    per_class: NotRequired[float]
    accuracy: NotRequired[float]
    accuracy_ci: NotRequired[Interval]
    gain: NotRequired[float]
    gain_ci: NotRequired[Interval]
    a: NotRequired[float]
    b: NotRequired[float]
    c: NotRequired[float]


class Sweep(Run):
    """sweep.json: `lines` and `recommendation`, or `photos` and what follows from its curves."""

    plan: PlanFigures
    prefix_seconds: float
    lines: NotRequired[list[LineRow]]
    recommendation: NotRequired[Recommendation]
    against_top: NotRequired[list[LineAgainstTop]]
    decision: NotRequired[Decision]
    photos: NotRequired[list[PhotosRow]]
    photos_reported: NotRequired[int]
    repeats_done: NotRequired[int]
    curves: NotRequired[list[CurvePoint]]
    crossings: NotRequired[list[Crossing]]
    forecasts: NotRequired[list[Forecast]]
