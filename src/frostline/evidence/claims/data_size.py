"""Claim 7: fine-tuning pays when sufficient data is available."""

from __future__ import annotations

from frostline import wording
from frostline.documents.study import Crossing
from frostline.evidence.claims.evidence import PHOTOS, UNMEASURED, Evidence, Finding, above_zero


def measure(evidence: Evidence) -> Finding:
    """Whether fine-tuning is ahead of frozen with all photos, and from how many on."""
    curve = evidence.curve
    if curve is None:
        return Finding("no learning curve was measured in this run: frostline robustness RUN does it", UNMEASURED, {})
    if "why_not" in curve:
        return Finding(curve["why_not"], PHOTOS, {})
    found = curve["crossing"]
    low, high = found["difference_ci"]
    sizes = ", ".join(f"{wording.points(d['difference'])} with {d['photos']:,}" for d in curve["differences"])
    measured = (
        f"fine-tuned less frozen, points: {sizes} photos ({wording.interval((low, high))} of the last); "
        f"{_from_how_many(found)}"
    )
    figures = {"source": curve["source"], **found, "differences": curve["differences"]}
    return Finding(measured, above_zero(low, high), figures)


def _from_how_many(found: Crossing) -> str:
    at = found.get("at_photos")
    if at is None:
        return "it does not pay with any number of photos tried"
    if found["from_the_start"]:
        return f"ahead from the smallest number tried on ({at:,.0f} photos)"
    words_of = {"below": "fewer than were tried", "beyond": "more than there are"}
    ends = [words_of[end] if isinstance(end, str) else f"{end:,.0f}" for end in found["at_photos_ci"]]
    return f"it pays from about {at:,.0f} photos on (95 % CI {ends[0]} to {ends[1]})"
