"""Figures against scikit-learn, hand-made values and simulations with a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special
from sklearn import metrics as sk

from frostline.stats import calibration, intervals, metrics
from frostline.stats.probabilities import softmax
from frostline.stats.reliability import reliability

CLASSES = ["daisy", "rose", "tulip"]


def simulated(count: int, seed: int, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are calibrated by construction (labels are drawn from their softmax), then scaled by `sharpness`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.5, (count, 3))
    odds = np.exp(logits)
    chances = odds / odds.sum(1, keepdims=True)
    labels = (rng.random((count, 1)) > chances.cumsum(1)).sum(1)
    return sharpness * logits, labels


def test_figures_are_those_of_scikit_learn() -> None:
    logits, labels = simulated(400, 1)
    figures = metrics.measure(logits, labels, CLASSES, 2.0, 0)
    predicted = logits.argmax(1)
    assert figures.metrics["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert figures.metrics["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert figures.metrics["log_loss"] == pytest.approx(sk.log_loss(labels, special.softmax(logits / 2, axis=1)))
    assert figures.metrics["log_loss_uncalibrated"] == pytest.approx(
        sk.log_loss(labels, special.softmax(logits, axis=1))
    )
    assert figures.confusion == sk.confusion_matrix(labels, predicted).tolist()
    report = sk.classification_report(labels, predicted, target_names=CLASSES, output_dict=True)
    for row in figures.per_class:
        theirs = report[row["class"]]
        assert (row["precision"], row["recall"], row["f1"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"])
        )
        assert row["support"] == theirs["support"]
    low, high = figures.intervals["accuracy_ci"]
    assert low < figures.metrics["accuracy"] < high


def test_each_metric_stands_in_study_json_under_its_own_name_and_reads_as_its_style_says() -> None:
    logits, labels = simulated(100, 2)
    row = metrics.measure(logits, labels, CLASSES, 1.5, 0).to_dict()
    assert len({metric.name for metric in metrics.METRICS}) == len(metrics.METRICS)
    for metric in metrics.METRICS:
        assert np.isfinite(row[metric.name])
        scale, step = (100, 0.1) if metric.style == "percent" else (1, 0.001)
        shown = float(metric.text(row).removesuffix(" %").replace("\u2212", "-"))
        assert shown == pytest.approx(row[metric.name] * scale, abs=0.51 * step)
        assert metric.text(row).endswith(" %") == (metric.style == "percent")
        assert metric.text({}) == "–"
        if metric.interval is not None:
            low, high = row[f"{metric.name}_ci"]
            assert low <= row[metric.name] <= high
            assert " to " in metric.interval_text(row)


def test_where_classes_are_unequal_figures_by_class_lead_and_elsewhere_macro_recall_is_left_out() -> None:
    unequal, equal = ([m.name for m in metrics.shown_on("report", value)] for value in (True, False))
    assert unequal[:3] == ["balanced_accuracy", "macro_f1", "accuracy"]
    assert equal == [m.name for m in metrics.METRICS if "report" in m.pages and m.name != "balanced_accuracy"]
    assert "calibration_error" in [m.name for m in metrics.shown_on("card", False)]


def test_a_class_without_photos_does_not_drag_the_macro_f1_down() -> None:
    logits = np.eye(3)[[0, 1, 0, 1]]
    figures = metrics.measure(logits, np.array([0, 1, 0, 1]), CLASSES, 1.0, 0)
    assert figures.metrics["macro_f1"] == 1.0
    assert [row["support"] for row in figures.per_class] == [2, 2, 0]
    assert np.array(figures.confusion).shape == (3, 3)


@pytest.mark.parametrize("truth", [0.7, 0.93])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(truth: float) -> None:
    rng = np.random.default_rng(5)
    trials = 60
    held = 0
    for _ in range(trials):
        low, high = intervals.mean_interval(rng.random(120) < truth)
        held += low <= truth <= high
    assert 0.85 <= held / trials <= 1.0  # 95 % would be 57; 51 or fewer has a chance of 1 in 100


def test_the_interval_narrows_with_more_photos_and_is_reproducible() -> None:
    few, many = (np.arange(n) % 10 < 8 for n in (50, 800))
    a, b = intervals.mean_interval(few), intervals.mean_interval(many)
    assert 3 < (a[1] - a[0]) / (b[1] - b[0]) < 5  # the square root of 16
    assert intervals.mean_interval(few) == a


@pytest.mark.parametrize(("value", "expected"), [(1.0, (0.8389, 1.0)), (0.0, (0.0, 0.1611))])
def test_all_right_is_not_certainty(value: float, expected: tuple[float, float]) -> None:
    """Wilson's interval for 20 of 20: 20 / (20 + 1.96²)."""
    assert intervals.mean_interval(np.full(20, value)) == pytest.approx(expected, abs=1e-4)


def pair(only_a: int, only_b: int, both: int = 30) -> tuple[np.ndarray, np.ndarray]:
    a = np.array([1] * only_a + [0] * only_b + [1] * both, dtype=bool)
    b = np.array([0] * only_a + [1] * only_b + [1] * both, dtype=bool)
    return a, b


@pytest.mark.parametrize(
    ("only_a", "only_b", "p"),
    [
        (5, 0, 1 / 32),
        (8, 2, 2 * (1 + 10 + 45 / 2) / 1024),
        (2, 8, 2 * (1 + 10 + 45 / 2) / 1024),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (10, 1, 2 * (1 + 11 / 2) / 2048),
    ],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, p: float) -> None:
    a, b = pair(only_a, only_b)
    result = intervals.compare("frozen", a, "baseline", b)
    assert result.p_value == pytest.approx(p)
    assert result.difference == pytest.approx((only_a - only_b) / len(a))
    assert result.ci[0] <= result.difference <= result.ci[1]


def test_verdicts_say_what_was_found() -> None:
    a, b = pair(40, 5, 55)
    better = intervals.compare("frozen", a, "baseline", b)
    assert better.verdict.startswith("frozen beats baseline by 35.0 points, 95 % CI ")
    worse = intervals.compare("baseline", b, "frozen", a)
    assert worse.verdict.startswith("frozen beats baseline by 35.0 points, 95 % CI ")
    assert worse.difference == pytest.approx(-0.35)
    a, b = pair(4, 2, 94)
    perhaps = intervals.compare("baseline", b, "frozen", a)
    assert perhaps.verdict.startswith("frozen is 2.0 points ahead of baseline, but that may be chance (95 % CI \u2212")
    assert perhaps.verdict.endswith("p = 0.45)")
    a, b = pair(3, 3)
    assert intervals.compare("frozen", a, "baseline", b).verdict.startswith("frozen and baseline are equally accurate")
    a, b = pair(0, 0)
    same = intervals.compare("frozen", a, "baseline", b)
    assert same.ci == pytest.approx((-0.1135, 0.1135), abs=1e-4)  # Tango: 1.96² / (30 + 1.96²)


def test_calibration_error_of_calibrated_and_of_boastful_predictions() -> None:
    honest, labels = simulated(6000, 2)
    boastful, _ = simulated(6000, 2, sharpness=4.0)
    assert calibration.calibration_error(softmax(honest, 1.0), labels) < 0.03
    assert calibration.calibration_error(softmax(boastful, 1.0), labels) > 0.15
    sure_and_wrong = np.tile([1.0, 0.0, 0.0], (50, 1))
    assert calibration.calibration_error(sure_and_wrong, np.ones(50, int)) == pytest.approx(1.0)


@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_the_temperature_undoes_a_known_scaling(scale: float) -> None:
    logits, labels = simulated(6000, 3, sharpness=scale)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(scale, rel=0.06)


def test_calibration_never_sees_the_photos_reported_on() -> None:
    logits, labels = simulated(600, 4, sharpness=3.0)
    assert calibration.fit_temperature(logits, labels) == pytest.approx(3.0, rel=0.2)
    found = metrics.measure(logits, labels, CLASSES, None, 0)
    assert found.temperature == 1.0  # no other photos to fit one on
    assert found.metrics["ece_shipped"] == pytest.approx(found.metrics["ece"], abs=1e-6)
    assert found.metrics["ece_calibrated"] < found.metrics["ece"] / 2  # by temperatures fitted on the other folds
    crossed = calibration.cross_fitted(logits, labels, 0)
    assert np.allclose(crossed.sum(1), 1)
    assert (
        calibration.calibration_error(crossed, labels) < calibration.calibration_error(softmax(logits, 1), labels) / 2
    )
    flipped = labels.copy()  # one label changes all photos' probabilities but those of its own fold
    flipped[7] = (flipped[7] + 1) % 3
    changed = (calibration.cross_fitted(logits, flipped, 0) != crossed).any(1)
    assert not changed[7]
    assert 400 < changed.sum() < 550


def test_cross_fitting_can_do_with_few_photos() -> None:
    logits, labels = simulated(3, 1)
    for count in (1, 2, 3):
        assert np.allclose(calibration.cross_fitted(logits[:count], labels[:count], 0).sum(1), 1)


def test_a_paired_interval_holds_the_truth_and_equal_models_are_told_apart_as_rarely_as_meant() -> None:
    rng = np.random.default_rng(0)
    held = told = 0
    for _ in range(400):
        only_a, only_b, _ = rng.multinomial(300, [0.06, 0.03, 0.91])
        low, high = intervals.paired_interval(only_a, only_b, 300)
        held += low <= 0.03 <= high
        only_a, only_b, _ = rng.multinomial(690, [0.05, 0.05, 0.9])
        told += intervals.mid_p(only_a, only_b) < 0.05
    assert 366 <= held <= 394  # 380 are meant; 3 standard deviations are 13
    assert 7 <= told <= 33  # 19 are meant


def test_holms_correction_by_hand() -> None:
    assert intervals.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert intervals.holm([]) == []


@pytest.mark.parametrize(
    ("sharpness", "tendency"), [(1.0, "calibrated"), (2.5, "overconfident"), (0.5, "underconfident")]
)
def test_a_miscalibrated_model_is_called_out_and_a_calibrated_one_is_not(sharpness: float, tendency: str) -> None:
    found = []
    for trial in range(20):
        logits, labels = simulated(400, 100 + trial, sharpness)
        found.append(calibration.calibration(softmax(logits, 1.0), labels, trial)["tendency"])
    assert found.count(tendency) >= 17  # calibrated ones: 19 are meant; fewer than 17 has a chance of 1 in 60


@pytest.mark.parametrize("sharpness", [1.0, 1.6])
def test_the_interval_of_the_calibration_error_holds_the_truth_where_the_computed_error_does_not(
    sharpness: float,
) -> None:
    many, _ = simulated(200_000, 1, sharpness)
    top = softmax(many, 1.0).max(1)
    truth = float(np.abs(softmax(many / sharpness, 1.0).max(1) - top).mean())
    found = []
    for trial in range(40):
        logits, labels = simulated(300, 500 + trial, sharpness)
        found.append(calibration.calibration(softmax(logits, 1.0), labels, trial))
    held = sum(f["ci"][0] <= truth <= f["ci"][1] for f in found)
    assert held >= 34  # 38 are meant; fewer than 34 has a chance of 1 in 70
    assert np.mean([f["error"] for f in found]) > truth + 0.005  # biased upward
    assert abs(np.mean([f["debiased"] for f in found]) - truth) < 0.7 * (np.mean([f["error"] for f in found]) - truth)
    assert all(f["ci"][0] <= f["debiased"] <= f["ci"][1] for f in found)


def test_reliability_bins_hold_all_photos_by_rising_confidence() -> None:
    logits, labels = simulated(431, 5)
    rows = reliability(softmax(logits, 1.0), labels)
    assert sum(row["count"] for row in rows) == 431
    assert [row["confidence"] for row in rows] == sorted(row["confidence"] for row in rows)
    assert all(row["ci"][0] <= row["accuracy"] <= row["ci"][1] for row in rows)


def test_a_class_without_photos_has_no_recall() -> None:
    """Two classes are asked about, the bundle knows three: of the third nothing was measured, which is not the same
    as 0.
    """
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    rows = metrics.measure(logits, labels, ["daisy", "rose", "tulip"], 1.0, 0).per_class
    assert [row["support"] > 0 for row in rows] == [True, True, False]
    assert (rows[2]["precision"], rows[2]["recall"], rows[2]["f1"]) == (None, None, None)
    assert all(row["recall"] is not None for row in rows[:2])


def test_among_equal_models_a_difference_is_said_in_at_most_one_report_in_twenty() -> None:
    """Three models that are equally good: each pair alone would be called different in about 5 % of the cases, one of
    three in 12 %.
    """
    rng = np.random.default_rng(5)
    told = alone = 0
    for _ in range(400):
        hard = rng.random(300)
        correct = {name: hard + 0.25 * rng.random(300) < 0.95 for name in "abc"}
        found = intervals.compare_all(correct)
        told += any(" beats " in pair.verdict for pair in found)
        alone += any(pair.p_value < 0.05 for pair in found)
    assert told <= 0.05 * 400 + 2 * np.sqrt(400 * 0.05 * 0.95)
    assert alone > told


def test_a_correction_is_told_and_changes_no_p_value() -> None:
    base = np.arange(200) < 150
    correct = {"a": base, "b": base | (np.arange(200) < 158), "c": base & (np.arange(200) > 1)}
    found = {(pair.a, pair.b): pair for pair in intervals.compare_all(correct)}
    assert set(found) == {("c", "b"), ("c", "a"), ("b", "a")}
    pair = found["c", "a"]
    assert pair.p_value == intervals.compare("c", correct["c"], "a", correct["a"]).p_value
    assert pair.p_corrected >= pair.p_value
    assert "after correction for 3 comparisons" in pair.verdict
    (single,) = intervals.compare_all({"a": correct["a"], "c": correct["c"]})
    assert single.p_corrected == single.p_value
    assert "correction" not in single.verdict


def test_calibration_of_groups_is_known_less_well_than_of_independent_photos() -> None:
    """300 photos of 20 groups, two of which are all wrong, at confidence 0.9."""
    probabilities = np.tile([0.9, 0.1], (300, 1))
    groups = np.arange(300) % 20
    labels = (groups >= 18).astype(int)
    alone, grouped = (calibration.calibration(probabilities, labels, 0, own) for own in (None, groups))
    assert alone["error"] == grouped["error"]
    assert grouped["ci"][1] > 1.5 * alone["ci"][1]
    assert grouped["p_value"] >= alone["p_value"]
    bins = [reliability(probabilities, labels, 5, own) for own in (None, groups)]
    assert all(wide["ci"][0] < narrow["ci"][0] for narrow, wide in zip(*bins, strict=True))


def test_a_calibrated_model_of_grouped_photos_is_rarely_called_out() -> None:
    """Outcomes of a group correlate by 0.3; independent photos' test would call out every fourth such model."""
    rng, called = np.random.default_rng(2), 0
    groups = np.arange(300) // 15
    for seed in range(20):
        top = np.maximum(special.expit(rng.normal(2.6, 1.6, 300)), 0.51)
        luck = special.ndtr(np.sqrt(0.6) * rng.normal(size=20)[groups] + np.sqrt(0.4) * rng.normal(size=300))
        found = calibration.calibration(np.stack([top, 1 - top], 1), (luck >= top).astype(int), seed, groups)
        called += found["p_value"] < 0.05
    assert called <= 4


def test_temperatures_of_grouped_photos_are_fitted_on_other_groups() -> None:
    """A group whose labels are all wrong has no say in its own temperature."""
    groups = np.arange(60) // 6
    labels = (groups == 0).astype(int)
    logits = np.tile([3.0, 0.0], (60, 1))
    own = calibration.cross_fitted(logits, labels, 0, groups, folds=10)
    assert own[groups == 0].max() > own[groups != 0].max()
