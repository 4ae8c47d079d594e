"""Claim 7: fine-tuning pays when sufficient data is available."""

from __future__ import annotations

from collections.abc import Sequence

from frostline import wording
from frostline.documents.study import CurveDifference, DataCurve
from frostline.evidence.claims.evidence import LEVEL, Evidence, Finding, untested
from frostline.evidence.claims.features import comparison
from frostline.stats.intervals import Comparison


def measure(evidence: Evidence) -> Finding:
    """Whether fine-tuning is ahead of frozen with all photos (the report's own comparison), and from how many on.

    The verdict is that comparison's; the curve adds the numbers of photos.
    """
    curve = evidence.curve
    if curve is None:
        return untested("no learning curve was measured", "frostline robustness RUN")
    if "why_not" in curve:
        return untested(curve["why_not"], "frostline study DATA, with more photos")
    found = comparison(evidence, "fine-tuned", "frozen")
    differences = list(curve["differences"])
    if curve["source"] == "study":  # its last number is that of the study's own models
        differences[-1] = {**differences[-1], "difference": found.difference, "ci": found.ci}
    smallest = shown_from(differences) if found.p_corrected < LEVEL else None
    sizes = "; ".join(
        f"with {d['photos']:,} {wording.points(d['difference'])} ({wording.interval(d['ci'])})" for d in differences
    )
    measured = (
        f"fine-tuned less frozen, points, by number of training photos: {sizes}. "
        f"{_from_how_many(differences, smallest)}"
        f"{_own(curve, found)}{_luck(curve.get('runs'))}"
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


def _own(curve: DataCurve, found: Comparison) -> str:
    """What the study's own models say, where the curve is a sweep's."""
    if curve["source"] == "study":
        return ""
    return f". The study's own models: {wording.points(found.difference)} points ({wording.interval(found.ci)})"


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
