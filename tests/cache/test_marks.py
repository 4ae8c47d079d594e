"""Nothing that a living process uses is removed."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from frostline.cache import contents, marks, upkeep
from frostline.errors import RunError
from frostline.photos import sample
from support.cache_folders import DAY, NOW, OPENS, folder_of, listing, other_process, started, stored, users
from support.commands import must


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
