"""Claim 5: errors come from lighting, blur, angle and occlusion, and the fine-tuned model handles most of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from frostline import wording
from frostline.documents.study import ErrorCause
from frostline.evidence.claims.evidence import FAILS, HOLDS, PHOTOS, UNMEASURED, Evidence, Finding
from frostline.evidence.corruptions import Kind
from frostline.evidence.error_causes import NOTHING
from frostline.evidence.robustness import CorruptionResults
from frostline.stats import intervals

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

    "Most" means more than half of the photos that it gets right uncorrupted, over all severities, and fewer errors
    than the frozen one.
    """
    frozen, tuned = (evidence.robustness.get(name) for name in ("frozen", "fine-tuned"))
    if frozen is None or tuned is None:
        why = "no corruption was measured in this run: frostline robustness RUN does it"
        return Finding(why, UNMEASURED, {})
    kinds = [_kind(kind, frozen, tuned) for kind in BLAMED]
    before, after = _correct_under_blamed(frozen), _correct_under_blamed(tuned)
    gain_ci = intervals.average_interval(after - before)
    kept = after[tuned.clean > 0]
    kept_ci = intervals.average_interval(kept) if len(kept) else (0.0, 1.0)
    real = [row for row in evidence.causes.get("fine-tuned", []) if row.get("blamed")]
    explained = [row["measure"] for row in real if row["verdict"] != NOTHING and row["expected"]]
    worst = max(kinds, key=lambda row: row["fine_tuned_drop"])
    measured = (
        f"on {len(tuned.clean)} photos corrupted in lighting, blur, angle or occlusion the accuracy is "
        f"{wording.percent(float(after.mean()))} fine-tuned "
        f"(uncorrupted {wording.percent(float(tuned.clean.mean()))}) and "
        f"{wording.percent(float(before.mean()))} frozen (difference {wording.points(float((after - before).mean()))} "
        f"points, {wording.interval(gain_ci)}); {worst['kind']} costs the fine-tuned model most "
        f"({100 * worst['fine_tuned_drop']:.1f} points); {_real_words(real, explained)}"
    )
    figures = {
        "photos": len(tuned.clean),
        "kinds": kinds,
        "accuracy": {"frozen": float(before.mean()), "fine_tuned": float(after.mean())},
        "difference": float((after - before).mean()),
        "ci": gain_ci,
        "kept": float(kept.mean()) if len(kept) else None,
        "kept_ci": kept_ci,
        "real_errors": real,
        "explained_by": explained,
    }
    return Finding(measured, _verdict(kinds, kept_ci, gain_ci, real, explained), figures)


def _verdict(
    kinds: Sequence[_KindRow],
    kept: tuple[float, float],
    gain: tuple[float, float],
    real: Sequence[ErrorCause],
    explained: Sequence[str],
) -> str:
    costs = any(row["fine_tuned_drop_ci"][0] > 0 for row in kinds)
    may_cost = any(row["fine_tuned_drop_ci"][1] > _MATTERS for row in kinds)
    if kept[1] < 0.5 or gain[1] < 0 or not (costs or may_cost):
        return FAILS
    enough = all(max(map(abs, row["effect_ci"])) < MEDIUM for row in real)  # errors to see a difference that matters
    if real and enough and not explained:
        return FAILS  # its own errors are not darker, more blurred or smaller than the photos it gets right
    return HOLDS if costs and kept[0] > 0.5 and gain[0] > 0 and explained else PHOTOS


def _kind(kind: str, frozen: CorruptionResults, tuned: CorruptionResults) -> _KindRow:
    before, after = (
        np.mean([side.clean[:, None] - correct for correct in side.of_kind(kind)], axis=(0, 2))
        for side in (frozen, tuned)
    )
    return {
        "kind": kind,
        "frozen_drop": float(before.mean()),
        "frozen_drop_ci": intervals.average_interval(before),
        "fine_tuned_drop": float(after.mean()),
        "fine_tuned_drop_ci": intervals.average_interval(after),
        "difference": float((before - after).mean()),
        "ci": intervals.average_interval(before - after),
    }


def _correct_under_blamed(side: CorruptionResults) -> np.ndarray:
    """(N,) the share of the blamed corruptions under which each photo is correct; the four kinds count the same."""
    each = [np.mean([correct.mean(1) for correct in side.of_kind(kind)], axis=0) for kind in BLAMED]
    return np.asarray(np.mean(each, axis=0))


def _real_words(real: Sequence[ErrorCause], explained: Sequence[str]) -> str:
    if not real:
        return "its own errors were not measured"
    wrong = min(row["wrong"] for row in real)
    if explained:
        return f"its own {wrong} errors differ from the photos it gets right in {' and '.join(explained)}"
    names = ", ".join(row["measure"] for row in real)
    return f"its own {wrong} errors differ from the photos it gets right in none of {names}"
