"""Claim 7: fine-tuning pays when sufficient data is available."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from frostline import wording
from frostline.documents.study import CurveDifference
from frostline.evidence.claims.evidence import LEVEL, Evidence, Finding, untested
from frostline.evidence.claims.features import comparison


def measure(evidence: Evidence) -> Finding:
    """Whether fine-tuning is ahead of frozen with all photos (the report's own comparison), and from how many on.

    The verdict is that comparison's; the curve adds the numbers of photos.
    """
    curve = evidence.curve
    if curve is None:
        return untested("no learning curve was measured", "frostline robustness RUN")
    if "why_not" in curve:
        return untested(curve["why_not"], "frostline study DATA, with more photos")
    found = _study_own(evidence)
    differences = list(curve["differences"])
    same = (
        curve["source"] == "study" and found.metric == "accuracy"
    )  # its last number is that of the study's own models
    if same:
        differences[-1] = {**differences[-1], "difference": found.difference, "ci": found.ci}
    smallest = shown_from(differences) if found.p_corrected < LEVEL and found.difference > 0 else None
    sizes = "; ".join(
        f"with {d['photos']:,} {wording.points(d['difference'])} ({wording.interval(d['ci'])})" for d in differences
    )
    measured = (
        f"fine-tuned less frozen, points of accuracy, by number of training photos: {sizes}. "
        f"{_from_how_many(differences, smallest)}"
        f"{'' if same else _own(found)}{_luck(curve.get('runs'))}"
    )
    figures = {
        "source": curve["source"],
        **curve["crossing"],
        "differences": differences,
        "shown_from_photos": smallest,
        "difference": found.difference,
        "ci": found.ci,
    }
    ahead = found.difference > 0
    supports, contradicts = (found.p_value, 1.0) if ahead else (1.0, found.p_value)
    return Finding(measured, figures, supports, contradicts, found.p_corrected)


class _Difference(NamedTuple):
    """Fine-tuned less frozen, of the study's own models on the photos reported on."""

    difference: float
    ci: Sequence[float]
    p_value: float
    p_corrected: float
    metric: str


def _study_own(evidence: Evidence) -> _Difference:
    """As the study's decision says it; of runs of older versions, which made none, as their table of differences has
    it."""
    told = evidence.unfreezing
    if told is None or (told["unfrozen"], told["frozen"]) != ("fine-tuned", "frozen"):
        pair = comparison(evidence, "fine-tuned", "frozen")
        return _Difference(pair.difference, pair.ci, pair.p_value, pair.p_corrected, "accuracy")
    corrected = told["p_corrected"] if told["helps"] != "unknown" else max(LEVEL, told["p_corrected"])
    return _Difference(told["difference"], told["ci"], told["p_value"], corrected, told["metric"])


def shown_from(differences: Sequence[CurveDifference]) -> int | None:
    """The smallest number of photos from which on every number tried has its 95 % CI above 0; None: not even the
    largest.

    Numbers are tested from the largest down until one is not shown (a fixed sequence; Maurer et al., 1995): no
    correction is needed.
    """
    smallest = None
    for row in reversed(differences):
        if row["ci"][0] <= 0:
            break
        smallest = row["photos"]
    return smallest


def _from_how_many(differences: Sequence[CurveDifference], smallest: int | None) -> str:
    """From how many photos on fine-tuning is shown to pay, in a sentence."""
    if smallest is None:
        return "It is not shown to pay with any number of photos tried"
    if smallest == differences[0]["photos"]:
        return f"It is shown to pay with every number tried, from {smallest:,} photos on"
    below = max(d["photos"] for d in differences if d["photos"] < smallest)
    return f"It is shown to pay with {smallest:,} photos and more, not with {below:,}"


def _own(found: _Difference) -> str:
    """What the study's own models say, where the curve is a sweep's or of another metric."""
    gap = f"{wording.points(found.difference)} points of {found.metric} ({wording.interval(found.ci)})"
    return f". The study's own models: {gap}"


def _luck(runs: Sequence[int] | None) -> str:
    """How many training runs stand behind each number."""
    if not runs or min(runs) > 1:
        return ""
    if max(runs) == 1:
        return ". Each number is one training run: the intervals leave out the luck of training"
    return (
        f". The smaller numbers are means of {max(runs)} training runs, whose luck is in the intervals; the last is "
        "one run, the study's own, and its interval leaves that luck out"
    )
