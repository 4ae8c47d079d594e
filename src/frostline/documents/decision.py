"""What a run decides: which model to ship, and whether unfreezing is shown to help."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.documents.shared import Interval

Metric = Literal["accuracy", "macro recall"]
Helps = Literal["yes", "no", "unknown"]
"""`no`: it lowers the metric. `unknown`: can't be told from these photos."""


class Ship(TypedDict):
    """The model to ship, chosen on the validation photos alone."""

    model: str
    metric: Metric
    validation: float | None
    """Its metric on the validation photos; null in runs of older versions that didn't keep it."""
    words: str


class Unfreezing(TypedDict):
    """A model with unfrozen layers against the frozen one, on the photos reported on."""

    unfrozen: str
    frozen: str
    metric: Metric
    helps: Helps
    difference: float
    """`unfrozen` minus `frozen`."""
    ci: Interval
    p_value: float
    p_corrected: float
    """`p_value`, corrected for the comparisons of the same report."""
    comparisons: int
    photos: int
    photos_to_tell: int | None
    """About how many photos, in all, would show `smallest_difference` with 80 % power; null where it is told, or where
    these photos would very likely have shown it."""
    smallest_difference: float
    words: str


class Decision(TypedDict):
    """Two sentences: which model to ship, and whether unfreezing is shown to help; null where nothing can be compared.
    `note` says what the second one leaves out."""

    ship: Ship
    unfreezing: Unfreezing | None
    note: str
