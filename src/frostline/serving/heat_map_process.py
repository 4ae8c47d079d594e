"""Heat maps for a server, drawn in a process of their own.

They need PyTorch: a second to import, 400 MB, and long holds of the interpreter's lock. In a child process, started
when the first heat map is asked for, none of that slows the other answers. The child ends with its parent, however the
parent ends.
"""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import io
import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypedDict

import numpy as np
from PIL import Image

from frostline.bundles import about, bundle
from frostline.errors import FrostlineError
from frostline.serving.limits import ApiError, busy

MOST_WAITING = 8
"""Heat maps that may wait for the process."""
SECONDS = 90.0
"""Time for a heat map to be drawn, with the start of the process."""
_WIDTH = 640
"""Pixels of an overlay's longer side."""


class HeatMap(TypedDict):
    """A drawn heat map, as in the answers of `/v1/explain`."""

    method: str
    map: list[list[int]]
    """0 to 255, row by row."""
    overlay: str
    """``data:image/jpeg;base64,...``: the map laid over the photo."""


def available() -> bool:
    """Whether PyTorch is installed here."""
    return importlib.util.find_spec("torch") is not None


class HeatMapProcess:
    """The process that draws a bundle's heat maps.

    Parameters
    ----------
    digest
        SHA-256 of the weights that the server has loaded: the folder may hold others when the first heat map is asked
        for.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder, self._digest = folder, digest
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0
        self._stopped = False

    async def draw(self, photo: bytes, class_index: int) -> HeatMap:
        """The heat map of a photo's file for one class.

        Raises
        ------
        ApiError
            PyTorch is not installed, too many heat maps wait, or this network has none.
        """
        if not available():
            raise ApiError(
                501, "no_explanations", "heat maps need PyTorch, which is not installed where this server runs"
            )
        if self._waiting >= MOST_WAITING or self._stopped:
            raise busy("too many heat maps are waiting to be drawn: try again in some seconds", 5)
        self._waiting += 1
        try:
            return await self._submit(photo, class_index)
        finally:
            self._waiting -= 1

    async def _submit(self, photo: bytes, class_index: int) -> HeatMap:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _start, (str(self._folder), self._digest))
        pool = self._pool
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.get_running_loop().run_in_executor(pool, _draw, photo, class_index)
        except FrostlineError as error:
            raise ApiError(422, "no_map", str(error)) from error
        except TimeoutError as error:
            raise busy("the heat map took too long: try again in some seconds", 5) from error
        except BrokenProcessPool as error:  # killed, or out of memory: the next request starts a new one
            if self._pool is pool:
                self._pool = None
            raise busy("the process that draws heat maps ended: try again in some seconds", 5) from error

    def stop(self) -> None:
        """End the process once it is idle; returns at once."""
        self._stopped = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


# ---- in the process --------------------------------------------------------------------------------------------------

_loaded: bundle.Bundle | FrostlineError = FrostlineError("the process has not started")


def _start(folder: str, digest: str) -> None:
    """Load the bundle. Errors are kept for `_draw`: raised here, they would look like a crash of the process."""
    global _loaded
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # the server's other answers come first
    try:
        model = bundle.load(folder)
        _ = model.parts  # PyTorch's network, built on first use
        changed = about.digest(folder) != digest
    except FrostlineError as error:
        _loaded = error
        return
    _loaded = model
    if changed:
        _loaded = FrostlineError("the bundle's folder has changed since the server loaded it: reload the server")


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _draw(photo: bytes, class_index: int) -> HeatMap:
    from frostline.bundles import heat_maps  # imports PyTorch, which the server itself does without
    from frostline.photos.decoding import prepare, thumbnail

    if isinstance(_loaded, FrostlineError):
        raise _loaded
    transform = _loaded.transform
    pixels = prepare(photo, transform)[None]
    heat = heat_maps.heat_maps(_loaded.parts, pixels, [class_index], test_views=_loaded.about.test_views)[0]
    small = thumbnail(photo, _WIDTH)
    if transform.resize == "crop":
        small = _centre(small, transform.crop_pct)
    buffer = io.BytesIO()
    heat_maps.overlay(np.asarray(small), heat).save(buffer, "JPEG", quality=85)
    return {
        "method": heat_maps.METHOD,
        "map": np.rint(heat * 255).astype(int).tolist(),
        "overlay": "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"),
    }


def _centre(photo: Image.Image, share: float) -> Image.Image:
    """The part of a photo that the network sees, where the transform cuts a square out of its middle."""
    side = max(1, round(share * min(photo.size)))
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side))
