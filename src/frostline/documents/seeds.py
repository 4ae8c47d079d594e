"""seeds.json: a study over several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, NotRequired

from annotated_types import Len
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.documents.decision import Decision
from frostline.documents.shared import Interval, Machine, Parameters, PhotoSet, Status
from frostline.recipes import Preset, Protocol, Weights


class SeedStrategy(TypedDict):
    """A strategy with one seed."""

    name: str
    accuracy: float
    accuracy_ci: Interval
    validation_accuracy: float
    macro_f1: float
    log_loss: float
    ece_shipped: float


class SeedRun(TypedDict):
    """One seed's study."""

    seed: int
    folder: str
    seconds: float
    strategies: list[SeedStrategy]


class AcrossSeeds(TypedDict):
    """A figure over several seeds."""

    seeds: list[float]
    mean: float
    sd: float
    range: Annotated[Sequence[float], Len(2, 2)]
    ci: Interval


class SeedsRow(AcrossSeeds):
    """A strategy over the seeds."""

    name: str
    backbone: str
    weights: NotRequired[Weights]
    freeze_line: int
    layers: int
    parameters: Parameters
    validation_mean: float
    validation_balanced_mean: NotRequired[float]
    balanced_mean: NotRequired[float]
    """Macro recall on the photos reported on, the mean over the seeds."""
    balanced_ci: NotRequired[Interval]
    macro_f1_mean: float
    seconds_mean: float
    as_given_mean: NotRequired[float]


class SeedsComparison(AcrossSeeds):
    """Two strategies on the same photos with each of several seeds."""

    a: str
    b: str
    p_value: float
    verdict: str
    p_corrected: NotRequired[float]


class Tested(TypedDict):
    """How many photos the seeds asked, how many answers that were, and how many photos more than one seed asked."""

    photos: int
    answers: int
    shared: int


class Seeds(TypedDict):
    """seeds.json."""

    frostline: str
    created: str
    status: Status
    seeds: list[int]
    strategies: list[SeedsRow]
    comparisons: list[SeedsComparison]
    answer: str
    answer_detail: str
    decision: NotRequired[Decision]
    protocol: NotRequired[Protocol]
    preset: NotRequired[Preset]
    reported_on: NotRequired[Literal["test", "validation"]]
    machine: NotRequired[Machine]
    dataset: NotRequired[PhotoSet]
    tested: NotRequired[Tested]
    runs: NotRequired[list[SeedRun]]
    seconds: NotRequired[float]
