"""A study over several seeds: what it leaves, how it goes on, and whether its intervals hold what they say."""

from __future__ import annotations

import json
import shutil
import signal
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import frostline
from frostline.stats import across_seeds, intervals
from frostline.studies.seeds import several
from support.commands import SMALL, call, document, events, figures, must, spawn, stop_when, table
from support.photos import photo, write_folder
from support.runs import Run

NAMES = ["baseline", "frozen"]
SEEDS = [3, 4, 5]
QUICK = ("--strategies", "baseline", "--epochs", "1", "--protocol", "tutorial", *SMALL)


def summary(folder: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((folder / "seeds.json").read_text(encoding="utf-8"))
    return value


def whole(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def over_seeds(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Three seeds of two strategies on photos of which two are twins."""
    base = tmp_path_factory.mktemp("seeds")
    data = write_folder(base / "photos", ["class 2", "class 10", "Tulpe ü"], 14)
    shutil.copy(data / "class 10" / "class 10 1.jpeg", data / "class 10" / "twin.jpg")
    options = ("--strategies", ",".join(NAMES), "--epochs", "2", "--seed", "3", *SMALL)
    said = must("study", data, "--out", base / "out", "--seeds", "3", *options)
    return Run(data, base / "out", [], said, options)


# ---- what it leaves --------------------------------------------------------------------------------------------------


def test_each_seed_is_the_study_that_it_would_be_alone(over_seeds: Run, tmp_path: Path) -> None:
    beside = [p.name for p in over_seeds.out.iterdir()]
    assert sorted(beside) == ["report.html", "seed-3", "seed-4", "seed-5", "seeds.csv", "seeds.json", "seeds.svg"]
    options = ["4" if option == "3" else option for option in over_seeds.options]
    must("study", over_seeds.data, "--out", tmp_path / "alone", *options)
    alone, among = tmp_path / "alone", over_seeds.out / "seed-4"
    assert sorted(whole(alone)) == sorted(whole(among))
    assert figures(alone) == figures(among)
    for name in ("manifest.csv", *(f"{s}/predictions.csv" for s in NAMES)):
        assert (alone / name).read_bytes() == (among / name).read_bytes()


def test_a_list_of_photos_to_leave_out_has_both_figures_over_seeds(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["a", "b"], 16)
    (tmp_path / "x.csv").write_text(
        "path,action,label\n" + "".join(f"a/a {n}.png,exclude,\n" for n in (2, 8, 14)), encoding="utf-8"
    )
    must("study", data, "--out", tmp_path / "out", "--seeds", "2", "--exclude", tmp_path / "x.csv", *QUICK)
    (row,) = summary(tmp_path / "out")["strategies"]
    given = [document(tmp_path / "out" / f"seed-{n}")["strategies"][0].get("accuracy_as_given") for n in (0, 1)]
    assert row["as_given_mean"] == pytest.approx(np.mean(given))
    assert "with their original labels" in summary(tmp_path / "out")["answer"]


def test_the_figures_over_seeds_are_those_of_the_predictions(over_seeds: Run) -> None:
    found = summary(over_seeds.out)
    assert (found["status"], found["seeds"]) == ("finished", SEEDS)
    assert [row["name"] for row in found["strategies"]] == NAMES
    right: dict[str, list[float]] = {}
    for row in found["strategies"]:
        runs = [over_seeds.out / f"seed-{seed}" for seed in SEEDS]
        said = [table(run / row["name"] / "predictions.csv") for run in runs]
        each = [float(np.mean([p["true"] == p["predicted"] for p in one])) for one in said]
        right[row["name"]] = each
        assert row["seeds"] == pytest.approx(each)
        assert row["mean"] == pytest.approx(np.mean(each))
        assert row["sd"] == pytest.approx(np.std(each, ddof=1))
        assert row["range"] == pytest.approx([min(each), max(each)])
        assert 0 <= row["ci"][0] <= row["mean"] <= row["ci"][1] <= 1
        validation = [
            r["validation_accuracy"] for run in runs for r in document(run)["strategies"] if r["name"] == row["name"]
        ]
        assert row["validation_mean"] == pytest.approx(np.mean(validation))
        bytes_of = [{r["path"]: r["sha256"] for r in table(run / "manifest.csv")} for run in runs]
        photos = [{digests[p["path"]] for p in one} for digests, one in zip(bytes_of, said, strict=True)]
        assert found["tested"]["answers"] == sum(map(len, said))
        assert found["tested"]["photos"] == len(set.union(*photos))
        shared = photos[0] & photos[1] | photos[0] & photos[2] | photos[1] & photos[2]
        assert found["tested"]["shared"] == len(shared) > 0
    (pair,) = found["comparisons"]
    assert (pair["a"], pair["b"]) == ("frozen", "baseline")
    assert pair["seeds"] == pytest.approx(np.subtract(right["frozen"], right["baseline"]))
    assert pair["ci"][0] <= pair["mean"] <= pair["ci"][1]
    rows = table(over_seeds.out / "seeds.csv")
    assert [(int(r["seed"]), r["strategy"]) for r in rows] == [(seed, name) for seed in SEEDS for name in NAMES]
    assert [float(r["accuracy"]) for r in rows if r["strategy"] == "frozen"] == pytest.approx(right["frozen"], abs=1e-6)


def test_terminal_page_and_picture_say_what_seeds_json_says(over_seeds: Run) -> None:
    found = summary(over_seeds.out)
    (pair,) = found["comparisons"]
    for seed in SEEDS:
        for name in NAMES:
            assert f"Seed {seed}, {name}: " in over_seeds.said.err
    for row in found["strategies"]:
        assert f"{100 * row['mean']:.1f} %" in over_seeds.said.out
    assert found["answer"] in over_seeds.said.out
    assert pair["verdict"] in over_seeds.said.out
    assert f"Report: {over_seeds.out / 'report.html'}" in over_seeds.said.out
    page = (over_seeds.out / "report.html").read_text(encoding="utf-8").replace("\u00a0", " ")
    assert found["answer"] in page
    assert pair["verdict"] in page
    for seed in SEEDS:
        assert f'href="seed-{seed}/report.html"' in page
    assert "pigeonhole" in page
    assert "What 3 seeds cannot tell" in page
    assert page.count("<script") == 1
    picture = ET.parse(over_seeds.out / "seeds.svg").getroot()  # noqa: S314 - our own file
    hollow = [part for part in picture.iter() if part.get("fill") == "none" and part.get("stroke-width") == "1.8"]
    assert len(hollow) == len(SEEDS) * len(NAMES)
    for row in found["strategies"]:
        assert f"{100 * row['mean']:.1f} %" in "".join(picture.itertext())


def test_report_builds_page_and_picture_again(over_seeds: Run, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(over_seeds.out, out)
    for name in ("report.html", "seeds.svg"):
        (out / name).unlink()
    assert "report.html" in must("report", out).out
    for name in ("report.html", "seeds.svg"):
        assert (out / name).read_bytes() == (over_seeds.out / name).read_bytes()


# ---- going on --------------------------------------------------------------------------------------------------------


def test_a_finished_study_is_kept_and_more_seeds_may_join(over_seeds: Run, tmp_path: Path) -> None:
    out = tmp_path / "copy"
    shutil.copytree(over_seeds.out, out)
    before = whole(out)
    said = must("study", "--out", out, "--resume", "--json")  # the folder knows its photos and seeds
    assert json.loads(said.out) == summary(out) == summary(over_seeds.out)
    assert [f"Seed {seed}: finished before, kept" in said.err for seed in SEEDS] == [True] * 3
    assert whole(out) == before
    must("study", "--out", out, "--resume", "--seeds", "4", "--quiet")
    found = summary(out)
    assert (found["seeds"], found["status"]) == ([*SEEDS, 6], "finished")
    assert [len(row["seeds"]) for row in found["strategies"]] == [4, 4]
    after = whole(out)
    assert {name: after[name] for name in before if name.startswith("seed-")} == {
        name: content for name, content in before.items() if name.startswith("seed-")
    }


def test_what_a_folder_holds_is_not_mixed_up(over_seeds: Run, tmp_path: Path) -> None:
    before = whole(over_seeds.out)
    again = ("study", over_seeds.data, "--out", over_seeds.out, *over_seeds.options)
    assert "--resume it" in call(*again, "--seeds", "3").error
    assert "holds the seeds 3 to 5" in call(*again, "--seeds", "2", "--resume").error
    other = ["0" if option == "3" else option for option in over_seeds.options]
    said = call("study", over_seeds.data, "--out", over_seeds.out, *other, "--seeds", "3", "--resume")
    assert "holds the seeds 3 to 5, not 0 to 2" in said.error
    assert "differs in strategies" in call(*again[:4], *QUICK, "--seed", "3", "--seeds", "3", "--resume").error
    for flag in ((), ("--resume",), ("--overwrite",)):
        assert "holds a study over several seeds" in call(*again, *flag).error
        single = call("study", over_seeds.data, "--out", over_seeds.out / "seed-3", *QUICK, "--seeds", "2", *flag)
        assert "holds a run of one seed" in single.error
    (tmp_path / "letter.txt").touch()
    assert "holds other files" in call("study", over_seeds.data, "--out", tmp_path, *QUICK, "--seeds", "2").error
    assert "expected 1 or more" in call(*again, "--seeds", "0").error
    with pytest.raises(frostline.FrostlineError, match="one seed is a plain study"):
        several(frostline.configure(over_seeds.data), tmp_path / "none", 1)
    assert whole(over_seeds.out) == before


def test_ctrl_c_in_the_second_seed_costs_nothing_that_was_finished(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["rose", "tulip"], 12)
    options = ("--strategies", "baseline", "--epochs", "8", "--protocol", "tutorial", *SMALL)
    out = tmp_path / "out"
    process = spawn("study", data, "--out", out, *options, "--seeds", "2")
    assert stop_when(process, out / "seed-1", lambda event: event["event"] == "epoch", signal.SIGINT) == 130
    _, err = process.communicate()
    assert "Traceback" not in err
    assert "--resume" in err.splitlines()[-1]
    assert (summary(out)["status"], summary(out)["seeds"]) == ("running", [0, 1])
    assert "fewer than two seeds have ended" in call("report", out).error
    first = whole(out / "seed-0")
    must("study", "--out", out, "--resume", "--quiet")
    assert whole(out / "seed-0") == first
    epochs = [e["epoch"] for e in events(out / "seed-1") if e["event"] == "epoch"]
    assert epochs == list(range(1, 9))
    assert summary(out)["status"] == "finished"


def test_an_overwritten_study_leaves_nothing_and_one_that_can_not_begin_leaves_all(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["a", "b"], 8)
    out = tmp_path / "out"
    config = frostline.configure(data, strategies=["baseline"], protocol="tutorial", epochs=1, image_size=64)
    rows: list[tuple[int, str]] = []
    several(config, out, 3, on_row=lambda row, found: rows.append((found["seed"], row["name"])))
    assert rows == [(0, "baseline"), (1, "baseline"), (2, "baseline")]
    before = whole(out)
    call("study", tmp_path / "none", "--out", out, *QUICK, "--seeds", "2", "--overwrite").error  # noqa: B018
    assert whole(out) == before
    call("study", tmp_path / "none", "--out", tmp_path / "new", *QUICK, "--seeds", "2").error  # noqa: B018
    assert not (tmp_path / "new").exists()
    must("study", data, "--out", out, *QUICK, "--epochs", "2", "--seeds", "2", "--overwrite")
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == ["seed-0", "seed-1"]
    for seed in (0, 1):
        assert len(document(out / f"seed-{seed}")["strategies"][0]["history"]) == 2
    assert len(table(out / "seeds.csv")) == 2


def test_seeds_are_only_held_beside_each_other_on_the_same_photos(tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ["a", "b"], 8)
    other = write_folder(tmp_path / "other", ["a", "b"], 4, first_seed=100)
    options = ("--out", tmp_path / "out", *QUICK, "--test", other)
    must("study", data, *options, "--seeds", "2")
    assert summary(tmp_path / "out")["tested"] == {"photos": 8, "answers": 16, "shared": 8}
    (data / "a" / "new.jpg").write_bytes(photo(999))
    assert "are not those that" in call("study", data, *options, "--seeds", "3", "--resume").error


# ---- whether the intervals hold what they say ------------------------------------------------------------------------

Answers = tuple[np.ndarray, np.ndarray, np.ndarray]


def answers(dice: np.random.Generator, share: float, scatter: float, lead: float = 0.0, photos: int = 200) -> Answers:
    """Which answers of two models were right with each of three seeds, and which photos were tested: (photos, 3) each.

    Photos are of different difficulty, the same with every seed; each seed has luck of its own for each model.
    """
    difficulty = dice.normal(1.5, 1.5, (photos, 1))
    tested = np.zeros((photos, 3))
    for seed in range(3):
        tested[dice.permutation(photos)[: round(share * photos)], seed] = 1
    chances = [chance(difficulty + strength + dice.normal(0, scatter, 3)) for strength in (lead, 0.0)]
    a, b = ((dice.random((photos, 3)) < c) * tested for c in chances)
    return a, b, tested


def chance(odds: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-odds))


@pytest.mark.parametrize(
    ("share", "scatter", "low", "high"),
    [
        (0.2, 0.0, 0.93, 1.0),  # as usual: photos decide, and three seeds that scatter little can't prove it
        (0.2, 0.15, 0.93, 1.0),
        (1.0, 0.0, 0.92, 0.985),  # the same photos with every seed. Taken for new ones each time: 80 %
        (0.2, 0.3, 0.92, 0.985),  # seeds scatter as far as photos make each waver
        (0.2, 1.5, 0.87, 0.985),  # seeds decide. An interval over photos alone would hold 30 %
    ],
)
def test_the_interval_of_a_mean_holds_the_truth_as_often_as_its_description_says(
    share: float, scatter: float, low: float, high: float
) -> None:
    dice = np.random.default_rng(11)
    truth = float(chance(dice.normal(1.5, np.hypot(1.5, scatter), 1_000_000)).mean())
    trials = 250
    held = 0
    for trial in range(trials):
        right, _, tested = answers(dice, share, scatter)
        ends = across_seeds.mean_across(right, tested, trial).ci
        held += ends[0] <= truth <= ends[1]
    assert low <= held / trials <= high


@pytest.mark.parametrize("share", [0.2, 1.0])
def test_equal_models_are_told_apart_no_more_often_than_chance_allows(share: float) -> None:
    dice = np.random.default_rng(12)
    trials = 250
    told = 0
    for trial in range(trials):
        a, b, tested = answers(dice, share, 0.05)
        told += " beats " in across_seeds.compare_across("a", a, "b", b, tested, trial).verdict
    assert told / trials <= 0.06


def test_three_seeds_find_a_difference_that_one_seed_rarely_does() -> None:
    dice = np.random.default_rng(13)
    alone = together = 0
    for trial in range(100):
        a, b, tested = answers(dice, 0.2, 0.05, lead=0.9)
        together += "a beats b" in across_seeds.compare_across("a", a, "b", b, tested, trial).verdict
        first = tested[:, 0] > 0
        alone += intervals.compare("a", a[first, 0] > 0, "b", b[first, 0] > 0).p_value < 0.05
    assert together > alone + 5  # not more: three seeds can't prove that seeds scatter as little as they do here


def test_the_same_answers_three_times_are_no_more_certain_than_once() -> None:
    right = np.arange(200) % 10 < 8
    once = intervals.mean_interval(right)
    thrice = across_seeds.mean_across(np.repeat(right[:, None], 3, 1).astype(float), np.ones((200, 3)), 0)
    assert thrice.sd == pytest.approx(0)
    assert thrice.ci == pytest.approx(once, abs=0.006)
    twins = across_seeds.mean_across(2 * right[:, None] * np.ones((1, 2)), np.full((200, 2), 2.0), 0)
    assert twins.ci == pytest.approx(once, abs=0.006)


def test_all_right_with_every_seed_is_not_certainty() -> None:
    tested = np.zeros((30, 2))
    tested[:20, 0] = tested[10:, 1] = 1
    assert across_seeds.mean_across(tested, tested, 0).ci == pytest.approx(
        (0.8865, 1.0), abs=1e-4
    )  # Wilson: 30 / (30 + 1.96²)
    same = across_seeds.compare_across("a", tested, "b", tested, tested, 0)
    assert same.ci == (-0.1, 0.1)  # the rule of three over 30 photos
    assert same.verdict.startswith("a and b are equally accurate here on average")
    most = across_seeds.compare_across("a", tested, "b", 0 * tested, tested, 0)
    assert most.ci == (0.9, 1.0)
    assert most.verdict == "a beats b by 100.0 points on average, 95 % CI 90.0 to 100.0, ahead with 2 of 2 seeds"


def test_verdicts_lead_with_the_better_one_and_say_when_it_may_be_chance() -> None:
    dice = np.random.default_rng(14)
    a, b, tested = answers(dice, 1.0, 0.0, lead=3.0)
    for found in (
        across_seeds.compare_across("a", a, "b", b, tested, 0).verdict,
        across_seeds.compare_across("b", b, "a", a, tested, 0).verdict,
    ):
        assert found.startswith("a beats b by ")
        assert found.endswith("ahead with 3 of 3 seeds")
    close = a.copy()
    close[np.flatnonzero(a[:, 1])[0], 1] = 0
    found = across_seeds.compare_across("c", close, "a", a, tested, 0).verdict
    assert found.startswith("a is 0.2 points ahead of c on average, but that may be chance (95 % CI ")
    assert found.endswith("ahead with 1 of 3 seeds, p = 0.50)")
