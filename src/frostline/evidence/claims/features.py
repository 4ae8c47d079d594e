"""Claim 6: feature quality matters more than parameter count."""

from __future__ import annotations

from frostline.evidence.claims.evidence import FAILS, HOLDS, PHOTOS, Evidence, Finding
from frostline.stats import intervals


def measure(evidence: Evidence) -> Finding:
    """Whether a frozen network with fewer weights is more accurate than a network from scratch with more."""
    frozen, baseline = evidence.rows["frozen"], evidence.rows["baseline"]
    result = intervals.compare("frozen", evidence.correct("frozen"), "baseline", evidence.correct("baseline"))
    measured = (
        f"{result.verdict}; {frozen['parameters']['trainable']:,} against {baseline['parameters']['trainable']:,} "
        f"trainable parameters, {frozen['parameters']['total']:,} against {baseline['parameters']['total']:,} in all"
    )
    fewer = frozen["parameters"]["total"] < baseline["parameters"]["total"]
    verdict = PHOTOS if result.p_value >= 0.05 else HOLDS if result.difference > 0 and fewer else FAILS
    points = [
        {"strategy": name, **row["parameters"], "accuracy": row.get("accuracy"), "accuracy_ci": row.get("accuracy_ci")}
        for name, row in evidence.rows.items()
    ]
    figures = {"difference": result.difference, "ci": result.ci, "p_value": result.p_value, "strategies": points}
    return Finding(measured, verdict, figures)
