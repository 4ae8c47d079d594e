"""What a study measures beside its strategies: robustness, causes of errors, fewer photos, shift; planted truths and
the command.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageEnhance

from frostline.evidence import claims, corruptions, domain_shift, error_causes, learning_curve, robustness
from frostline.evidence.corruptions import CORRUPTIONS
from frostline.photos.manifest import Photo
from frostline.stats.predictions import Prediction
from support.commands import SMALL, call, document, must, spawn, stop_when, table
from support.photos import encoded, picture, textured, write_folder
from support.runs import Run

# ---- robustness ------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=5), share=st.floats(0, 1))
def test_the_corrupted_photos_are_a_fair_part(counts: list[int], share: float) -> None:
    photos = [Photo(f"{c}/{i}", str(c), "", f"{c}-{i}") for c, count in enumerate(counts) for i in range(count)]
    wanted = round(share * len(photos))
    found = robustness.chosen(photos, wanted, 0)
    assert len(found) == wanted == len(set(found))
    assert found == sorted(found)
    assert set(found) <= set(robustness.chosen(photos, min(wanted + 1, len(photos)), 0))
    per_class = Counter(photos[i].label for i in found)
    for c, count in enumerate(counts):
        assert abs(per_class[str(c)] - wanted * count / len(photos)) <= 2


def test_a_study_measures_robustness_on_what_its_models_really_say(run: Run) -> None:
    """As they are, the photos get the very predictions that the study reports; the figures follow from the file."""
    rows = document(run.out)["strategies"]
    for row in rows:
        said = {p["path"]: p["predicted"] for p in table(run.out / row["name"] / "predictions.csv")}
        lines = table(run.out / row["name"] / "robustness.csv")
        clean = [line for line in lines if line["cause"] == "clean"]
        assert len(lines) == (1 + robustness.VERSIONS) * len(clean)
        assert [line["predicted"] for line in clean] == [said[line["path"]] for line in clean]
        found = row["robustness"]
        assert found["photos"] == len(clean)
        dark = [line for line in lines if line["cause"] == "dark" and line["strength"] == "5"]
        right = np.mean([line["true"] == line["predicted"] for line in dark])
        assert found["causes"][0]["accuracy"][4] == pytest.approx(right)
        assert [c["cause"] for c in found["causes"]] == [c.name for c in CORRUPTIONS]
        worst = max(found["causes"], key=lambda c: c["mean_drop"])
        assert found["worst"] == worst["cause"]
        assert all(
            low <= a <= high for c in found["causes"] for a, (low, high) in zip(c["accuracy"], c["ci"], strict=True)
        )


def test_more_photos_can_be_corrupted_later(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(run.out, out)
    told = must("robustness", out, "--photos", "3", "--json")
    assert {row["robustness"]["photos"] for row in json.loads(told.out)["strategies"]} == {3}
    assert {row["robustness"]["photos"] for row in document(out)["strategies"]} == {3}
    assert "expected a number of photos, or all" in call("robustness", out, "--photos", "-2").error
    assert "robustness '-2'" in call("study", run.data, "--out", tmp_path / "new", "--robustness", "-2").error


# ---- stopped, and gone on with ---------------------------------------------------------------------------------------


def test_a_study_stopped_after_its_answer_is_finished_and_the_rest_can_be_had_later(
    pretrained: Path, tmp_path: Path
) -> None:
    data, out = tmp_path / "photos", tmp_path / "run"
    for kind in range(2):
        (data / f"kind {kind}").mkdir(parents=True)
        for i in range(30):
            (data / f"kind {kind}" / f"{i}.png").write_bytes(encoded(textured(kind, 100 * kind + i), "PNG"))
    options = ("--strategies", "frozen,fine-tuned", "--preset", "fast", "--explain", "0", *SMALL)
    process = spawn("study", data, "--out", out, *options)
    stop_when(process, out, lambda event: event["event"] == "evidence", signal.SIGINT)
    said, _ = process.communicate()
    found = document(out)
    assert found["status"] == "finished"
    assert found["stopped"] == "while measuring robustness, causes of errors and fewer photos"
    assert f"Stopped {found['stopped']}." in said
    assert said.count("calibration error") == 1  # the table, which was shown before
    assert said.splitlines()[-1] == f"Report: {out / 'report.html'}"
    assert found["seconds"] >= found["evidence_seconds"] + sum(r["seconds"]["train"] for r in found["strategies"])
    assert "All strategies are finished. What is missing below" in (out / "report.html").read_text(encoding="utf-8")
    assert "error_causes" in found
    assert "data_curve" not in found
    assert (out / "report.html").exists()
    must("robustness", out)
    found = document(out)
    assert "stopped" not in found
    assert len(found["sittings"]) == 2
    assert found["claims"][4]["verdict"] != claims.UNTESTED
    curve = found["data_curve"]
    assert curve["photos"] == sorted(curve["photos"])
    assert curve["photos"][-1] == found["dataset"]["train"]
    last = {row["strategy"]: row["accuracy"] for row in curve["curves"] if row["photos"] == curve["photos"][-1]}
    assert last == pytest.approx({row["name"]: row["accuracy"] for row in found["strategies"]})
    assert curve["runs"] == [learning_curve.REPEATS] * (len(curve["photos"]) - 1) + [1]
    assert [len(row["repeats"]) for row in curve["curves"]] == 2 * curve["runs"]
    pair = found["claims"][6]["figures"]
    assert pair["differences"][:-1] == curve["differences"][:-1]
    assert pair["difference"] == pytest.approx(found["decision"]["unfreezing"]["difference"])
    before = {p: p.stat().st_mtime_ns for p in out.glob("*/*.csv")}
    must("study", data, "--out", out, *options, "--resume")  # nothing is left to do
    assert {p: p.stat().st_mtime_ns for p in out.glob("*/*.csv")} == before


def test_few_photos_are_trained_on_as_the_study_was_refit_included(pretrained: Path, tmp_path: Path) -> None:
    data, out = tmp_path / "photos", tmp_path / "run"
    for kind in range(2):
        (data / f"kind {kind}").mkdir(parents=True)
        for i in range(30):
            (data / f"kind {kind}" / f"{i}.png").write_bytes(encoded(textured(kind, 100 * kind + i), "PNG"))
    options = ("--strategies", "frozen,fine-tuned", "--epochs", "1", "--explain", "0", "--robustness", "0", *SMALL)
    must("study", data, "--out", out, *options)
    found = document(out)
    curve = found["data_curve"]
    assert curve["photos"][-1] == found["dataset"]["train"] + found["dataset"]["validation"]
    assert {row["refit"]["photos"] for row in found["strategies"]} == {curve["photos"][-1]}
    each = [
        f"{s}-{c}" for s in learning_curve.PAIR for c in range(learning_curve.REPEATS) for _ in curve["photos"][:-1]
    ]
    assert len(list((out / "learning").glob("*.csv"))) == len(each)


@settings(deadline=None, max_examples=30)
@given(counts=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_shares_of_photos_are_nested_and_stratified(counts: list[int]) -> None:
    photos = [Photo(f"{c}/{i}", str(c), "", f"{c}-{i}") for c, count in enumerate(counts) for i in range(count)]
    small, large, whole = (learning_curve.share_of(photos, share, 0) for share in (1 / 16, 1 / 4, 1))
    assert set(small) <= set(large) <= set(whole) == set(range(len(photos)))
    found = Counter(photos[i].label for i in large)
    assert all(found[str(c)] == max(1, round(count / 4)) for c, count in enumerate(counts))


# ---- causes of errors ------------------------------------------------------------------------------------------------


def asked(wrong: np.ndarray) -> list[Prediction]:
    return [Prediction(str(i), "a", "b" if w else "a", 0.9, {"a": 0.1, "b": 0.9}) for i, w in enumerate(wrong)]


def test_a_planted_cause_is_found_and_no_other() -> None:
    rng = np.random.default_rng(0)
    values = {name: rng.normal(size=400) for name in error_causes.MEASURES}
    chance = 1 / (1 + np.exp(2.5 + 1.5 * values["sharpness"]))  # the blurred ones go wrong
    found = error_causes.tested(values, {"frozen": asked(rng.random(400) < chance)})
    rows = {row["measure"]: row for row in found["frozen"]}
    assert set(rows) == set(error_causes.MEASURES)
    sharp = rows.pop("sharpness")
    assert sharp["verdict"].endswith("less sharpness")
    assert sharp["expected"]
    assert sharp["effect"] < -0.2
    assert sharp["wrong_median"] < sharp["right_median"]
    assert {row["verdict"] for row in rows.values()} == {error_causes.NOTHING}


def test_causes_are_rarely_found_where_there_are_none() -> None:
    rng = np.random.default_rng(1)
    told = 0
    for _ in range(40):
        values = {name: rng.normal(size=150) for name in error_causes.MEASURES}
        own = {name: asked(rng.random(150) < 0.1) for name in ("baseline", "frozen", "fine-tuned")}
        found = error_causes.tested(values, own)
        told += any(row["verdict"] != error_causes.NOTHING for rows in found.values() for row in rows)
    assert told <= 6  # 2 are meant; more than 6 has a chance of 1 in 300


def test_causes_are_rarely_found_where_groups_alone_differ() -> None:
    """Photos of 40 groups, which differ in light and in how hard they are: tested photo by photo, many studies would
    find a cause."""
    rng = np.random.default_rng(2)
    groups = np.arange(600) % 40
    told = dict.fromkeys(("groups", "photos"), 0)
    for _ in range(30):
        light, hard = rng.normal(size=(2, 40))[:, groups] + 0.7 * rng.normal(size=(2, 600))
        for name, clusters in (("groups", groups), ("photos", None)):
            (row,) = error_causes.tested({"brightness": light}, {"frozen": asked(hard > 1.2)}, clusters)["frozen"]
            told[name] += row["verdict"] != error_causes.NOTHING
    assert told["groups"] <= 1
    assert told["photos"] >= 5


def test_photos_are_measured_for_what_they_are() -> None:
    sharp = np.asarray(textured(0, 1, 224))
    worse = {c.name: corruptions.corrupt(sharp, c, 4, "a", 0) for c in CORRUPTIONS}
    clean = error_causes.of_pixels(sharp)
    assert error_causes.of_pixels(worse["dark"])["brightness"] < 0.5 * clean["brightness"]
    assert error_causes.of_pixels(worse["defocus"])["sharpness"] < clean["sharpness"] - 0.5
    assert error_causes.of_pixels(worse["contrast"])["contrast"] < 0.5 * clean["contrast"]
    assert error_causes.of_pixels(worse["colour-cast"])["colour cast"] > clean["colour cast"] + 0.1
    energy = np.zeros((7, 7), np.float32)
    energy[3, 3] = 1
    assert error_causes.subject(energy) == (1 / 49, 0)
    energy = np.zeros((7, 7), np.float32)
    energy[:2, :2] = 1
    size, off = error_causes.subject(energy)
    assert size == pytest.approx(4 / 49)
    assert off > 0.9


def test_each_reported_photo_has_its_measures(run: Run) -> None:
    rows = table(run.out / "photo_measures.csv")
    assert [r["path"] for r in rows] == [p["path"] for p in table(run.out / "frozen" / "predictions.csv")]
    assert all(0 <= float(r["brightness"]) <= 1 and float(r["resolution"]) > 0 for r in rows)
    assert set(document(run.out)["error_causes"]) == {"baseline", "frozen", "fine-tuned"}


# ---- shift -----------------------------------------------------------------------------------------------------------


def drawn(rng: np.random.Generator, counts: tuple[int, int], moved: float = 0.0) -> tuple[np.ndarray, list[str]]:
    labels = np.repeat(["a", "b"], counts)
    centres = np.where(labels[:, None] == "a", 0.0, 1.0)
    rows = centres + rng.normal(size=(len(labels), 40))
    rows[:, 0] += moved
    return rows, labels.tolist()


@pytest.mark.parametrize(
    ("counts", "moved", "least", "most"),
    [((60, 60), 0.0, 0, 3), ((100, 15), 0.0, 0, 3), ((60, 60), 1.0, 18, 20)],
    ids=["the same", "other class shares", "shifted"],
)
def test_a_known_shift_is_called_out_and_class_shares_alone_are_not(
    counts: tuple[int, int], moved: float, least: int, most: int
) -> None:
    rng = np.random.default_rng(0)
    told = 0
    for trial in range(20):
        _, p = domain_shift.difference(*drawn(rng, (90, 90)), *drawn(rng, counts, moved), trial)
        told += p < 0.05
    assert least <= told <= most


@pytest.mark.parametrize("darker", [False, True], ids=["the same kind", "dark"])
def test_a_test_folder_of_another_kind_is_called_out(pretrained: Path, tmp_path: Path, darker: bool) -> None:
    data = write_folder(tmp_path / "home", ["rose", "tulip"], 20)
    away = write_folder(tmp_path / "away", ["rose", "tulip"], 12, first_seed=900)
    for number, path in enumerate(sorted(away.rglob("*.*")) if darker else []):
        path.write_bytes(encoded(ImageEnhance.Brightness(picture(900 + number)).enhance(0.15)))
    told = must(
        "study", data, "--test", away, "--out", tmp_path / "run", "--strategies", "frozen", "--epochs", "1", *SMALL
    )
    found = document(tmp_path / "run")["shift"]
    assert found["differs"] is darker, found
    assert ("differ from your training photos" in told.out) is darker
