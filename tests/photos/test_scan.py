"""The folder, the train/validation/test folders or the CSV: every photo found, everything else listed or refused."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.errors import DataError
from frostline.photos.manifest import Photo, Skip, read
from frostline.photos.names import printable
from frostline.photos.scan import scan
from support import photos
from support.commands import ordinary_user
from support.photo_sources import refused, skipped


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- a folder of class folders


def test_class_folders_of_any_name_in_natural_order(tmp_path: Path) -> None:
    names = ["class 10", "class 2", "Rose", "daisy", "Цветок", "花", "été", 'it\'s, "so"', "line\nbreak", "01", "1"]
    photos.write_folder(tmp_path, names, each=3)
    manifest = scan(tmp_path)
    assert sorted(manifest.classes) == sorted(names)
    order = {name: i for i, name in enumerate(manifest.classes)}
    assert order["class 2"] < order["class 10"]
    assert order["01"] < order["1"] < order["daisy"] < order["Rose"]
    assert manifest.counts() == dict.fromkeys(manifest.classes, 3)
    assert not manifest.skipped
    for photo in manifest.photos:
        assert (manifest.root / photo.path).read_bytes()
        assert photo.split == ""
        assert len(photo.sha256) == 64


def test_photos_stand_in_natural_order_whatever_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("10.jpg", "9.jpg", "a/3.jpg", "1.jpg", "01.jpg", "B.jpg", "a.jpg"):
        put(tmp_path / "x" / name, name.encode())
        put(tmp_path / "y" / name, name.encode())
    manifest = scan(tmp_path)
    assert [p.path for p in manifest.photos if p.label == "x"] == [
        f"x/{name}" for name in ("01.jpg", "1.jpg", "9.jpg", "10.jpg", "a/3.jpg", "a.jpg", "B.jpg")
    ]
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), key=lambda name: name[::-1]))
    assert scan(tmp_path) == manifest


def test_subfolders_belong_to_the_top_class_and_names_are_not_judged(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    put(tmp_path / "rose" / "2024" / "may" / "photo")
    put(tmp_path / "rose" / "2024" / "notes.txt", b"later judged by content")
    manifest = scan(tmp_path)
    assert manifest.counts() == {"rose": 4, "tulip": 2}
    assert "rose/2024/may/photo" in {photo.path for photo in manifest.photos}


def test_litter_is_passed_over_and_the_rest_is_listed(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    for name in ("rose/.DS_Store", "rose/Thumbs.db", "rose/DESKTOP.INI", ".git/config", "__MACOSX/rose/._1.jpg"):
        put(tmp_path / name)
    put(tmp_path / "rose" / ".cache" / "a.jpg")
    put(tmp_path / "notes.md")
    put(tmp_path / "rose" / "nothing.jpg", b"")
    (tmp_path / "empty class").mkdir()
    manifest = scan(tmp_path)
    assert manifest.counts() == {"rose": 2, "tulip": 2}
    assert skipped(manifest) == {
        "notes.md": "not in a class folder",
        "rose/nothing.jpg": "empty file",
        "empty class": "class folder holds no photos",
    }


def test_links_are_followed_and_loops_survived(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    photos.write_folder(data, ["rose", "tulip"], each=2)
    photos.write_folder(elsewhere, ["lily"], each=2, first_seed=50)
    (data / "lily").symlink_to(elsewhere / "lily")
    (data / "rose" / "more").symlink_to(elsewhere / "lily", target_is_directory=True)
    (data / "rose" / "loop").symlink_to(data, target_is_directory=True)
    (data / "rose" / "self").symlink_to(data / "rose" / "self")
    (data / "rose" / "everything").symlink_to("/", target_is_directory=True)
    (data / "lily" / "back").symlink_to(data / "lily", target_is_directory=True)
    (data / "tulip" / "gone.jpg").symlink_to(data / "nowhere.jpg")
    (data / "tulip" / "one.jpg").symlink_to(elsewhere / "lily" / "lily 1.jpeg")
    manifest = scan(data)
    assert manifest.counts() == {"lily": 2, "rose": 4, "tulip": 3}
    reasons = skipped(manifest)
    assert reasons.keys() == {
        "rose/loop",
        "rose/self",
        "rose/everything",
        "rose/more/back",
        "lily/back",
        "tulip/gone.jpg",
    }
    assert reasons["rose/self"] == reasons["tulip/gone.jpg"] == "broken link"
    assert len(manifest.conflicts()) == 2  # the lilies among the roses and tulips


def test_pipes_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    os.mkfifo(tmp_path / "rose" / "pipe.jpg")
    monkeypatch.chdir(tmp_path)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("rose/socket.jpg")
        manifest = scan(tmp_path)
    assert skipped(manifest) == {"rose/pipe.jpg": "not a regular file", "rose/socket.jpg": "not a regular file"}


def test_names_that_are_no_text_are_listed_in_a_printable_form(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    try:
        put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/rose/caf\xe9.jpg")))
        put(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe/1.jpg")))
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    put(tmp_path / "rose" / "carriage\rreturn.jpg")
    manifest = scan(tmp_path)
    assert manifest.counts() == {"rose": 2, "tulip": 2}
    assert skipped(manifest) == {
        "rose/caf\\xe9.jpg": "the name is not UTF-8: rename it",
        "\\xff\\xfe": "the name is not UTF-8: rename it",
        "rose/carriage\\rreturn.jpg": "the name holds a carriage return: rename it",
    }


def test_huge_files_are_not_read(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=2)
    with (tmp_path / "rose" / "huge.tif").open("wb") as stream:
        stream.truncate(513 * 1024**2)  # sparse: takes no room
    assert skipped(scan(tmp_path)) == {"rose/huge.tif": "too large: 513 MiB, at most 512 MiB"}


def test_unreadable_files_and_folders_are_listed(open_folder: Path) -> None:
    data = photos.write_folder(open_folder / "data", ["rose", "tulip"], each=2)
    scan(data)  # so that all modules are imported by the user who may
    put(data / "rose" / "secret.jpg").chmod(0)
    put(data / "rose" / "closed" / "1.jpg").parent.chmod(0)
    with ordinary_user():
        manifest = scan(data)
    assert manifest.counts() == {"rose": 2, "tulip": 2}
    assert skipped(manifest) == {
        "rose/closed": "folder can't be read: Permission denied",
        "rose/secret.jpg": "can't be read: Permission denied",
    }
    data.chmod(0)
    with ordinary_user():
        assert "can't read" in refused(data)
        assert "Permission denied" in refused(data / "rose")
    data.chmod(0o755)
    (data / "rose" / "closed").chmod(0o755)


def test_twins_and_conflicts(tmp_path: Path) -> None:
    for name in ("rose/1.jpg", "rose/2.jpg", "tulip/1.jpg"):
        put(tmp_path / name, b"the same")
    for name in ("rose/3.jpg", "rose/4.jpg"):
        put(tmp_path / name, b"also the same")
    put(tmp_path / "tulip" / "2.jpg", b"another")
    manifest = scan(tmp_path)
    assert [[p.path for p in group] for group in manifest.duplicates()] == [
        ["rose/1.jpg", "rose/2.jpg", "tulip/1.jpg"],
        ["rose/3.jpg", "rose/4.jpg"],
    ]
    assert [[p.path for p in group] for group in manifest.conflicts()] == [["rose/1.jpg", "rose/2.jpg", "tulip/1.jpg"]]


def test_without_drops_photos_and_lists_them(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["rose", "tulip"], each=3)
    put(tmp_path / "z.txt")
    whole = scan(tmp_path)
    gone = Skip(whole.photos[1].path, "truncated: half of it")
    manifest = whole.without([gone])
    assert manifest.counts() == {"rose": 2, "tulip": 3}
    assert manifest.skipped == [gone, Skip("z.txt", "not in a class folder")]
    assert len(whole.photos) == 6
    assert len(whole.skipped) == 1


# --- train / validation / test


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Val", "VALID"])
def test_split_folders_of_all_names(tmp_path: Path, name: str) -> None:
    for number, part in enumerate(("Train", name, "TEST")):
        photos.write_folder(tmp_path / part, ["rose", "tulip"], each=2, first_seed=10 * number)
    put(tmp_path / "train.csv")
    put(tmp_path / "docs" / "a.txt")
    put(tmp_path / "TEST" / "stray.jpg")
    manifest = scan(tmp_path)
    assert manifest.classes == ["rose", "tulip"]
    by_part = {part: sum(p.split == part for p in manifest.photos) for part in ("train", "validation", "test", "")}
    assert by_part == {"train": 4, "validation": 4, "test": 4, "": 0}
    assert skipped(manifest) == {
        "train.csv": "not in a class folder",
        "docs": "folder is none of train, validation, test",
        "TEST/stray.jpg": "not in a class folder",
    }


def test_train_alone_or_a_class_called_train(tmp_path: Path) -> None:
    photos.write_folder(tmp_path / "a" / "train", ["rose", "tulip"], each=2)
    assert {p.split for p in scan(tmp_path / "a").photos} == {"train"}
    photos.write_folder(tmp_path / "b", ["train", "bus", "car"], each=2)
    assert scan(tmp_path / "b").classes == ["bus", "car", "train"]
    photos.write_folder(tmp_path / "c", ["train", "test"], each=2)  # photos directly inside: these are the classes
    assert scan(tmp_path / "c").classes == ["test", "train"]


def test_a_class_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    photos.write_folder(tmp_path / "train", ["rose", "tulip"], each=2)
    photos.write_folder(tmp_path / "val", ["rose", "tulip", "lily"], each=2, first_seed=20)
    photos.write_folder(tmp_path / "test", ["rose", "lily", "aster"], each=2, first_seed=40)
    text = refused(tmp_path)
    assert "classes without photos in train" in text
    assert "'lily' (only in test and validation)" in text
    assert "'aster' (only in test)" in text


def test_the_same_name_in_two_unicode_spellings_is_one_class(tmp_path: Path) -> None:
    photos.write_folder(tmp_path / "train", ["e\u0301te\u0301", "tulip"], each=2)
    photos.write_folder(tmp_path / "val", ["\u00e9t\u00e9", "tulip"], each=2, first_seed=20)
    assert scan(tmp_path).counts() == {"\u00e9t\u00e9": 4, "tulip": 4}


# --- CSV


def table(folder: Path, text: str | bytes, name: str = "photos.csv") -> Path:
    return put(folder / name, text.encode() if isinstance(text, str) else text)


def test_csv_with_every_kind_of_path(tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    photos.write_folder(data, ["rose", "tulip"], each=3)
    outside = put(other / "far, away.jpg", b"far")
    path = table(
        data,
        "\ufeffPath , LABEL\r\n"
        "rose/rose 1.jpeg,rose\r\n"
        "./rose/rose 2.png,Rose 2\r\n"
        f"{data / 'tulip' / 'tulip 1.jpeg'},tulip\r\n"
        f'"{outside}",tulip\r\n'
        "tulip\\tulip 2.png,tulip\r\n"
        "rose/rose 1.jpeg,rose\r\n"
        "rose/rose 1.jpeg,tulip\r\n"
        "gone.jpg,rose\r\n"
        "rose,rose\r\n"
        "rose/rose 3.webp,\r\n"
        ",rose\r\n"
        "\r\n",
    )
    manifest = scan(path)
    assert manifest.root == data
    assert {(p.path, p.label) for p in manifest.photos} == {
        ("rose/rose 1.jpeg", "rose"),
        ("rose/rose 1.jpeg", "tulip"),
        ("rose/rose 2.png", "Rose 2"),
        ("tulip/tulip 1.jpeg", "tulip"),
        ("tulip/tulip 2.png", "tulip"),
        (outside.as_posix(), "tulip"),
    }
    for photo in manifest.photos:
        assert (manifest.root / photo.path).is_file()
    assert skipped(manifest) == {
        "rose/rose 1.jpeg": "listed twice (again in line 7)",
        "gone.jpg": "no such file",
        "rose": "not a regular file",
        "rose/rose 3.webp": "no label",
        "line 12": "no path",
    }
    assert len(manifest.conflicts()) == 1


def test_csv_with_splits(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["a", "b"], each=3)
    rows = "".join(
        f"{name}/{name} {number}.{kind},{name},{part}\n"
        for name in "ab"
        for number, kind, part in ((1, "jpeg", "Train"), (2, "png", "val"), (3, "webp", "test"))
    )
    manifest = scan(table(tmp_path, "path,label,split\n" + rows))
    assert [p.split for p in manifest.photos] == ["train", "validation", "test"] * 2
    text = refused(table(tmp_path, "path,label,split\n" + rows.replace("val", "holdout")))
    assert "line 3: split 'holdout' is none of train, validation, val, valid, test" in text
    text = refused(table(tmp_path, "path,label,split\n" + rows.replace("val", "")))
    assert "line 3: either every photo has a split or none has" in text
    text = refused(table(tmp_path, "path,label,split\n" + rows.replace("Train", "test")))
    assert "no photo in" in text
    assert "is marked for training" in text


def test_csv_with_groups_goes_there_and_back(tmp_path: Path) -> None:
    photos.write_folder(tmp_path, ["a", "b"], each=3)
    rows = "".join(f"{c}/{c} {n}.{k},{c},plant {n % 2}\n" for c in "ab" for n, k in ((1, "jpeg"), (2, "png")))
    manifest = scan(table(tmp_path, "path,label,group\n" + rows + "a/a 3.webp,a,\n"))
    assert [p.group for p in manifest.photos] == ["plant 1", "plant 0", "", "plant 1", "plant 0"]
    manifest.write(tmp_path / "run.csv", ["train"] * 5)
    assert (tmp_path / "run.csv").read_text(encoding="utf-8").startswith("path,label,split,sha256,group\n")
    assert [p.group for p in read(tmp_path / "run.csv", tmp_path).photos] == [p.group for p in manifest.photos]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is: nothing"),
        ("file,class\na,b\n", "must name the columns path,label[,split][,group], each once; it is: file,class"),
        ("path;label\na;b;c\n", "line 2: 3 fields, expected 2; a value with a semicolon needs quotes"),
        ("path,label,label\na,b,c\n", "each once"),
        ("path,label\n", "is empty: expected a line for each photo"),
        ("path,label\na.jpg,b,c\n", "line 2: 3 fields, expected 2; a value with a comma needs quotes"),
        ("path,label\na.jpg,b\n", "no photos in"),
        ("path,label\n\0,b\n", "no photos in"),
        ("path,label\na.jpg,caf\xe9\n".encode("latin-1"), "is not UTF-8 (byte 20): save it as CSV UTF-8"),
        ("path,label\n".encode("utf-16-le"), "it is: p\\x00a\\x00t"),
        ("path,label\n".encode("utf-16")[:-1], "is not UTF-8"),
        ("path,label\n" + "x" * 200_000 + ",b\n", "field larger than field limit"),
    ],
)
def test_wrong_tables_are_refused_in_one_line(tmp_path: Path, text: str | bytes, says: str) -> None:
    assert says in refused(table(tmp_path, text))


# --- refusals


def test_no_such_folder_names_the_nearest(tmp_path: Path) -> None:
    photos.write_folder(tmp_path / "flowers", ["rose", "tulip"], each=1)
    text = refused(tmp_path / "flwers")
    assert "no such file or folder" in text
    assert f"did you mean '{tmp_path / 'flowers'}'?" in text
    assert "did you mean" not in refused(tmp_path / "quite" / "elsewhere")
    assert "no such file or folder" in refused(tmp_path / "nul\0byte")
    assert "no such file or folder" in refused(tmp_path / ("long" * 2000))
    assert "no such file or folder" in refused(tmp_path / "flowers" / "rose" / "rose 1.jpeg" / "x")


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    assert "is empty: expected one folder of photos for each class" in refused(tmp_path)
    assert "is not a set of photos that frostline reads: give a folder of class folders, a table" in refused(
        put(tmp_path / "a.jpg")
    )
    assert "no class folders in" in (text := refused(tmp_path))
    assert "only 1 file: put the photos of each class into a folder of its own" in text
    os.mkfifo(tmp_path / "pipe.csv")
    assert "is not a set of photos that frostline reads" in refused(tmp_path / "pipe.csv")
    for name in ("rose", "tulip"):
        put(tmp_path / "b" / name / "1.jpg", b"")
    assert "no photos in" in (text := refused(tmp_path / "b"))
    assert "2 skipped, the first is rose/1.jpg (empty file)" in text


def test_one_class_is_refused_unless_it_is_for_testing(tmp_path: Path) -> None:
    photos.write_folder(tmp_path / "data", ["rose"], each=3)
    assert "only one class" in (text := refused(tmp_path / "data"))
    assert "'rose': expected at least 2" in text
    assert scan(tmp_path / "data", least_classes=1).counts() == {"rose": 3}
    # The way archives are packed: flowers/flowers/{rose,tulip}
    photos.write_folder(tmp_path / "flowers" / "flowers", ["rose", "tulip"], each=2)
    assert f"did you mean '{tmp_path / 'flowers' / 'flowers'}'?" in refused(tmp_path / "flowers")


# --- writing


def test_manifest_csv_goes_there_and_back(tmp_path: Path) -> None:
    data = photos.write_folder(tmp_path / "data", ["a, b", 'say "x"', "line\nbreak", "花"], each=2)
    manifest = scan(data)
    splits = ["train", "validation", "test", "train"] * 2
    path = tmp_path / "run" / "manifest.csv"
    manifest.write(path, splits)
    lines = path.read_bytes()
    assert lines.startswith(b"path,label,split,sha256\n")
    assert b"\r" not in lines
    back = read(path, data)
    assert back.photos == [
        Photo(p.path, p.label, part, p.sha256) for p, part in zip(manifest.photos, splits, strict=True)
    ]
    with pytest.raises(ValueError, match="shorter"):
        manifest.write(path, splits[:-1])
    assert path.read_bytes() == lines  # the old file is whole
    with pytest.raises(DataError, match="path,label"):
        read(put(tmp_path / "other.csv", b"path,label\n"), data)


@given(st.text(st.characters(codec=None), max_size=40))
def test_printable_is_one_line_that_can_be_written_anywhere(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert len(shown.splitlines()) <= 1


# --- real photos


@photos.needs_flowers
def test_the_flowers_with_their_flaws() -> None:
    manifest = scan(photos.FLOWERS)
    assert manifest.counts() == {"daisy": 611, "dandelion": 842, "rose": 627, "sunflower": 586, "tulip": 787}
    assert not manifest.skipped
    conflicts = manifest.conflicts()
    assert len(conflicts) == 4
    assert {tuple(sorted(p.label for p in group)) for group in conflicts} == {("rose", "tulip")}
    assert len(manifest.duplicates()) == 6
