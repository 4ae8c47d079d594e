"""The seven claims, in the tutorial's order. Always seven entries: what could not be measured says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from frostline.documents.study import Claim
from frostline.evidence.claims import (
    calibration,
    convergence,
    data_size,
    features,
    hard_photos,
    look_alikes,
    overfitting,
)
from frostline.evidence.claims.evidence import UNMEASURED, Evidence, Finding


@dataclass(frozen=True)
class TutorialClaim:
    """A claim of the tutorial, and how it is measured."""

    text: str
    strategies: tuple[str, ...]
    """Those that the measurement needs."""
    measure: Callable[[Evidence], Finding]


CLAIMS: tuple[TutorialClaim, ...] = (
    TutorialClaim(
        "Training from scratch overfits: training loss falls while validation loss rises after some epochs.",
        ("baseline",),
        overfitting.measure,
    ),
    TutorialClaim(
        "The frozen model's curves stay together, and it converges in fewer epochs and with less data than training "
        "from scratch.",
        ("baseline", "frozen"),
        convergence.measure,
    ),
    TutorialClaim(
        "Fine-tuning sharpens boundaries: fewer confusions between look-alike classes.",
        ("baseline", "frozen", "fine-tuned"),
        look_alikes.measure,
    ),
    TutorialClaim(
        "Fine-tuning improves calibration: more confident when right, less overconfident when wrong.",
        ("frozen", "fine-tuned"),
        calibration.measure,
    ),
    TutorialClaim(
        "Errors come from extreme lighting, blur, unusual viewing angles and occlusion; the fine-tuned model handles "
        "most of it.",
        ("frozen", "fine-tuned"),
        hard_photos.measure,
    ),
    TutorialClaim("Feature quality matters more than parameter count.", ("baseline", "frozen"), features.measure),
    TutorialClaim("Fine-tuning pays when sufficient data is available.", ("frozen", "fine-tuned"), data_size.measure),
)


def measure(evidence: Evidence) -> list[Claim]:
    """The seven claims, as study.json has them."""
    return [_measured(claim, evidence) for claim in CLAIMS]


def _measured(claim: TutorialClaim, evidence: Evidence) -> Claim:
    missing = [name for name in claim.strategies if name not in evidence.rows]
    if missing:
        needed = f"needs the strategies {', '.join(claim.strategies)}; this study has no {' and no '.join(missing)}"
        return {"claim": claim.text, "measured": needed, "verdict": UNMEASURED, "figures": {}}
    measured, verdict, figures = claim.measure(evidence)
    return {"claim": claim.text, "measured": measured, "verdict": verdict, "figures": figures}
