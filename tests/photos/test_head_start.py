"""The head start: what is decoded ahead is what the pass would have made, and nothing is decoded for nothing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import frostline
from frostline.config import Config
from frostline.errors import DataError
from frostline.photos import head_start
from frostline.photos.decoding import Transform, prepare
from frostline.photos.head_start import HeadStart
from frostline.photos.scan import scan
from frostline.progress import Progress
from frostline.training.prepare import prepare as prepare_run
from support.commands import call
from support.photos import write_broken, write_folder

CLASSES = ["ash", "birch"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "photos", CLASSES, 12)
    write_broken(folder / "ash")
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    yield tmp_path / "cache"


def small(data: Path, **options: object) -> Config:
    config = frostline.configure(
        data, strategies=["frozen", "baseline"], protocol="tutorial", epochs=1, image_size=64, **options
    )
    rows = tuple(dataclasses.replace(s, weights="random") for s in config.strategies)
    return dataclasses.replace(config, strategies=rows)


def ended(start: HeadStart | None) -> HeadStart:
    """Once it has done all that it will do."""
    assert start is not None
    start._thread.join()
    return start


def taken(start: HeadStart, transform: Transform) -> dict[str, np.ndarray]:
    return {p.path: found for p in start.photos().photos if (found := start.take(p, transform)) is not None}


def kept(cache: Path) -> dict[str, bytes]:
    """Every row of every store, by store and name."""
    rows: dict[str, bytes] = {}
    for names in sorted((cache / "activations").glob("*/names.txt")):
        lines, content = names.read_text().splitlines(), names.with_name("rows.bin").read_bytes()
        size = json.loads(names.with_name("about.json").read_text())["bytes_per_row"]
        rows |= {f"{names.parent.name} {n}": content[i * size : (i + 1) * size] for i, n in enumerate(lines)}
    return rows


def test_a_run_comes_out_the_same_with_and_without(
    data: Path, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(data)
    with head_start.begin(config) as start:
        assert len(ended(start)._decoded) >= 24
        ahead = frostline.study(config, tmp_path / "ahead", head_start=start)
        assert not taken(ended(start), Transform(64))  # the pass took them all
    first = kept(own_cache)
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "another"))
    plain = frostline.study(config, tmp_path / "plain")
    assert first
    assert first == kept(tmp_path / "another")
    assert ahead["dataset"]["skipped"] == plain["dataset"]["skipped"]
    assert len(plain["dataset"]["skipped"]) > 1
    for name in ("frozen", "baseline"):
        for file in ("predictions.csv", "bundle/model.safetensors"):
            assert (tmp_path / "ahead" / name / file).read_bytes() == (tmp_path / "plain" / name / file).read_bytes()


def test_photos_are_decoded_as_the_pass_decodes_them(data: Path) -> None:
    with head_start.begin(small(data, resize="crop")) as start:
        assert not taken(ended(start), Transform(64))  # squashed, which was not asked for
        found = taken(ended(start), Transform(64, "crop", mean=(0.0, 0.0, 0.0)))
    good = [p for p in scan(data).photos if p.path in found]
    assert len(good) >= 24  # all but the broken ones
    for photo in good:
        assert np.array_equal(found[photo.path], prepare((data / photo.path).read_bytes(), Transform(64, "crop")))


def test_what_the_cache_holds_is_not_decoded_again(data: Path, tmp_path: Path) -> None:
    config = small(data)
    prepare_run(config, Progress(quiet=True))
    write_folder(data, ["cedar"], 3, first_seed=500)
    with head_start.begin(config) as start:
        found = taken(ended(start), Transform(64))
    assert {path.split("/")[0] for path in found} == {"cedar"}


def test_what_waits_is_bounded(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_start, "_BYTES", 5 * 64 * 64 * 3 + 1)
    with head_start.begin(small(data)) as start:
        assert 0 < len(taken(ended(start), Transform(64))) <= 5


def test_a_network_that_is_not_known_ahead_only_has_its_photos_listed(data: Path) -> None:
    config = frostline.configure(data, strategies=["frozen"], backbone="tf_efficientnet_lite0")
    with head_start.begin(config) as start:
        assert not ended(start)._decoded
        assert len(ended(start).photos().photos) >= 24


def test_stopped_before_it_has_listed_all_it_ends(data: Path) -> None:
    with head_start.begin(small(data)) as start:
        assert start is not None
        start.stop()
    assert not start._thread.is_alive()


def test_photos_that_can_t_be_used_are_listed_as_ever(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with head_start.begin(small(tmp_path / "empty")) as start, pytest.raises(DataError, match="empty"):
        ended(start).photos()
    says = call("study", tmp_path / "empty", "--out", tmp_path / "run").error
    assert "empty" in says
    with head_start.begin(small(tmp_path / "missing")) as start:
        assert start is None
