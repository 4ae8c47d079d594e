"""The seven claims, in the tutorial's order. Always seven entries: what could not be measured says why, and which
command would measure it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from frostline.evidence.claims.evidence import (
    CONTRADICTED,
    LEVEL,
    PHOTOS,
    SUPPORTED,
    UNTESTED,
    Evidence,
    Finding,
    untested,
)
from frostline.stats import intervals

STATEMENTS = 20
"""The claims that the report's comparisons don't decide are corrected for so many statements of difference: more than
there are, since the comparisons of strategies use most of the 5 % of reports that may say something false
(benchmarks/simulated/null.py)."""


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
    """The seven claims, as study.json has them.

    A claim is supported or contradicted where its p value, corrected for the number of statements, is below 0.05. The
    p value of a comparison that the report makes anyway (claims 6 and 7) is corrected with the others there.
    """
    findings = [_found(claim, evidence) for claim in CLAIMS]
    corrected = _corrected(findings)
    return [_claim(claim, *pair) for claim, pair in zip(CLAIMS, zip(findings, corrected, strict=True), strict=True)]


def _found(claim: TutorialClaim, evidence: Evidence) -> Finding:
    missing = [name for name in claim.strategies if name not in evidence.rows]
    if not missing:
        return claim.measure(evidence)
    why = f"needs the strategies {', '.join(claim.strategies)}; this study has no {' and no '.join(missing)}"
    return untested(why, f"frostline study DATA --strategies {','.join(claim.strategies)}")


def _p(finding: Finding) -> float:
    return min(finding.supports, finding.contradicts)


def _corrected(findings: Sequence[Finding]) -> list[float]:
    """Each finding's p value, corrected (Holm) for the statements that the report makes."""
    own = [i for i, f in enumerate(findings) if f.tested_by is None and f.corrected is None]
    others = [1.0] * (STATEMENTS - len(own))
    by_place = dict(zip(own, intervals.holm([*(_p(findings[i]) for i in own), *others]), strict=False))
    return [by_place.get(i, 1.0 if f.corrected is None else f.corrected) for i, f in enumerate(findings)]


def _claim(claim: TutorialClaim, finding: Finding, corrected: float) -> Claim:
    entry: Claim = {"claim": claim.text, "measured": finding.measured, "verdict": UNTESTED, "figures": finding.figures}
    if finding.tested_by is not None:
        entry["tested_by"] = finding.tested_by
        return entry
    if corrected < LEVEL:
        entry["verdict"] = SUPPORTED if finding.supports < finding.contradicts else CONTRADICTED
    else:
        entry["verdict"] = PHOTOS
    entry["p_value"], entry["p_corrected"] = _p(finding), corrected
    return entry
