"""What `frostline backbones` lists: the networks to choose from, their size, where their weights are, how quick they
are here.

What takes time to find out (layers, speed) is kept in the cache folder, in ``networks.json``::

    {"sizes": {"<name>, timm <version>": {"parameters", "layers", "blocks"}},
     "speeds": {"<processor, cores, engine>": {"<name> <side of its photos>": photos/s}}}
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frostline.cache import folder
from frostline.errors import ConfigError, RunError, one_line
from frostline.files import write_json
from frostline.networks import backbone, freeze_line, weights
from frostline.networks.backbone import EMBEDDED, Backbone, Info, Scaled
from frostline.networks.compilation import Runtime, compiled
from frostline.networks.engine import processor, settle, signature
from frostline.parallel import ahead, thread_count
from frostline.photos.decoding import Pixels
from frostline.progress import Progress

SECONDS = 1.0
"""How long a network's speed is measured."""

Row = dict[str, Any]


def listing(find: str = "", *, speed: bool = False, progress: Progress | None = None) -> list[Row]:
    """The embedded networks, or all whose names hold `find`: what `frostline backbones` shows.

    Parameters
    ----------
    speed
        Measure how many photos/s each network takes here, compiled; about two seconds each, most of them compilation.

    Returns
    -------
    list of dict
        name, home, parameters, photos (sides in pixels), layers (that the line can count), blocks (how many of those
        are whole blocks; see `freeze.trace`), weights (where they are at hand), photos_per_second (None where not
        measured here). None, too, for layers and blocks of a network that can't be recorded.

    Raises
    ------
    ConfigError
        No network has `find` in its name.
    """
    import timm

    names = list(EMBEDDED)
    if find:
        names = [n for n in EMBEDDED if find in n] + [n for n in timm.list_models(f"*{find}*") if n not in EMBEDDED]
    if not names:
        raise ConfigError(f"no network has '{find}' in its name: give a shorter part, e.g. 'resnet'")
    progress = progress or Progress(quiet=True)
    notes = _Notes()
    task = None
    if speed or not all(map(notes.knows, names)):
        task = progress.task("Measuring speed" if speed else "Counting layers", len(names))
    rows = []
    for name in names:
        with suppress(ConfigError):  # takes no square RGB photos
            about = backbone.info(name)
            if speed:
                notes.measure(about, progress)
            rows.append(_row(about, notes))
        if task:
            task.advance(1)
    return rows


def _row(about: Info, notes: _Notes) -> Row:
    size = notes.size(about)
    return {
        "name": about.name,
        "home": about.home,
        "parameters": size["parameters"],
        "photos": f"{about.image_size} x {about.image_size}",
        "layers": size["layers"],
        "blocks": size["blocks"],
        "weights": _at_hand(about),
        "photos_per_second": notes.speed(about),
    }


def _at_hand(about: Info) -> str:
    if about.home == "frostline":
        return "none (from scratch)"
    if about.source is not None:
        return "in the cache" if weights.status(about.source)["cached"] == "yes" else "package index"
    if not about.hub:
        return "none"
    return "in the cache" if backbone.hub_file(about) else "timm's hub"


class _Notes:
    """networks.json. A damaged file is an empty one, and where it can't be written nothing is kept."""

    def __init__(self) -> None:
        self._path = folder.cache_dir() / "networks.json"
        self._kept: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._kept = {part: dict(found[part]) for part in ("sizes", "speeds") if part in found}
        self._machine = f"{processor()}, {thread_count()} cores, {signature(settle('auto'))}"

    def knows(self, name: str) -> bool:
        """Whether a network's size need not be counted again."""
        return _sized(name) in self._kept.get("sizes", {})

    def size(self, about: Info) -> Row:
        """parameters, layers, blocks."""
        sizes = self._kept.setdefault("sizes", {})
        if not self.knows(about.name):
            sizes[_sized(about.name)] = _size(about)
            self._write()
        return dict(sizes[_sized(about.name)])

    def measure(self, about: Info, progress: Progress) -> None:
        """Measure a network's speed and keep it."""
        try:
            rate = photos_per_second(backbone.build(about.name, "random"))
        except Exception as error:  # exporters and engines each have their own kinds; the listing goes on
            progress.say(f"{about.name}: its speed can't be measured here: {one_line(error)}")
            return
        self._kept.setdefault("speeds", {}).setdefault(self._machine, {})[_fed(about)] = rate
        self._write()

    def speed(self, about: Info) -> float | None:
        """Photos/s, None where it was never measured."""
        found: float | None = self._kept.get("speeds", {}).get(self._machine, {}).get(_fed(about))
        return found

    def _write(self) -> None:
        with suppress(RunError, OSError):
            write_json(self._path, self._kept)


def _sized(name: str) -> str:
    return f"{name}, timm {metadata.version('timm')}"


def _fed(about: Info) -> str:
    return f"{about.name} {about.image_size}"


def _size(about: Info) -> Row:
    with torch.device("meta"):  # the shapes alone: no memory, no initialisation
        network = Scaled(backbone.architecture(about), about.transform(0, "squash"))
        photos = torch.zeros(2, about.image_size, about.image_size, 3, dtype=torch.uint8)
    size: Row = {"parameters": sum(p.numel() for p in network.parameters()), "layers": None, "blocks": None}
    with suppress(ConfigError):
        traced = freeze_line.trace(network, photos)
        size |= {"layers": len(freeze_line.layers(traced)), "blocks": len(freeze_line.blocks(traced))}
    return size


def photos_per_second(built: Backbone) -> float:
    """How many photos/s the compiled network takes on this machine's processor, fed as a study feeds it (decoding not
    counted).

    Raises
    ------
    RunError
        No room for the exported network.
    """
    network = freeze_line.taps(built.traced, [built.layer_count])
    photo = np.random.default_rng(0).integers(0, 256, built.example().shape, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        engine = compiled(network, [built.example()], Runtime(), half=True, folder=Path(folder))
        engine.run([photo])
        began = time.perf_counter()

        def until() -> Iterator[Pixels]:
            while time.perf_counter() < began + SECONDS:
                yield photo

        done = sum(1 for _ in ahead(lambda p: engine.run([p]), until(), depth=4 * thread_count()))
        return round(done / (time.perf_counter() - began), 1)
