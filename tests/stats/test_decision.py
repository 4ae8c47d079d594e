"""The choices: made on validation photos alone, and by the documented rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.stats import decision, intervals
from frostline.stats.decision import LineOnValidation

NAMES = ("baseline", "frozen", "fine-tuned")


def row(name: str, accuracy: float, trainable: int = 1, **more: Any) -> dict[str, Any]:
    return {"name": name, "accuracy": accuracy, "parameters": {"trainable": trainable}, **more}


# ---- one study -------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 3)), min_size=1, max_size=5))
def test_the_best_strategy_is_chosen_on_validation_and_the_test_accuracy_changes_nothing(
    figures: list[tuple[float, float, int]],
) -> None:
    rows = [row(str(i), test, size, validation_accuracy=val) for i, (test, val, size) in enumerate(figures)]
    best = decision.best_strategy(rows, unequal=False)
    assert best is not None
    assert best["validation_accuracy"] == max(r["validation_accuracy"] for r in rows)
    other = [{**r, "accuracy": 1 - r["accuracy"]} for r in rows]
    again = decision.best_strategy(other, unequal=False)
    assert again is not None
    assert again["name"] == best["name"]


def test_between_equals_the_one_with_fewer_trainable_parameters_is_best() -> None:
    rows = [row("a", 0.9, 5, validation_accuracy=0.8), row("b", 0.5, 2, validation_accuracy=0.8)]
    best = decision.best_strategy(rows, unequal=False)
    assert best is rows[1]


def test_unequal_classes_are_judged_by_macro_recall() -> None:
    rows = [
        row("a", 0.9, validation_accuracy=0.9, validation_balanced_accuracy=0.5),
        row("b", 0.8, validation_accuracy=0.8, validation_balanced_accuracy=0.7),
    ]
    assert decision.best_strategy(rows, unequal=False) is rows[0]
    assert decision.best_strategy(rows, unequal=True) is rows[1]


def test_an_older_run_without_validation_accuracies_is_judged_by_what_it_has() -> None:
    rows = [row("a", 0.7, validation_accuracy=0.9), row("b", 0.8), row("c", float("nan"))]
    assert decision.best_strategy(rows, unequal=False) is rows[1]
    assert decision.best_strategy([], unequal=False) is None
    assert decision.best_strategy([{"name": "a"}], unequal=False) is None


# ---- several seeds ---------------------------------------------------------------------------------------------------


def test_over_seeds_the_mean_validation_accuracy_decides() -> None:
    rows: list[Any] = [
        {"name": name, "mean": mean, "validation_mean": validation, "parameters": {"trainable": trainable}}
        for name, mean, validation, trainable in zip(NAMES, (0.99, 0.8, 0.9), (0.6, 0.9, 0.9), (5, 2, 3), strict=True)
    ]
    assert decision.best_over_seeds(rows)["name"] == "frozen"  # equal to fine-tuned, with less to train


# ---- freeze lines ----------------------------------------------------------------------------------------------------


@given(st.integers(2, 5), st.integers(5, 40), st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_the_recommended_line_is_the_highest_after_averaging_with_its_neighbours(
    count: int, photos: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lines = [LineOnValidation(str(i), rng.random(photos) < rng.random(), rng.random(photos) * 3) for i in range(count)]
    found = decision.recommended_line(lines, 0)
    best = max(lines, key=lambda line: (line.correct.mean(), -line.loss.mean()))
    assert found["best"] == best.name
    assert sum(line["best_share"] for line in found["lines"]) == pytest.approx(1)
    own = [line.correct.mean() for line in lines]
    smooth = [(own[max(0, i - 1)] + 2 * own[i] + own[min(count - 1, i + 1)]) / 4 for i in range(count)]
    assert [line["smoothed"] for line in found["lines"]] == pytest.approx(smooth)
    highest = np.flatnonzero(np.isclose(smooth, max(smooth)))[0]  # between equals, the one with less to train
    assert found["recommended"] == lines[highest].name
    for line in found["lines"]:
        assert line["difference"] <= 0
        assert not line["clearly_below"] or line["p_corrected"] < 0.05


def test_a_single_high_line_between_low_ones_is_not_recommended() -> None:
    shares = (0.80, 0.70, 0.84, 0.70, 0.82, 0.82, 0.80)  # of 100 photos
    lines = [LineOnValidation(str(i), np.arange(100) < 100 * share, np.ones(100)) for i, share in enumerate(shares)]
    found = decision.recommended_line(lines, 0)
    assert (found["best"], found["recommended"]) == ("2", "5")


def test_lines_of_unequal_classes_are_judged_by_macro_recall() -> None:
    labels = np.repeat([0, 1], [90, 10])
    lines = [
        LineOnValidation("top", labels == 0, np.ones(100), labels),
        LineOnValidation("0", (labels == 1) | (np.arange(100) < 50), np.ones(100), labels),
    ]
    assert decision.recommended_line(lines, 0)["recommended"] == "top"
    found = decision.recommended_line(lines, 0, unequal=True)
    assert (found["recommended"], found["best"]) == ("0", "0")
    assert [line["macro_recall"] for line in found["lines"]] == pytest.approx([0.5, (50 / 90 + 1) / 2])


def test_between_lines_of_equal_accuracy_the_lower_log_loss_is_the_best() -> None:
    correct = np.array([True, False] * 20)
    pair = [LineOnValidation("top", correct, np.full(40, 0.5)), LineOnValidation("0", correct, np.full(40, 0.4))]
    found = decision.recommended_line(pair, 0)
    assert [line["best_share"] for line in found["lines"]] == [0, 1]
    assert (found["best"], found["recommended"]) == ("0", "top")  # equally accurate, so the one with less to train


def test_a_photo_that_is_wrong_with_certainty_has_a_finite_loss() -> None:
    line = LineOnValidation.of("top", ["a", "b"], [{"a": 0.0, "b": 1.0}, {"a": 0.25, "b": 0.75}])
    assert line.correct.tolist() == [False, True]
    assert np.isfinite(line.loss).all()
    assert line.loss[1] == pytest.approx(-np.log(0.75))


# ---- does unfreezing help --------------------------------------------------------------------------------------------


def told(only_a: int, only_b: int, photos: int, unequal: bool = False, **more: Any) -> Any:
    """The second sentence, where so many photos are right with one model alone; the rest with both."""
    a, b = np.ones((2, photos), dtype=bool)
    a[:only_b], b[only_b : only_b + only_a] = False, False
    found = decision.difference(a, b, np.arange(photos) % 5, unequal)
    return decision.unfreezing("fine-tuned", "frozen", found, decision.metric_of(unequal), "test photos", **more)


@pytest.mark.parametrize("unequal", [False, True])
def test_whether_unfreezing_helps_is_yes_no_or_how_many_photos_would_tell(unequal: bool) -> None:
    yes, no, unknown = told(25, 5, 345, unequal), told(5, 25, 345, unequal), told(9, 7, 345, unequal)
    assert [found["helps"] for found in (yes, no, unknown)] == ["yes", "no", "unknown"]
    metric = "macro recall" if unequal else "accuracy"
    assert yes["words"].startswith(f"Unfreezing helps on these 345 test photos: +5.8 points of {metric} for ")
    assert no["words"].startswith(f"Unfreezing lowers {metric} on these 345 test photos: −5.8 points")
    assert unknown["words"].startswith("Whether unfreezing helps can't be told from these 345 test photos: +0.6 points")
    assert unknown["words"].endswith("; about 4,000 would show a true difference of 1 point.")
    assert (unknown["photos_to_tell"], unknown["smallest_difference"]) == (4000, 0.01)
    assert yes["photos_to_tell"] is no["photos_to_tell"] is None
    assert yes["ci"][0] > 0 > no["ci"][1]
    assert unknown["ci"][0] < 0 < unknown["ci"][1]


def test_how_many_photos_is_said_plainly() -> None:
    assert told(40, 30, 150)["words"].endswith("; about 850 would show a true difference of 6.7 points.")
    assert told(200, 200, 1000)["words"].endswith("; more than 10,000 would show a true difference of 1 point.")
    enough = told(20, 18, 5000)
    assert enough["words"].endswith("; a true difference of 1 point would very likely have shown.")
    assert enough["photos_to_tell"] is None


def test_several_comparisons_are_corrected_and_need_more_photos() -> None:
    p = told(16, 5, 345)["p_value"]
    assert told(16, 5, 345)["helps"] == "yes"
    found = told(16, 5, 345, comparisons=[0.5, p, 0.6])
    assert found["helps"] == "unknown"
    assert found["p_corrected"] == pytest.approx(3 * p)
    assert f"p = {3 * p:.3f} after correction for 3 comparisons" in found["words"]
    assert told(16, 5, 345, comparisons=[1e-9, p, 1e-9])["p_corrected"] == pytest.approx(p)  # the last one by Holm
    more = told(9, 3, 345, comparisons=[0.5, told(9, 3, 345)["p_value"], 0.6])
    assert more["photos_to_tell"] > told(9, 3, 345)["photos_to_tell"] > 345


def test_two_sentences_that_point_in_different_directions_say_why() -> None:
    rows = [row("frozen", 0.9, 1, validation_accuracy=0.8), row("fine-tuned", 0.8, 5, validation_accuracy=0.9)]
    best = decision.best_strategy(rows, unequal=False)
    assert best is rows[1]
    ship = decision.shipped(best, rows, False, "accuracy 80.0 % on 345 test photos")
    assert ship["words"] == (
        "Use fine-tuned: it had the highest validation accuracy (90.0 %) and has accuracy 80.0 % on 345 test photos."
    )
    for found, otherwise in ((told(5, 25, 345), True), (told(25, 5, 345), False), (told(9, 7, 345), False)):
        about = decision.decide(ship, found)["unfreezing"]
        assert about is not None
        assert about["words"].endswith("The validation photos, which alone decide, said otherwise.") == otherwise


def test_equals_and_a_single_model_are_told_as_such() -> None:
    rows = [row("frozen", 0.9, 1, validation_accuracy=0.8), row("fine-tuned", 0.9, 5, validation_accuracy=0.8)]
    assert (
        "(80.0 %, as fine-tuned had, with more parameters to train) and has "
        in (decision.shipped(rows[0], rows, False, "accuracy 90.0 %")["words"])
    )
    alone = decision.shipped(rows[0], rows[:1], False, "accuracy 90.0 %")["words"]
    assert alone == "Use frozen: no other model was trained; it has accuracy 90.0 %."


def test_nine_equal_models_rarely_beat_each_other() -> None:
    rng = np.random.default_rng(3)
    told = 0
    for _ in range(60):
        common = rng.random(200) < 0.9
        models = np.where(rng.random((9, 200)) < 0.15, rng.random((9, 200)) < 0.9, common)
        pairs = intervals.compare_all({str(i): own for i, own in enumerate(models)})
        told += any(" beats " in pair.verdict for pair in pairs)
    assert told <= 6  # 5 % of 60, and chance


@pytest.mark.parametrize("unequal", [False, True])
def test_equal_models_are_rarely_told_apart_and_unequal_ones_often(unequal: bool) -> None:
    rng = np.random.default_rng(4)
    labels, said = np.arange(345) % 5, {0.0: 0, 0.05: 0}
    for lead in said:
        for _ in range(200):
            common = rng.random(345) < 0.9
            a, b = np.where(rng.random((2, 345)) < 0.1, rng.random((2, 345)) < 0.9, common)
            a |= rng.random(345) < lead / 0.1
            found = decision.difference(a, b, labels, unequal)
            about = decision.unfreezing("a", "b", found, decision.metric_of(unequal), "test photos")
            said[lead] += about["helps"] != "unknown"
    assert said[0.0] <= 17  # 5 % of 200, and chance
    assert said[0.05] >= 140


def test_unfreezing_is_judged_on_one_network_frozen_and_not() -> None:
    def net(name: str, line: int, value: float, weights: str = "pretrained", backbone: str = "small") -> dict[str, Any]:
        more = {"freeze_line": line, "layers": 10, "weights": weights, "backbone": backbone}
        return row(name, 0.5, validation_accuracy=value, **more)

    rows = [
        net("baseline", 0, 0.99, "random"), net("frozen", 10, 0.7), net("upper", 6, 0.8), net("all", 0, 0.75),
        net("other", 0, 0.9, backbone="large"),
    ]  # fmt: skip
    pair = decision.unfrozen_pair(rows, unequal=False)
    assert pair is not None
    assert [r["name"] for r in pair] == ["upper", "frozen"]
    assert decision.unfrozen_pair([rows[0], rows[1], rows[4]], unequal=False) is None
    assert decision.unfrozen_pair([row("frozen", 0.5), row("fine-tuned", 0.5)], unequal=False) is None
