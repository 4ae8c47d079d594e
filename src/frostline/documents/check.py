"""check.json: what is wrong with photos."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from frostline.documents.shared import Chance, Finding


class CorrectionRow(TypedDict):
    """A photo that is safe to leave out."""

    path: str
    action: Literal["exclude", "relabel"]
    label: str
    why: str
    confidence: float | None


class Sizes(TypedDict, total=False):
    """[width, height] in pixels."""

    smallest: list[int]
    middle: list[int]
    largest: list[int]


class CheckSummary(TypedDict):
    """Counts of what was found, of file formats, and sizes of photos."""

    kinds: dict[str, int]
    formats: dict[str, int]
    sizes: Sizes


class Check(TypedDict):
    """check.json."""

    frostline: str
    created: str
    data: str
    name: str
    root: str
    photos: int
    classes: list[str]
    counts: dict[str, int]
    findings: list[Finding]
    decisions: list[CorrectionRow]
    summary: CheckSummary
    chance: NotRequired[Chance | None]
    lines: list[str]
    notes: list[str]
    seconds: dict[str, float]
