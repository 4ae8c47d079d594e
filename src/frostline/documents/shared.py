"""What several documents share: the photos of a run, its machine, findings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NotRequired

from annotated_types import Len
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.recipes import Balance, Loss, Preset, Protocol

Interval = Annotated[Sequence[float], Len(2, 2)]
"""[low, high], the 95 % CI."""
Status = Literal["running", "stopped", "finished"]
"""`stopped`: by Ctrl-C or an error, before all strategies had ended; a killed run still says `running`."""
Figures = dict[str, Any]
"""Numbers that stand behind a sentence; which ones there are depends on what was measured."""


class Skipped(TypedDict):
    """A file that was left out."""

    path: str
    why: str


LabelledPath = TypedDict("LabelledPath", {"path": str, "class": str})
"""A photo and its class."""


class Parameters(TypedDict):
    """How many numbers a network has, and how many of them are trained."""

    total: int
    trainable: int


class Unfrozen(TypedDict):
    """What a strategy trains."""

    line: str
    """As the strategy says it."""
    frozen_layers: int
    layers: int
    """In all; both as numbers of the line count them."""
    head: int
    """Parameters of the head."""
    backbone: int
    """Numbers trained for the backbone: parameters above the line, or those of adapters."""
    share: float
    """Of `backbone` in the backbone's parameters, 0 to 1."""
    blocks: list[str]
    """In which something is trained, from the photos up."""
    partly: list[str]
    """Those of them that a line cuts."""
    trains: NotRequired[Literal["norms", "lora"]]
    """What is trained above the line where that is not all: norms and biases, or low-rank adapters of attention."""
    rank: NotRequired[int]
    """Of those adapters."""
    upper_line: NotRequired[str]
    """The line above which layers are frozen too, as the strategy says it."""
    frozen_above: NotRequired[int]
    """Layers above that line."""


class Machine(TypedDict):
    """What a run ran on."""

    cpu: str
    cores: int
    python: str
    torch: str
    platform: str
    device: str
    device_name: NotRequired[str]
    """What an accelerator calls itself."""
    deterministic: NotRequired[bool]
    """Whether the same seed gives the same bits on this device."""
    precision: str


class Finding(TypedDict):
    """Something that `frostline check` found."""

    kind: str
    paths: list[str]
    classes: list[str]
    confidence: float
    suggested: str | None
    detail: str
    advice: str


class Chance(TypedDict):
    """What chance explains of the doubts about labels, and of photos unlike any class; estimated from the photos."""

    judged: int
    called: int
    called_by_chance: float
    precision: float | None
    precision_ci: Interval | None
    share_wrong: float
    hard: int
    hard_by_chance: float
    unlike: int
    unlike_by_chance: float


class WeightsOrigin(TypedDict):
    """The published weights that a network started from."""

    network: str
    source: str
    """A repository of the hub, or the name of a file."""
    revision: str
    """The commit of the hub's repository; empty where the file did not come from there."""
    sha256: str
    """Of the file."""
    licence: str
    """Of the weights, as timm and the hub name it; empty where it is not known."""


class QuickCheck(TypedDict):
    """What a study says of its photos on the way."""

    lines: list[str]
    kinds: dict[str, int]
    labels: list[Finding]
    chance: NotRequired[Chance | None]
    command: NotRequired[str]


class LeakageFigures(TypedDict):
    """What a split that ignores near-duplicates would have shown: accuracies of a quick head on frozen features."""

    head: str
    repeats: int
    photos: int
    concerned: float
    accuracy_naive: float
    accuracy_safe: float
    difference: float
    ci: Interval
    concerned_naive: float
    concerned_safe: float


class NearDuplicates(TypedDict):
    """The groups of near-duplicates among a run's photos."""

    groups: list[list[str]]
    kinds: list[str]
    photos: int
    across_classes: list[list[LabelledPath]]
    naive: LeakageFigures | None
    words: NotRequired[str]


class Cleaned(TypedDict):
    """What a list of corrections (--exclude) changed."""

    list: str
    left_out: int
    relabelled: int


class ReportedGroups(TypedDict):
    """Photos that are not independent among those reported: of one group, near-duplicates, or of the same bytes."""

    groups: int
    words: str


class PhotoSet(TypedDict):
    """Which photos a run is about."""

    name: str
    root: str
    test_root: str | None
    source: str
    test_source: str | None
    photos: int
    classes: list[str]
    sample: bool
    test_sample: bool
    skipped: list[Skipped]


class Dataset(PhotoSet):
    """The photos of a run."""

    counts: dict[str, int]
    unequal: bool
    train: int
    validation: int
    test: int
    cleaned: Cleaned | None
    twins: list[list[str]]
    near_twins: NearDuplicates
    conflicts: list[list[LabelledPath]]
    check: NotRequired[QuickCheck]
    reported_groups: NotRequired[ReportedGroups | None]
    shared_groups_only: NotRequired[bool]


class Run(TypedDict):
    """What study.json and sweep.json have in common."""

    frostline: str
    created: str
    status: Status
    seed: int
    protocol: Protocol
    preset: Preset
    balance: Balance
    validation_stops: bool
    backbones: list[str]
    loss: Loss
    reported_on: Literal["test", "validation"]
    dataset: Dataset
    answer: str
    answer_detail: str
    seconds: float
    """Of the whole run, from the start of the command to its report, all sittings together."""
    machine: Machine
