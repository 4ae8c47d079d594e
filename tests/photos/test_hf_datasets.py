"""Data sets that Hugging Face's `datasets` saved, and Parquet files with photos; messages when they are damaged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.cache import marks
from frostline.errors import MissingExtraError
from frostline.photos.scan import scan
from support import photos
from support.commands import SOURCES
from support.photo_sources import GOOD, Damage, hurt, refused, scans_or_refuses, skipped, written

pytestmark = pytest.mark.usefixtures("own_cache")


def put_saved(folder: Path, split: bool = False) -> Path:
    """A data set of six photos, saved by `datasets` itself; with `split` as train and test."""
    import datasets

    datasets.disable_progress_bars()
    names = ["rose", "tulip/wild"]
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names), "group": datasets.Value("string")}
    )
    rows = [
        {"image": {"bytes": photos.photo(i), "path": f"a/photo {i}.jpg"}, "label": i % 2, "group": f"plant {i // 2}"}
        for i in range(6)
    ]
    data = datasets.Dataset.from_list(rows, features=features)
    target = folder / "saved"
    if split:
        parts = {"train": data.select(range(4)), "test": data.select([4, 5]), "unlabelled": data.select([0])}
        datasets.DatasetDict(parts).save_to_disk(target)
    else:
        data.save_to_disk(target)
    return target


def test_without_the_extra_the_pip_line_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.parquet")
    saved = put_saved(tmp_path)
    for module in ("pyarrow", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    for data in (path, saved):
        with pytest.raises(MissingExtraError, match=r"pip install 'frostline\[datasets\]'"):
            scan(data)
    photos.write_folder(tmp_path / "plain", ["a", "b"], each=1)
    assert scan(tmp_path / "plain").counts() == {"a": 1, "b": 1}


def test_saved_data_sets_are_unpacked_once(tmp_path: Path, own_cache: Path) -> None:
    data = put_saved(tmp_path)
    manifest = scan(data)
    assert manifest.name == "saved"
    assert manifest.counts() == {"rose": 3, "tulip/wild": 3}
    assert [p.group for p in manifest.photos] == [f"plant {i // 2}" for i in range(6)]
    assert [(manifest.root / p.path).read_bytes() for p in manifest.photos] == [photos.photo(i) for i in range(6)]
    stamps = {f: f.stat().st_mtime_ns for f in (own_cache / "photos").rglob("*.jpg")}
    assert len(stamps) == 6
    assert scan(data) == manifest
    assert {f: f.stat().st_mtime_ns for f in (own_cache / "photos").rglob("*.jpg")} == stamps
    next(iter(stamps)).unlink()
    assert scan(data) == manifest  # unpacked again: a photo was missing


def test_saved_splits_are_kept(tmp_path: Path) -> None:
    manifest = scan(put_saved(tmp_path, split=True))
    assert [p.split for p in manifest.photos] == ["train"] * 4 + ["test"] * 2
    assert list(skipped(manifest).values()) == ["split 'unlabelled' is none of train, validation, test"]


def test_parquet_with_photos_in_it(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": photos.photo(i), "path": None}, "label": "ab"[i % 2], "split": "train"} for i in range(4)
    ]
    rows += [
        {"image": None, "label": "a", "split": "train"},
        {"image": {"bytes": None, "path": "gone.jpg"}, "label": "a", "split": "train"},
    ]
    rows += [{"image": {"bytes": photos.photo(9), "path": None}, "label": None, "split": "train"}]
    manifest = scan(written(tmp_path / "set.parquet", rows))
    assert manifest.counts() == {"a": 2, "b": 2}
    assert manifest.name == "set"
    assert skipped(manifest) == {
        "row 5": "no photo",
        "row 6": "no bytes, and no such file: gone.jpg",
        "row 7": "no label",
    }
    bare = scan(written(tmp_path / "bare.parquet", [{"img": photos.photo(i), "class": i % 2} for i in range(4)]))
    assert bare.counts() == {"0": 2, "1": 2}
    text = refused(written(tmp_path / "no label.parquet", [{"image": photos.photo(0), "name": "x"}]))
    assert "has no column of labels (label, labels, class); it has: image, name" in text


def test_columns_are_found_by_their_features(tmp_path: Path) -> None:
    import datasets

    datasets.disable_progress_bars()
    names = datasets.ClassLabel(names=["rose", "tulip"])
    features = datasets.Features({"picture": datasets.Image(), "species": names})
    rows = [{"picture": {"bytes": photos.photo(i), "path": None}, "species": (0, 1, -1)[i % 3]} for i in range(6)]
    data = datasets.Dataset.from_list(rows, features=features)
    data.to_parquet(tmp_path / "set.parquet")
    data.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "set.parquet", tmp_path / "saved"):
        manifest = scan(path)
        assert manifest.counts() == {"rose": 2, "tulip": 2}
        assert skipped(manifest) == {"row 3": "no label", "row 6": "no label"}


def test_unpacking_asks_no_server_and_leaves_the_home_folder_alone(tmp_path: Path, own_cache: Path) -> None:
    saved = put_saved(tmp_path)
    rows = [{"image": {"bytes": photos.photo(i), "path": None}, "label": "ab"[i % 2]} for i in range(4)]
    parquet = written(tmp_path / "set.parquet", rows)
    (tmp_path / "home").mkdir()
    code = (
        "import socket, sys\nfrom pathlib import Path\nfrom frostline.photos.scan import scan\n"
        "def refused(*_): raise AssertionError('the network was asked')\n"
        "socket.getaddrinfo = socket.socket.connect = refused\n"
        "for path in sys.argv[1:]: scan(Path(path))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(saved), str(parquet)],
        env={"PYTHONPATH": SOURCES, "PATH": "", "HOME": str(tmp_path / "home"), "FROSTLINE_CACHE": str(own_cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert not list((tmp_path / "home").iterdir())
    assert len(list((own_cache / "photos").glob("*/about.json"))) == 2


def test_folders_of_parquet_as_the_hub_has_them(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "README.md").write_text("notes")
    for number, name in enumerate(("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001")):
        rows = [
            {"image": {"bytes": photos.photo(10 * number + i), "path": f"{i}.jpg"}, "label": "ab"[i % 2]}
            for i in range(4)
        ]
        written(tmp_path / "set" / "data" / f"{name}.parquet", rows)
    manifest = scan(tmp_path / "set")
    assert sorted(p.split for p in manifest.photos) == ["test"] * 4 + ["train"] * 8
    assert (manifest.name, manifest.counts(), manifest.skipped) == ("set", {"a": 6, "b": 6}, [])


def test_damaged_saved_data_sets_are_one_line(tmp_path: Path) -> None:
    data = put_saved(tmp_path)
    rows = data / "data-00000-of-00001.arrow"
    whole, state = rows.read_bytes(), (data / "state.json").read_text()
    for damage, says in (
        (whole[: len(whole) // 2], "can't be read"),
        (b"", "can't be read"),
        (b"nonsense" * 100, "can't be read"),
    ):
        rows.write_bytes(damage)
        assert says in refused(data)
    rows.unlink()
    assert "can't be read: No such file" in refused(data)
    for text, says in (
        ("{", "state.json can't be read"),
        ("[]", "has no list '_data_files'"),
        ("{}", "has no list '_data_files'"),
        (state.replace("data-00000", "../data"), "outside it"),
    ):
        (data / "state.json").write_text(text)
        assert says in refused(data)


def test_looking_at_folders_needs_no_pyarrow(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["a", "b"], each=1)
    code = (
        "import sys\nfrom pathlib import Path\nfrom frostline.photos.scan import scan\n"
        f"scan(Path({str(tmp_path)!r}))\n"
        "assert not {'pyarrow', 'datasets', 'pillow_heif', 'torch'} & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": SOURCES, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


@settings(deadline=None, max_examples=15)
@given(
    st.lists(
        st.tuples(st.floats(-1, 1), st.sampled_from([b"\0", b"\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80"])),
        min_size=1,
        max_size=4,
    )
)
def test_damage_anywhere_in_parquet_is_listed_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, damage: Damage
) -> None:
    rows = [{"image": {"bytes": data, "path": name}, "label": name[0]} for name, data in GOOD.items()]
    data = written(tmp_path_factory.mktemp("hurt") / "data.parquet", rows)
    data.write_bytes(hurt(data.read_bytes(), damage))
    with marks.session():
        scans_or_refuses(data)
