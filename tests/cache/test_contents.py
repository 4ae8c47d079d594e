"""What is listed is what is there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from frostline.cache import contents, marks, upkeep
from frostline.files import write_json
from frostline.networks.weights import KNOWN
from support.cache_folders import ROW, folder_of, listing, names, of_all_kinds, started, stored, total
from support.commands import must


def test_an_empty_cache_is_listed_and_cleared(cache: Path) -> None:
    for _ in range(2):
        assert must("cache").out == f"0 entries, 0 B in {cache} (no limit)\n"
        assert must("cache", "clear").out == f"freed 0 B in {cache}: 0 entries\n"
        cache.mkdir(exist_ok=True)


def test_what_there_is_is_listed(cache: Path) -> None:
    of_all_kinds(cache)
    stored(cache, 2, rows=5, age=30)
    stored(cache, 3, rows=1, what="photos of 224 x 224 pixels (crop)")
    found = listing()
    assert found["folder"] == str(cache)
    rows = {row["name"]: row for row in found["entries"]}
    assert {row["kind"] for row in rows.values()} == set(contents.KINDS)
    assert len(rows) == len(found["entries"]) == 10
    assert rows[f"{7:032x}"]["what"] == "unpacked from flowers.zip"
    assert [row["bytes"] for row in found["entries"]] == sorted((r["bytes"] for r in rows.values()), reverse=True)
    second = rows[f"{2:032x}"]
    assert (second["what"], second["rows"], second["bytes_per_row"]) == ("mobilenet_v2 at line 133 (float16)", 5, ROW)
    assert second["bytes"] == sum(p.stat().st_size for p in folder_of(cache, 2).iterdir())
    assert second["used"].startswith("2023-10-15T")
    assert rows[f"{3:032x}"]["what"] == "photos of 224 x 224 pixels (crop)"
    assert rows[KNOWN["mobilenet_v2"].filename]["what"] == "mobilenet_v2"
    assert rows["ab.onnx"]["rows"] is rows["ab.onnx"]["bytes_per_row"] is None
    assert found["bytes"] == sum(p.stat().st_size for p in cache.rglob("*") if p.is_file())
    assert not any(row["in_use"] for row in rows.values())
    table = must("cache").out
    for words in ("mobilenet_v2 at line 133 (float16)", "2023-10-15", "built-in sample", "16 B", f"in {cache} (no"):
        assert words in table
    assert [r["name"] for r in listing("--older-than", 20, "--kind", "activations")["entries"]] == [
        f"{n:032x}" for n in (2, 1, 3)
    ]
    assert {r["kind"] for r in listing("--kind", "weights, engines")["entries"]} == {"weights", "engines"}
    assert must("cache", "--quiet").out == ""


@pytest.mark.parametrize(
    "about",
    [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"line": "x"}', b'{"line": 3, "bytes_per_row": -1}', None],
)
def test_a_damaged_description_is_tolerated(cache: Path, about: bytes | None) -> None:
    folder = stored(cache, 1)
    (folder / "about.json").unlink()
    if about is not None:
        (folder / "about.json").write_bytes(about)
    (entry,) = contents.entries()
    assert (entry.rows, entry.bytes_per_row) == (3, None)
    assert "unknown" in entry.what or "at line 3" in entry.what
    must("cache")
    assert upkeep.clear() == ([entry], [])


def test_stores_described_by_an_earlier_version_are_named_by_what_shaped_them(cache: Path) -> None:
    folder = stored(cache, 1)
    write_json(folder / "about.json", {"backbone": "mobilenet_v2", "line": 133, "bytes_per_row": ROW})
    assert contents.entries()[0].what == "mobilenet_v2 at line 133"


def test_half_written_rows_do_not_count(cache: Path) -> None:
    folder = stored(cache, 1)
    with (folder / "rows.bin").open("r+b") as file:
        file.truncate(2 * ROW + 3)
    assert contents.entries()[0].rows == 2
    (folder / "rows.bin").unlink()
    assert contents.entries()[0].rows == 0


def test_times_that_no_calendar_has(cache: Path) -> None:
    folder = stored(cache, 1)
    for seconds in (-(10**9), 10**11):
        os.utime(folder, (seconds, seconds))
        must("cache")


def test_what_frostline_did_not_make_is_left_alone(cache: Path, tmp_path: Path) -> None:
    of_all_kinds(cache)
    (tmp_path / "elsewhere").mkdir()
    others = ["activations/notes.txt", "activations/mine/a.txt", "README", "elsewhere/b.txt", "engines/.hidden/c.txt"]
    for name in (*others[:3], others[4]):
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_text("mine")
    (tmp_path / "elsewhere" / "b.txt").write_text("mine")
    shutil.rmtree(cache / "sample")
    (cache / "sample").mkdir()
    (cache / "sample" / "photo.jpg").write_text("mine")
    folder_of(cache, 9).symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (cache / "weights" / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (cache / "engines" / "circle").symlink_to(cache / "engines" / "circle")
    (folder_of(cache, 1) / "link").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (cache / "activations" / ".going-x").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    before = total()
    removed, kept = upkeep.clear(contents.KINDS)
    assert (sum(e.bytes for e in removed), kept) == (before, [])
    assert contents.entries() == []
    assert not folder_of(cache, 1).exists()
    assert (tmp_path / "elsewhere" / "b.txt").read_text() == "mine"
    assert folder_of(cache, 9).is_symlink()
    for name in (
        "activations/notes.txt",
        "activations/mine/a.txt",
        "README",
        "engines/.hidden/c.txt",
        "sample/photo.jpg",
    ):
        assert (cache / name).read_text() == "mine"


def test_a_folder_of_entries_that_is_a_link_is_left_alone(cache: Path, tmp_path: Path) -> None:
    of_all_kinds(cache)
    for kind in contents.KINDS:
        (cache / kind).rename(tmp_path / kind)
        (cache / kind).symlink_to(tmp_path / kind, target_is_directory=True)
    files = sorted(tmp_path.rglob("*"))
    assert contents.entries() == []
    assert upkeep.clear(contents.KINDS) == ([], [])
    assert upkeep.make_room(0, [], 10) == []
    assert {p for p in tmp_path.rglob("*") if p.name != ".upkeep.lock"} == set(files)


def test_a_cache_that_is_reached_by_a_link_is_one(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    of_all_kinds(cache)
    (tmp_path / "link").symlink_to(cache, target_is_directory=True)
    before = names()
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path / "link", "link", "cache", "./cache/../link"):
        monkeypatch.setenv("FROSTLINE_CACHE", str(place))
        assert names() == before
    with marks.session():
        marks.mark_used(cache / "activations" / f"{1:032x}")
        assert [e.kind for e in upkeep.clear(contents.KINDS)[1]] == ["activations"]


def test_the_listing_imports_nothing_heavy(cache: Path) -> None:
    stored(cache, 1)
    heavy = {"torch", "onnxruntime", "onnx", "openvino", "timm", "numpy"}
    code = f"""
from frostline.cli.main import main
sys.argv[1:] = ["cache"]
try:
    main()
except SystemExit as stop:
    assert not stop.code
print("heavy:", sorted({heavy} & set(sys.modules)))
"""
    ran = started(code)
    out, _ = ran.communicate()
    assert ran.returncode == 0, out
    assert "mobilenet_v2 at line 133" in out
    assert out.endswith("heavy: []\n")
