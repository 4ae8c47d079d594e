"""The cache's upkeep: what is listed is what is there, nothing in use is removed, and a limit is a limit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from frostline.cache import contents, marks, sizes, upkeep
from frostline.cache.store import Store
from frostline.errors import ConfigError, RunError
from frostline.files import write_json
from frostline.networks.weights import KNOWN
from frostline.photos import sample
from support.commands import SOURCES, call, must, ordinary_user
from support.stores import keys, values

DAY = 86_400
NOW = 1_700_000_000  # long before any test runs
SHAPES, DTYPES = [(2, 3), (4,)], [np.dtype(np.float16), np.dtype(np.uint8)]
ROW = 2 * 3 * 2 + 4


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FROSTLINE_CACHE_LIMIT", raising=False)
    return tmp_path / "cache"


def folder_of(cache: Path, number: int) -> Path:
    return cache / "activations" / f"{number:032x}"


def stored(cache: Path, number: int, rows: int = 3, age: float = 0, **about: Any) -> Path:
    """A real store, last used `age` days before NOW."""
    folder = folder_of(cache, number)
    Store(folder, SHAPES, DTYPES).append(keys(*range(rows)), values(*range(rows)))
    about = {"what": "mobilenet_v2 at line 133 (float16)", "line": 133, "bytes_per_row": ROW, **about}
    write_json(folder / "about.json", about)
    return aged(folder, age)


def hollow(cache: Path, number: int, size: int, age: float = 0) -> Path:
    """A store of so many bytes that takes no room."""
    folder = folder_of(cache, number)
    folder.mkdir(parents=True)
    with (folder / "rows.bin").open("wb") as file:
        file.truncate(size)
    return aged(folder, age)


def aged(folder: Path, age: float) -> Path:
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (NOW - age * DAY,) * 2)
    return folder


def of_all_kinds(cache: Path) -> None:
    stored(cache, 1)
    for name, size in (("engines/ab.onnx", 500), ("engines/leftover.bin", 40), ("weights/own.pth", 900)):
        (cache / name).parent.mkdir(exist_ok=True)
        (cache / name).write_bytes(bytes(size))
    (cache / "weights" / KNOWN["mobilenet_v2"].filename).write_bytes(bytes(700))
    unpacked = cache / "photos" / f"{7:032x}"
    (unpacked / "photos" / "rose").mkdir(parents=True)
    (unpacked / "photos" / "rose" / "1.jpg").write_bytes(bytes(800))
    (unpacked / "about.json").write_text('{"source": "flowers.zip", "files": 1, "left_out": []}')
    (cache / "downloads").mkdir()
    (cache / "downloads" / "flower_photos.tgz").write_bytes(bytes(600))
    sample.render(cache / "sample", per_class=1)


def names() -> set[str]:
    return {entry.name for entry in contents.entries()}


def total() -> int:
    return sum(entry.bytes for entry in contents.entries())


def users(cache: Path) -> list[Path]:
    """Where processes, also such as were killed, say what they use."""
    return list((cache / ".users").iterdir())


def listing(*options: object) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(must("cache", "list", "--json", *options).out)
    return value


def started(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A second process that runs `code`, with `args`, a list of texts."""
    program = f"""
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
args = sys.argv[2:]
from frostline.cache import contents, marks, upkeep
{code}
"""
    return subprocess.Popen(
        [sys.executable, "-c", program, str(Path(__file__).parents[1]), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": SOURCES},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )


@contextmanager
def other_process(code: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """One that has run `code` and waits."""
    process = started(f"{code}\nprint('ready', flush=True)\nsys.stdin.read()", *arguments)
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


OPENS = "marks.mark_used(Path(args[0]))"


# ---- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("123", 123), ("7 B", 7), ("20GB", 20 * 10**9), (" 1.5 gib ", 3 * 2**29), ("0.0000015MB", 1),
        ("2kb", 2000), ("2KiB", 2048), ("3 TB", 3 * 10**12), ("3tib", 3 * 2**40), ("12 MiB", 12 * 2**20),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert sizes.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "20 G", "-1GB", "1e9", "1,5GB", "20GB!", "2 0GB", "inf", "٣GB", "9" * 5000])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a number and a unit .*, e\.g\. 20GB"):
        sizes.parse_size(text)


@given(
    number=st.integers(0, 10**15),
    unit=st.sampled_from([("", 1), ("B", 1), ("kB", 1000), ("MB", 10**6), ("GiB", 2**30), ("TiB", 2**40)]),
    space=st.sampled_from(["", " ", "  "]),
    case=st.sampled_from([str, str.lower, str.upper]),
)
def test_sizes_come_back(number: int, unit: tuple[str, int], space: str, case: Any) -> None:
    assert sizes.parse_size(case(f"{space}{number}{space}{unit[0]}{space}")) == number * unit[1]


@given(st.integers(0, 10**16))
def test_a_printed_size_is_enough_and_hardly_more(size: int) -> None:
    printed = sizes.parse_size(sizes.readable(size).replace(",", ""))
    assert size <= printed <= size * 1.1


def test_the_limit_of_the_environment(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert sizes.limit() is None
    for text, expected in (("", None), ("  ", None), ("2GB", 2 * 10**9)):
        monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", text)
        assert sizes.limit() == expected
        assert listing()["limit"] == expected
    assert "(limit 2.0 GB)" in must("cache").out
    monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", "plenty")
    assert "FROSTLINE_CACHE_LIMIT: size 'plenty': expected a number" in call("cache").error


# ---- the listing -----------------------------------------------------------------------------------------------------


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


# ---- clearing --------------------------------------------------------------------------------------------------------


def test_clear_takes_what_can_be_computed_again(cache: Path) -> None:
    of_all_kinds(cache)
    freed = sum(e.bytes for e in contents.entries(contents.COMPUTED))
    assert must("cache", "clear").out == f"freed {sizes.readable(freed)} in {cache}: 4 entries\n"
    assert {e.kind for e in contents.entries()} == {"downloads", "weights", "sample"}
    result = json.loads(must("cache", "clear", "--kind", "weights,sample,downloads", "--json").out)
    assert [e["kind"] for e in result["removed"]] == ["sample", "weights", "weights", "downloads"]
    assert (result["freed"], result["kept"]) == (sum(e["bytes"] for e in result["removed"]), [])
    assert contents.entries() == []


def test_clear_by_age(cache: Path) -> None:
    with mock.patch("time.time", lambda: float(NOW)):
        for number, age in enumerate((0, 5, 29.9, 30.1, 400)):
            stored(cache, number, age=age)
        removed, kept = upkeep.clear(older_than_days=30)
        assert ([e.name for e in removed], kept) == ([f"{3:032x}", f"{4:032x}"], [])
        removed, kept = upkeep.clear(older_than_days=0)
        assert ([e.name for e in removed], kept) == ([f"{1:032x}", f"{2:032x}"], [])
    must("cache", "clear", "--older-than", "30", "--quiet")
    assert names() == set()


def test_what_a_killed_clear_left_is_removed(cache: Path) -> None:
    going = [cache / ".going-a", cache / "activations" / ".going-b", cache / "engines" / ".going-c"]
    for clean in (upkeep.clear, lambda: upkeep.make_room(0, [], None)):
        for folder in going:
            (folder / "deep").mkdir(parents=True)
            (folder / "deep" / "rows.bin").write_bytes(bytes(10))
        assert contents.entries() == []
        clean()
        assert not [folder for folder in going if folder.exists()]


def test_downloads_and_compilations_under_way_are_kept(cache: Path) -> None:
    (cache / "weights").mkdir(parents=True)
    (cache / "engines").mkdir()
    for name in ("weights/.net.pth.part", "engines/.ab.onnx.123.tmp", "engines/cd.onnx", "engines/.ef.js.9.tmp"):
        (cache / name).write_bytes(bytes(10))
        os.utime(cache / name, (NOW, NOW))
    (cache / "weights" / ".net.pth.wheel").mkdir()
    fresh = cache / "engines" / ".gh.js.9.tmp"
    fresh.write_bytes(b"")
    both = ("weights", "engines")
    with FileLock(cache / "weights/.net.pth.lock"), FileLock(cache / "engines/ab.lock"):
        removed, kept = upkeep.clear(both)
        assert {e.name for e in removed} == {"cd.onnx", ".ef.js.9.tmp"}
        assert {e.name for e in kept} == {".net.pth.part", ".net.pth.wheel", ".ab.onnx.123.tmp", ".gh.js.9.tmp"}
    os.utime(fresh, (NOW, NOW))
    assert len(upkeep.clear(both)[0]) == 4
    assert names() == set()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["clean"], "unknown action 'clean'; did you mean 'clear'? (known: list, clear)"),
        (["clear", "--kind", "engines,weigths"], "'weigths'; did you mean 'weights'? (known: activations, engines"),
        (["clear", "--older-than", "-1"], "an age of -1 days: expected a number of 0 or more"),
        (["list", "--older-than", "nan"], "an age of nan days"),
    ],
)
def test_unknown_words_are_told_and_nothing_is_removed(cache: Path, arguments: list[str], words: str) -> None:
    of_all_kinds(cache)
    before = names()
    assert words in call("cache", *arguments).error
    assert names() == before


def test_a_cache_of_someone_else(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = open_folder / "cache"
    monkeypatch.setenv("FROSTLINE_CACHE", str(cache))
    folder = stored(cache, 1)
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with ordinary_user():
        assert [e.rows for e in contents.entries()] == [3]
        assert "can't write" in call("cache", "clear").error
        with pytest.raises(RunError, match="can't write"):
            upkeep.make_room(1, [], None)
        with marks.session():
            marks.mark_used(folder)
        assert Store(folder, SHAPES, DTYPES).missing(keys(0, 1, 2)) == []
    for path in (cache, *cache.rglob("*")):
        path.chmod(0o755)


# ---- what is in use --------------------------------------------------------------------------------------------------


def test_what_another_process_uses_is_kept(cache: Path) -> None:
    used, idle = stored(cache, 1), stored(cache, 2)
    sample.render(cache / "sample", per_class=1)
    code = (
        f"{OPENS}\nmarks.mark_used(Path(args[1]))\nfrom support.stores import SHAPES, DTYPES, Store, keys, values\n"
        "store = Store(Path(args[0]), SHAPES, DTYPES)"
    )
    with other_process(code, used, cache / "sample") as process:
        assert {r["name"] for r in listing()["entries"] if r["in_use"]} == {used.name, "sample"}
        said = must("cache", "clear", "--kind", "activations,sample").out.splitlines()
        assert "1 entry" in said[0]
        assert sorted(said[1:])[1].startswith("kept, in use: mobilenet_v2 at line 133 (float16) (")
        assert used.exists()
        assert not idle.exists()
        assert upkeep.make_room(0, [], None) == []
        with pytest.raises(RunError, match="that other runs use"):
            upkeep.make_room(10, [], 20)
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
    assert not users(cache)  # its end takes its marks along
    assert {e.name for e in upkeep.clear(["activations", "sample"])[0]} == {used.name, "sample"}


def test_a_killed_process_uses_nothing(cache: Path) -> None:
    folder = stored(cache, 1)
    with other_process(OPENS, folder) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        (dead,) = users(cache)
        assert not contents.entries()[0].in_use
        with marks.session():
            marks.mark_used(folder)
            assert len(users(cache)) == 1
            assert not dead.exists()
            assert contents.entries()[0].in_use
    assert len(upkeep.clear()[0]) == 1


def test_a_store_that_one_process_opens_twice(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = stored(cache, 1, age=10)
    monkeypatch.chdir(cache)
    with marks.session():
        with ThreadPoolExecutor() as pool:
            pool.submit(in_session, lambda: marks.mark_used(folder)).result()
            assert not contents.entries()[0].in_use
            marks.mark_used(folder.relative_to(cache))
            pool.submit(in_session, lambda: marks.mark_used(folder)).result()
        marks.mark_used(folder)
        assert contents.entries()[0].used.timestamp() > NOW + DAY
        assert upkeep.clear()[0] == []
    assert len(upkeep.clear()[0]) == 1


def in_session(work: Callable[[], object]) -> None:
    with marks.session():
        work()


def test_a_folder_that_someone_deleted_is_marked_anew(cache: Path) -> None:
    folder = folder_of(cache, 1)
    for deleted in (folder, cache):
        with marks.session():
            marks.mark_used(folder)
            shutil.rmtree(deleted)
            marks.mark_used(folder)
            assert upkeep.clear()[0] == []
        assert len(upkeep.clear()[0]) == 1


def test_a_forked_child_takes_no_mark_along(cache: Path) -> None:
    folder = stored(cache, 1)
    code = f"{OPENS}\nimport os\nchild = os.fork()\nif not child:\n    sys.exit(0)\nos.waitpid(child, 0)"
    with other_process(code, folder):
        assert contents.entries()[0].in_use
        assert upkeep.clear()[0] == []


def test_stores_are_opened_while_others_clear(cache: Path) -> None:
    """Whoever marks a store before looking into it finds its rows until it lets go."""
    code = """
from support.stores import SHAPES, DTYPES, Store, keys, values
folder = Path(args[0])
for n in range(30):
    with marks.session():
        marks.mark_used(folder)
        store = Store(folder, SHAPES, DTYPES)
        store.append(keys(n), values(n))
        store.read(keys(n))
        assert not Store(folder, SHAPES, DTYPES).missing(keys(n))
"""
    running = [started(code, folder_of(cache, 1)) for _ in range(2)]
    cleared = 0
    while any(process.poll() is None for process in running):
        cleared += len(upkeep.clear()[0])
    assert [(process.communicate()[0], process.returncode) for process in running] == [("", 0)] * 2
    assert cleared


# ---- the limit -------------------------------------------------------------------------------------------------------


@pytest.fixture
def four(cache: Path) -> list[Path]:
    """Stores of 400, 300, 200 and 100 bytes, last used 1, 9, 5 and 20 days ago; an engine (50, 7 days), weights (50)."""
    for name in ("weights/own.pth", "engines/e0.onnx"):
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_bytes(bytes(50))
        os.utime(cache / name, (NOW - 7 * DAY,) * 2)
    return [hollow(cache, n, size, age) for n, (size, age) in enumerate([(400, 1), (300, 9), (200, 5), (100, 20)])]


ENGINE = 0xE0


def gone(removed: list[contents.Entry]) -> list[int]:
    assert not any(entry.path.exists() for entry in removed)
    return [int(entry.path.stem, 16) for entry in removed]


def test_the_longest_unused_go_first(four: list[Path]) -> None:
    assert upkeep.make_room(10**6, [], None) == []
    assert upkeep.make_room(100, [], 1200) == []
    assert gone(upkeep.make_room(101, [], 1200)) == [3]
    assert gone(upkeep.make_room(0, [], 999)) == [1]
    assert gone(upkeep.make_room(500, [four[2]], 800)) == [ENGINE, 0]
    assert total() == 250
    assert [e.kind for e in contents.entries()] == ["activations", "weights"]


def test_a_store_that_is_used_again_is_young(four: list[Path]) -> None:
    with marks.session():
        marks.mark_used(four[3])
    assert gone(upkeep.make_room(0, [], 800)) == [1]


def test_what_the_run_needs_and_what_is_in_use_stays(four: list[Path]) -> None:
    with other_process(OPENS, four[1]):
        with marks.session():
            marks.mark_used(four[2])
            assert gone(upkeep.make_room(0, [four[3]], 750)) == [ENGINE, 0]
        assert gone(upkeep.make_room(0, [four[3]], 500)) == [2]


def test_a_limit_that_is_too_small_is_told_with_one_that_is_enough(four: list[Path]) -> None:
    with pytest.raises(RunError) as error:
        upkeep.make_room(2_000_001, [four[0]], 1_000_000)
    told = str(error.value)
    assert told == (
        "the cache needs 2.1 MB for this run (2.1 MB of activations, 50 B of weights and other files) "
        "and its limit is 1.0 MB: give a larger --cache-limit, a freeze line nearer the top (--line) or --preset fast, "
        "or empty it (frostline cache clear)"
    )
    assert all(folder.exists() for folder in four)  # nothing is lost in vain
    enough = sizes.parse_size(told.split()[3] + told.split()[4])
    upkeep.make_room(2_000_001, [four[0]], enough)
    assert four[0].exists()


def test_a_disk_that_is_full_makes_room_too(four: list[Path]) -> None:
    def usage(_path: object) -> Any:
        used = total() + 5000
        return shutil._ntuple_diskusage(6400, used, 6400 - used)

    with mock.patch("shutil.disk_usage", usage):
        assert upkeep.make_room(300, [], None) == []
        assert gone(upkeep.make_room(500, [], None)) == [3, 1]  # 700 are left, 700 are free
        with pytest.raises(
            RunError, match=r"no room left on the disk for the cache .* free some space, or set FROSTLINE_CACHE"
        ):
            upkeep.make_room(1151, [four[2]], None)
        assert four[0].exists()
        assert gone(upkeep.make_room(1150, [four[2]], None)) == [ENGINE, 0]


def test_two_that_make_room_at_once_share_it(cache: Path) -> None:
    first, second = folder_of(cache, 1), folder_of(cache, 2)
    code = f"{OPENS}\nupkeep.make_room(600, [Path(args[0])], 1000)"
    with other_process(code, first):
        assert upkeep.make_room(400, [second], 1000) == []
        with pytest.raises(RunError, match=r"600 B that other runs use\) and its limit is 1.0 kB"):
            upkeep.make_room(401, [second], 1000)
        (first / "rows.bin").write_bytes(bytes(250))  # what is written is not counted twice
        assert upkeep.make_room(400, [second], 1000) == []
        with pytest.raises(RunError, match="600 B that other runs use"):
            upkeep.make_room(401, [second], 1000)
        hollow(cache, 2, 400)
        assert upkeep.make_room(0, [second], 1000) == []
        assert total() == 650
    assert gone(upkeep.make_room(500, [second], 1000)) == [1]  # it was killed: neither promise nor use is left


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"[]",
        b'{"bytes_then": "x"}',
        b'{"bytes_then": 10, "folders": 3}',
        b'{"folders": [null]}',
        b'{"folders": {}}',
    ],
)
def test_a_damaged_promise_is_none(four: list[Path], cache: Path, note: bytes) -> None:
    code = (
        f"{OPENS}\nupkeep.make_room(50, [], 10**6)\n"
        f"for promise in Path(args[1]).rglob('promise*'):\n    promise.write_bytes({note!r})"
    )
    with other_process(code, four[0], cache):
        assert upkeep.make_room(0, [], 1100) == []


def test_the_end_of_a_run_takes_back_what_it_said(four: list[Path]) -> None:
    """In a notebook, say, where the process goes on."""
    code = """
with marks.session():
    marks.mark_used(Path(args[0]))
    marks.mark_used(Path(args[0]))
    upkeep.make_room(70, [Path(args[0])], 10**6)
    print("said", flush=True)
    input()
"""
    with started(f"{code}\nprint('taken back', flush=True)\ninput()", four[0]) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "said\n"
        assert [e.name for e in contents.entries() if e.in_use] == [four[0].name]
        with pytest.raises(RunError, match="470 B that other runs use"):
            upkeep.make_room(0, [], 400)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "taken back\n"
        assert not any(entry.in_use for entry in contents.entries())
        assert gone(upkeep.make_room(0, [], 1099)) == [3]
        process.kill()


def test_what_is_left_at_the_end_is_trimmed(four: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    upkeep.trim()  # no limit
    for text in ("2kB", "lots"):
        monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", text)
        upkeep.trim()
    assert total() == 1100
    monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", "720")
    upkeep.trim()
    assert [folder.exists() for folder in four] == [True, False, True, False]
    with other_process(OPENS, four[0]):
        monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", "10")  # out of reach: what can go goes
        upkeep.trim()
    assert {entry.name for entry in contents.entries()} == {four[0].name, "own.pth"}


def test_there_is_nothing_to_trim_where_there_is_no_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", "10")
    upkeep.trim()
    assert not cache.exists()


Stores = list[tuple[int, int, str]]


@given(
    stores=st.lists(
        st.tuples(st.integers(0, 1000), st.integers(0, 5), st.sampled_from(["idle", "idle", "keep", "used"])),
        max_size=7,
    ),
    weights=st.integers(0, 500),
    needed=st.integers(0, 2000),
    limit=st.integers(0, 5000),
)
def test_a_limit_is_respected_by_removing_the_oldest_alone(
    stores: Stores, weights: int, needed: int, limit: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as name,
        mock.patch.dict(os.environ, {"FROSTLINE_CACHE": name}),
        ExitStack() as session,
    ):
        cache = Path(name)
        folders = [hollow(cache, n, size, age) for n, (size, age, _) in enumerate(stores)]
        (cache / "weights").mkdir()
        (cache / "weights" / "own.pth").write_bytes(bytes(weights))
        keep = [f for f, (_, _, state) in zip(folders, stores, strict=True) if state == "keep"]
        used = [f for f, (_, _, state) in zip(folders, stores, strict=True) if state == "used"]
        for folder in used:
            session.enter_context(marks.session())
            marks.mark_used(folder)
        before = {entry.path: entry for entry in contents.entries()}
        try:
            removed = upkeep.make_room(needed, keep, limit)
        except RunError:
            idle = sum(size for size, _, state in stores if state == "idle")
            assert sum(e.bytes for e in before.values()) - idle + needed > limit
            assert names() == {entry.name for entry in before.values()}
        else:
            assert total() + needed <= limit
            left = [f for f in folders if f not in [*keep, *used] and f.exists()]
            assert all(a.used <= b.used for a, b in pairwise(removed))
            assert all(gone.used <= before[f].used for gone in removed for f in left)
            if removed:  # and not one more than it took
                assert total() + needed + removed[-1].bytes > limit
            assert {e.path for e in removed} | {*keep, *used, *left} == set(folders)
            upkeep.make_room(0, keep, None)


# ---- at once ---------------------------------------------------------------------------------------------------------


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
