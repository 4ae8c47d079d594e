"""What exceeds chance: right labels are not called wrong, planted errors are, at the precision that is told.

A study says what a check says.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from frostline.checks import chance
from frostline.photos import sample
from support.commands import document, must, table
from support.photos import encoded, textured, write_folder


def simulated(photos: int, classes: int, wrong: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions (photos, classes) that are less sure than they could be, labels, and which of these are wrong."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(photos, classes)) * 3
    q = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (q.cumsum(1) < rng.random(photos)[:, None]).sum(1).clip(0, classes - 1)
    planted = rng.random(photos) < wrong
    labels = np.where(planted, (labels + rng.integers(1, classes, photos)) % classes, labels)
    p = q**0.5
    return p / p.sum(1, keepdims=True), labels, planted


def found(photos: int, classes: int, wrong: float, seed: int) -> tuple[chance.WrongLabels, np.ndarray]:
    p, labels, planted = simulated(photos, classes, wrong, seed)
    everywhere = np.ones(photos, bool)
    return chance.wrong_labels(p, labels, np.arange(photos), everywhere, hard=0.6), planted


@pytest.mark.parametrize(("photos", "classes"), [(60, 2), (200, 5), (1000, 10)])
def test_right_labels_are_rarely_called(photos: int, classes: int) -> None:
    """At most 5 % of sets are meant; benchmarks/coverage.py simulates more of them."""
    some = [found(photos, classes, 0, seed)[0] for seed in range(40)]
    assert np.mean([one.called.any() for one in some]) <= 0.1
    assert all((one.precision_ci is None) != one.called.any() for one in some)


@pytest.mark.parametrize("wrong", [0.03, 0.1, 0.3])
def test_the_share_of_wrong_labels_and_the_precision_are_those_told(wrong: float) -> None:
    held = []
    for seed in range(20):
        one, planted = found(1500, 5, wrong, seed)
        assert one.share == pytest.approx(planted.mean(), abs=0.03)
        low, high = one.precision_ci or (1, 0)
        assert low <= 1 - one.by_chance / one.called.sum() <= high
        held.append(low <= planted[one.called].mean() <= high)
    assert np.mean(held) >= 0.85


def test_photos_of_a_group_are_evidence_only_once() -> None:
    p, labels = np.full((60, 2), 0.5), np.repeat([0, 1], 30)
    p[:30], p[30:] = (0.95, 0.05), (0.05, 0.95)
    p[:6] = (0.04, 0.96)  # one hard object, photographed six times
    alone, together = np.arange(60), np.where(np.arange(60) < 6, 0, np.arange(60))
    everywhere = np.ones(60, bool)
    assert chance.wrong_labels(p, labels, alone, everywhere, hard=0.6).called[:6].all()
    assert not chance.wrong_labels(p, labels, together, everywhere, hard=0.6).called.any()


def test_the_outermost_photos_of_any_set_are_no_outliers() -> None:
    rng = np.random.default_rng(0)
    for draw in (rng.normal, rng.exponential, rng.gumbel):
        sets = [draw(size=400) for _ in range(40)]
        assert np.mean([chance.outliers(one).called.any() for one in sets]) <= 0.15
    planted = rng.normal(size=400)
    planted[:5] = 12
    one = chance.outliers(planted)
    assert one.called[:5].all() and one.called.sum() == 5
    assert one.by_chance < 0.1
    assert not chance.outliers(np.zeros(0)).called.size
    assert not chance.outliers(np.zeros(9)).called.any()


# ---- through the public door -----------------------------------------------------------------------------------------

OPTIONS = ("--image-size", 128)


def checked(data: Path, out: Path, *options: object) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(must("check", data, "--out", out, "--json", *options).out)
    return said


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in sample, a third of it: 4 s of rendering for all tests that want labels that are right."""
    return sample.render(tmp_path_factory.mktemp("rendered") / "photos", per_class=40)


def test_labels_that_are_right_by_construction_are_not_called(pretrained: Path, rendered: Path, tmp_path: Path) -> None:
    said = checked(rendered, tmp_path / "out", *OPTIONS, "--write", tmp_path / "exclude.csv")
    assert not {"label", "junk"} & set(said["summary"]["kinds"])
    assert said["chance"]["called"] == said["chance"]["unlike"] == 0
    assert said["chance"]["precision"] is said["chance"]["precision_ci"] is None
    assert said["lines"][1].startswith("Labels: no label stands out: ")
    hard, expected = said["chance"]["hard"], said["chance"]["hard_by_chance"]
    assert (
        f"{hard} photos are hard to tell apart (about as many as expected by chance, {expected:.0f})"
        in said["lines"][1]
    )
    assert len([row for row in table(tmp_path / "out" / "check.csv") if row["kind"] == "hard"]) == hard > 0
    assert said["decisions"] == []


def test_planted_errors_are_called_and_a_study_says_the_same(pretrained: Path, rendered: Path, tmp_path: Path) -> None:
    data = tmp_path / "photos"
    shutil.copytree(rendered, data)
    folders = sorted(p for p in data.iterdir() if p.is_dir())
    planted = set()
    for number, folder in enumerate(folders):
        for file in sorted(folder.iterdir())[:4]:
            target = folders[(number + 2) % 5] / f"wrong {file.name}"
            file.rename(target)
            planted.add(target.relative_to(data).as_posix())
    run = tmp_path / "run"
    must("study", data, "--out", run, "--strategies", "frozen", "--preset", "fast", "--epochs", 1, *OPTIONS)
    quick = document(run)["dataset"]["check"]
    assert quick["command"] == shlex.join(["frostline", "check", str(data), "--image-size", "128"])
    assert quick["command"] in quick["lines"][2]
    said = json.loads(must(*shlex.split(quick["command"])[1:], "--out", tmp_path / "out", "--json").out)
    called = [f for f in said["findings"] if f["kind"] == "label"]
    paths = {f["paths"][0] for f in called}
    assert len(paths & planted) >= 0.5 * len(planted)  # the sample is hard at so few pixels
    assert len(paths & planted) >= said["chance"]["precision_ci"][0] * len(paths)
    assert said["chance"]["called_by_chance"] == pytest.approx(sum(1 - f["confidence"] for f in called), abs=0.1)
    assert f"{len(called)} labels are likely wrong (" in said["lines"][1]
    assert {"label", "hard"} & set(quick["kinds"])
    assert {k: quick["kinds"].get(k) for k in ("label", "hard")} == {
        k: said["summary"]["kinds"].get(k) for k in ("label", "hard")
    }
    assert quick["chance"] == said["chance"]
    assert quick["lines"][1] == said["lines"][1]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert f"{len(called)} labels are likely wrong" in page
    assert quick["command"].replace("&", "&amp;") in page


def test_photos_of_one_group_can_not_be_judged(pretrained: Path, tmp_path: Path) -> None:
    data = write_folder(tmp_path / "photos", ("oak", "beech"), 8)
    rows = [f"{p.relative_to(tmp_path).as_posix()},{p.parent.name},plant" for p in sorted(data.rglob("*.*"))]
    listing = tmp_path / "list.csv"
    listing.write_text("path,label,group\n" + "\n".join(rows) + "\n", encoding="utf-8")
    said = checked(listing, tmp_path / "out", "--image-size", 64)
    assert said["lines"][1] == "Labels: can't be judged, as classes have photos of fewer than 5 groups."
    assert said["chance"] is None


@pytest.mark.parametrize("classes", [("flat", "steep"), ("flat", "steep", "slanted")])
def test_an_image_not_found_is_junk_at_once(pretrained: Path, tmp_path: Path, classes: tuple[str, ...]) -> None:
    """Byte-identical in each class: no photo with two labels, and not judged as one."""
    missing = Image.new("RGB", (120, 90), "white")
    ImageDraw.Draw(missing).text((20, 40), "image not found", "black")
    for kind, name in enumerate(classes):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(8):
            (tmp_path / "photos" / name / f"{i}.png").write_bytes(encoded(textured(6 * kind, 50 * kind + i), "PNG"))
        (tmp_path / "photos" / name / "missing.png").write_bytes(encoded(missing, "PNG"))
    said = checked(tmp_path / "photos", tmp_path / "out", "--image-size", 64, "--write", tmp_path / "exclude.csv")
    one = said["findings"][0]
    assert (one["kind"], set(one["paths"])) == ("placeholder", {f"{name}/missing.png" for name in classes})
    assert one["advice"].startswith("Leave it out")
    assert "conflict" not in said["summary"]["kinds"]
    assert {row["path"] for row in table(tmp_path / "exclude.csv")} == set(one["paths"])
    assert "1 placeholder in several classes" in said["lines"][0]
