"""The training photos that a bundle keeps: found again, few enough, and told when they are damaged."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.bundles import bundle, neighbours
from frostline.errors import BundleError
from frostline.photos.loading import pixels
from support.runs import Run


@pytest.mark.parametrize("strategy", ["baseline", "frozen", "fine-tuned"])
def test_a_training_photo_is_its_own_nearest(run: Run, strategy: str) -> None:
    model = bundle.load(run.out / strategy / "bundle")
    known = model.neighbours
    assert known is not None
    with (run.out / "manifest.csv").open(encoding="utf-8", newline="") as file:
        trained = {row["path"]: row["label"] for row in csv.DictReader(file) if row["split"] == "train"}
    assert set(known.paths) == set(trained)
    assert [model.classes[label] for label in known.labels] == [trained[path] for path in known.paths]
    assert model.about.neighbours["photos"] == len(trained)
    found = 0
    for path in known.paths[::5]:
        photo = pixels(run.data / path, model.transform)
        assert isinstance(photo, np.ndarray)
        near = known.nearest(model.outputs(photo[None]).features[0], 3)
        assert [n.similarity for n in near] == sorted((n.similarity for n in near), reverse=True)
        assert near[0].similarity == pytest.approx(1, abs=1e-3)
        found += near[0].path == path
    assert found >= len(known.paths[::5]) - 1  # one may be an exact twin's


def test_a_bundle_without_them_works(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.out / "frozen" / "bundle", tmp_path / "b")
    (tmp_path / "b" / neighbours.FILE).unlink()
    document = json.loads((tmp_path / "b" / "bundle.json").read_text(encoding="utf-8"))
    with pytest.raises(BundleError, match="copy the whole bundle folder"):
        _ = bundle.load(tmp_path / "b").neighbours
    del document["neighbours"]
    (tmp_path / "b" / "bundle.json").write_text(json.dumps(document), encoding="utf-8")
    assert bundle.load(tmp_path / "b").neighbours is None


@pytest.mark.parametrize("damage", [b"", b"\x08\0\0\0\0\0\0\0{}      ", bytes(100)])
def test_damage_is_told(run: Run, tmp_path: Path, damage: bytes) -> None:
    shutil.copytree(run.out / "frozen" / "bundle", tmp_path / "b")
    (tmp_path / "b" / neighbours.FILE).write_bytes(damage)
    with pytest.raises(BundleError, match=r"is damaged .* copy the bundle again"):
        _ = bundle.load(tmp_path / "b").neighbours
    with pytest.raises(BundleError, match="is damaged"):
        neighbours.read(tmp_path / "b" / neighbours.FILE, neighbours.describe(damage, 1)["sha256"], 3)


def test_the_file_is_the_same_each_time_and_bears_any_number(tmp_path: Path) -> None:
    features = np.array([[1e6, 2e6], [1e-6, 0], [0, 0]], np.float32)
    data = neighbours.to_bytes(features, np.array([0, 1, 1]), ["a", "Tulpe ü/b", "c"])
    assert data == neighbours.to_bytes(features, np.array([0, 1, 1]), ["a", "Tulpe ü/b", "c"])
    (tmp_path / "n").write_bytes(data)
    known = neighbours.read(tmp_path / "n", neighbours.describe(data, 3)["sha256"], 2)
    assert known.paths[1] == "Tulpe ü/b"
    assert known.nearest(np.array([5.0, 10.0]), 1)[0] == ("a", 0, pytest.approx(1, abs=1e-3))
    assert [n.path for n in known.nearest(np.array([1.0, 0.0]), 9)] == ["Tulpe ü/b", "a", "c"]


@given(st.lists(st.integers(0, 5), max_size=200), st.integers(1, 100))
def test_a_large_set_is_thinned_by_class(labels: list[int], most: int) -> None:
    found = neighbours.chosen(np.array(labels, dtype=np.int64), most)
    assert sorted(set(found)) == list(found)
    kept = np.array(labels, dtype=np.int64)[found]
    assert set(kept) == set(labels)
    assert len(found) <= most + len(set(labels))
    for label in set(labels):
        share = labels.count(label) * min(1, most / len(labels))
        assert abs(list(kept).count(label) - share) <= 1
