"""The choices: made on validation photos alone, and by the documented rule."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.stats import decision
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
def test_the_recommended_line_is_the_highest_that_is_not_clearly_below_the_best(
    count: int, photos: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    lines = [LineOnValidation(str(i), rng.random(photos) < rng.random(), rng.random(photos) * 3) for i in range(count)]
    found = decision.recommended_line(lines, 0)
    best = max(lines, key=lambda line: (line.correct.mean(), -line.loss.mean()))
    assert found["best"] == best.name
    assert sum(line["best_share"] for line in found["lines"]) == pytest.approx(1)
    open_ = [line["name"] for line in found["lines"] if line["difference_ci"][1] >= 0]
    assert found["recommended"] == open_[0]
    for line in found["lines"]:
        assert line["difference"] <= 0


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
