"""The tutorial's seven claims: each measurement by known figures, every branch of its verdict, and studies without any
effect.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from frostline.evidence import claims
from frostline.evidence.claims import CONTRADICTED, PHOTOS, SUPPORTED, UNTESTED, Evidence
from frostline.evidence.corruptions import CORRUPTIONS
from frostline.evidence.error_causes import NOTHING
from frostline.evidence.robustness import CorruptionResults
from frostline.stats.calibration import calibration
from frostline.stats.intervals import compare_all
from frostline.stats.predictions import Prediction
from frostline.training.stages import ValidationByEpoch

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
        assert (entry["verdict"] == UNTESTED) == ("tested_by" in entry)
        if missing:
            assert entry["verdict"] == UNTESTED
            assert entry["measured"].endswith(f"this study has no {' and no '.join(missing)}")
            assert ",".join(claim.strategies) in entry["tested_by"]
        elif "needs the strategies" in entry["measured"]:
            raise AssertionError(entry)


# ---- 1: overfitting --------------------------------------------------------------------------------------------------


def by_epoch(
    losses: Sequence[tuple[float, float]], accuracies: Sequence[float], photos: int, spread: float = 0.3
) -> Any:
    """Validation photos whose mean losses and accuracies in each epoch are those given; each has a loss of its own."""
    rng = np.random.default_rng(0)
    noise = spread * rng.normal(size=(len(losses), photos))
    mean = np.array([v for _, v in losses])[:, None]
    hard = rng.permutation((np.arange(photos) + 0.5) / photos)
    return ValidationByEpoch(mean + noise, hard < np.array(accuracies)[: len(losses), None])


FLAT = [(1.0, 1.0), (0.8, 0.8), (0.5, 0.7), (0.3, 0.701), (0.1, 0.702)]
ROSE_LITTLE = [*OVERFITS[:3], (0.3, 0.72), (0.1, 0.75)]


@pytest.mark.parametrize(
    ("losses", "photos", "expected"),
    [
        (OVERFITS, 90, SUPPORTED),
        (ROSE_LITTLE, 90, PHOTOS),  # by 0.05 with an interval of some 0.09 on either side
        (ROSE_LITTLE, 5000, SUPPORTED),
        (FLAT, 200, PHOTOS),
        (FLAT, 20_000, CONTRADICTED),  # a rise of less than 2 % of the loss, and the interval says so
        ([(0.1, 1.0), (0.2, 0.5), (0.3, 0.9), (0.4, 1.0), (0.5, 1.1)], 300, CONTRADICTED),  # training loss rises too
        (STEADY, 300, UNTESTED),  # still falling
        (OVERFITS[:4], 300, UNTESTED),
    ],
    ids=["rose", "few photos", "many photos", "flat, few", "flat, many", "both rise", "falls", "short"],
)
def test_overfitting_rests_on_the_interval_of_the_rise(
    losses: list[tuple[float, float]], photos: int, expected: str
) -> None:
    known = {"baseline": by_epoch(losses, SLOW, photos)}
    found = measured(1, Evidence({"baseline": row(losses=losses, accuracies=SLOW)}, {}, validation=known))
    assert found["verdict"] == expected
    lowest = min(range(len(losses)), key=lambda i: losses[i][1])
    assert found["figures"]["turning_point"] == lowest + 1
    assert found["figures"]["last"]["gap"] == pytest.approx(losses[-1][1] - losses[-1][0])
    if expected == UNTESTED:
        assert "too short to tell" in found["measured"]
        return
    low, high = found["figures"]["ci"]
    assert low <= found["figures"]["rise"] <= high
    assert (expected == SUPPORTED) <= (low > 0)
    assert "the gap between them" in found["measured"]


def test_a_run_that_kept_no_losses_of_photos_does_not_test_overfitting() -> None:
    found = measured(1, Evidence({"baseline": row(losses=OVERFITS, accuracies=SLOW)}, {}))
    assert found["verdict"] == UNTESTED
    assert "did not keep" in found["measured"]


# ---- 2: convergence --------------------------------------------------------------------------------------------------


def curve(low: float, high: float, p: float) -> Any:
    """A learning curve in which frozen on 20 photos is ahead of the baseline on 100 by an interval."""
    against = {
        "photos": 20, "baseline_photos": 100, "difference": (low + high) / 2, "ci": (low, high), "p_value": p,
    }  # fmt: skip
    return {"photos_to_95": {"frozen": {"photos": 25.0, "at_most": False}}, "against_baseline": against}


STEEP = [0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.72]
EIGHT = [(1.0 - 0.1 * i, 1.0 - 0.05 * i) for i in range(8)]
LEVEL = [(0.5 - 0.01 * i, 0.5 + 0.01 * (i == 7)) for i in range(8)]
"""2 % above its lowest at the end."""
AT_ONCE = [0.6, 0.88, 0.89, 0.9, 0.9, 0.9, 0.9, 0.9]
AHEAD, OPEN, BEHIND = (0.078, 0.287, 0.0006), (-0.1, 0.3, 0.4), (-0.3, -0.1, 0.0001)


@pytest.mark.parametrize(
    ("frozen", "baseline", "data", "frozen_wrong", "expected"),
    [
        (AT_ONCE, STEEP, AHEAD, 0.1, SUPPORTED),
        (AT_ONCE, STEEP, OPEN, 0.1, PHOTOS),
        (AT_ONCE, STEEP, BEHIND, 0.1, PHOTOS),  # few photos lost to all: that refutes nothing
        (STEEP, STEEP, AHEAD, 0.1, PHOTOS),  # as many epochs
        (STEEP, AT_ONCE, AHEAD, 0.1, PHOTOS),  # more epochs, in one training run
        (AT_ONCE, STEEP, BEHIND, 0.6, CONTRADICTED),  # less accurate with all photos
        (AT_ONCE, STEEP, None, 0.1, UNTESTED),
        (AT_ONCE, STEEP, "too few", 0.1, UNTESTED),
    ],
    ids=["issue", "open", "few lost", "as slow", "slower", "worse", "no curve", "no curve, why"],
)
def test_convergence_rests_on_epochs_and_on_photos(
    frozen: list[float], baseline: list[float], data: Any, frozen_wrong: float, expected: str
) -> None:
    """The first is that of the issue: 2 epochs against 8, and 18.3 points (7.8 to 28.7) ahead on a sixteenth of the
    photos, while the validation loss of 90 photos ends 2 % above its lowest."""
    given = {"why_not": data} if isinstance(data, str) else curve(*data) if data else None
    own, other = photos(frozen_wrong, 0.9, 1), photos(0.3, 0.9, 3)
    kept = {"frozen": by_epoch(LEVEL, frozen, 90), "baseline": by_epoch(EIGHT, baseline, 90)}
    rows = {
        "frozen": row(losses=LEVEL, accuracies=frozen, best_epoch=8),
        "baseline": row(losses=EIGHT, accuracies=baseline, best_epoch=8),
    }
    predictions = {"frozen": own, "baseline": other}
    found = measured(2, Evidence(rows, predictions, curve=given, validation=kept))
    assert found["verdict"] == expected
    if expected == UNTESTED:
        return
    needed = {"frozen": 2 if frozen is AT_ONCE else 7, "baseline": 2 if baseline is AT_ONCE else 7}
    assert found["figures"]["epochs_to_95"] == needed
    low, high = found["figures"]["epochs_difference_ci"]
    assert low <= needed["frozen"] - needed["baseline"] <= high
    assert "about 25 photos bring frozen" in found["measured"]


def test_epochs_without_an_interval_decide_nothing() -> None:
    predictions = {"frozen": photos(0.1, 0.9, 1), "baseline": photos(0.3, 0.9, 3)}
    rows = {"frozen": row(losses=LEVEL, accuracies=STEEP), "baseline": row(losses=EIGHT, accuracies=AT_ONCE)}
    found = measured(2, Evidence(rows, predictions, curve=curve(*AHEAD)))
    assert found["verdict"] == SUPPORTED
    assert "it decides nothing" in found["measured"]


# ---- 3: look-alikes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frozen", "tuned", "expected"), [(0.2, 0.05, SUPPORTED), (0.05, 0.3, CONTRADICTED), (0.1, 0.1, PHOTOS)]
)
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


def test_an_error_that_moves_to_a_third_class_is_not_sharper() -> None:
    """40 roses called tulip by the frozen model, the same 40 called daisy by the fine-tuned one."""

    def predicted(as_what: str) -> list[Prediction]:
        truths = ["a"] * 100 + ["b"] * 100 + ["c"] * 100
        said = [as_what if i < 40 else true for i, true in enumerate(truths)]
        return [
            Prediction(str(i), t, p, 0.9, {c: 0.9 if c == p else 0.05 for c in CLASSES})
            for i, (t, p) in enumerate(zip(truths, said, strict=True))
        ]

    found = measured(3, evidence(predicted("b"), predicted("b"), predicted("c")))
    assert found["verdict"] == PHOTOS
    assert found["p_value"] == 1
    assert found["figures"]["moved_to_a_third_class"] == 40
    assert "40 became errors of another kind" in found["measured"]


# ---- 4: calibration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frozen", "tuned", "expected"),
    [
        ((0.2, 0.99), (0.05, 0.95), SUPPORTED),
        ((0.05, 0.95), (0.3, 0.99), CONTRADICTED),
        ((0.1, 0.9), (0.1, 0.9), PHOTOS),
        ((0.02, 0.7), (0.02, 0.98), PHOTOS),  # less underconfident: better calibrated, yet not less overconfident
    ],
)
def test_calibration_is_about_overconfidence(
    frozen: tuple[float, float], tuned: tuple[float, float], expected: str
) -> None:
    known = evidence(None, photos(*frozen, 1), photos(*tuned, 2))
    found = measured(4, known)
    assert found["verdict"] == expected
    low, high = found["figures"]["change"]["ci"]
    assert low < found["figures"]["change"]["difference"] < high
    assert (expected == SUPPORTED) <= (high < 0)
    assert (expected == CONTRADICTED) <= (low > 0)
    gap = found["figures"]["overconfidence"]["frozen"]
    wrong = np.mean([not p.correct for p in known.predictions["frozen"]])
    assert gap["mean"] == pytest.approx(frozen[1] - (1 - wrong))
    if gap["ci"][0] > 0:
        assert "frozen is overconfident" in found["measured"]
    both = found["figures"]["both_right"]
    right = [
        a.correct and b.correct for a, b in zip(*(known.predictions[n] for n in ("frozen", "fine-tuned")), strict=True)
    ]
    assert both["photos"] == sum(right)
    assert both["confidence_change"] == pytest.approx(tuned[1] - frozen[1], abs=1e-6)


def test_label_smoothing_is_taken_out_of_confidence() -> None:
    """Trained with smoothing of 0.1, a model of three classes says 0.9 * 0.95 + 0.1 / 3 where it means 0.95."""
    own = photos(0.05, 0.9 * 0.95 + 0.1 / 3, 1)
    smoothed = {"rows": {name: row(own, label_smoothing=0.1) for name in ("frozen", "fine-tuned")}}
    found = measured(4, evidence(None, own, own, **smoothed))
    assert found["figures"]["overconfidence"]["frozen"]["mean"] == pytest.approx(
        0.95 - np.mean([p.correct for p in own])
    )
    assert "label smoothing of 0.1" in found["measured"]
    assert "did not record it" in measured(4, evidence(None, own, own))["measured"]


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
        "p_corrected": 1.0 if verdict == NOTHING else 1e-4,
    }  # fmt: skip


BLURRED = [error_cause("sharpness", -0.4, "wrong photos have somewhat less sharpness")]
UNLIKE_NOTHING = [error_cause("sharpness", 0.05, NOTHING)]
FEW_ERRORS = [error_cause("sharpness", 0.05, NOTHING, spread=0.5)]


@pytest.mark.parametrize(
    ("frozen", "tuned", "causes", "expected"),
    [
        ((0.95, 0.6), (0.95, 0.8), BLURRED, SUPPORTED),
        ((0.95, 0.6), (0.95, 0.8), [], PHOTOS),  # its own errors were not measured
        ((0.95, 0.6), (0.95, 0.8), FEW_ERRORS, PHOTOS),
        ((0.95, 0.6), (0.95, 0.8), UNLIKE_NOTHING, CONTRADICTED),  # enough errors, and nothing in which they differ
        ((0.95, 0.2), (0.95, 0.3), BLURRED, CONTRADICTED),  # most photos are lost
        ((0.95, 0.8), (0.95, 0.6), BLURRED, CONTRADICTED),  # frozen withstands more
        ((0.95, 0.99), (0.95, 1.0), BLURRED, CONTRADICTED),  # corruptions cost nothing
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
    assert "corrupted copies of photos stand for lighting, blur, viewing angle and occlusion" in found["measured"]
    if causes:
        assert "sharpness (for blur)" in found["measured"] or causes == BLURRED


def test_without_corruptions_the_claim_says_how_to_measure_them() -> None:
    own = photos(0.2, 0.9, 1, 40)
    found = measured(5, evidence(None, own, own, robustness={"frozen": corrupted(0.9, 0.5, 1)}))
    assert found["verdict"] == UNTESTED
    assert "frostline robustness" in found["tested_by"]


# ---- 6: features -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("baseline", "frozen", "total", "expected"),
    [
        (0.5, 0.1, 50, SUPPORTED),
        (0.01, 0.3, 50, CONTRADICTED),  # the larger network is ahead
        (0.5, 0.1, 200, UNTESTED),  # frozen is the larger one: its features can't be told from its size
        (0.1, 0.1, 50, PHOTOS),
    ],
)
def test_features_are_judged_by_accuracy_and_by_parameters(
    baseline: float, frozen: float, total: int, expected: str
) -> None:
    own = photos(frozen, 0.9, 1)
    other = own if baseline == frozen else photos(baseline, 0.9, 3)
    rows = {
        "baseline": row(other, total=100, image_size=224),
        "frozen": row(own, total=total, image_size=288, refit={"photos": 500}),
    }
    known = Evidence(rows, {"baseline": other, "frozen": own}, training_photos=400)
    found = measured(6, known)
    assert found["verdict"] == expected
    if expected == UNTESTED:
        assert "not the smaller one" in found["measured"]
        return
    right = {name: np.mean([p.correct for p in one]) for name, one in known.predictions.items()}
    assert found["figures"]["difference"] == pytest.approx(right["frozen"] - right["baseline"])
    assert "224 pixels a side against 288" in found["measured"]
    assert "400 training photos against 500" in found["measured"]


# ---- 7: how many photos ----------------------------------------------------------------------------------------------


def sizes(*differences: float, half: float = 0.02, source: str = "study", **more: Any) -> Any:
    """A learning curve whose fine-tuned strategy is ahead by these, with 100, 400 ... photos."""
    rows = [
        {"difference": d, "ci": (d - half, d + half), "photos": 100 * 4**i, "per_class": 1.0}
        for i, d in enumerate(differences)
    ]
    found = {"at": None, "difference_ci": rows[-1]["ci"], "from_the_start": False}
    needed = {"frozen": {"photos": 25.0, "at_most": False}}
    return {"source": source, "crossing": found, "differences": rows, "photos_to_95": needed, **more}


AHEAD_OF_ALL, EQUAL, LOST = (0.2, 0.1), (0.1, 0.1), (0.1, 0.2)


@pytest.mark.parametrize(
    ("wrong", "data", "expected", "words"),
    [
        (AHEAD_OF_ALL, sizes(0.0, 0.05, 0.1), SUPPORTED, "shown to pay with 400 photos and more, not with 100"),
        (AHEAD_OF_ALL, sizes(0.05, 0.05, 0.1), SUPPORTED, "every number tried, from 100 photos on"),
        (AHEAD_OF_ALL, sizes(0.05, 0.0, 0.1), SUPPORTED, "shown to pay with 1,600 photos and more, not with 400"),
        (LOST, sizes(0.05, 0.05, -0.1), CONTRADICTED, "not shown to pay with any number"),
        (EQUAL, sizes(0.05, 0.05, 0.0), PHOTOS, "not shown to pay with any number"),
        (AHEAD_OF_ALL, sizes(0.0, 0.1, runs=[3, 1]), SUPPORTED, "means of 3 training runs"),
        (AHEAD_OF_ALL, sizes(0.0, 0.1, runs=[1, 1]), SUPPORTED, "Each number is one training run"),
        (AHEAD_OF_ALL, sizes(0.0, 0.1, source="run-photos"), SUPPORTED, "The study's own models"),
        (EQUAL, {"why_not": "12 photos are too few"}, UNTESTED, "12 photos are too few"),
        (EQUAL, None, UNTESTED, "no learning curve"),
    ],
)
def test_whether_fine_tuning_pays_is_the_comparison_of_the_report(
    wrong: tuple[float, float], data: Any, expected: str, words: str
) -> None:
    frozen, tuned = photos(wrong[0], 0.9, 1), photos(wrong[1], 0.9, 1 if wrong[0] == wrong[1] else 2)
    found = measured(7, evidence(None, frozen, tuned, curve=data))
    assert found["verdict"] == expected
    assert words in found["measured"]
    assert "from about" not in found["measured"]
    if expected != UNTESTED:
        pair = compare_all({"frozen": right(frozen), "fine-tuned": right(tuned)})[0]
        figures = found["figures"]
        assert (figures["difference"], figures["ci"]) == (pair.difference, pair.ci)
        assert found["p_corrected"] == pair.p_corrected


@pytest.mark.parametrize(("helps", "expected"), [("yes", SUPPORTED), ("unknown", PHOTOS), ("no", CONTRADICTED)])
def test_the_claim_and_the_decision_say_the_same(helps: str, expected: str) -> None:
    sign = -1 if helps == "no" else 1
    told: Any = {
        "unfrozen": "fine-tuned", "frozen": "frozen", "metric": "macro recall", "helps": helps, "p_value": 0.01,
        "difference": sign * 0.03, "ci": sorted((sign * 0.001, sign * 0.06)), "p_corrected": 0.03,
    }  # fmt: skip
    own = photos(0.1, 0.9, 1)
    found = measured(7, evidence(None, own, own, curve=sizes(0.0, sign * 0.031), unfreezing=told))
    assert found["verdict"] == expected
    assert found["figures"]["difference"] == told["difference"]
    assert f"own models: {'−' if sign < 0 else '+'}3.0 points of macro recall" in found["measured"]


def right(own: Sequence[Prediction]) -> np.ndarray:
    return np.array([p.correct for p in own])


# ---- no verdict contradicts its interval -----------------------------------------------------------------------------


@given(st.floats(0, 0.6), st.floats(0, 0.6), st.floats(0.5, 0.99), st.floats(0.5, 0.99), st.integers(0, 99))
@settings(max_examples=10, deadline=None, phases=[Phase.generate])
def test_a_verdict_never_contradicts_its_interval(
    wrong_a: float, wrong_b: float, sure_a: float, sure_b: float, seed: int
) -> None:
    frozen, tuned = photos(wrong_a, sure_a, seed, 120), photos(wrong_b, sure_b, seed + 100, 120)
    found = claims.measure(evidence(frozen, frozen, tuned, curve=sizes(0.0, 0.05)))
    for number, above, below in (
        (2, SUPPORTED, CONTRADICTED), (3, CONTRADICTED, SUPPORTED),
        (5, SUPPORTED, CONTRADICTED), (6, SUPPORTED, CONTRADICTED),
    ):  # fmt: skip
        entry = found[number]
        low, high = entry["figures"]["change"]["ci"] if number == 3 else entry["figures"]["ci"]
        assert (entry["verdict"] in (SUPPORTED, CONTRADICTED)) == (entry["p_corrected"] < 0.05)
        assert entry["verdict"] != above or low > 0
        assert entry["verdict"] != below or high < 0


# ---- clusters --------------------------------------------------------------------------------------------------------


def test_photos_of_a_cluster_count_as_one() -> None:
    """Of five photos alike in everything, four say nothing: the verdict is that of a fifth of the photos."""
    frozen, tuned = photos(0.2, 0.9, 1, 60), photos(0.06, 0.9, 2, 60)
    alone = claims.measure(evidence(frozen, frozen, tuned))
    times = [[p for p in own for _ in range(5)] for own in (frozen, tuned)]
    clusters = np.repeat(np.arange(60), 5)
    together = claims.measure(evidence(times[0], times[0], times[1], clusters=clusters))
    apart = claims.measure(evidence(times[0], times[0], times[1]))
    for number in (2, 3):
        assert together[number]["p_value"] == pytest.approx(alone[number]["p_value"], abs=0.1)
        assert apart[number]["p_value"] < together[number]["p_value"]


# ---- no effect -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [None, 30])
def test_equal_strategies_rarely_get_a_verdict(groups: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of coverage has 2,000 studies of each size; of 20, more than 4 would have a chance of 1 in 400."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    simulated = importlib.import_module("simulated.claims")
    found = [simulated.false_verdicts(simulated.null(np.random.default_rng([3, i]), 150, groups)) for i in range(20)]
    assert sum(map(bool, found)) <= 4, found
