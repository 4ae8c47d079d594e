"""The tutorial's seven claims, measured on the photos at hand. Always seven entries: what could not be measured says why.

Verdicts: "holds", "does not hold", "not enough photos to say" (the interval leaves both open), "not enough epochs to say", "not measured".
`figures` has the numbers behind `measured`; fractions of 1, losses in nats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from frostline import wording
from frostline.evidence.corruptions import CAUSES
from frostline.evidence.robustness import Said
from frostline.stats import intervals
from frostline.stats.predictions import Prediction

Row = dict[str, Any]
Claim = dict[str, Any]

HOLDS, FAILS, PHOTOS, EPOCHS = "holds", "does not hold", "not enough photos to say", "not enough epochs to say"
UNMEASURED = "not measured"
BLAMED = ("lighting", "blur", "viewing angle", "occlusion")
"""What the tutorial says errors come from."""

MEDIUM = 0.33
"""A rank-biserial correlation below that is small (Romano et al., 2006)."""

_FEW_EPOCHS = 5
_RISE = 1.02  # a validation loss within 2 % of its lowest has not risen


@dataclass(frozen=True)
class Evidence:
    """What a study measures beside its strategies; empty where it did not."""

    robustness: Mapping[str, Said] = field(default_factory=dict)
    """By strategy."""
    causes: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """``error_causes`` of study.json, by strategy."""
    curve: Row | None = None
    """``data_curve`` of study.json."""


def measure(
    rows: Mapping[str, Row], predictions: Mapping[str, Sequence[Prediction]], evidence: Evidence | None = None
) -> list[Claim]:
    """The seven claims.

    Parameters
    ----------
    rows
        Rows of study.json by strategy.
    predictions
        The photos reported on, in the same order for every strategy.
    evidence
        What else was measured.
    """
    known = evidence or Evidence()
    measures: tuple[tuple[str, tuple[str, ...], Callable[[], tuple[str, str, Row]]], ...] = (
        (
            "Training from scratch overfits: training loss falls while validation loss rises after some epochs.",
            ("baseline",),
            lambda: _overfits(rows["baseline"]),
        ),
        (
            "The frozen model's curves stay together, and it converges in fewer epochs and with less data than training from scratch.",
            ("baseline", "frozen"),
            lambda: _converges(rows["frozen"], rows["baseline"], known.curve),
        ),
        (
            "Fine-tuning sharpens boundaries: fewer confusions between look-alike classes.",
            ("baseline", "frozen", "fine-tuned"),
            lambda: _look_alikes(rows, predictions),
        ),
        (
            "Fine-tuning improves calibration: more confident when right, less overconfident when wrong.",
            ("frozen", "fine-tuned"),
            lambda: _calibrates(rows, predictions),
        ),
        (
            "Errors come from extreme lighting, blur, unusual viewing angles and occlusion; the fine-tuned model handles most of it.",
            ("frozen", "fine-tuned"),
            lambda: _withstands(known),
        ),
        (
            "Feature quality matters more than parameter count.",
            ("baseline", "frozen"),
            lambda: _features(rows, predictions),
        ),
        (
            "Fine-tuning pays when sufficient data is available.",
            ("frozen", "fine-tuned"),
            lambda: _pays(known.curve),
        ),
    )
    return [_claim(text, needed, rows, found) for text, needed, found in measures]


def _claim(
    text: str, needed: Sequence[str], rows: Mapping[str, Row], found: Callable[[], tuple[str, str, Row]]
) -> Claim:
    missing = [name for name in needed if name not in rows]
    if missing:
        measured = f"needs the strategies {', '.join(needed)}; this study has no {' and no '.join(missing)}"
        return {"claim": text, "measured": measured, "verdict": UNMEASURED, "figures": {}}
    measured, verdict, figures = found()
    return {"claim": text, "measured": measured, "verdict": verdict, "figures": figures}


def _decided(low: float, high: float) -> str:
    """A claim that something is above 0, by its 95 % CI."""
    return HOLDS if low > 0 else FAILS if high < 0 else PHOTOS


# ---- 1: overfitting --------------------------------------------------------------------------------------------------


def _overfits(row: Row) -> tuple[str, str, Row]:
    """Training loss falls while validation loss rises after some epoch."""
    history = row["history"]
    lowest, last = min(history, key=lambda e: e["val_loss"]), history[-1]
    figures = {
        "turning_point": lowest["epoch"],
        "epochs": len(history),
        "lowest": _ends(lowest),
        "last": _ends(last),
        "rise": last["val_loss"] / lowest["val_loss"] - 1 if lowest["val_loss"] else 0.0,
    }
    measured = (
        f"validation loss lowest in epoch {lowest['epoch']} of {len(history)} ({lowest['val_loss']:.2f}), at the end "
        f"{last['val_loss']:.2f}; training loss {lowest['train_loss']:.2f} then, {last['train_loss']:.2f} at the end: the gap "
        f"between them {figures['lowest']['gap']:+.2f}, then {figures['last']['gap']:+.2f}"
    )
    if len(history) < _FEW_EPOCHS:
        return measured, EPOCHS, figures
    rose = last["val_loss"] > _RISE * lowest["val_loss"] and last["train_loss"] < lowest["train_loss"]
    return measured, HOLDS if rose else FAILS, figures


def _ends(epoch: Row) -> Row:
    return {
        "epoch": epoch["epoch"],
        "train_loss": epoch["train_loss"],
        "val_loss": epoch["val_loss"],
        "gap": epoch["val_loss"] - epoch["train_loss"],
        "accuracy_gap": epoch["train_accuracy"] - epoch["val_accuracy"],
    }


# ---- 2: convergence --------------------------------------------------------------------------------------------------


def _converges(frozen: Row, baseline: Row, curve: Row | None) -> tuple[str, str, Row]:
    """The frozen model's curves stay together; it needs fewer epochs, and fewer photos, to 95 % of its final accuracy."""
    quick, slow = _epochs_to_most(frozen), _epochs_to_most(baseline)
    losses = [e["val_loss"] for e in frozen["history"]]
    together = losses[-1] <= _RISE * min(losses)
    curve = None if curve is None or "why_not" in curve else curve
    less = curve.get("against_baseline") if curve else None
    figures = {
        "epochs_to_95": {"frozen": quick, "baseline": slow},
        "frozen_val_loss": {"lowest": min(losses), "last": losses[-1]},
        "stay_together": together,
        "photos_to_95": (curve or {}).get("photos_to_95", {}),
        "against_baseline": less,
    }
    measured = (
        f"95 % of the final validation accuracy after {_epochs(quick)} frozen, {_epochs(slow)} from scratch; frozen validation loss "
        f"{min(losses):.2f} at its lowest, {losses[-1]:.2f} at the end"
    )
    if curve:
        measured += f"; {_data_words(curve, less)}"
    if len(baseline["history"]) < _FEW_EPOCHS:
        return measured, EPOCHS, figures
    if not (quick < slow and together) or (less and less["ci"][1] < 0):
        return measured, FAILS, figures
    return measured, HOLDS if less is None or less["ci"][0] > 0 else PHOTOS, figures


def _data_words(curve: Row, less: Row | None) -> str:
    needed = curve["photos_to_95"]["frozen"]
    text = f"frozen reaches 95 % of its final accuracy with {'at most ' if needed['at_most'] else 'about '}{needed['photos']:,.0f} photos"
    if not less:
        return text
    low, high = (100 * end for end in less["ci"])
    return (
        f"{text}, and trained on {less['photos']:,} it is {100 * less['difference']:+.1f} points from the network trained from scratch "
        f"on {less['baseline_photos']:,} (95 % CI {low:.1f} to {high:.1f})"
    )


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _epochs_to_most(row: Row) -> int:
    final = row["history"][max(row["best_epoch"], 1) - 1]["val_accuracy"]
    return next(int(e["epoch"]) for e in row["history"] if e["val_accuracy"] >= 0.95 * final)


# ---- 3: look-alikes --------------------------------------------------------------------------------------------------


def _look_alikes(rows: Mapping[str, Row], predictions: Mapping[str, Sequence[Prediction]]) -> tuple[str, str, Row]:
    """Fewer confusions within the pairs of classes that look most alike.

    The pairs are those that the baseline confuses most: to pick them by the frozen model's own errors would find an
    improvement in pure chance, since a count picked for being high falls when it is taken again.
    """
    baseline, frozen, tuned = (predictions[name] for name in ("baseline", "frozen", "fine-tuned"))
    classes = [r["class"] for r in rows["baseline"]["per_class"]]
    confusion = np.array(rows["baseline"]["confusion"])
    both = confusion + confusion.T
    upper = [(int(both[i, j]), i, j) for i, j in combinations(range(len(classes)), 2)]
    chosen = [{classes[i], classes[j]} for _, i, j in sorted(upper, reverse=True)[:2]]
    table = [_pair(set(p), baseline, frozen, tuned, chosen) for p in combinations(classes, 2)]
    _correct(table)
    before, after = (np.array([_confused(p, chosen) for p in side]) for side in (frozen, tuned))
    better, worse = int((before & ~after).sum()), int((after & ~before).sum())
    p = intervals.mid_p(better, worse)
    per_class = [_class_change(c, baseline, frozen, tuned) for c in classes]
    _correct(per_class)
    named = " and ".join("/".join(sorted(pair)) for pair in chosen)
    improved = [c for c in per_class if c["difference"] > 0]
    most = max(per_class, key=lambda c: c["difference"])
    measured = (
        f"{named}: {int(before.sum())} confusions frozen, {int(after.sum())} fine-tuned (McNemar's mid-p test, {wording.p_value(p)}); "
        f"recall rose in {len(improved)} of {len(classes)} classes, most in {most['class']} ({100 * most['difference']:+.1f} points, 95 % "
        f"interval {100 * most['ci'][0]:.1f} to {100 * most['ci'][1]:.1f})"
    )
    verdict = PHOTOS if p >= 0.05 else HOLDS if better > worse else FAILS
    figures = {
        "look_alikes": [sorted(pair) for pair in chosen],
        "frozen": int(before.sum()),
        "fine_tuned": int(after.sum()),
        "p_value": p,
        "pairs": table,
        "classes": per_class,
    }
    return measured, verdict, figures


def _confused(photo: Prediction, pairs: Sequence[set[str]]) -> bool:
    return photo.true != photo.predicted and {photo.true, photo.predicted} in pairs


def _pair(
    pair: set[str], baseline: Sequence[Prediction], frozen: Sequence[Prediction], tuned: Sequence[Prediction],
    chosen: Sequence[set[str]],
) -> Row:  # fmt: skip
    """Confusions between two classes, before and after, as a share of the photos of both."""
    asked = np.array([p.true in pair for p in frozen])
    sides = [np.array([_confused(p, [pair]) for p in side]) for side in (baseline, frozen, tuned)]
    scratch, before, after = sides
    return {
        "classes": sorted(pair),
        "look_alike": pair in chosen,
        "photos": int(asked.sum()),
        "baseline": int(scratch.sum()),
        "frozen": int(before.sum()),
        "fine_tuned": int(after.sum()),
        **_change(before[asked], after[asked]),
    }


def _class_change(
    name: str, baseline: Sequence[Prediction], frozen: Sequence[Prediction], tuned: Sequence[Prediction]
) -> Row:
    """The recall of a class by strategy, and how fine-tuning changed it."""
    asked = np.array([p.true == name for p in frozen])
    scratch, before, after = (
        np.array([p.predicted == p.true for p in side])[asked] for side in (baseline, frozen, tuned)
    )
    recall: Callable[[np.ndarray], float | None] = lambda side: float(side.mean()) if len(side) else None  # noqa: E731
    return {
        "class": name,
        "photos": int(asked.sum()),
        "baseline": recall(scratch),
        "frozen": recall(before),
        "fine_tuned": recall(after),
        **_change(before, after),
    }


def _change(before: np.ndarray, after: np.ndarray) -> Row:
    """How a share of photos (N,) changed, paired."""
    if not len(before):
        return {"difference": 0.0, "ci": (-1.0, 1.0), "p_value": 1.0}
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    return {
        "difference": (gained - lost) / len(before),
        "ci": intervals.paired_interval(gained, lost, len(before)),
        "p_value": intervals.mid_p(gained, lost),
    }


def _correct(table: Sequence[Row]) -> None:
    """Add p values that allow for the number of rows."""
    for row, p in zip(table, intervals.holm([row["p_value"] for row in table]), strict=True):
        row["p_corrected"] = p


# ---- 4: calibration --------------------------------------------------------------------------------------------------


def _calibrates(rows: Mapping[str, Row], predictions: Mapping[str, Sequence[Prediction]]) -> tuple[str, str, Row]:
    """Calibration error before any temperature, frozen against fine-tuned: both without bias, the interval of their difference from
    theirs."""
    stages = {name: rows[name]["calibration"] for name in ("frozen", "fine-tuned")}
    before = {name: stage["before"] for name, stage in stages.items()}
    change = {
        stage: _error_change(stages["frozen"][stage], stages["fine-tuned"][stage]) for stage in ("before", "after")
    }
    low, high = change["before"]["ci"]
    measured = (
        f"calibration error, without the bias of chance and before any temperature: {_error_words(before['frozen'])} frozen, "
        f"{_error_words(before['fine-tuned'])} fine-tuned (change {change['before']['difference']:+.3f}, 95 % CI {low:+.3f} to "
        f"{high:+.3f}); mean confidence {_confidences(before['frozen'])} frozen, {_confidences(before['fine-tuned'])} fine-tuned; with "
        f"a temperature from other photos {stages['frozen']['after']['debiased']:.3f} and {stages['fine-tuned']['after']['debiased']:.3f}"
    )
    figures = {
        "strategies": stages,
        "change": change,
        "temperature": {name: rows[name]["temperature"] for name in stages},
        **_confidence_changes(rows, predictions),
    }
    return measured, _decided(-high, -low), figures


def _error_words(stage: Row) -> str:
    low, high = stage["ci"]
    return f"{stage['debiased']:.3f} ({low:.3f} to {high:.3f}, {stage['tendency']})"


def _error_change(frozen: Row, tuned: Row) -> Row:
    """The difference of two estimates by their intervals (Zou and Donner, 2008), as if the photos were others: rather too wide."""
    a, b = frozen["debiased"], tuned["debiased"]
    (low_a, high_a), (low_b, high_b) = frozen["ci"], tuned["ci"]
    down, up = np.hypot(b - low_b, high_a - a), np.hypot(high_b - b, a - low_a)
    return {"difference": b - a, "ci": (float(b - a - down), float(b - a + up))}


def _confidence_changes(rows: Mapping[str, Row], predictions: Mapping[str, Sequence[Prediction]]) -> Row:
    """How confidence changed on the photos that both got right, and on those that both got wrong, at temperature 1."""
    sides = [_untempered(rows[name], predictions[name]) for name in ("frozen", "fine-tuned")]
    right = [p.argmax(1) == y for p, y in sides]
    change = sides[1][0].max(1) - sides[0][0].max(1)
    found: Row = {}
    for key, some in (("both_right", right[0] & right[1]), ("both_wrong", ~right[0] & ~right[1])):
        values = change[some]
        found[key] = {
            "photos": int(some.sum()),
            "confidence_change": float(values.mean()) if len(values) else None,
            "ci": intervals.average_interval(values) if len(values) > 1 else None,
        }
    return found


def _untempered(row: Row, predictions: Sequence[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities at temperature 1, (N, C), and class indices (N,)."""
    classes = [r["class"] for r in row["per_class"]]
    shares = np.array([[p.probabilities[c] for c in classes] for p in predictions])
    raw = np.clip(shares, 1e-7, 1) ** row["temperature"]
    return raw / raw.sum(1, keepdims=True), np.array([classes.index(p.true) for p in predictions])


def _confidences(stage: Row) -> str:
    right, wrong = (
        f"{x:.2f}" if x is not None else "none" for x in (stage["confidence_right"], stage["confidence_wrong"])
    )
    return f"{right} when right and {wrong} when wrong"


# ---- 5: what errors come from ----------------------------------------------------------------------------------------


def _withstands(evidence: Evidence) -> tuple[str, str, Row]:
    """Two halves: the blamed causes make errors, and the fine-tuned model stays right on most photos that they make worse.

    "Most" is more than half of the photos it gets right as they are, over all strengths, and fewer losses than the frozen one's.
    """
    frozen, tuned = (evidence.robustness.get(name) for name in ("frozen", "fine-tuned"))
    if frozen is None or tuned is None:
        return "no photo was made worse in this run: frostline robustness RUN does it", UNMEASURED, {}
    kinds = [_kind(kind, frozen, tuned) for kind in BLAMED]
    changed = [_changed(side) for side in (frozen, tuned)]
    gain = changed[1] - changed[0]
    gain_ci = intervals.average_interval(gain)
    kept = changed[1][tuned.clean > 0]
    kept_ci = intervals.average_interval(kept) if len(kept) else (0.0, 1.0)
    real = [r for r in evidence.causes.get("fine-tuned", []) if r.get("blamed")]
    explained = [r["measure"] for r in real if r["verdict"] != "no difference shown" and r["expected"]]
    worst = max(kinds, key=lambda k: k["fine_tuned_drop"])
    clean, before, after = (f"{100 * side.mean():.1f} %" for side in (tuned.clean, *changed))
    low, high = (100 * end for end in gain_ci)
    measured = (
        f"of {len(tuned.clean)} photos made worse by lighting, blur, angle or occlusion the fine-tuned model gets {after} right (as "
        f"they are {clean}), the frozen one {before} (difference {100 * gain.mean():+.1f} points, 95 % CI {low:.1f} to {high:.1f}); "
        f"{worst['kind']} costs it most ({100 * worst['fine_tuned_drop']:.1f} points); {_real_words(real, explained)}"
    )
    figures = {
        "photos": len(tuned.clean),
        "kinds": kinds,
        "accuracy": {"frozen": float(changed[0].mean()), "fine_tuned": float(changed[1].mean())},
        "difference": float(gain.mean()),
        "ci": gain_ci,
        "kept": float(kept.mean()) if len(kept) else None,
        "kept_ci": kept_ci,
        "real_errors": list(real),
        "explained_by": explained,
    }
    return measured, _withstood(kinds, kept_ci, gain_ci, real, explained), figures


def _withstood(
    kinds: Sequence[Row],
    kept: tuple[float, float],
    gain: tuple[float, float],
    real: Sequence[Row],
    explained: Sequence[str],
) -> str:
    made = any(k["fine_tuned_drop_ci"][0] > 0 for k in kinds)
    small = all(max(map(abs, r["effect_ci"])) < MEDIUM for r in real)  # enough errors to see a difference that matters
    if kept[1] < 0.5 or gain[1] < 0 or not (made or any(k["fine_tuned_drop_ci"][1] > 0.05 for k in kinds)):
        return FAILS
    if real and small and not explained:
        return FAILS  # its own errors are not darker, more blurred or smaller than what it gets right
    return HOLDS if made and kept[0] > 0.5 and gain[0] > 0 and explained else PHOTOS


def _real_words(real: Sequence[Row], explained: Sequence[str]) -> str:
    if not real:
        return "its own errors were not measured"
    wrong = min(r["wrong"] for r in real)
    if explained:
        return f"its own {wrong} errors differ from what it gets right in {' and '.join(explained)}"
    return f"its own {wrong} errors differ from what it gets right in none of {', '.join(r['measure'] for r in real)}"


def _kind(kind: str, frozen: Said, tuned: Said) -> Row:
    drops = [
        np.mean([side.clean[:, None] - side.of(c) for c in CAUSES if c.kind == kind], axis=(0, 2))
        for side in (frozen, tuned)
    ]
    return {
        "kind": kind,
        "frozen_drop": float(drops[0].mean()),
        "frozen_drop_ci": intervals.average_interval(drops[0]),
        "fine_tuned_drop": float(drops[1].mean()),
        "fine_tuned_drop_ci": intervals.average_interval(drops[1]),
        "difference": float((drops[0] - drops[1]).mean()),
        "ci": intervals.average_interval(drops[0] - drops[1]),
    }


def _changed(side: Said) -> np.ndarray:
    """(N,) the share of the blamed changes under which each photo is right; the four kinds count the same."""
    each = [np.mean([side.of(c).mean(1) for c in CAUSES if c.kind == kind], axis=0) for kind in BLAMED]
    return np.asarray(np.mean(each, axis=0))


# ---- 6: features -----------------------------------------------------------------------------------------------------


def _features(rows: Mapping[str, Row], predictions: Mapping[str, Sequence[Prediction]]) -> tuple[str, str, Row]:
    """A frozen network with few trainable weights against a network from scratch with many."""
    frozen, baseline = rows["frozen"], rows["baseline"]
    right = [np.array([p.true == p.predicted for p in predictions[n]]) for n in ("frozen", "baseline")]
    result = intervals.compare("frozen", right[0], "baseline", right[1])
    measured = (
        f"{result.verdict}; {frozen['parameters']['trainable']:,} against {baseline['parameters']['trainable']:,} trainable "
        f"parameters, {frozen['parameters']['total']:,} against {baseline['parameters']['total']:,} in all"
    )
    fewer = frozen["parameters"]["total"] < baseline["parameters"]["total"]
    verdict = PHOTOS if result.p_value >= 0.05 else HOLDS if result.difference > 0 and fewer else FAILS
    points = [
        {"strategy": name, **row["parameters"], "accuracy": row.get("accuracy"), "accuracy_ci": row.get("accuracy_ci")}
        for name, row in rows.items()
    ]
    figures = {"difference": result.difference, "ci": result.ci, "p_value": result.p_value, "strategies": points}
    return measured, verdict, figures


# ---- 7: how many photos ----------------------------------------------------------------------------------------------


def _pays(curve: Row | None) -> tuple[str, str, Row]:
    """Whether fine-tuning is ahead with all photos, and from how many on."""
    if curve is None:
        return "no learning curve was measured in this run: frostline robustness RUN does it", UNMEASURED, {}
    if "why_not" in curve:
        return curve["why_not"], PHOTOS, {}
    found = curve["crossing"]
    low, high = (100 * end for end in found["difference_ci"])
    steps = ", ".join(f"{100 * d['difference']:+.1f} with {d['photos']:,}" for d in curve["differences"])
    measured = (
        f"fine-tuned less frozen, points: {steps} photos (95 % CI of the last {low:.1f} to {high:.1f}); {_from(found)}"
    )
    return (
        measured,
        _decided(*found["difference_ci"]),
        {"source": curve["source"], **found, "differences": curve["differences"]},
    )


def _from(found: Row) -> str:
    if found["at"] is None:
        return "it does not pay with any number of photos tried"
    if found["from_the_start"]:
        return f"ahead from the smallest number tried on ({found['at_photos']:,.0f} photos)"
    words_of = {"below": "fewer than were tried", "beyond": "more than there are"}
    ends = [words_of[end] if isinstance(end, str) else f"{end:,.0f}" for end in found["at_photos_ci"]]
    return f"it pays from about {found['at_photos']:,.0f} photos on (95 % CI {ends[0]} to {ends[1]})"
