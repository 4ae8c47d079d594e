"""A promised precision is kept, and none is promised that validation photos can't show."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.stats import thresholds
from support.commands import call, must
from support.photos import write_folder
from support.runs import Run


def test_nineteen_of_twenty_promises_are_kept() -> None:
    """A calibrated model: above confidence t the share (1 + t) / 2 is right, whatever the photos drawn."""
    rng = np.random.default_rng(0)
    kept, promised = 0, 0
    for _ in range(400):
        sure = rng.uniform(0.4, 1, 700)
        for row in thresholds.table(sure.tolist(), (rng.random(700) < sure).tolist()):
            if row["precision"] == 0.8:
                promised += 1
                kept += (1 + row["threshold"]) / 2 >= 0.8
                assert row["lower"] >= 0.8
                assert row["kept"] == np.mean(sure >= row["threshold"])
    assert promised > 300
    assert kept / promised > 0.98


@pytest.mark.parametrize("photos", [110, 400])
def test_the_highest_precision_offered_holds_too(photos: int) -> None:
    """Models of accuracy 0.8 to 0.97: the winner of a table is not a lucky draw (benchmarks/simulated/thresholds.py has
    more sizes and shapes)."""
    rng = np.random.default_rng(1)
    offered, broken = 0, 0
    for _ in range(300):
        logits = rng.normal(rng.uniform(1.9, 5.5), 1.6, 20_000)
        chances = 1 / (1 + np.exp(-logits))
        sure = chances[:photos]
        if rows := thresholds.table(sure.tolist(), (rng.random(photos) < sure).tolist()):
            offered += 1
            broken += chances[chances >= rows[-1]["threshold"]].mean() < rows[-1]["precision"]
    assert offered > 250
    assert broken / offered <= 0.03


def test_a_model_that_is_always_right_is_promised_what_the_number_of_photos_can_show() -> None:
    found = thresholds.table(np.linspace(0.5, 1, 60).tolist(), [True] * 60)
    assert [row["precision"] for row in found] == [0.8, 0.85, 0.9]  # 51 photos for 90 %
    assert thresholds.photos_needed(0.95) == 104
    assert {row["threshold"] for row in found} == {0.5}
    assert thresholds.table([], []) == []
    assert thresholds.table([0.9] * 200, [False] * 200) == []


@given(st.lists(st.tuples(st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]), st.booleans()), max_size=120))
def test_a_table_says_what_its_photos_say(photos: list[tuple[float, bool]]) -> None:
    for row in thresholds.table([c for c, _ in photos], [r for _, r in photos]):
        above = [r for c, r in photos if c >= row["threshold"]]
        assert row["photos"] == len(above)
        assert row["right"] == pytest.approx(np.mean(above))
        assert row["precision"] <= row["lower"] <= row["right"]


def test_a_run_keeps_thresholds_of_photos_that_are_not_reported(tested: Run, run: Run, tmp_path: Path) -> None:
    about = json.loads((tested.out / "frozen" / "bundle" / "bundle.json").read_text(encoding="utf-8"))
    assert isinstance(about["thresholds"], list)
    data = write_folder(tmp_path / "data", ["red"], 3)
    error = call("predict", run.out / "frozen" / "bundle", data, "--precision", 0.95).error
    assert "no thresholds" in error  # the tutorial reports on its validation photos
    assert "--threshold" in error


def test_unsure_answers_are_marked_and_stay(run: Run, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(run.out / "baseline" / "bundle", bundle)
    file = bundle / "bundle.json"
    about = json.loads(file.read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in must("predict", bundle, run.data, "--json").out.splitlines()]
    middle = sorted(row["confidence"] for row in rows)[len(rows) // 2]
    about["thresholds"] = [
        {"precision": 0.9, "threshold": middle, "kept": 0.5, "photos": 50, "right": 0.95, "lower": 0.91}
    ]
    file.write_text(json.dumps(about), encoding="utf-8")
    said = must("predict", bundle, run.data, "--json", "--precision", 0.85)
    marked = [json.loads(line) for line in said.out.splitlines()]
    assert [row.pop("unsure") for row in marked] == [row["confidence"] < middle for row in rows]
    assert marked == rows
    assert f"unsure below {middle:.4f}" in said.err
    by_hand = must("predict", bundle, run.data, "--json", "--threshold", middle)
    assert by_hand.out == said.out
    error = call("predict", bundle, run.data, "--precision", 0.99).error
    assert "0.9 at most" in error
    assert "0.99 takes at least 528 validation photos" in error
    assert "exclude" in call("predict", bundle, run.data, "--precision", 0.9, "--threshold", 0.5).error
    assert "--prior" in call("predict", bundle, run.data, "--precision", 0.9, "--prior", "equal").error
    assert "0 to 1" in call("predict", bundle, run.data, "--threshold", 7).error
    about["thresholds"] = [{"precision": "much"}]
    file.write_text(json.dumps(about), encoding="utf-8")
    assert "damaged" in call("predict", bundle, run.data).error


def test_photos_in_groups_promise_what_so_many_fewer_photos_would() -> None:
    """200 photos of 10 groups, the least sure of them all wrong: independent photos would promise 95 %, these none."""
    sure, right = np.linspace(1, 0.5, 200).tolist(), [i < 180 for i in range(200)]
    rows = thresholds.table(sure, right)
    assert rows[-1]["precision"] >= 0.95 and not thresholds.table(sure, right, np.arange(200) // 20)
    assert thresholds.table(sure, right, np.arange(200)) == rows


def test_groups_that_are_many_and_right_are_promised_a_precision() -> None:
    (alone, *_), (grouped, *_) = (
        thresholds.table([0.99] * 900, [True] * 900, groups) for groups in (None, np.arange(900) // 3)
    )
    assert alone["photos"] == grouped["photos"] == 900
    assert 0.8 <= grouped["lower"] < alone["lower"]
