"""The model that a server answers with, and how a new one replaces it without a request being lost.

A new bundle is compiled (in another process, where it has to be), loaded and tried beside the old one, and then
replaces it in one step. Requests that were begun keep the model they began with. A bundle that can't be used changes
nothing and is reported.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frostline.bundles import about, bundle
from frostline.bundles.neighbours import Features, Neighbours
from frostline.config import EngineKind
from frostline.errors import BundleError, FrostlineError, PhotoError
from frostline.photos.decoding import prepare
from frostline.serving.heat_map_process import HeatMapProcess
from frostline.serving.limits import ApiError, photo_refusal
from frostline.serving.uploads import Upload
from frostline.stats.probabilities import softmax

WATCH_SECONDS = 1.0
"""Between two looks at a watched bundle."""


@dataclass(frozen=True)
class Output:
    """The network's output for one photo."""

    probabilities: np.ndarray
    """Calibrated, float64 (classes,)."""
    features: Features
    """See `frostline.bundles.neighbours`."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A loaded bundle with all that a server reports of it; nothing is read from its folder later."""

    model: bundle.Bundle
    digest: str
    """SHA-256 of its weights."""
    card: str
    """Its model card, Markdown; empty where there is none."""
    neighbours: Neighbours | None
    heat_maps: HeatMapProcess
    pixels: int
    """Most pixels of a photo."""

    @property
    def id(self) -> str:
        """Identifies the model in answers: the first 12 digits of `digest`."""
        return self.digest[:12]

    def classify(self, uploads: Sequence[Upload]) -> list[Output | ApiError]:
        """Decode photos and run the network on them; called from many threads."""
        decoded = [self._decoded(upload) for upload in uploads]
        photos = [photo for photo in decoded if not isinstance(photo, ApiError)]
        if not photos:
            return [photo for photo in decoded if isinstance(photo, ApiError)]
        seen = self.model.outputs(np.stack(photos) if len(photos) > 1 else photos[0][None])
        rows = zip(softmax(seen.logits, self.model.about.temperature), seen.features, strict=True)
        return [photo if isinstance(photo, ApiError) else Output(*next(rows)) for photo in decoded]

    def _decoded(self, upload: Upload) -> np.ndarray | ApiError:
        if upload.error is not None:
            return upload.error
        try:
            return prepare(upload.data, self.model.transform, max_pixels=self.pixels)
        except PhotoError as error:
            return photo_refusal(error)


def load(folder: Path, engine: EngineKind, pixels: int) -> ServedModel:
    """Load a bundle and try it on a grey picture.

    Raises
    ------
    BundleError
        It can't be used; the message says why.
    """
    _compile(folder, engine)
    digest = about.digest(folder)
    model = bundle.load(folder, engine)
    readme = folder / "README.md"
    try:
        card = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    except (OSError, ValueError) as error:
        raise BundleError(f"can't read {readme}: {error}") from error
    served = ServedModel(model, digest, card, model.neighbours, HeatMapProcess(folder, digest), pixels)
    if about.digest(folder) != digest:
        raise BundleError(f"{folder} changed while it was read: reload again")
    size = model.transform.size
    if not np.isfinite(model.probabilities(np.full((1, size, size, 3), 128, np.uint8))).all():
        raise BundleError(f"{folder} gives probabilities that are not finite for a grey picture: train it again")
    return served


def _compile(folder: Path, engine: EngineKind) -> None:
    """Have a bundle compiled by another process, so that this one never loads PyTorch for it."""
    if bundle.compiled_here(folder, engine):
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            pool.submit(_load_once, str(folder), engine).result()
        except BrokenProcessPool as error:
            raise BundleError(f"{folder} could not be compiled: its process ended; is there enough memory?") from error


def _load_once(folder: str, engine: EngineKind) -> None:
    bundle.load(folder, engine)


class ReloadableModel:
    """The model in use, replaced by `reload`."""

    def __init__(self, folder: Path, first: ServedModel, engine: EngineKind, say: Callable[[str], None]) -> None:
        self.current = first
        self.folder = folder
        self.reloads = {"ok": 0, "failed": 0}
        self._engine, self._say = engine, say
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> ServedModel:
        """Load what the folder holds now; further requests are answered with it.

        Raises
        ------
        FrostlineError
            It can't be used: the old model stays in use.
        """
        async with self._one_at_a_time:
            try:
                new = await asyncio.to_thread(load, self.folder, self._engine, self.current.pixels)
            except Exception as error:
                self.reloads["failed"] += 1
                self._say(f"reload failed, the model in use stays: {error}")
                raise error if isinstance(error, FrostlineError) else BundleError(str(error)) from error
            old, self.current = self.current, new
            self.reloads["ok"] += 1
        old.heat_maps.stop()
        self._say(f"reloaded: {new.model.about.strategy}, model {new.id}")
        return new

    async def reload_quietly(self) -> None:
        """`reload` for signals and `watch`, where nobody waits for an answer; `say` has been told of an error."""
        try:
            await self.reload()
        except FrostlineError:
            return

    async def watch(self) -> None:
        """Reload whenever bundle.json has changed and then stayed the same for one look."""
        loaded = seen = self._version()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = self._version()
            if now is not None and now == seen and now != loaded:
                loaded = now
                await self.reload_quietly()
            seen = now

    def _version(self) -> tuple[int, int, int] | None:
        """Changes with bundle.json; None while there is none."""
        try:
            status = (self.folder / "bundle.json").stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
