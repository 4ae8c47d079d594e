"""What was not used for longest goes first, and a limit is a limit."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.cache import contents, marks, sizes, upkeep
from frostline.cache.store import Store
from frostline.errors import RunError
from support.cache_folders import (
    ENGINE,
    NOW,
    OPENS,
    folder_of,
    gone,
    hollow,
    names,
    of_all_kinds,
    other_process,
    started,
    stored,
    total,
)
from support.commands import call, must, ordinary_user
from support.stores import DTYPES, SHAPES, keys

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


# ---- the limit -------------------------------------------------------------------------------------------------------


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


@settings(deadline=None)  # many small files: slow where the disk is busy
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
