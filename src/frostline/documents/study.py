"""study.json: the strategies of a run, compared, with the evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, NotRequired

from annotated_types import Len
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.documents.decision import Decision, Metric
from frostline.documents.shared import Figures, Interval, Run
from frostline.documents.strategy import StrategyRow


class Comparison(TypedDict):
    """Two strategies on the same photos; `difference` is the accuracy of `a` minus that of `b`."""

    a: str
    b: str
    difference: float
    ci: Interval
    p_value: float
    verdict: str
    p_corrected: NotRequired[float]


class Claim(TypedDict):
    """One of the tutorial's claims, measured.

    `verdict`: supported, contradicted, not enough photos, or not tested in this run. Older versions wrote: holds, does
    not hold, not enough photos to say, not enough epochs to say, not measured.
    """

    claim: str
    measured: str
    """In a sentence; of an untested claim: why it was not tested."""
    verdict: str
    figures: Figures
    p_value: NotRequired[float]
    """Two-sided; where a claim has several parts, that of all together."""
    p_corrected: NotRequired[float]
    """`p_value`, corrected for the statements of the report (Holm); the verdict rests on it."""
    tested_by: NotRequired[str]
    """The command that tests an untested claim."""


class ErrorCause(TypedDict):
    """One measure of the photos: wrongly classified ones against correct ones."""

    measure: str
    what: str
    blamed: str
    wrong: int
    right: int
    wrong_median: float
    right_median: float
    effect: float
    effect_ci: Interval
    expected: bool
    p_value: float
    p_corrected: float
    verdict: str


class CorruptionDifference(TypedDict):
    """Two strategies under one corruption."""

    cause: str
    difference: float
    ci: Interval


class RobustnessPair(TypedDict):
    """Two strategies on the same corrupted photos."""

    a: str
    b: str
    difference: float
    ci: Interval
    verdict: str
    causes: list[CorruptionDifference]


class Robustness(TypedDict):
    """Corrupted photos: what was asked, and pairs of strategies."""

    photos: int
    reported: int
    conditions: int
    note: str
    pairs: list[RobustnessPair]


class CurvePoint(TypedDict):
    """A strategy after training on some of the photos."""

    strategy: str
    per_class: float
    accuracy: float
    accuracy_ci: Interval
    repeats: list[float]
    photos: NotRequired[int]


class CurveDifference(TypedDict):
    """Two strategies after training on as many photos."""

    per_class: float
    difference: float
    ci: Interval
    photos: NotRequired[int]


class Crossing(TypedDict):
    """From how many photos of a class on `challenger` stays ahead of `reference`."""

    challenger: str
    reference: str
    at: float | None
    from_the_start: bool
    at_ci: Annotated[Sequence[float | str], Len(2, 2)]
    share: float
    difference_at_most: float
    difference_ci: Interval
    shown: bool
    shown_from: NotRequired[float | None]
    """The smallest number tried from which on the difference is shown at every number."""
    p_value: NotRequired[float]
    """Of the difference at the largest size."""
    p_corrected: NotRequired[float]
    differences: NotRequired[list[CurveDifference]]
    at_photos: NotRequired[float | None]
    at_photos_ci: NotRequired[Annotated[Sequence[float | str], Len(2, 2)]]


class PhotosNeeded(TypedDict):
    """Photos to 95 % of the accuracy with all; `at_most` where the smallest number is enough."""

    photos: float
    at_most: bool


class AgainstBaseline(TypedDict):
    """The frozen strategy on few photos against the network from scratch on all of them."""

    photos: int
    baseline_photos: int
    difference: float
    ci: Interval
    p_value: float


class DataCurve(TypedDict, total=False):
    """Accuracy by number of photos; `why_not` alone where there is none."""

    why_not: str
    source: str
    photos: list[int]
    reported: int
    repeats: int
    runs: list[int]
    """Training runs behind each number of photos."""
    curves: list[CurvePoint]
    crossing: Crossing
    differences: list[CurveDifference]
    photos_to_95: dict[str, PhotosNeeded]
    against_baseline: AgainstBaseline | None


class DomainShift(TypedDict):
    """Whether the photos reported on are of another kind than those trained on."""

    measured: str
    p_value: float
    distance: float
    differs: bool
    verdict: str


class Gain(TypedDict):
    """A strategy with unfrozen layers less the frozen one, fractions of 1."""

    difference: float
    ci: Interval
    photos: int


class OutOfDistribution(TypedDict):
    """Whether unfreezing gains less on the photos reported on, of another kind, than on photos like those trained on.

    An untested one has `claim`, `measured` (why), `verdict` and `tested_by` alone.
    """

    claim: str
    measured: str
    verdict: str
    """supported, contradicted, not enough photos, or not tested in this run."""
    tested_by: NotRequired[str]
    unfrozen: NotRequired[str]
    frozen: NotRequired[str]
    metric: NotRequired[Metric]
    here: NotRequired[Gain]
    """On the validation photos, which are like those trained on."""
    there: NotRequired[Gain]
    """On the photos reported on."""
    difference: NotRequired[float]
    """The gain there less the gain here."""
    ci: NotRequired[Interval]
    p_value: NotRequired[float]
    p_corrected: NotRequired[float]
    """`p_value`, corrected for the statements of the report; the verdict rests on it."""
    before_refit: NotRequired[bool]
    """Whether the gain there is of models that were not trained on the validation photos, as that here is."""


class Study(Run):
    """study.json."""

    strategies: list[StrategyRow]
    comparisons: list[Comparison]
    claims: list[Claim]
    shift: NotRequired[DomainShift]
    out_of_distribution: NotRequired[OutOfDistribution]
    error_causes: NotRequired[dict[str, list[ErrorCause]]]
    robustness: NotRequired[Robustness]
    data_curve: NotRequired[DataCurve]
    evidence_seconds: NotRequired[float]
    """The part of `seconds` that robustness, causes of errors and fewer photos took."""
    sittings: NotRequired[list[float]]
    """The seconds of each sitting: one, and one more for each time that the run was resumed. Their sum is `seconds`; in
    documents without this key `seconds` ends with the answer."""
    stopped: NotRequired[str]
    """What the run was at when it was stopped, such as "while training baseline"; gone once it has been resumed."""
    decision: NotRequired[Decision]
