"""Claim 5: errors come from lighting, blur, angle and occlusion, and the fine-tuned model handles most of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from scipy import stats

from frostline import wording
from frostline.documents.study import ErrorCause
from frostline.evidence.claims.evidence import Evidence, Finding, all_of, any_of, untested
from frostline.evidence.corruptions import Kind
from frostline.evidence.error_causes import NOTHING
from frostline.evidence.robustness import CorruptionResults
from frostline.stats import intervals
from frostline.stats.clusters import Clusters
from frostline.stats.means import mean

BLAMED: tuple[Kind, ...] = ("lighting", "blur", "viewing angle", "occlusion")
"""The kinds of corruption that the tutorial blames for errors."""
MEDIUM = 0.33
"""A rank-biserial correlation below that is small (Romano et al., 2006)."""
_MATTERS = 0.05  # loss of accuracy


class _KindRow(TypedDict):
    """Loss of accuracy to one kind of corruption, over all its corruptions and severities."""

    kind: str
    frozen_drop: float
    frozen_drop_ci: tuple[float, float]
    fine_tuned_drop: float
    fine_tuned_drop_ci: tuple[float, float]
    difference: float
    ci: tuple[float, float]


def measure(evidence: Evidence) -> Finding:
    """Two halves: the blamed kinds make errors, and the fine-tuned model stays correct on most photos under them.

    Corruptions stand for the causes, as measures of the photos do: both are proxies. "Most" means more than half of the
    photos that it gets right uncorrupted, over all severities, and fewer errors than the frozen one.
    """
    frozen, tuned = (evidence.robustness.get(name) for name in ("frozen", "fine-tuned"))
    if frozen is None or tuned is None:
        return untested("no corruption was measured", "frostline robustness RUN")
    clusters = tuned.clusters
    kinds = [_kind(kind, frozen, tuned, clusters) for kind in BLAMED]
    before, after = _correct_under_blamed(frozen), _correct_under_blamed(tuned)
    gain, cost = mean(after - before, clusters), mean(tuned.clean - after, clusters)
    right = tuned.clean > 0
    kept = mean(after[right] - 0.5, clusters[right] if clusters is not None else None)
    harmless = max(
        mean(tuned.clean - np.mean([c.mean(1) for c in tuned.of_kind(kind)], axis=0), clusters).under(_MATTERS)
        for kind in BLAMED
    )
    real = [row for row in evidence.causes.get("fine-tuned", []) if row.get("blamed")]
    explained = [row["measure"] for row in real if row["verdict"] != NOTHING and row["expected"]]
    worst = max(kinds, key=lambda row: row["fine_tuned_drop"])
    measured = (
        f"corrupted copies of photos stand for lighting, blur, viewing angle and occlusion: on {len(tuned.clean)} "
        f"photos so corrupted the accuracy is {wording.percent(float(after.mean()))} fine-tuned (uncorrupted "
        f"{wording.percent(float(tuned.clean.mean()))}) and {wording.percent(float(before.mean()))} frozen (difference "
        f"{wording.points(gain.value)} points, {wording.interval(gain.ci)}); {worst['kind']} costs the fine-tuned "
        f"model most ({100 * worst['fine_tuned_drop']:.1f} points, {wording.interval(worst['fine_tuned_drop_ci'])}). "
        f"{_real_words(real, explained)}"
    )
    figures = {
        "photos": len(tuned.clean),
        "kinds": kinds,
        "accuracy": {"frozen": float(before.mean()), "fine_tuned": float(after.mean())},
        "difference": gain.value,
        "ci": gain.ci,
        "kept": kept.value + 0.5 if right.any() else None,
        "kept_ci": (max(0.0, kept.ci[0] + 0.5), min(1.0, kept.ci[1] + 0.5)),
        "real_errors": real,
        "explained_by": explained,
        "proxies": {"corruptions": list(BLAMED), "measures": {row["measure"]: row["blamed"] for row in real}},
    }
    own = min((row["p_corrected"] for row in real if row["measure"] in explained), default=1.0)
    supports = all_of(cost.above, kept.above, gain.above, own)
    contradicts = any_of(kept.below, gain.below, harmless, _unlike_nothing(real))
    return Finding(measured, figures, supports, contradicts)


def _unlike_nothing(real: Sequence[ErrorCause]) -> float:
    """The p value that no measure of the photos goes with the model's own errors more than a little: all effects are
    below `MEDIUM`."""

    def one(row: ErrorCause) -> float:
        spread = (row["effect_ci"][1] - row["effect_ci"][0]) / 3.92
        return 2 * float(stats.norm.sf((MEDIUM - abs(row["effect"])) / spread)) if spread > 0 else 1.0

    return min(1.0, max(map(one, real), default=1.0))


def _kind(kind: str, frozen: CorruptionResults, tuned: CorruptionResults, clusters: Clusters | None) -> _KindRow:
    before, after = (
        np.mean([side.clean[:, None] - correct for correct in side.of_kind(kind)], axis=(0, 2))
        for side in (frozen, tuned)
    )
    return {
        "kind": kind,
        "frozen_drop": float(before.mean()),
        "frozen_drop_ci": intervals.average_interval(before, clusters),
        "fine_tuned_drop": float(after.mean()),
        "fine_tuned_drop_ci": intervals.average_interval(after, clusters),
        "difference": float((before - after).mean()),
        "ci": intervals.average_interval(before - after, clusters),
    }


def _correct_under_blamed(side: CorruptionResults) -> np.ndarray:
    """(N,) the share of the blamed corruptions under which each photo is correct; the four kinds count the same."""
    each = [np.mean([correct.mean(1) for correct in side.of_kind(kind)], axis=0) for kind in BLAMED]
    return np.asarray(np.mean(each, axis=0))


def _real_words(real: Sequence[ErrorCause], explained: Sequence[str]) -> str:
    if not real:
        return "Its own errors were not measured"
    wrong = min(row["wrong"] for row in real)
    names = ", ".join(f"{row['measure']} (for {row['blamed']})" for row in real)
    if explained:
        found = " and ".join(explained)
        return f"Its own {wrong} errors differ from the photos it gets right in {found}, of these measures: {names}"
    return f"Its own {wrong} errors are not shown to differ from the photos it gets right in any of: {names}"
