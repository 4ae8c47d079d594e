"""Photos in groups: what a study records of them, and what its intervals are over."""

from __future__ import annotations

import csv
from pathlib import Path

from frostline.photos.manifest import Photo
from frostline.photos.split import clusters
from support import photos
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
