"""Data sets and finished runs that several test modules look at; each is made once in a session."""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from pathlib import Path

from support.commands import SMALL, Result, must
from support.photos import photo, write_broken, write_folder

CLASSES = ["class 2", "class 10", "Tulpe ü"]  # in natural order
EACH = 14
EPOCHS = 2


@dataclass(frozen=True)
class Run:
    """A finished study."""

    data: Path
    out: Path
    broken: list[str]
    """Paths in `data` that are no photos, as study.json writes them."""
    said: Result
    options: tuple[str, ...]


@functools.cache
def tangled(base: Path) -> Run:
    """The tutorial's study on good photos, every kind of broken one, two twins, and a photo that stands in two
    classes.
    """
    data = write_folder(base / "tangled", CLASSES, EACH)
    broken = [p.relative_to(data).as_posix() for p in write_broken(data / "class 2")]
    shutil.copy(data / "class 10" / "class 10 1.jpeg", data / "class 10" / "twin.jpg")
    shutil.copy(data / "class 2" / "class 2 2.png", data / "Tulpe ü" / "stray.png")
    options = ("--protocol", "tutorial", "--epochs", str(EPOCHS), "--seed", "3", *SMALL)
    out = base / "tangled run"
    return Run(data, out, sorted(broken), must("study", data, "--out", out, *options), options)


@functools.cache
def held_out(base: Path) -> Run:
    """The frozen strategy alone, reported on another folder in which two photos are twins of photos trained on."""
    data = write_folder(base / "held out" / "seen", CLASSES, EACH)
    other = write_folder(base / "held out" / "new", CLASSES, 5, first_seed=500)
    for number, name in enumerate(("class 10", "class 2")):
        shutil.copy(data / name / f"{name} 1.jpeg", other / name / f"copy {number}.jpg")
    (other / "class 2" / "broken.jpg").write_bytes(photo()[:200])
    options = ("--test", str(other), "--strategies", "frozen", "--epochs", "2", *SMALL)
    out = base / "held out" / "run"
    return Run(data, out, ["class 2/broken.jpg"], must("study", data, "--out", out, *options), options)
