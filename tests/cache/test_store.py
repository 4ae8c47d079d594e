"""The activation cache: rows are computed once, survive what happens to processes, and are never another's."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frostline.cache import marks, upkeep
from frostline.cache import store as stores
from frostline.cache.store import Key, Store, open_store
from frostline.errors import ConfigError, RunError
from frostline.networks import backbone
from frostline.networks.activations import Tap, fill, tap
from frostline.networks.backbone import Backbone
from frostline.photos import scan
from frostline.photos.decoding import prepare
from frostline.photos.manifest import Manifest
from frostline.progress import Progress
from support import photos as pictures
from support.stores import DTYPES, SHAPES, keys, store, values

CPU = torch.device("cpu")
QUIET = Progress(True)


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
        "try:\n    opened.append(keys(*range(2, 90)), values(*range(2, 90)))\nexcept RunError as error:\n    print(error)\n"
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


def test_a_store_is_found_by_what_shapes_its_rows(own_cache: Path) -> None:
    made = open_store({"size": 8, "line": 3}, SHAPES, DTYPES, what="a network at line 3", backbone="a network")
    made.append(keys(1), values(1))
    assert made.folder == own_cache / "activations" / "2bc0ea8891f63b58e1949fbdfdcb2268"  # of earlier versions, too
    assert_holds(open_store({"line": 3, "size": 8}, SHAPES, DTYPES, what="said otherwise"), 1)
    assert open_store({"line": 4, "size": 8}, SHAPES, DTYPES, what="a network at line 4").missing(keys(1)) == keys(1)
    (entry,) = [entry for entry in upkeep.entries() if entry.path == made.folder]
    assert (entry.what, entry.rows, entry.bytes_per_row) == ("a network at line 3", 1, made.row_bytes)
    assert entry.in_use
    marks.release(made.folder)


# ---- photos through the frozen layers --------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    for label, seeds in (("a", range(3)), ("b", range(3, 6))):
        (tmp_path / "data" / label).mkdir(parents=True)
        for seed in seeds:
            (tmp_path / "data" / label / f"{seed}.jpg").write_bytes(pictures.photo(seed))
    return scan.scan(tmp_path / "data")


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of this test's own, that shares the compiled engines of the session."""
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def network(seed: int = 0, **changes: Any) -> Backbone:
    return backbone.build("test_resnet", "random", seed=seed, **{"image_size": 64, **changes})


def opened(built: Backbone, line: int, stored_as: Any = "float32", kind: Any = "torch") -> Tap:
    return tap(built, line, kind, CPU, stored_as)


def test_rows_are_what_the_network_makes_of_each_photo(photos: Manifest, own_cache: Path) -> None:
    built = network()
    top = built.layer_count
    taps = [opened(built, line) for line in (0, top - 3, top)]
    assert fill(taps, photos, views=(0, 1), seed=7, kind="torch", progress=QUIET) == []
    names = [Key.of(p.sha256, v, 7) for v in (0, 1) for p in photos.photos]
    at_zero, near_top, at_top = ([torch.from_numpy(a) for a in t.store.read(names)] for t in taps)
    clean = np.stack([prepare((photos.root / p.path).read_bytes(), built.transform) for p in photos.photos])
    assert np.array_equal(at_zero[0][:6], clean)
    assert (at_zero[0][6:] != at_zero[0][:6]).flatten(1).any(1).all()  # view 1 is another picture
    from frostline.networks import freeze_line

    with torch.inference_mode():
        features = built.network(at_zero[0])
        assert torch.allclose(freeze_line.cut(built.traced, top).suffix(*at_top), features, atol=1e-5)
        assert torch.allclose(freeze_line.cut(built.traced, top - 3).suffix(*near_top), features, atol=1e-5)


def test_a_second_fill_computes_nothing(photos: Manifest, own_cache: Path) -> None:
    built = network()
    taps = [opened(built, built.layer_count), opened(built, 0)]
    fill(taps, photos, indices=[0, 1, 2, 3], kind="torch", progress=QUIET)
    files = sorted((own_cache / "activations").glob("*/rows.bin"))
    assert len(files) == 2
    before = [(f.stat().st_mtime_ns, f.stat().st_size) for f in files]
    for photo in photos.photos[:4]:  # were one read again, it would come back as a Skip
        (photos.root / photo.path).write_bytes(b"no photo any more")
    reopened = [opened(network(), built.layer_count), opened(network(), 0)]
    assert fill(reopened, photos, indices=[0, 1, 2, 3], kind="torch", progress=QUIET) == []
    assert [(f.stat().st_mtime_ns, f.stat().st_size) for f in files] == before
    assert fill(reopened, photos, kind="torch", progress=QUIET) == []  # the two new ones alone
    assert [t.store.missing([Key.of(p.sha256, 0, 0) for p in photos.photos]) for t in reopened] == [[], []]


def test_whatever_shapes_a_row_has_a_store_of_its_own(own_cache: Path) -> None:
    built = network()
    top = built.layer_count
    opened(built, top)
    count = 1
    others = [
        (network(1), top, "float32", "torch"),
        (built, top - 1, "float32", "torch"),
        (built, top, "float16", "torch"),
        (built, top, "float32", "onnx"),
        (network(image_size=96), top, "float32", "torch"),
        (network(resize="crop"), top, "float32", "torch"),
        (built, 0, "float32", "torch"),
        (network(resize="crop"), 0, "float32", "torch"),
    ]
    for other, line, stored_as, kind in others:
        opened(other, line, stored_as, kind)
        count += 1
        assert len(list((own_cache / "activations").iterdir())) == count
    opened(network(), top)
    opened(network(1), 0, "float16")  # the photos themselves know no network
    assert len(list((own_cache / "activations").iterdir())) == count
    shaped = [f.parent for f in (own_cache / "activations").glob("*/about.json")]
    assert len(shaped) == count


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_a_row_does_not_depend_on_which_other_lines_were_asked(
    photos: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    """A bundle runs its own line alone, and must give what its run gave. Among the lines are some that a compiler fuses."""
    built = network()
    lines = [1, *range(built.layer_count - 9, built.layer_count + 1)]
    names = [Key.of(p.sha256, 0, 0) for p in photos.photos]

    def filled(folder: str, *wanted: int) -> dict[int, list[np.ndarray]]:
        monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / folder))
        taps = [opened(built, line, kind=kind) for line in wanted]
        fill(taps, photos, kind=kind, progress=QUIET)
        return {t.line: t.store.read(names) for t in taps}

    together = filled("together", *lines)
    alone = {line: filled(f"line {line}", line)[line] for line in lines}
    differing = [n for n in lines if not all(map(np.array_equal, together[n], alone[n]))]
    assert differing == []


def test_views_and_seeds_have_rows_of_their_own(photos: Manifest) -> None:
    photo = photos.photos[0]
    assert Key.of(photo.sha256, 0, 1) == Key.of(photo.sha256, 0, 2)  # the clean view has no dice
    assert (
        len(
            {
                Key.of(photo.sha256, 0, 1),
                Key.of(photo.sha256, 1, 1),
                Key.of(photo.sha256, 1, 2),
                Key.of(photo.sha256, 2, 1),
            }
        )
        == 4
    )
    assert len({str(Key.of(p.sha256, 0, 0)) for p in photos.photos}) == 6


def test_photos_that_can_not_be_decoded_are_listed(photos: Manifest, own_cache: Path) -> None:
    root = photos.root
    for kind in ("half a jpeg", "zeros"):
        (root / "a" / f"{kind}.jpg").write_bytes(pictures.BROKEN[kind][0])
    (root / "b" / "twin.jpg").write_bytes(pictures.BROKEN["zeros"][0])
    scanned = scan.scan(root)
    (root / "a" / "0.jpg").unlink()
    target = opened(network(), 0)
    skips = {s.path: s.why for s in fill([target], scanned, progress=QUIET)}
    assert set(skips) == {"a/half a jpeg.jpg", "a/zeros.jpg", "b/twin.jpg", "a/0.jpg"}
    assert "truncated" in skips["a/half a jpeg.jpg"]
    assert skips["a/0.jpg"] == "no such file"
    left = scanned.without(fill([target], scanned, progress=QUIET))  # told again, not forgotten
    assert len(left.photos) == 5
    assert target.store.missing([Key.of(p.sha256, 0, 0) for p in left.photos]) == []


def test_no_room_is_told_before_the_work_starts(
    photos: Manifest, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = opened(network(), 0)
    monkeypatch.setattr("shutil.disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 50_000, 50_000))
    with pytest.raises(RunError, match="needs 0 MB, 0 MB are free; free some space, or set FROSTLINE_CACHE") as error:
        fill([target], photos, progress=QUIET)
    assert "\n" not in str(error.value)
    assert fill([target], photos, indices=[0, 1, 2, 3], progress=QUIET) == []  # 4 x 12,288 bytes do fit
