"""The store: rows survive what happens to processes, and are never another's."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from frostline.cache import contents
from frostline.cache import store as stores
from frostline.cache.store import Store, open_store
from frostline.errors import ConfigError, RunError
from support.stores import DTYPES, SHAPES, keys, store, values


def assert_holds(opened: Store, *numbers: int) -> None:
    assert opened.missing(keys(*numbers)) == []
    for got, expected in zip(opened.read(keys(*numbers)), values(*numbers), strict=True):
        assert np.array_equal(got, expected)


# ---- rows on the disk ------------------------------------------------------------------------------------------------


def test_rows_survive_reopening(tmp_path: Path) -> None:
    first = store(tmp_path)
    assert first.row_bytes == 2 * 3 * 2 + 4
    first.append(keys(1, 2, 3), values(1, 2, 3))
    first.append(keys(3, 4), values(9, 4))  # a row that is there stays
    for opened in (first, store(tmp_path)):
        assert_holds(opened, 4, 2, 2, 1, 3)
        assert opened.missing(keys(1, 7, 2, 7, 8)) == keys(7, 8)
    assert [a.dtype for a in first.read(keys(1))] == DTYPES
    assert (tmp_path / "rows.bin").stat().st_size == 4 * first.row_bytes


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        (b"", b""),
        (b"half a", b""),  # killed while writing a row
        (bytes(40), b""),  # killed between rows and names
        (bytes(40), b"0123456789abc"),  # killed while writing a name
        (bytes(40), b"\0\0\0\xff\xfe\n\0\n"),  # power lost: a name that is none
        (b"", f"{keys(9)[0]}\n".encode()),  # a name without its row
    ],
)
def test_what_a_killed_process_left_is_cut_off(tmp_path: Path, rows: bytes, names: bytes) -> None:
    store(tmp_path).append(keys(1, 2), values(1, 2))
    for name, garbage in (("rows.bin", rows), ("names.txt", names)):
        with (tmp_path / name).open("ab") as file:
            file.write(garbage)
    opened = store(tmp_path)
    assert_holds(opened, 1, 2)
    assert opened.missing(keys(1, 2, 3, 9)) == keys(3, 9)
    opened.append(keys(3), values(3))
    assert_holds(opened, 3, 2, 1)
    again = store(tmp_path)
    assert_holds(again, 3, 2, 1)
    assert again.missing(keys(9)) == keys(9)


@pytest.mark.parametrize(("rows_left", "kept"), [(2.5, 2), (1, 1), (0, 0)])
def test_names_without_rows_are_computed_again(tmp_path: Path, rows_left: float, kept: int) -> None:
    opened = store(tmp_path)
    opened.append(keys(1, 2, 3), values(1, 2, 3))
    with (tmp_path / "rows.bin").open("r+b") as file:
        file.truncate(int(rows_left * opened.row_bytes))
    opened = store(tmp_path)
    assert opened.missing(keys(1, 2, 3)) == keys(1, 2, 3)[kept:]
    opened.append(keys(3), values(3))
    assert_holds(store(tmp_path), 3, *range(1, kept + 1))


def test_two_processes_append(tmp_path: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "from support.stores import keys, store, values\n"
        "opened = store(Path(sys.argv[2]))\n"
        "for n in range(int(sys.argv[3]), 60, 2):\n    opened.append(keys(n, 200), values(n, 200))\n"
    )
    opened = store(tmp_path)  # before either has written
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1]), str(tmp_path)]
    running = [subprocess.Popen([*command, str(n)], stderr=subprocess.PIPE) for n in (0, 1)]
    assert [(p.communicate()[1], p.returncode) for p in running] == [(b"", 0)] * 2
    assert_holds(store(tmp_path), *range(60), 200)
    assert (tmp_path / "rows.bin").stat().st_size == 61 * opened.row_bytes
    opened.append(keys(150), values(150))  # it learns of the others' rows first
    assert_holds(opened, 150, *range(60))


def test_a_cleared_cache_is_told(tmp_path: Path) -> None:
    opened = store(tmp_path / "a")
    opened.append(keys(1), values(1))
    shutil.rmtree(tmp_path / "a")
    with pytest.raises(RunError, match="lost a row: run again"):
        opened.read(keys(1))
    with pytest.raises(RunError, match="lost a row"):
        store(tmp_path / "b").read(keys(1))


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the system doesn't tell what of a file is in memory"
)
def test_what_was_read_stays_out_of_memory(tmp_path: Path) -> None:
    wide = Store(tmp_path, [(1 << 20,)], [np.dtype(np.uint8)])
    for n in range(48):
        wide.append(keys(n), [np.full((1, 1 << 20), n, np.uint8)])

    def of_files() -> int:
        (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("RssFile")]
        return int(line.split()[1]) * 1024

    before = of_files()
    for n in range(48):
        assert wide.read(keys(n))[0][0, -1] == n
    assert of_files() < before + (16 << 20)  # of 48


def test_threads_read_the_same_where_the_system_reads_in_turns_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = store(tmp_path)
    opened.append(keys(*range(60)), values(*range(60)))
    monkeypatch.setattr(stores, "_read_into", stores._read_in_turns)  # as on Windows
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: assert_holds(opened, n, 59 - n, n), list(range(60)) * 5))


def test_too_large_for_half_precision_is_told(tmp_path: Path) -> None:
    opened = store(tmp_path)
    for bad in (7e4, np.inf, np.nan):
        arrays = values(1, 2)
        arrays[0][1, 0, 0] = bad
        with pytest.raises(ConfigError, match="too large for half precision: use --stored-as float32"):
            opened.append(keys(1, 2), arrays)
    assert opened.missing(keys(1, 2)) == keys(1, 2)
    wide = Store(tmp_path / "wide", SHAPES, [np.dtype(np.float32), DTYPES[1]])
    arrays = values(1)
    arrays[0][:] = 7e4
    wide.append(keys(1), arrays)
    assert (wide.read(keys(1))[0] == 7e4).all()


def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path: Path) -> None:
    """The limit on the size of files stands in for the full disk; the process needs one of its own for it."""
    opened = store(tmp_path)
    opened.append(keys(1), values(1))
    limit = 10 * opened.row_bytes
    program = (
        "import resource, sys\nfrom pathlib import Path\nsys.path.insert(0, sys.argv[1])\n"
        "from support.stores import keys, store, values\nfrom frostline.errors import RunError\n"
        f"opened = store(Path(sys.argv[2]))\nresource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "try:\n    opened.append(keys(*range(2, 90)), values(*range(2, 90)))\n"
        "except RunError as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parents[1]), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "no room left on the disk" in ran.stdout, ran.stderr
    assert len(ran.stdout.splitlines()) == 1
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != limit
    opened = store(tmp_path)
    assert_holds(opened, 1)
    opened.append(keys(2, 3), values(2, 3))
    assert_holds(opened, 1, 2, 3)


def test_a_store_is_found_by_what_shapes_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path))
    made = open_store({"size": 8, "line": 3}, SHAPES, DTYPES, what="a network at line 3", backbone="a network")
    made.append(keys(1), values(1))
    assert made.folder == tmp_path / "activations" / "2bc0ea8891f63b58e1949fbdfdcb2268"  # of earlier versions, too
    assert_holds(open_store({"line": 3, "size": 8}, SHAPES, DTYPES, what="said otherwise"), 1)
    assert open_store({"line": 4, "size": 8}, SHAPES, DTYPES, what="a network at line 4").missing(keys(1)) == keys(1)
    (entry,) = [entry for entry in contents.entries() if entry.path == made.folder]
    assert (entry.what, entry.rows, entry.bytes_per_row) == ("a network at line 3", 1, made.row_bytes)
    assert entry.in_use
