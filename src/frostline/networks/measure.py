"""What takes time to find out of a network: how many layers it has, and how quick it is here.

It is kept in the cache folder, in ``networks.json``::

    {"sizes": {"<name>, timm <version>": {"parameters", "layers", "blocks"}},
     "speeds": {"<processor, cores, engine>": {"<name> <side of its photos>": photos/s}}}

Nothing here imports PyTorch until something is measured.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from frostline.cache import folder
from frostline.errors import ConfigError, RunError, one_line
from frostline.files import write_json
from frostline.networks.engine import processor, settle, signature
from frostline.parallel import ahead, thread_count
from frostline.photos.decoding import Pixels
from frostline.progress import Progress

if TYPE_CHECKING:
    from frostline.networks.backbone import Backbone

SECONDS = 1.0
"""How long a network's speed is measured."""

Row = dict[str, Any]


class Notes:
    """networks.json. A damaged file is an empty one, and where it can't be written nothing is kept."""

    def __init__(self) -> None:
        self._path = folder.cache_dir() / "networks.json"
        self._kept: dict[str, dict[str, Any]] = {}
        with suppress(OSError, ValueError):
            found = json.loads(self._path.read_text(encoding="utf-8"))
            self._kept = {part: dict(found[part]) for part in ("sizes", "speeds") if part in found}

    @cached_property
    def _machine(self) -> str:
        """Whose speeds they are. It imports the engine: only where any were measured."""
        return f"{processor()}, {thread_count()} cores, {signature(settle('auto'))}"

    def knows(self, name: str) -> bool:
        """Whether a network's size need not be counted again."""
        return _sized(name) in self._kept.get("sizes", {})

    def size(self, name: str) -> Row:
        """parameters, layers, blocks, as they were counted; empty where they never were."""
        return dict(self._kept.get("sizes", {}).get(_sized(name), {}))

    def count(self, name: str) -> None:
        """Count a network's parameters and layers, once, and keep them."""
        if not self.knows(name):
            self._kept.setdefault("sizes", {})[_sized(name)] = _size(name)
            self._write()

    def measure(self, name: str, side: int, progress: Progress) -> None:
        """Measure a network's speed on photos of its own size, `side` pixels, and keep it."""
        from frostline.networks import backbone

        try:
            rate = photos_per_second(backbone.build(name, "random"))
        except Exception as error:  # exporters and engines each have their own kinds; the listing goes on
            progress.say(f"{name}: its speed can't be measured here: {one_line(error)}")
            return
        self._kept.setdefault("speeds", {}).setdefault(self._machine, {})[f"{name} {side}"] = rate
        self._write()

    def speed(self, name: str, side: int) -> float | None:
        """Photos/s, None where it was never measured."""
        speeds = self._kept.get("speeds")
        found: float | None = speeds.get(self._machine, {}).get(f"{name} {side}") if speeds else None
        return found

    def _write(self) -> None:
        with suppress(RunError, OSError):
            write_json(self._path, self._kept)


@cache
def _timm_version() -> str:
    return metadata.version("timm")


def _sized(name: str) -> str:
    return f"{name}, timm {_timm_version()}, with parameters"  # older notes count other layers too


def _size(name: str) -> Row:
    import torch

    from frostline.networks import backbone, freeze_line
    from frostline.networks.lines import Lines

    about = backbone.info(name)
    with torch.device("meta"):  # the shapes alone: no memory, no initialisation
        network = backbone.Scaled(backbone.architecture(about), about.transform(0, "squash"))
        photos = torch.zeros(2, about.image_size, about.image_size, 3, dtype=torch.uint8)
    size: Row = {"parameters": sum(p.numel() for p in network.parameters()), "layers": None, "blocks": None}
    with suppress(ConfigError):
        traced = freeze_line.trace(network, photos)
        size |= {"layers": len(Lines(name, traced, network.body).counted), "blocks": len(freeze_line.blocks(traced))}
    return size


def photos_per_second(built: Backbone) -> float:
    """How many photos/s the compiled network takes on this machine's processor, fed as a study feeds it (decoding not
    counted).

    Raises
    ------
    RunError
        No room for the exported network.
    """
    from frostline.networks import freeze_line
    from frostline.networks.compilation import Runtime, compiled

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
