"""The model that a server answers with, and how another one takes its place without a request being lost.

A new bundle is compiled (in a process of its own, if it has to be), loaded and tried beside the old one, and then takes its place in one
step. Requests under way keep the model they began with. A bundle that can't be used changes nothing and is told.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frostline.bundles import about, bundle
from frostline.bundles.neighbours import Features, Neighbours
from frostline.config import EngineKind
from frostline.errors import BundleError, FrostlineError, PhotoError
from frostline.photos.decoding import prepare
from frostline.serving.heat_map_process import Explainer
from frostline.serving.limits import ApiError, of_photo
from frostline.serving.uploads import Upload
from frostline.stats.probabilities import softmax

NEW_EVERY = 1.0
"""Seconds between two looks at a watched bundle."""


@dataclass(frozen=True)
class Verdict:
    """What a model makes of one photo."""

    probabilities: np.ndarray
    """Calibrated, float64 (classes,)."""
    features: Features
    """See `frostline.bundles.neighbours`."""


@dataclass(frozen=True, eq=False)
class Served:
    """A loaded bundle with all that a server tells of it; nothing is read from its folder later."""

    model: bundle.Bundle
    digest: str
    """SHA-256 of its weights."""
    card: str
    """Its model card, Markdown; empty where there is none."""
    neighbours: Neighbours | None
    explainer: Explainer
    pixels: int
    """The most a photo may have."""

    @property
    def id(self) -> str:
        """Tells models apart in answers."""
        return self.digest[:12]

    def answer(self, uploads: Sequence[Upload]) -> list[Verdict | ApiError]:
        """Decode photos and run them; called from many threads."""
        ready: list[np.ndarray | ApiError] = [self._decoded(upload) for upload in uploads]
        good = [photo for photo in ready if not isinstance(photo, ApiError)]
        if not good:
            return [photo for photo in ready if isinstance(photo, ApiError)]
        seen = self.model.seen(np.stack(good) if len(good) > 1 else good[0][None])
        rows = zip(softmax(seen.logits, self.model.about.temperature), seen.features, strict=True)
        return [photo if isinstance(photo, ApiError) else Verdict(*next(rows)) for photo in ready]

    def _decoded(self, upload: Upload) -> np.ndarray | ApiError:
        if upload.fault is not None:
            return upload.fault
        try:
            return prepare(upload.data, self.model.transform, max_pixels=self.pixels)
        except PhotoError as error:
            return of_photo(error)


def load(folder: Path, engine: EngineKind, pixels: int) -> Served:
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
    served = Served(model, digest, card, model.neighbours, Explainer(folder, digest), pixels)
    if about.digest(folder) != digest:
        raise BundleError(f"{folder} changed while it was read: reload again")
    size = model.transform.size
    if not np.isfinite(model.probabilities(np.full((1, size, size, 3), 128, np.uint8))).all():
        raise BundleError(f"{folder} says nothing finite of a grey picture: train it again")
    return served


def _compile(folder: Path, engine: EngineKind) -> None:
    """Have a bundle compiled by another process, so that this one never loads PyTorch for it."""
    if bundle.compiled_here(folder, engine):
        return
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        try:
            pool.submit(_try, str(folder), engine).result()
        except BrokenProcessPool as error:
            raise BundleError(f"{folder} could not be compiled: its process ended; is there enough memory?") from error


def _try(folder: str, engine: EngineKind) -> None:
    bundle.load(folder, engine)


class Models:
    """The model in use, and the way to another one."""

    def __init__(self, folder: Path, first: Served, engine: EngineKind, say: Callable[[str], None]) -> None:
        self.current = first
        self.folder = folder
        self.reloads = {"ok": 0, "failed": 0}
        self._engine, self._say = engine, say
        self._one_at_a_time = asyncio.Lock()

    async def reload(self) -> Served:
        """Load what is in the folder now and answer with it from here on.

        Raises
        ------
        FrostlineError
            It can't be used: the old one stays.
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
        old.explainer.stop()
        self._say(f"reloaded: {new.model.about.strategy}, model {new.id}")
        return new

    async def reload_quietly(self) -> None:
        """`reload` for signals and watchers, who can't be answered: what is wrong was said."""
        try:
            await self.reload()
        except FrostlineError:
            return

    async def watch(self) -> None:
        """Reload whenever bundle.json has changed and then stayed for one look."""
        loaded = seen = self._mark()
        while True:
            await asyncio.sleep(NEW_EVERY)
            now = self._mark()
            if now is not None and now == seen and now != loaded:
                loaded = now
                await self.reload_quietly()
            seen = now

    def _mark(self) -> Any:
        """What changes with bundle.json; None while there is none."""
        try:
            status = (self.folder / "bundle.json").stat()
        except OSError:
            return None
        return status.st_ino, status.st_mtime_ns, status.st_size
