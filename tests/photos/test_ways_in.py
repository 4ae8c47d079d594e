"""What photos come as, other than folders and CSV: tables of other kinds, archives, saved data sets; what is wrong with them is told."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline import configure
from frostline.cache import marks, upkeep
from frostline.errors import DataError, MissingExtraError, RunError
from frostline.photos import archives
from frostline.photos.decoding import MAX_BYTES
from frostline.photos.manifest import Manifest
from frostline.photos.scan import scan
from support import photos
from support.commands import SOURCES, document, must, table


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test unpacks for itself."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FROSTLINE_CACHE", str(folder))
    with marks.session():
        yield folder


def skipped(manifest: Manifest) -> dict[str, str]:
    return {skip.path: skip.why for skip in manifest.skipped}


def refused(data: Path) -> str:
    with pytest.raises(DataError) as caught:
        scan(data)
    text = str(caught.value)
    assert text == " ".join(text.splitlines())
    return text


def listed(manifest: Manifest) -> set[tuple[str, str, str, str]]:
    return {(p.path, p.label, p.split, p.group) for p in manifest.photos}


ROWS = [
    {"path": f"{c}/{c} {n}.{kind}", "label": c, "split": part, "group": f"{c} bush"}
    for c in ("rose", "tulip")
    for n, (kind, part) in enumerate((("jpeg", "train"), ("png", "val")), 1)
]
EXPECTED = {
    (f"{c}/{c} {n}.{kind}", c, part, f"{c} bush")
    for c in ("rose", "tulip")
    for n, (kind, part) in enumerate((("jpeg", "train"), ("png", "validation")), 1)
}


def written(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    """The rows as a table of the kind that the name says."""
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    else:
        text = io.StringIO()
        out = csv.DictWriter(text, list(rows[0]), delimiter={".csv": ",", ".tsv": "\t"}[path.suffix])
        out.writeheader()
        out.writerows(rows)
        path.write_text(text.getvalue(), encoding="utf-8")
    return path


# --- tables


@pytest.mark.parametrize("name", ["list.csv", "list.tsv", "list.jsonl", "list.parquet"])
def test_tables_of_every_kind_say_the_same(tmp_path: Path, name: str) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    manifest = scan(written(tmp_path / name))
    assert listed(manifest) == EXPECTED
    assert manifest.root == tmp_path
    assert manifest.name == tmp_path.name


@pytest.mark.parametrize(
    "data",
    [
        "path;label\nrose/rose 1.jpeg;rose\ntulip/tulip 1.jpeg;tulip\n".encode("utf-8-sig"),
        "path\tlabel\r\nrose/rose 1.jpeg\trose\r\ntulip/tulip 1.jpeg\ttulip\r\n".encode("utf-16"),
        b"file_name,label,note\nrose/rose%201.jpeg,rose,a\nfile://tulip/tulip 1.jpeg,tulip,b\n",
    ],
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, data: bytes) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    path = tmp_path / "list.csv"
    path.write_bytes(data)
    assert {(p.path, p.label) for p in scan(path).photos} == {(f"{c}/{c} 1.jpeg", c) for c in ("rose", "tulip")}


def test_rows_that_name_no_photo_are_listed(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    more = [
        ("https://example.org/1.jpg", "rose"),
        ("rose/rose 9.jpeg", "rose"),
        ("rose/rose 1.jpeg", "rose"),
        (None, "rose"),
    ]
    more += [("rose/rose 2.png", None)]
    rows = [{"path": r["path"], "label": r["label"]} for r in ROWS[:1] + ROWS[2:]]
    for name in ("list.parquet", "list.jsonl"):
        manifest = scan(written(tmp_path / name, [*rows, *({"path": path, "label": label} for path, label in more)]))
        assert manifest.counts() == {"rose": 1, "tulip": 2}
        assert skipped(manifest) == {
            "https://example.org/1.jpg": "a web address: fetch the photos and give their paths",
            "rose/rose 9.jpeg": "no such file",
            "rose/rose 1.jpeg": "listed twice (again in line 6)",
            "line 7": "no path",
            "rose/rose 2.png": "no label",
        }


def test_numbers_as_labels_are_whole_and_gaps_are_no_label(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    rows = [
        {"path": row["path"], "label": number} for row, number in zip(ROWS, (0.0, 1.0, 10.0, float("nan")), strict=True)
    ]
    for name in ("list.parquet", "list.jsonl"):
        manifest = scan(written(tmp_path / name, rows))
        assert manifest.counts() == {"0": 1, "1": 1, "10": 1}
        assert list(skipped(manifest).values()) == ["no label"]


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("a.jsonl", b"", "is empty"),
        (
            "a.jsonl",
            b'{"path": "1.jpg"}\n',
            "the first object must name the columns path,label[,split][,group], each once",
        ),
        ("a.jsonl", b'{"path": "1.jpg", "label": "x"}\n{"path":\n', "line 2: not JSON"),
        ("a.jsonl", b"[1, 2]\n", "line 1: expected an object such as"),
        ("a.tsv", b"path,label\na,b\n", "the first line must name the columns"),
        ("a.tsv", b"path\tlabel\na\tb\tc\n", "a value with a tab needs quotes"),
        ("a.parquet", b"PAR1 but no more", "can't be read as Parquet"),
        ("a.parquet", b"", "can't be read as Parquet"),
        ("a.xlsx", b"\x00\x01", "is none of what photos come as: give a folder of class folders, a table"),
    ],
)
def test_wrong_tables_of_other_kinds_are_refused_in_one_line(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert says in refused(tmp_path / name)


def test_a_parquet_table_without_the_columns_says_what_it_has(tmp_path: Path) -> None:
    assert "it is: file,class" in refused(written(tmp_path / "a.parquet", [{"file": "1.jpg", "class": 3}]))


def test_without_pyarrow_the_pip_line_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.parquet")
    saved = put_saved(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for data in (path, saved):
        with pytest.raises(MissingExtraError, match=r"pip install 'frostline\[datasets\]'"):
            scan(data)
    photos.write_folder(tmp_path / "plain", ["a", "b"], each=1)
    assert scan(tmp_path / "plain").counts() == {"a": 1, "b": 1}


# --- folders with a table in them, as Hugging Face has them


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_image_folders_with_metadata(tmp_path: Path, name: str) -> None:
    for number, part in enumerate(("train", "test")):
        photos.write_folder(tmp_path / part, {"x": 4}, first_seed=10 * number)
        files = sorted(f.name for f in (tmp_path / part / "x").iterdir())
        rows = [{"file_name": f"x/{file}", "label": i % 2, "text": "a, caption"} for i, file in enumerate(files)]
        written(tmp_path / part / name, rows)
    manifest = scan(tmp_path)
    assert manifest.counts() == {"0": 4, "1": 4}
    assert {(p.path.split("/")[0], p.split) for p in manifest.photos} == {("train", "train"), ("test", "test")}
    assert all((manifest.root / p.path).is_file() for p in manifest.photos)
    one = scan(tmp_path / "train")  # a table beside the photos, no parts
    assert {p.split for p in one.photos} == {""}
    assert len(one.photos) == 4


def test_captions_are_no_labels(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    (tmp_path / "metadata.csv").write_text("file_name,text\nrose/rose 1.jpeg,red\n")
    manifest = scan(tmp_path)
    assert manifest.counts() == {"rose": 2, "tulip": 2}
    assert skipped(manifest) == {"metadata.csv": "not in a class folder"}


# --- data sets that Hugging Face's own library saved


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
    assert "can't read" in refused(data)
    for text, says in (
        ("{", "state.json can't be read"),
        ("[]", "holds no object"),
        ("{}", "names no files"),
        (state.replace("data-00000", "../data"), "outside it"),
    ):
        (data / "state.json").write_text(text)
        assert says in refused(data)


# --- archives


def folder_of(tmp_path: Path) -> Path:
    return photos.write_folder(tmp_path / "flowers", ["rose", "tulip", "Blüte"], each=2)


def packed(folder: Path, target: Path, top: str = "") -> Path:
    """The folder's files as a zip or tar, by the target's name."""
    files = sorted(f for f in folder.rglob("*") if f.is_file())
    names = [(top + "/" if top else "") + f.relative_to(folder).as_posix() for f in files]
    if target.suffix == ".zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file, name in zip(files, names, strict=True):
                archive.write(file, name)
    else:
        mode: Any = {".gz": "w:gz", ".tgz": "w:gz", ".bz2": "w:bz2", ".xz": "w:xz", ".tar": "w"}[target.suffix]
        with tarfile.open(target, mode) as tar:
            for file, name in zip(files, names, strict=True):
                tar.add(file, name)
    return target


@pytest.mark.parametrize("top", ["", "flowers", "a/b"])
@pytest.mark.parametrize("name", ["my photos.zip", "p.tar", "p.tar.gz", "p.tgz", "p.tar.bz2", "p.tar.xz"])
def test_archives_say_what_their_folder_says(tmp_path: Path, name: str, top: str) -> None:
    folder = folder_of(tmp_path)
    plain = scan(folder)
    manifest = scan(packed(folder, tmp_path / name, top))
    assert manifest.photos == plain.photos
    assert manifest.skipped == []
    assert manifest.name == name.split(".")[0]
    assert {f.name for f in tmp_path.iterdir()} == {"flowers", name}


def test_archives_of_parts_and_of_tables(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "test")):
        photos.write_folder(tmp_path / "set" / part, ["a", "b"], each=2, first_seed=9 * number)
    assert {p.split for p in scan(packed(tmp_path / "set", tmp_path / "1.zip", "set")).photos} == {"train", "test"}
    shutil.rmtree(tmp_path / "set" / "test")
    assert {p.split for p in scan(packed(tmp_path / "set", tmp_path / "2.zip")).photos} == {"train"}
    folder = photos.write_folder(tmp_path / "listed", {"x": 4})
    rows = [
        {"file_name": f.relative_to(folder).as_posix(), "label": i % 2}
        for i, f in enumerate(sorted((folder / "x").iterdir()))
    ]
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(photos.photo(77))
    away = ("../../../../../../../etc/hostname", str(secret), f"file://{secret}", "%2e%2e/about.json", "..\\about.json")
    written(folder / "metadata.csv", [*rows, *({"file_name": path, "label": 0} for path in away)])
    manifest = scan(packed(folder, tmp_path / "3.zip"))
    assert manifest.counts() == {"0": 2, "1": 2}
    assert skipped(manifest).keys() == set(away)
    assert set(skipped(manifest).values()) <= {"its path leads out of the archive", "no such file"}


def zipped(target: Path, members: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda _: None) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name twice
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, data)
    return target


GOOD = {f"{c}/{i}.jpg": photos.photo(10 * ord(c) + i) for c in "ab" for i in range(2)}


def test_members_that_lead_elsewhere_are_listed_and_never_written(tmp_path: Path) -> None:
    away = [
        "../evil.jpg",
        "a/../../evil.jpg",
        "/evil.jpg",
        "C:/evil.jpg",
        "c:\\evil.jpg",
        "..\\evil.jpg",
        "a\\..\\..\\evil.jpg",
        "\\evil.jpg",
    ]
    manifest = scan(zipped(tmp_path / "data.zip", {**GOOD, **dict.fromkeys(away, b"evil")}))
    assert manifest.counts() == {"a": 2, "b": 2}
    assert set(skipped(manifest).values()) == {"its path leads out of the archive"}
    assert len(manifest.skipped) == len(away)
    tar = tmp_path / "data.tar"
    with tarfile.open(tar, "w") as archive:
        for name, data in {**GOOD, **dict.fromkeys(away, b"evil")}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, kind, to in (
            ("a/link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("c", tarfile.SYMTYPE, "/tmp"),  # noqa: S108 - a link in an archive
            ("a/hard.jpg", tarfile.LNKTYPE, "/etc/passwd"),
            ("a/pipe.jpg", tarfile.FIFOTYPE, ""),
            ("a/disk.jpg", tarfile.BLKTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, to
            archive.addfile(info)
        info = tarfile.TarInfo("c/through the link.jpg")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"evil"))
    manifest = scan(tar)
    assert manifest.counts() == {"a": 2, "b": 2, "c": 1}
    why = skipped(manifest)
    assert (why["a/link.jpg"], why["c"], why["a/hard.jpg"]) == ("a link",) * 3
    assert (why["a/pipe.jpg"], why["a/disk.jpg"]) == ("not a regular file",) * 2
    assert not list(tmp_path.parent.rglob("evil.jpg"))
    assert not Path("/tmp/through the link.jpg").exists()  # noqa: S108


def test_links_in_zips_are_listed(tmp_path: Path) -> None:
    def link(info: zipfile.ZipInfo) -> None:
        if info.filename == "a/link.jpg":
            info.create_system, info.external_attr = 3, 0o120777 << 16

    manifest = scan(zipped(tmp_path / "data.zip", {**GOOD, "a/link.jpg": b"/etc/passwd"}, link))
    assert skipped(manifest) == {"a/link.jpg": "a link"}


def test_litter_in_archives_is_passed_over_and_odd_names_are_read(tmp_path: Path) -> None:
    more = {
        "__MACOSX/a/._0.jpg": b"x",
        "a/.DS_Store": b"x",
        "a/Thumbs.db": b"x",
        "README.md": b"x",
        ".git/config": b"x",
    }
    manifest = scan(
        zipped(
            tmp_path / "data.zip",
            {**GOOD, **more, "b/\u82b1 \u00e9.jpg": photos.photo(5), "./b//9.jpg": photos.photo(6)},
        )
    )
    assert manifest.skipped == []
    assert {p.path for p in manifest.photos} == {*GOOD, "b/\u82b1 \u00e9.jpg", "b/9.jpg"}
    # UTF-8 without the mark that says so, as macOS packs it; and names with Windows' slashes
    data = (tmp_path / "data.zip").read_bytes()
    target = tmp_path / "unmarked.zip"
    zipped(target, {name.replace("a/", "\u82b1\\"): content for name, content in GOOD.items()})
    data = bytearray(target.read_bytes())
    for place in range(len(data) - 10):  # the flag stands 6 bytes into a local header, 8 into one of the directory
        for mark, offset in ((b"PK\x03\x04", 7), (b"PK\x01\x02", 9)):
            if data[place : place + 4] == mark:
                data[place + offset] &= ~0x08
    target.write_bytes(bytes(data))
    assert scan(target).counts() == {"b": 2, "\u82b1": 2}


def test_bad_members_are_listed_and_the_rest_is_used(tmp_path: Path) -> None:
    target = zipped(tmp_path / "data.zip", {**GOOD, "a/hurt.jpg": bytes(range(256)) * 40, "a/locked.jpg": b"x" * 100})
    data = bytearray(target.read_bytes())
    at = data.index(b"a/hurt.jpg") + len("a/hurt.jpg") + 20
    data[at : at + 30] = bytes(30)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of an encrypted member
        place = data.index(b"a/locked.jpg") if mark[2] == 3 else data.rindex(b"a/locked.jpg")
        data[data.rindex(mark, 0, place) + offset] |= 1
    target.write_bytes(bytes(data))
    manifest = scan(target)
    assert manifest.counts() == {"a": 2, "b": 2}
    assert skipped(manifest)["a/hurt.jpg"].startswith("damaged: ")
    assert skipped(manifest)["a/locked.jpg"] == "encrypted: unpack it with its password and give the folder"
    assert len(manifest.skipped) == 2


def test_a_name_twice_and_a_file_where_a_folder_is(tmp_path: Path) -> None:
    manifest = scan(zipped(tmp_path / "data.zip", {**GOOD, "./a/0.jpg": b"again", "a/0.jpg/x.jpg": b"below a file"}))
    assert manifest.counts() == {"a": 2, "b": 2}
    assert skipped(manifest) == {
        "./a/0.jpg": "stands in the archive twice",
        "a/0.jpg/x.jpg": "another file of the archive has its place (here capitals may make no difference)",
    }
    long = scan(zipped(tmp_path / "long.zip", {**GOOD, f"a/{'x' * 300}.jpg": b"x"}))
    assert list(skipped(long).values()) == ["can't be written: File name too long"]


@pytest.mark.parametrize("name", ["data.zip", "data.tar", "data.tar.gz", "data.tar.bz2", "data.tar.xz"])
def test_archives_cut_short_are_told_and_what_is_whole_is_used(tmp_path: Path, name: str) -> None:
    folder = photos.write_folder(tmp_path / "flowers", ["rose", "tulip"], each=8)
    whole = packed(folder, tmp_path / name).read_bytes()
    for tenths in range(10):
        (tmp_path / name).write_bytes(whole[: len(whole) * tenths // 10])
        try:
            manifest = scan(tmp_path / name)
        except DataError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert manifest.skipped, tenths
            for photo in manifest.photos:
                assert (manifest.root / photo.path).read_bytes() == (folder / photo.path).read_bytes()
    if name == "data.tar":
        assert tenths == 9
        assert manifest.counts()["rose"] == 8  # the last cut left most of it


def test_bombs_are_refused_before_they_are_unpacked(tmp_path: Path, own_cache: Path) -> None:
    def claim(size: int) -> Callable[[bytes], bytes]:
        """Headers that say so many bytes of each member."""

        def changed(data: bytes) -> bytes:
            out = bytearray(data)
            place = 0
            while (place := out.find(b"PK\x01\x02", place)) >= 0:
                out[place + 24 : place + 28] = size.to_bytes(4, "little")
                place += 4
            return bytes(out)

        return changed

    target = zipped(tmp_path / "bomb.zip", GOOD)
    target.write_bytes(claim(MAX_BYTES)(target.read_bytes()))
    assert "a bomb, since photos don't shrink" in refused(target)
    target = zipped(tmp_path / "liar.zip", {**GOOD, "a/long.jpg": bytes(5000)})
    target.write_bytes(claim(100)(target.read_bytes()))  # longer than they say
    assert "no photos in" in refused(target)
    tar = tmp_path / "bomb.tar.gz"
    info = tarfile.TarInfo("a/huge.jpg")
    info.size = 10**12
    packer = zlib.compressobj(wbits=31)
    tar.write_bytes(packer.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000)) + packer.flush())
    assert "a bomb, since photos don't shrink" in refused(tar)
    assert not list((own_cache / "photos").rglob("*.jpg"))


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    for name, data in (("a.zip", b"PK\x03\x04" + bytes(500)), ("a.tar.gz", b"\x1f\x8b" + bytes(50)), ("b.zip", b"")):
        (tmp_path / name).write_bytes(data)
        assert "can't be opened as an archive" in refused(tmp_path / name) or name == "b.zip"
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    assert "is empty: expected one folder of photos for each class" in refused(tmp_path / "empty.zip")


def test_what_a_killed_process_left_is_no_harm_and_two_unpack_once(tmp_path: Path, own_cache: Path) -> None:
    data = zipped(tmp_path / "data.zip", GOOD)
    home = scan(data).root.parent
    (home / "about.json").unlink()  # killed before the end
    (home / "photos" / "a" / "0.jpg").write_bytes(b"half")
    (home / ".photos.1.tmp").mkdir()
    (home / ".photos.1.tmp" / "half.jpg").write_bytes(b"half")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(scan, [data] * 4))
    assert all(manifest == found[0] for manifest in found)
    assert {p.path: (home / "photos" / p.path).read_bytes() for p in found[0].photos} == GOOD
    assert not list(home.glob(".photos*"))


def test_too_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_MEMBERS", 2)
    assert "holds over 2 files" in refused(zipped(tmp_path / "data.zip", GOOD))


def test_the_caches_limit_holds_for_unpacked_photos(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = zipped(tmp_path / "1.zip", GOOD), zipped(tmp_path / "2.zip", {k: v + b"x" for k, v in GOOD.items()})
    size = sum(map(len, GOOD.values()))
    monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", str(size // 2))
    with pytest.raises(RunError, match="a larger --cache-limit, or unpack the photos yourself and give their folder"):
        scan(first)
    monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", str(2 * size - 1000))
    with marks.session():
        scan(first)
    (entry,) = upkeep.entries(["photos"])
    assert entry.what == "unpacked from 1.zip"
    with marks.session():
        scan(second)
        (entry,) = upkeep.entries(["photos"])  # the first had to go
        assert (entry.what, entry.in_use) == ("unpacked from 2.zip", True)
        assert upkeep.clear(["photos"]) == ([], [entry])
    assert len(upkeep.clear()[0]) == 1


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.text(max_size=30), st.binary(max_size=60)), min_size=1, max_size=8))
def test_names_of_any_kind_stay_inside(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]]
) -> None:
    home = tmp_path_factory.mktemp("any")
    with zipfile.ZipFile(home / "any.zip", "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in members:
            try:
                archive.writestr(name or "x", data)
            except (UnicodeEncodeError, ValueError):
                continue
    target = home / "out"
    target.mkdir()
    from frostline.progress import Progress

    archive_ = archives.Archive(home / "any.zip")
    left = archive_.unpack(target, Progress(quiet=True))
    files = [f for f in target.rglob("*") if not f.is_dir()]
    assert all(f.resolve().is_relative_to(target.resolve()) and f.is_file() and not f.is_symlink() for f in files)
    assert {f.name for f in home.iterdir()} == {"any.zip", "out"}
    assert all(why for _, why in left)


@settings(deadline=None, max_examples=45)
@given(
    st.sampled_from(["zip", "tar", "parquet"]),
    st.lists(
        st.tuples(st.floats(-1, 1), st.sampled_from([b"\0", b"\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80"])),
        min_size=1,
        max_size=4,
    ),
)
def test_damage_anywhere_is_listed_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, damage: list[tuple[float, bytes]]
) -> None:
    home = tmp_path_factory.mktemp("hurt")
    if kind == "parquet":
        rows = [{"image": {"bytes": data, "path": name}, "label": name[0]} for name, data in GOOD.items()]
        data = bytearray(written(home / "data.parquet", rows).read_bytes())
    else:
        folder = home / "folder"
        for name, content in GOOD.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        data = bytearray(packed(folder, home / f"data.{kind}").read_bytes())
    for (
        place,
        what,
    ) in damage:  # counted from the beginning or from the end, where headers stand, more often than between
        at = int(abs(place) ** 3 * len(data)) * (1 if place > 0 else -1)
        data[at : at + len(what) or None] = what
    (home / f"data.{kind}").write_bytes(bytes(data))
    with marks.session():
        try:
            manifest = scan(home / f"data.{kind}")
        except DataError as error:
            assert len(str(error).splitlines()) == 1
        else:
            assert all((manifest.root / p.path).is_file() for p in manifest.photos)


# --- the whole way


def test_a_study_from_a_zip_and_its_evaluation_on_a_table(tmp_path: Path) -> None:
    data = packed(photos.write_folder(tmp_path / "data", ["a", "b"], each=8), tmp_path / "data.zip")
    out = tmp_path / "run"
    config = configure(str(data))
    assert config.data == str(data)
    must("study", data, "--out", out, "--strategies", "baseline", "--epochs", "1", "--image-size", "64", "--quiet")
    dataset = document(out)["dataset"]
    assert (dataset["name"], dataset["source"], dataset["photos"]) == ("data", str(data), 16)
    assert "data.zip" in (out / "config.toml").read_text(encoding="utf-8")
    assert {row["path"] for row in table(out / "manifest.csv")} == {
        f.relative_to(tmp_path / "data").as_posix() for f in (tmp_path / "data").rglob("*.*")
    }
    rows = [{"path": f"data/{row['path']}", "label": row["label"]} for row in table(out / "manifest.csv")]
    said = must(
        "evaluate", out / "baseline" / "bundle", written(tmp_path / "labelled.parquet", rows), "--json", "--quiet"
    )
    assert json.loads(said.out)["photos"] == 16
    must(
        "study",
        data,
        "--out",
        out,
        "--strategies",
        "baseline",
        "--epochs",
        "1",
        "--image-size",
        "64",
        "--quiet",
        "--resume",
    )
    assert [e.kind for e in upkeep.clear(["photos"])[0]] == ["photos"]
    must("report", out, "--quiet")
    assert all((Path(dataset["root"]) / row["path"]).is_file() for row in table(out / "manifest.csv"))  # unpacked again


def test_looking_at_folders_needs_no_pyarrow(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["a", "b"], each=1)
    code = (
        "import sys\nfrom pathlib import Path\nfrom frostline.photos.scan import scan\n"
        f"scan(Path({str(tmp_path)!r}))\nassert not {{'pyarrow', 'datasets', 'pillow_heif', 'torch'}} & set(sys.modules)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": SOURCES, "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
