"""Sweeps through the command line: what they leave, what they recommend and by which photos, and that a stop loses
nothing.
"""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.evidence import learning_curve
from frostline.networks import backbone, freeze_line
from frostline.photos.decoding import Transform
from frostline.recipes import strategy
from frostline.reports import sweep_page
from frostline.stats import sweep_stats
from frostline.stats.predictions import read_predictions, write_predictions
from frostline.studies import sweep
from support.commands import SMALL, call, document, must, table
from support.photos import photo, write_folder

CLASSES = ["rose", "tulip"]
PARTS = {"train": 12, "validation": 8, "test": 6}
LINES = ["top", "30%", "features.14", "0"]
OVER_LINES = ("--lines", "0,features.14,30%", "--epochs", "1", *SMALL)
OVER_PHOTOS = ("--photos", "2,5,all", "--repeats", "2", "--epochs", "2", *SMALL)


def data_set(root: Path) -> Path:
    for number, (part, each) in enumerate(PARTS.items()):
        write_folder(root / part, CLASSES, each, first_seed=1000 * number)
    return root


def read(run: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((run / "sweep.json").read_text(encoding="utf-8"))
    return value


def timeless(value: Any) -> Any:
    """A document without what a clock, the machine's load or the place on the disk decides."""
    moving = {"seconds", "prefix_seconds", "peak_rss_mb", "created", "root"}
    if isinstance(value, dict):
        return {k: timeless(v) for k, v in value.items() if k not in moving}
    return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return data_set(tmp_path_factory.mktemp("sweep") / "photos")


@pytest.fixture(scope="module")
def lines(pretrained: Path, photos: Path) -> Path:
    out = photos.parent / "lines"
    said = must("sweep", photos, "--out", out, *OVER_LINES)
    assert "recommended" in said.out
    assert [line.split()[0] for line in said.err.splitlines() if "trainable" in line or " to " in line][:1] == ["line"]
    return out


@pytest.fixture(scope="module")
def sizes(pretrained: Path, photos: Path) -> Path:
    out = photos.parent / "sizes"
    must("sweep", photos, "--out", out, *OVER_PHOTOS)
    return out


# ---- over lines ------------------------------------------------------------------------------------------------------


def test_a_sweep_over_lines_leaves_a_whole_strategy_a_line(lines: Path) -> None:
    found = read(lines)
    assert found["status"] == "finished"
    assert [row["name"] for row in found["lines"]] == LINES
    assert [row["freeze_line"] for row in found["lines"]] == [139, 133, 104, 0]
    trainable = [row["parameters"]["trainable"] for row in found["lines"]]
    assert trainable == sorted(set(trainable))
    assert trainable[-1] == found["lines"][-1]["parameters"]["total"]
    top = found["lines"][0]
    for row in found["lines"][1:]:
        assert row["head_history"] == top["history"]  # trained once, for all
        assert row["bytes_per_photo"] > 0
    each = ("history.csv", "predictions.csv", "validation.csv", "bundle/model.safetensors", "bundle/bundle.json")
    assert [p for line in LINES for p in each if not (lines / line / p).is_file()] == []
    assert {p.name for p in lines.iterdir()} == {
        "config.toml", "manifest.csv", "sweep.json", "report.html", "log.jsonl", "lines.csv", "lines.svg", *LINES,
    }  # fmt: skip


def test_the_table_and_the_picture_hold_every_line(lines: Path) -> None:
    rows = table(lines / "lines.csv")
    assert [row["line"] for row in rows] == LINES
    for row, told in zip(rows, read(lines)["lines"], strict=True):
        assert float(row["accuracy"]) == pytest.approx(told["accuracy"], abs=1e-6)
        assert int(row["trainable"]) == told["parameters"]["trainable"]
    text = "".join(ET.parse(lines / "lines.svg").getroot().itertext())  # noqa: S314 - our own file
    assert [line for line in LINES if line not in text] == []
    page = (lines / "report.html").read_text(encoding="utf-8")
    assert read(lines)["answer"].split(":")[0] in page
    assert [line for line in LINES if f'<th scope="row">{line}</th>' not in page] == []


def test_validation_csv_holds_the_validation_photos(lines: Path) -> None:
    parts = {row["path"]: row["split"] for row in table(lines / "manifest.csv")}
    for line in LINES:
        seen = table(lines / line / "validation.csv")
        assert {row["path"] for row in seen} == {path for path, part in parts.items() if part == "validation"}
        assert {parts[row["path"]] for row in table(lines / line / "predictions.csv")} == {"test"}
        right = np.mean([row["true"] == row["predicted"] for row in seen])
        judged = next(row for row in read(lines)["recommendation"]["lines"] if row["name"] == line)
        assert judged["accuracy"] == pytest.approx(right)


@pytest.mark.parametrize("line", ["features.14", "0"])
def test_the_bundle_of_a_line_gives_its_predictions(lines: Path, photos: Path, line: str, tmp_path: Path) -> None:
    must("evaluate", lines / line / "bundle", photos / "test", "--out", tmp_path / "p.csv")
    got = {f"test/{row.pop('path')}": row for row in table(tmp_path / "p.csv")}
    assert got == {row.pop("path"): row for row in table(lines / line / "predictions.csv")}


def test_the_recommended_line_never_depends_on_test_labels(lines: Path, photos: Path, tmp_path: Path) -> None:
    swapped = tmp_path / "photos"
    shutil.copytree(photos, swapped)
    one, other = (swapped / "test" / name for name in CLASSES)
    one.rename(tmp_path / "aside")
    other.rename(one)
    (tmp_path / "aside").rename(other)
    must("sweep", swapped, "--out", tmp_path / "run", "--lines", "30%", *OVER_LINES[2:])
    after = read(tmp_path / "run")
    expected = sweep.recommendation(lines, ["top", "30%"], after["seed"])
    assert after["recommendation"] == json.loads(json.dumps(expected))
    for a, b in zip(after["lines"], read(lines)["lines"][:2], strict=True):
        assert a["accuracy"] == pytest.approx(1 - b["accuracy"])  # the labels are others


def test_a_sweep_over_lines_decides_in_two_sentences(lines: Path) -> None:
    found = read(lines)
    decided = found["decision"]
    assert decided["ship"]["model"] == found["recommendation"]["recommended"]
    assert found["answer"] == decided["ship"]["words"]
    about = decided["unfreezing"]
    assert found["answer_detail"].startswith(f"{about['words']} {decided['note']}")
    assert about["frozen"] == "top"
    assert about["unfrozen"] in LINES[1:]
    correct = {
        line: np.array(
            [row["true"] == row["predicted"] for row in table(lines / line / "predictions.csv")], dtype=float
        )
        for line in LINES
    }
    against = {row["name"]: row for row in found["against_top"]}
    assert list(against) == LINES[1:]
    for line, row in against.items():
        assert row["difference"] == pytest.approx(np.mean(correct[line] - correct["top"]))
        assert row["p_value"] <= row["p_corrected"]
    own = against[about["unfrozen"]]
    assert own["p_corrected"] == own["p_value"] == about["p_corrected"]  # validation photos chose it
    assert about["difference"] == own["difference"]
    page = (lines / "report.html").read_text(encoding="utf-8")
    assert "so its p value needs no correction; those of the others are corrected for their number (Holm)" in page


def test_a_stopped_sweep_over_lines_goes_on_to_the_same_figures(lines: Path, photos: Path, tmp_path: Path) -> None:
    config, plan = sweep.over_lines(photos, "30%", epochs=1, image_size=64)

    def stop(row: dict[str, Any], _: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(config, plan, tmp_path / "run", on_point=stop)
    assert [row["name"] for row in read(tmp_path / "run")["lines"]] == ["top"]
    must("report", tmp_path / "run", "--quiet")
    assert "Not finished" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    before = (tmp_path / "run" / "top" / "bundle" / "model.safetensors").stat().st_mtime_ns
    must("sweep", "--out", tmp_path / "run", "--resume")
    assert (tmp_path / "run" / "top" / "bundle" / "model.safetensors").stat().st_mtime_ns == before
    assert timeless(read(tmp_path / "run")["lines"]) == timeless(read(lines)["lines"][:2])
    assert read(tmp_path / "run")["status"] == "finished"


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet18", "mobilenet_v2+tf_efficientnet_lite0"])
def test_auto_takes_edges_of_blocks_from_the_top_to_the_photos(name: str) -> None:
    network = backbone.skeleton(name, Transform(224, "squash", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    networks = name.count("+") + 1
    own = strategy("fine-tuned", backbone=name)
    chosen = sweep.auto_lines(network, own)
    assert chosen[0] == "top"
    assert chosen[-1] == "0"
    assert own.line in chosen
    assert len(chosen) >= 8
    places = [network.lines.find(line) for line in chosen]
    assert places == sorted(set(places), reverse=True)
    shares = [network.lines.share(place) for place in places]
    assert max(b - a for a, b in pairwise(shares)) < 0.3
    for line in (place for place in places[1:-1] if place != network.lines.place(own)):
        assert name != "mobilenet_v2" or line in {block.start for block in network.lines.blocks}
        cut = freeze_line.cut(network.traced, line)
        assert name != "mobilenet_v2" or len(cut.shapes) == 1
        assert sum(np.prod(shape) for shape in cut.shapes) <= networks * 224 * 224 * 3
        assert freeze_line.boundary(network.traced, line) == cut.shapes


# ---- over photos -----------------------------------------------------------------------------------------------------


def test_a_sweep_over_photos_trains_every_strategy_on_every_subset(sizes: Path) -> None:
    found = read(sizes)
    points = Counter((row["strategy"], row["train"], row["repeat"]) for row in found["photos"])
    assert points == {(s, n, r): 1 for s in ("frozen", "fine-tuned") for n in (4, 10, 24) for r in (0, 1)}
    assert [row["photos"] for row in found["photos"] if row["train"] == 24] == ["all"] * 4
    assert len(table(sizes / "photos.csv")) == 12
    assert not list(sizes.rglob("*.safetensors"))
    for row in found["photos"]:
        said = table(sizes / f"{row['name']}.csv")
        assert np.mean([p["true"] == p["predicted"] for p in said]) == pytest.approx(row["accuracy"])
    for row in found["curves"]:
        mine = [p for p in found["photos"] if (p["strategy"], p["per_class"]) == (row["strategy"], row["per_class"])]
        assert row["repeats"] == pytest.approx([p["accuracy"] for p in mine])
        assert row["accuracy"] == pytest.approx(np.mean(row["repeats"]))
        assert row["accuracy_ci"][0] <= row["accuracy"] <= row["accuracy_ci"][1]
    assert [c["challenger"] for c in found["crossings"]] == ["fine-tuned"]
    assert all("too short" in f["why_not"] for f in found["forecasts"])  # three sizes
    ET.parse(sizes / "photos.svg")  # noqa: S314 - our own file
    page = (sizes / "report.html").read_text(encoding="utf-8")
    assert "too short for a forecast" in page
    assert "Learning curves" in page


def test_all_photos_in_the_first_repeat_are_the_study(sizes: Path, photos: Path, tmp_path: Path) -> None:
    options = ("--strategies", "frozen,fine-tuned", "--epochs", "2", *SMALL)
    must("study", photos, "--out", tmp_path / "run", *options)
    for row in document(tmp_path / "run")["strategies"]:
        point = next(p for p in read(sizes)["photos"] if p["name"] == f"{row['name']}/all-0")
        assert point["accuracy"] == pytest.approx(row["accuracy"])
        assert point["log_loss"] == pytest.approx(row["log_loss"], rel=1e-3)  # PyTorch here, compiled there
        assert point["parameters"] == row["parameters"]


def activations(cache: Path) -> list[Path]:
    """The lists of what stands at the lines: all stores but the small pictures that twins are found by."""
    stores = {
        path.with_name("names.txt"): path.read_text(encoding="utf-8") for path in cache.glob("activations/*/about.json")
    }
    return [names for names, about in stores.items() if "small grey pictures" not in about]


def test_repeats_draw_other_photos_from_the_same_activations(
    pretrained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    said = must("sweep", photos, "--out", tmp_path / "run", *OVER_PHOTOS, "--weights", pretrained)
    assert (
        said.err.count("Computing frozen activations: ") == 2
    )  # the clean views, and the others, each for both lines at once
    train, rest = 2 * PARTS["train"], 2 * (PARTS["validation"] + PARTS["test"])
    for names in activations(tmp_path / "cache"):
        views = Counter(line.split()[1] for line in names.read_text(encoding="ascii").splitlines())
        assert views == {"0": train + rest, "1": train}  # balanced stores two views; no repeat added one
    accuracies = {row["name"]: row["log_loss"] for row in read(tmp_path / "run")["photos"]}
    assert accuracies["frozen/2-0"] != accuracies["frozen/2-1"]


def test_a_part_of_the_photos_has_more_views_of_each(
    pretrained: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    config, plan = sweep.over_photos(
        photos, "2,all", strategies=["frozen"], repeats=1, epochs=1, image_size=64, weights=str(pretrained)
    )
    (frozen,) = config.strategies
    recipe = replace(frozen.recipe, views=1, least_pictures=40)  # 24 photos to train on: two views; 4 photos: ten
    sweep.sweep(replace(config, strategies=(replace(frozen, recipe=recipe),)), plan, tmp_path / "run")
    (names,) = activations(tmp_path / "cache")
    views = Counter(line.split()[1] for line in names.read_text(encoding="ascii").splitlines())
    assert PARTS["train"] * 2 == 24
    assert {view: n for view, n in views.items() if view != "0"} == {"1": 24, **{str(v): 4 for v in range(2, 10)}}


def test_a_stopped_sweep_over_photos_goes_on_to_the_same_figures(sizes: Path, photos: Path, tmp_path: Path) -> None:
    config, plan = sweep.over_photos(photos, "2,5,all", repeats=2, epochs=2, image_size=64)

    def stop(row: dict[str, Any], _: dict[str, Any]) -> None:
        if row["name"] == "frozen/5-0":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(config, plan, tmp_path / "run", on_point=stop)
    assert len(read(tmp_path / "run")["photos"]) == 3
    must("sweep", photos, "--out", tmp_path / "run", *OVER_PHOTOS, "--resume")
    assert timeless(read(tmp_path / "run")) == timeless(read(sizes))


names = st.sampled_from(["a", "b", "c"])


def test_a_sweep_over_photos_of_unequal_classes_decides_by_macro_recall(sizes: Path, tmp_path: Path) -> None:
    """As a study of them does. Of the tulips reported on, two are left."""
    out = tmp_path / "unequal"
    shutil.copytree(sizes, out)
    found = read(out)
    for row in found["photos"]:
        said = read_predictions(out / f"{row['name']}.csv")
        some = [p for p in said if p.true == "rose"] + [p for p in said if p.true == "tulip"][:2]
        write_predictions(out / f"{row['name']}.csv", some, CLASSES)
    found["dataset"]["unequal"] = True
    sweep.conclude(out, found, whole=True)
    about = found["decision"]["unfreezing"]
    recall = {
        (row["strategy"], row["repeat"]): np.mean(
            [np.mean([p.correct for p in read_predictions(out / f"{row['name']}.csv") if p.true == c]) for c in CLASSES]
        )
        for row in found["photos"]
        if row["photos"] == "all"
    }
    expected = np.mean([recall["fine-tuned", r] - recall["frozen", r] for r in (0, 1)])
    assert about["metric"] == found["decision"]["ship"]["metric"] == "macro recall"
    assert about["difference"] == pytest.approx(expected)
    assert about["ci"][0] <= expected <= about["ci"][1]
    assert "macro recall" in about["words"]


@given(st.lists(names, min_size=1, max_size=60), st.sets(st.integers(1, 30), min_size=1), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_subsets_are_nested_and_stratified(labels: list[str], wanted: set[int], repeat: int) -> None:
    digests = [f"{i:064x}" for i in range(len(labels))]
    found = learning_curve.subsets(labels, digests, sorted(wanted), 3, repeat)
    before: set[int] = set()
    for size in sorted(wanted):
        counts = Counter(labels[i] for i in found[size])
        assert counts == {label: min(size, labels.count(label)) for label in set(labels)}
        assert before <= set(found[size])
        before = set(found[size])
    turned = learning_curve.subsets(
        labels[::-1], digests[::-1], sorted(wanted), 3, repeat
    )  # another order of the files
    last = len(labels) - 1
    assert {size: sorted(last - i for i in places) for size, places in turned.items()} == found


# ---- what follows from the figures -----------------------------------------------------------------------------------


def drawn(errors: list[list[float]], sizes: list[int], photos_: int = 3000, repeats: int = 3) -> sweep_stats.Grid:
    """A grid whose strategies have these errors; a photo that is hard for one is hard for all."""
    hardness = np.random.default_rng(0).random(photos_)
    noise = np.random.default_rng(1).normal(0, 0.004, (len(errors), len(sizes), repeats, 1))
    right = hardness >= np.array(errors)[:, :, None, None] + noise
    return sweep_stats.Grid([f"s{i}" for i in range(len(errors))], np.array(sizes, dtype=float), right)


SIZES = [5, 10, 20, 50, 100, 200, 400]


def test_the_crossing_point_is_found_between_two_sizes() -> None:
    steps = np.log(np.array(SIZES) / 40)  # ahead from 40 on
    grid = drawn([[0.3] * 7, (0.3 - 0.03 * steps).tolist()], SIZES)
    found = sweep_stats.crossing(grid, sweep_stats.resample(grid, 0), 1, 0)
    assert found["shown"]
    low, high = found["at_ci"]
    assert 20 < low < found["at"] < high < 90
    assert low < 40 < high


@pytest.mark.parametrize(
    ("ahead", "said"), [(-0.05, "does not pay"), (0.0, "can't be told"), (0.05, "at every number")]
)
def test_no_crossing_within_the_sizes_is_said(ahead: float, said: str) -> None:
    grid = drawn([[0.3] * 7, [0.3 - ahead] * 7], SIZES, repeats=2)
    resampled = sweep_stats.resample(grid, 0)
    crossing = sweep_stats.crossing(grid, resampled, 1, 0)
    answer, detail = sweep_page.photo_answer(
        {"crossings": [crossing], "curves": sweep_stats.curves(grid, resampled), "forecasts": []}
    )
    assert said in answer
    assert detail == ""
    assert crossing["shown"] is (ahead > 0)


def test_a_power_law_is_followed_to_twice_the_photos() -> None:
    errors = [0.05 + 0.9 * n**-0.6 for n in SIZES]
    grid = drawn([errors], SIZES, photos_=6_000)
    found = sweep_stats.forecast(grid, sweep_stats.resample(grid, 0), 0)
    truth = 1 - (0.05 + 0.9 * 800**-0.6)
    assert found["per_class"] == 800
    assert found["accuracy"] == pytest.approx(truth, abs=0.01)
    assert found["accuracy_ci"][0] < truth < found["accuracy_ci"][1]
    assert found["gain"] > 0


@pytest.mark.parametrize("sizes_", [[5, 10, 400], [100, 120, 150, 200]])
def test_a_curve_too_short_has_no_forecast(sizes_: list[int]) -> None:
    grid = drawn([[0.3] * len(sizes_)], sizes_)
    assert "too short" in sweep_stats.forecast(grid, sweep_stats.resample(grid, 0), 0)["why_not"]


def test_repeats_widen_the_interval() -> None:
    same = np.random.default_rng(0).random((1, 2, 1, 2000)) < 0.8
    other = np.concatenate([same, same, np.zeros_like(same)], axis=2)  # one repeat failed
    widths = []
    for right in (np.repeat(same, 3, axis=2), other):
        grid = sweep_stats.Grid(["s"], np.array([5.0, 10.0]), right)
        low, high = sweep_stats.curves(grid, sweep_stats.resample(grid, 0))[0]["accuracy_ci"]
        widths.append(high - low)
    assert widths[1] > 5 * widths[0]


# ---- what can't be used ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lines", "0,60", "--photos", "5,all"), "--lines and --photos exclude each other"),
        (("--lines", "top"), "a line below the top"),
        (("--lines", "98,top-6"), "98 and top-6 are the same line"),
        (("--lines", "30%,top-4"), "30% and top-4 are the same line"),
        (("--lines", "middle"), "freeze line 'middle'"),
        (("--lines", "140"), "the network has 104 layers with parameters"),
        (("--lines", "features.99"), "did you mean 'features.9'?"),
        (("--photos", "5"), "two numbers of photos or more"),
        (("--photos", "5,many"), "'many': expected whole numbers"),
        (("--photos", "0,5"), "'0': expected whole numbers"),
        (("--photos", ""), "--photos is empty"),
        (("--photos", "5,all", "--repeats", "0"), "--repeats 0"),
        (("--strategies", "frozen"), "--strategies goes with --photos"),
        (("--repeats", "2"), "--repeats goes with --photos"),
    ],
)
def test_what_can_t_be_swept_is_told_in_a_line(options: tuple[str, ...], said: str, tmp_path: Path) -> None:
    assert said in call("sweep", tmp_path, "--out", tmp_path / "run", *options).error


def test_a_run_of_another_kind_or_plan_is_left_alone(lines: Path, sizes: Path, photos: Path) -> None:
    other = (*OVER_PHOTOS[:1], "2,all", *OVER_PHOTOS[2:])
    assert "another plan" in call("sweep", photos, "--out", sizes, *other, "--resume").error
    study = ("--strategies", "frozen,fine-tuned", "--epochs", "2", *SMALL)
    assert "another kind of run" in call("study", photos, "--out", sizes, *study, "--resume").error
    assert "holds a run already" in call("sweep", photos, "--out", lines, *OVER_LINES).error


def test_json_is_the_document(lines: Path, photos: Path) -> None:
    said = must("sweep", "--out", lines, "--resume", "--json", "--quiet")
    assert json.loads(said.out) == read(lines)
    assert said.err == ""


def test_more_photos_than_there_are_is_all(pretrained: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", {"rose": 20, "tulip": 12})
    (data / "rose" / "broken.jpg").write_bytes(photo()[:100])
    options = ("--photos", "4,9,500", "--repeats", "1", "--strategies", "frozen", "--epochs", "1", *SMALL)
    said = must("sweep", data, "--out", tmp_path / "run", *options)
    assert "500 photos a class" in said.err
    found = read(tmp_path / "run")
    assert [row["photos"] for row in found["photos"]] == [4, 9, "all"]
    assert [row["train"] for row in found["photos"]] == [8, 9 + 8, found["dataset"]["train"]]  # tulip gives all it has
    assert "broken.jpg" in said.out
    assert found["answer"].startswith("The accuracy of frozen goes from")
