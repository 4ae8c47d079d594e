"""Photos in groups: what a study records of them, and what its intervals are over."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

import frostline
from frostline.photos.manifest import Photo
from frostline.photos.split import clusters
from frostline.stats.intervals import mean_interval
from frostline.stats.predictions import clusters as predicted_clusters
from frostline.stats.predictions import read_predictions
from support import photos
from support.commands import must
from support.prepared import prepared_run


def grouped(folder: Path, groups: int, size: int, *, first: int = 0, name: str = "photos.csv") -> Path:
    """A table of photos of two classes in groups, each group of one class."""
    folder.mkdir(exist_ok=True)
    rows = []
    for number in range(groups):
        for each in range(size):
            path = f"{'ab'[number % 2]}{number}-{each}.jpg"
            (folder / path).write_bytes(photos.photo(first + 100 * number + each))
            rows.append({"path": path, "label": "ab"[number % 2], "group": f"plant {number}"})
    with (folder / name).open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return folder / name


def test_groups_copies_and_near_duplicates_share_a_cluster() -> None:
    some = [Photo(f"{i}", "a", "", digest, group) for i, (digest, group) in enumerate(
        [("0", "x"), ("1", "x"), ("2", ""), ("2", "y"), ("3", "y"), ("4", ""), ("5", ""), ("6", "")]
    )]  # fmt: skip
    assert clusters(some, ties=[[5, 6]]).tolist() == [0, 0, 2, 2, 2, 5, 5, 7]


def test_a_study_says_of_how_many_groups_its_photos_are(tmp_path: Path) -> None:
    run = prepared_run(grouped(tmp_path, 12, 5), tmp_path / "run", twins="bytes")
    reported = run.prepared.reported()
    own = run.prepared.clusters(reported)
    assert len(set(own.tolist())) == len({photo.group for photo in reported})
    for photo, number in zip(reported, own, strict=True):
        assert {p.group for p, n in zip(reported, own, strict=True) if n == number} == {photo.group}
    found = run.dataset["reported_groups"]
    assert found is not None
    assert found["groups"] == len({photo.group for photo in reported}) < 15
    assert "the intervals are a rough guide" in found["words"]


def test_test_photos_of_groups_that_were_trained_on_are_left_out(tmp_path: Path) -> None:
    """Of 50 groups of the test table 40 are also in the photos to train on."""
    data = grouped(tmp_path / "data", 40, 2)
    other = grouped(tmp_path / "other", 50, 2, first=10_000)
    run = prepared_run(data, tmp_path / "run", test=str(other), twins="bytes")
    reported = run.prepared.reported()
    assert {photo.group for photo in reported} == {f"plant {n}" for n in range(40, 50)}
    assert run.dataset["test"] == len(reported) == 20
    left = [why for path, why in run.why.items() if "its group" in why]
    assert len(left) == 80
    assert all("is trained on" in why for why in left)
    assert run.prepared.asked is not None
    assert len(run.prepared.asked.photos) == 100
    assert not run.dataset["shared_groups_only"]


def test_groups_that_are_all_shared_are_reported_with_a_warning(tmp_path: Path) -> None:
    data = grouped(tmp_path / "data", 20, 2)
    other = grouped(tmp_path / "other", 10, 2, first=10_000)
    run = prepared_run(data, tmp_path / "run", test=str(other), twins="bytes")
    assert len(run.prepared.reported()) == 20
    assert run.dataset["shared_groups_only"]


def test_a_study_tells_the_figure_with_the_shared_groups_beside(tmp_path: Path) -> None:
    data = grouped(tmp_path / "data", 24, 2)
    other = grouped(tmp_path / "other", 30, 2, first=10_000)
    run = frostline.study(
        frostline.configure(data, strategies="baseline", epochs=1, image_size=32, test=str(other), twins="bytes"),
        tmp_path / "run",
    )
    row = run["strategies"][0]
    assert row["photos_with_known"] == 60
    assert run["dataset"]["test"] == 12
    assert "With them: accuracy" in run["answer_detail"]
    assert "48 photos of the test folder" in run["answer_detail"]
    found = read_predictions(tmp_path / "run" / "baseline" / "predictions.csv")
    own = predicted_clusters(found)
    assert own is not None
    assert len(set(own.tolist())) == 6
    assert "come from 6 groups" in run["answer_detail"]
    assert tuple(row["accuracy_ci"]) == mean_interval(np.array([p.correct for p in found], dtype=float), own)

    # the bundle knows those groups too
    said = must("evaluate", tmp_path / "run" / "baseline" / "bundle", other, "--json", "--quiet")
    figures = json.loads(said.out)
    assert (figures["known_groups"], figures["unseen"], figures["trained_on"]) == (48, 12, 0)
    assert figures["photos"] == 12
    assert figures["all"]["photos"] == 60
    assert "48 of groups that it knows other photos of" in figures["seen_words"]
    assert figures["reported_groups"]["groups"] == 6
    assert figures["accuracy"] == row["accuracy"]
