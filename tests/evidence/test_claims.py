"""The tutorial's seven claims: each measurement by known figures, and every branch of its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from frostline.evidence import claims
from frostline.evidence.claims import EPOCHS, FAILS, HOLDS, PHOTOS, UNMEASURED, Evidence
from frostline.evidence.corruptions import CORRUPTIONS
from frostline.evidence.error_causes import NOTHING
from frostline.evidence.robustness import CorruptionResults
from frostline.stats.calibration import calibration
from frostline.stats.predictions import Prediction

CLASSES = ["a", "b", "c"]
OVERFITS = [(1.0, 1.0), (0.8, 0.8), (0.5, 0.7), (0.3, 0.9), (0.1, 1.4)]
STEADY = [(1.0, 1.0), (0.8, 0.8), (0.6, 0.7), (0.5, 0.6), (0.45, 0.55)]
SLOW, QUICK = [0.3, 0.4, 0.5, 0.6, 0.7], [0.88, 0.89, 0.9, 0.9, 0.9]


def photos(wrong: float, confidence: float, seed: int, count: int = 400) -> list[Prediction]:
    """Predictions of a and b that confuse them with a probability, always with the same confidence."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        true = CLASSES[i % 2]
        predicted = CLASSES[1 - i % 2] if rng.random() < wrong else true
        shares = {c: confidence if c == predicted else (1 - confidence) / 2 for c in CLASSES}
        out.append(Prediction(str(i), true, predicted, confidence, shares))
    return out


def row(
    own: Sequence[Prediction] = (),
    losses: Sequence[tuple[float, float]] = STEADY,
    accuracies: Sequence[float] = QUICK,
    total: int = 50,
    **more: Any,
) -> Any:
    """A strategy's row of study.json: history, confusion, calibration and parameters."""
    history = [
        {"epoch": i + 1, "train_loss": t, "val_loss": v, "train_accuracy": a, "val_accuracy": a, "seconds": 1.0}
        for i, ((t, v), a) in enumerate(zip(losses, accuracies, strict=False))
    ]
    confusion = np.zeros((3, 3), int)
    for p in own:
        confusion[CLASSES.index(p.true), CLASSES.index(p.predicted)] += 1
    shares = np.array([list(p.probabilities.values()) for p in own] or [[1.0, 0, 0]] * 20)
    labels = np.array([CLASSES.index(p.true) for p in own] or [0] * 20)
    return {
        "history": history,
        "best_epoch": min(range(len(history)), key=lambda i: history[i]["val_loss"]) + 1,
        "temperature": 1.0,
        "per_class": [{"class": c} for c in CLASSES],
        "confusion": confusion.tolist(),
        "calibration": dict.fromkeys(("before", "after"), calibration(shares, labels, 0)),
        "parameters": {"total": total, "trainable": total},
        **more,
    }


def evidence(
    baseline: list[Prediction] | None = None,
    frozen: list[Prediction] | None = None,
    tuned: list[Prediction] | None = None,
    **more: Any,
) -> Evidence:
    """A study with those strategies whose predictions are given; a baseline overfits and has twice the parameters."""
    given_ = {"baseline": baseline, "frozen": frozen, "fine-tuned": tuned}
    predictions = {name: own for name, own in given_.items() if own is not None}
    rows = {
        name: row(own, OVERFITS, SLOW, total=100) if name == "baseline" else row(own)
        for name, own in predictions.items()
    }
    return Evidence({**rows, **more.pop("rows", {})}, predictions, **more)


def verdict(number: int, known: Evidence) -> str:
    """The verdict on a claim, by its place in the tutorial."""
    found = measured(number, known)
    return str(found["verdict"])


def measured(number: int, known: Evidence) -> Any:
    found = claims.measure(known)
    assert [c["claim"] for c in found] == [c.text for c in claims.CLAIMS]
    assert all(c["measured"] and c["verdict"] for c in found)
    return found[number - 1]


# ---- always seven ----------------------------------------------------------------------------------------------------


@given(st.sets(st.sampled_from(["baseline", "frozen", "fine-tuned"])))
@settings(max_examples=8, deadline=None)
def test_there_are_always_seven_claims_and_those_without_their_strategies_say_so(names: set[str]) -> None:
    own = photos(0.2, 0.9, 1, 40)
    known = evidence(*(own if n in names else None for n in ("baseline", "frozen", "fine-tuned")))
    found = claims.measure(known)
    assert len(found) == 7
    for claim, entry in zip(claims.CLAIMS, found, strict=True):
        missing = [name for name in claim.strategies if name not in names]
        if missing:
            assert entry["verdict"] == UNMEASURED
            assert entry["measured"].endswith(f"this study has no {' and no '.join(missing)}")
        elif "needs the strategies" in entry["measured"]:
            raise AssertionError(entry)


# ---- 1: overfitting --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (OVERFITS, HOLDS),
        (STEADY, FAILS),  # the validation loss never rises
        ([*STEADY[:4], (0.45, 0.605)], FAILS),  # it rises by less than 2 %
        ([(0.1, 1.0), (0.2, 0.5), (0.3, 0.9), (0.4, 1.0), (0.5, 1.1)], FAILS),  # the training loss rises with it
        (OVERFITS[:4], EPOCHS),
    ],
)
def test_overfitting_is_a_validation_loss_that_rises_while_the_training_loss_falls(
    losses: list[tuple[float, float]], expected: str
) -> None:
    found = measured(1, Evidence({"baseline": row(losses=losses, accuracies=SLOW)}, {}))
    assert found["verdict"] == expected
    lowest = min(range(len(losses)), key=lambda i: losses[i][1])
    assert found["figures"]["turning_point"] == lowest + 1
    assert found["figures"]["rise"] == pytest.approx(losses[-1][1] / losses[lowest][1] - 1)
    assert found["figures"]["last"]["gap"] == pytest.approx(losses[-1][1] - losses[-1][0])


# ---- 2: convergence --------------------------------------------------------------------------------------------------


def curve(low: float, high: float) -> Any:
    """A learning curve in which frozen on 20 photos is ahead of the baseline on 100 by an interval."""
    against = {
        "photos": 20, "baseline_photos": 100, "difference": (low + high) / 2, "ci": (low, high), "p_value": 0.5,
    }  # fmt: skip
    return {"photos_to_95": {"frozen": {"photos": 25.0, "at_most": False}}, "against_baseline": against}


@pytest.mark.parametrize(
    ("frozen", "baseline", "data", "expected"),
    [
        (row(), row(losses=OVERFITS, accuracies=SLOW), None, HOLDS),
        (row(), row(losses=OVERFITS, accuracies=SLOW), {"why_not": "too few"}, HOLDS),
        (row(), row(losses=OVERFITS, accuracies=SLOW), curve(0.1, 0.3), HOLDS),
        (row(), row(losses=OVERFITS, accuracies=SLOW), curve(-0.1, 0.3), PHOTOS),
        (row(), row(losses=OVERFITS, accuracies=SLOW), curve(-0.3, -0.1), FAILS),
        (row(), row(), None, FAILS),  # as many epochs
        (row(losses=OVERFITS), row(losses=STEADY, accuracies=SLOW), None, FAILS),  # its curves come apart
        (row(), row(losses=OVERFITS[:4], accuracies=SLOW), None, EPOCHS),
    ],
    ids=["quicker", "no curve", "less data", "open", "needs more data", "as slow", "overfits", "few epochs"],
)
def test_convergence_is_judged_by_epochs_and_by_photos(frozen: Any, baseline: Any, data: Any, expected: str) -> None:
    own = photos(0.2, 0.9, 1, 40)
    known = Evidence({"frozen": frozen, "baseline": baseline}, {"frozen": own, "baseline": own}, curve=data)
    found = measured(2, known)
    assert found["verdict"] == expected
    assert found["figures"]["epochs_to_95"]["frozen"] == 1
    if data and "why_not" not in data:
        assert "about 25 photos" in found["measured"]


# ---- 3: look-alikes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("frozen", "tuned", "expected"), [(0.2, 0.05, HOLDS), (0.05, 0.3, FAILS), (0.1, 0.1, PHOTOS)])
def test_look_alikes_are_judged_by_the_confusions_that_go_and_come(frozen: float, tuned: float, expected: str) -> None:
    known = evidence(photos(0.5, 0.9, 3), photos(frozen, 0.9, 1), photos(tuned, 0.9, 1 if frozen == tuned else 2))
    found = measured(3, known)
    assert found["verdict"] == expected
    figures = found["figures"]
    assert ["a", "b"] in figures["look_alikes"]  # the pair that the baseline confuses most
    assert figures["frozen"] == sum(not p.correct for p in known.predictions["frozen"])
    pair = next(p for p in figures["pairs"] if p["classes"] == ["a", "b"])
    assert pair["look_alike"]
    assert pair["photos"] == 400
    assert [c["photos"] for c in figures["classes"]] == [200, 200, 0]
    assert figures["classes"][2]["frozen"] is None
    assert all(p["p_corrected"] >= p["p_value"] for p in (*figures["pairs"], *figures["classes"]))


# ---- 4: calibration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frozen", "tuned", "expected"),
    [((0.2, 0.99), (0.05, 0.95), HOLDS), ((0.05, 0.95), (0.3, 0.99), FAILS), ((0.1, 0.9), (0.1, 0.9), PHOTOS)],
)
def test_calibration_is_judged_by_the_interval_of_the_change(
    frozen: tuple[float, float], tuned: tuple[float, float], expected: str
) -> None:
    known = evidence(None, photos(*frozen, 1), photos(*tuned, 1))
    found = measured(4, known)
    low, high = found["figures"]["change"]["before"]["ci"]
    assert found["verdict"] == expected == (HOLDS if high < 0 else FAILS if low > 0 else PHOTOS)
    both = found["figures"]["both_right"]
    right = [
        a.correct and b.correct for a, b in zip(*(known.predictions[n] for n in ("frozen", "fine-tuned")), strict=True)
    ]
    assert both["photos"] == sum(right)
    assert both["confidence_change"] == pytest.approx(tuned[1] - frozen[1], abs=1e-6)


# ---- 5: hard photos --------------------------------------------------------------------------------------------------


def corrupted(clean: float, under: float, seed: int, count: int = 300) -> CorruptionResults:
    """Photos that are correct clean, and under every version, with these probabilities."""
    rng = np.random.default_rng(seed)
    is_clean = rng.random((count, 1)) < clean
    versions = rng.random((count, 5 * len(CORRUPTIONS))) < under
    return CorruptionResults(CORRUPTIONS, np.hstack([is_clean, versions]), np.full((count, 1 + versions.shape[1]), 0.9))


def error_cause(measure: str, effect: float, verdict: str, spread: float = 0.1) -> Any:
    return {
        "measure": measure, "blamed": "blur", "expected": effect < 0, "verdict": verdict, "wrong": 30, "right": 300,
        "effect": effect, "effect_ci": (effect - spread, effect + spread),
    }  # fmt: skip


BLURRED = [error_cause("sharpness", -0.4, "wrong photos have somewhat less sharpness")]
UNLIKE_NOTHING = [error_cause("sharpness", 0.05, NOTHING)]
FEW_ERRORS = [error_cause("sharpness", 0.05, NOTHING, spread=0.5)]


@pytest.mark.parametrize(
    ("frozen", "tuned", "causes", "expected"),
    [
        ((0.95, 0.6), (0.95, 0.8), BLURRED, HOLDS),
        ((0.95, 0.6), (0.95, 0.8), [], PHOTOS),  # its own errors were not measured
        ((0.95, 0.6), (0.95, 0.8), FEW_ERRORS, PHOTOS),
        ((0.95, 0.6), (0.95, 0.8), UNLIKE_NOTHING, FAILS),  # enough errors, and nothing in which they differ
        ((0.95, 0.2), (0.95, 0.3), BLURRED, FAILS),  # most photos are lost
        ((0.95, 0.8), (0.95, 0.6), BLURRED, FAILS),  # frozen withstands more
        ((0.95, 0.99), (0.95, 1.0), BLURRED, FAILS),  # corruptions cost nothing
        ((0.95, 0.8), (0.95, 0.8), BLURRED, PHOTOS),  # no gain shown
    ],
    ids=["holds", "unknown", "few errors", "unlike", "lost", "worse", "harmless", "equal"],
)
def test_hard_photos_are_judged_by_both_halves_of_the_claim(
    frozen: tuple[float, float], tuned: tuple[float, float], causes: list[Any], expected: str
) -> None:
    own = photos(0.2, 0.9, 1, 40)
    seeds = (1, 1) if frozen == tuned else (1, 2)
    known = evidence(
        None, own, own,
        robustness={"frozen": corrupted(*frozen, seeds[0]), "fine-tuned": corrupted(*tuned, seeds[1])},
        causes={"fine-tuned": causes},
    )  # fmt: skip
    found = measured(5, known)
    assert found["verdict"] == expected
    figures = found["figures"]
    assert [kind["kind"] for kind in figures["kinds"]] == ["lighting", "blur", "viewing angle", "occlusion"]
    assert figures["accuracy"]["fine_tuned"] == pytest.approx(tuned[1], abs=0.05)
    assert figures["ci"][0] <= figures["difference"] <= figures["ci"][1]
    assert figures["explained_by"] == (["sharpness"] if causes == BLURRED else [])


def test_without_corruptions_the_claim_says_how_to_measure_them() -> None:
    own = photos(0.2, 0.9, 1, 40)
    found = measured(5, evidence(None, own, own, robustness={"frozen": corrupted(0.9, 0.5, 1)}))
    assert found["verdict"] == UNMEASURED
    assert "frostline robustness" in found["measured"]


# ---- 6: features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline", "frozen", "total", "expected"),
    [
        (0.5, 0.1, 50, HOLDS),
        (0.01, 0.3, 50, FAILS),  # the larger network is ahead
        (0.5, 0.1, 200, FAILS),  # frozen is ahead, and larger
        (0.1, 0.1, 50, PHOTOS),
    ],
)
def test_features_are_judged_by_accuracy_and_by_parameters(
    baseline: float, frozen: float, total: int, expected: str
) -> None:
    own = photos(frozen, 0.9, 1)
    other = own if baseline == frozen else photos(baseline, 0.9, 3)
    known = Evidence({"baseline": row(other, total=100), "frozen": row(own, total=total)},
                     {"baseline": other, "frozen": own})  # fmt: skip
    found = measured(6, known)
    assert found["verdict"] == expected
    right = {name: np.mean([p.correct for p in one]) for name, one in known.predictions.items()}
    assert found["figures"]["difference"] == pytest.approx(right["frozen"] - right["baseline"])


# ---- 7: how many photos ----------------------------------------------------------------------------------------------


def crossing(low: float, high: float, at: float | None, start: bool = False, ends: Any = (40.0, "beyond")) -> Any:
    found = {"difference_ci": (low, high), "at": at, "at_photos": at, "from_the_start": start, "at_photos_ci": ends}
    needed = {"frozen": {"photos": 25.0, "at_most": False}}
    differences = [{"difference": (low + high) / 2, "photos": 100}]
    return {"source": "study", "crossing": found, "differences": differences, "photos_to_95": needed}


@pytest.mark.parametrize(
    ("data", "expected", "words"),
    [
        (crossing(0.01, 0.05, 80.0), HOLDS, "from about 80 photos on (95 % CI 40 to more than there are)"),
        (crossing(0.01, 0.05, 10.0, start=True), HOLDS, "ahead from the smallest number tried on"),
        (crossing(-0.05, -0.01, None), FAILS, "does not pay with any number"),
        (crossing(-0.01, 0.03, 90.0, ends=("below", 95.0)), PHOTOS, "fewer than were tried to 95"),
        ({"why_not": "12 photos are too few"}, PHOTOS, "12 photos are too few"),
        (None, UNMEASURED, "frostline robustness"),
    ],
)
def test_whether_fine_tuning_pays_is_judged_with_all_photos(data: Any, expected: str, words: str) -> None:
    own = photos(0.2, 0.9, 1, 40)
    found = measured(7, evidence(None, own, own, curve=data))
    assert found["verdict"] == expected
    assert words in found["measured"]


# ---- no verdict contradicts its interval -----------------------------------------------------------------------------


@given(st.floats(0, 0.6), st.floats(0, 0.6), st.floats(0.5, 0.99), st.floats(0.5, 0.99), st.integers(0, 99))
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
def test_a_verdict_never_contradicts_its_interval(
    wrong_a: float, wrong_b: float, sure_a: float, sure_b: float, seed: int
) -> None:
    frozen, tuned = photos(wrong_a, sure_a, seed, 120), photos(wrong_b, sure_b, seed + 100, 120)
    found = claims.measure(evidence(frozen, frozen, tuned, curve=crossing(wrong_a - wrong_b, wrong_a, None)))
    low, high = found[3]["figures"]["change"]["before"]["ci"]
    assert found[3]["verdict"] == (HOLDS if high < 0 else FAILS if low > 0 else PHOTOS)
    low, high = found[6]["figures"]["difference_ci"]
    assert found[6]["verdict"] == (HOLDS if low > 0 else FAILS if high < 0 else PHOTOS)
    for number in (2, 5):
        assert (found[number]["verdict"] == PHOTOS) == (found[number]["figures"]["p_value"] >= 0.05)
    assert found[5]["verdict"] != HOLDS or found[5]["figures"]["difference"] > 0
