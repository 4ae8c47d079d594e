"""bundle.json and export.json: a model ready to use, and an exported one with its proof."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.documents.shared import Interval, Unfrozen, WeightsOrigin
from frostline.recipes import Weights


class TransformFigures(TypedDict):
    """What a photo goes through before the network."""

    size: int
    resize: Literal["squash", "crop"]
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: float


class BundleFigures(TypedDict):
    """A bundle's figures, and what they were measured on."""

    reported_on: Literal["test", "validation"]
    photos: int
    rendered: bool
    refit: bool
    unfrozen: NotRequired[Unfrozen]
    accuracy: float
    accuracy_ci: Interval
    balanced_accuracy: float
    balanced_accuracy_ci: Interval
    macro_f1: float
    log_loss: float
    ece_shipped: float
    """The calibration error as computed, which chance biases upward: 0 to 1."""
    calibration_error: NotRequired[float]
    """Without that bias: the one that the card shows, 0 to 1."""
    calibration_error_ci: NotRequired[Interval]


class ThresholdRow(TypedDict):
    """The confidence from which a precision is reached."""

    precision: float
    threshold: float
    kept: float
    photos: int
    right: float
    lower: float


class NeighboursFile(TypedDict, total=False):
    """neighbours.safetensors of a bundle."""

    photos: int
    sha256: str


class SeenFile(TypedDict, total=False):
    """seen.safetensors of a bundle: how many photos it was trained and validated on."""

    trained: int
    validated: int
    sha256: str


class Bundle(TypedDict):
    """bundle.json."""

    frostline: str
    schema: int
    sha256: str
    strategy: str
    backbone: str
    weights: Weights
    pretrained_weights: NotRequired[list[WeightsOrigin]]
    """Of each network that started from published weights."""
    line: int
    layers: int
    classes: list[str]
    transform: TransformFigures
    hidden: int
    stored_as: Literal["float16", "float32"]
    temperature: float
    figures: BundleFigures
    test_views: int
    priors: list[float]
    stands_for: list[float]
    thresholds: list[ThresholdRow]
    neighbours: NeighboursFile
    seen: NotRequired[SeenFile]


class ExportMachine(TypedDict):
    """What an export was proved on."""

    processor: str
    cores: int


class AsRunHere(TypedDict):
    """The artefact against the bundle as this machine runs it."""

    engine: str
    agreement: float
    largest_difference: float
    bundle_accuracy: float
    accuracy_change: float
    accuracy_change_ci: Interval


class ExportedModel(TypedDict):
    """What an export is of, and its files."""

    frostline: str
    format: str
    int8: bool
    file: str
    also: list[str]
    sha256: str
    size_bytes: int
    example: str
    classes: list[str]
    transform: TransformFigures
    temperature: float
    strategy: str
    backbone: str
    bundle_bytes: int
    proved_on: str
    machine: ExportMachine


class ProofFigures(TypedDict):
    """An artefact against its bundle, on the same photo files."""

    photos: int
    unreadable: int
    agreement: float
    disagree: int
    disagree_gaps: list[float]
    largest_difference: float
    mean_difference: float
    accuracy: float
    accuracy_ci: Interval
    bundle_accuracy: float
    accuracy_change: float
    accuracy_change_ci: Interval
    accuracy_change_p: float
    latency_ms: float
    throughput: float


class Export(ExportedModel, ProofFigures):
    """export.json."""

    engine: str
    as_run_here: NotRequired[AsRunHere]
    status: Literal["proved", "failed"]
    why: str
