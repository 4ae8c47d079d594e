"""Archives of photos: what they hold is found, and nothing lands outside; messages when they are damaged."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline import configure
from frostline.cache import contents, marks, upkeep
from frostline.errors import DataError, RunError
from frostline.photos import archives
from frostline.photos.decoding import MAX_BYTES
from frostline.photos.scan import scan
from frostline.progress import Progress
from support import photos
from support.commands import document, must, table
from support.photo_sources import GOOD, Damage, hurt, packed, refused, scans_or_refuses, skipped, written, zipped

pytestmark = pytest.mark.usefixtures("own_cache")


def folder_of(tmp_path: Path) -> Path:
    return photos.write_folder(tmp_path / "flowers", ["rose", "tulip", "Blüte"], each=2)


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
def test_archives_cut_short_are_reported_and_what_is_whole_is_used(tmp_path: Path, name: str) -> None:
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
    (entry,) = contents.entries(["photos"])
    assert entry.what == "unpacked from 1.zip"
    with marks.session():
        scan(second)
        (entry,) = contents.entries(["photos"])  # the first had to go
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
    archive_ = archives.Archive(home / "any.zip")
    left = archive_.unpack(target, Progress(quiet=True))
    files = [f for f in target.rglob("*") if not f.is_dir()]
    assert all(f.resolve().is_relative_to(target.resolve()) and f.is_file() and not f.is_symlink() for f in files)
    assert {f.name for f in home.iterdir()} == {"any.zip", "out"}
    assert all(why for _, why in left)


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
    result = must(
        "evaluate", out / "baseline" / "bundle", written(tmp_path / "labelled.parquet", rows), "--json", "--quiet"
    )
    told = json.loads(result.out)
    assert (told["photos"], told["all"]["photos"]) == (4, 16)  # the bundle has seen the other 12
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


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["zip", "tar"]),
    st.lists(
        st.tuples(st.floats(-1, 1), st.sampled_from([b"\0", b"\x7f", b"\xff\xff\xff\xff", b"\0\0\0\x80"])),
        min_size=1,
        max_size=4,
    ),
)
def test_damage_anywhere_is_listed_or_one_line(
    tmp_path_factory: pytest.TempPathFactory, kind: str, damage: Damage
) -> None:
    home = tmp_path_factory.mktemp("hurt")
    for name, content in GOOD.items():
        (home / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (home / "folder" / name).write_bytes(content)
    data = packed(home / "folder", home / f"data.{kind}")
    data.write_bytes(hurt(data.read_bytes(), damage))
    with marks.session():
        scans_or_refuses(data)
