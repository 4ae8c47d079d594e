"""Cache folders with entries of all kinds, and other processes that use them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from frostline.cache import contents
from frostline.cache.store import Store
from frostline.files import write_json
from frostline.networks.weights import KNOWN
from frostline.photos import sample
from support.commands import SOURCES, must
from support.stores import DTYPES, SHAPES, keys, values

DAY = 86_400
NOW = 1_700_000_000  # long before any test runs
ROW = 2 * 3 * 2 + 4
ENGINE = 0xE0


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


def gone(removed: list[contents.Entry]) -> list[int]:
    assert not any(entry.path.exists() for entry in removed)
    return [int(entry.path.stem, 16) for entry in removed]
