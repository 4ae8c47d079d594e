"""Tables that list photos, of every kind; messages when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from frostline.photos.scan import scan
from support import photos
from support.photo_sources import EXPECTED, ROWS, listed, refused, skipped, written


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
        ("a.xlsx", b"\x00\x01", "is not a set of photos that frostline reads: give a folder of class folders, a table"),
    ],
)
def test_wrong_tables_of_other_kinds_are_refused_in_one_line(tmp_path: Path, name: str, data: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert says in refused(tmp_path / name)


def test_a_parquet_table_without_the_columns_says_what_it_has(tmp_path: Path) -> None:
    assert "it is: file,class" in refused(written(tmp_path / "a.parquet", [{"file": "1.jpg", "class": 3}]))


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
