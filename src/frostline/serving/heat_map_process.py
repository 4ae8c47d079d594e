"""Heat maps for a server, drawn in a process of their own.

They need PyTorch: a second to import, 400 MB, and long holds of the interpreter's lock. In a child process, which is started when the
first map is asked for, none of it touches the answers that others wait for. It ends with its parent, whatever ends that.
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
from typing import Any

import numpy as np
from PIL import Image

from frostline.errors import FrostlineError
from frostline.serving.limits import ApiError, busy

WAITING = 8
"""Maps that may wait for the one process."""
SECONDS = 90.0
"""In which a map has to be drawn, the start of the process included."""
_WIDTH = 640  # pixels of the longer side of an overlay


def available() -> bool:
    """Whether PyTorch is installed here."""
    return importlib.util.find_spec("torch") is not None


class Explainer:
    """The process that draws a bundle's maps.

    Parameters
    ----------
    digest
        Of the weights that the server has loaded: the folder may hold others by the time the first map is asked for.
    """

    def __init__(self, folder: Path, digest: str) -> None:
        self._folder, self._digest = folder, digest
        self._pool: ProcessPoolExecutor | None = None
        self._waiting = 0
        self._ended = False

    async def explain(self, photo: bytes, place: int) -> dict[str, Any]:
        """A map of one class: ``{"method", "map": rows of 0..255, "overlay": "data:image/jpeg;base64,..."}``.

        Raises
        ------
        ApiError
            PyTorch is not installed, too many wait, or this network has no maps.
        """
        if not available():
            raise ApiError(
                501, "no_explanations", "explanations need PyTorch, which is not installed where this server runs"
            )
        if self._waiting >= WAITING or self._ended:
            raise busy("too many explanations are being drawn: try again in some seconds", 5)
        self._waiting += 1
        try:
            return await self._ask(photo, place)
        finally:
            self._waiting -= 1

    async def _ask(self, photo: bytes, place: int) -> dict[str, Any]:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, _begin, (str(self._folder), self._digest))
        pool = self._pool
        try:
            async with asyncio.timeout(SECONDS):
                return await asyncio.get_running_loop().run_in_executor(pool, _explain, photo, place)
        except FrostlineError as error:
            raise ApiError(422, "no_map", str(error)) from error
        except TimeoutError as error:
            raise busy("the explanation took too long: try again in some seconds", 5) from error
        except BrokenProcessPool as error:  # killed, or out of memory: the next one starts anew
            if self._pool is pool:
                self._pool = None
            raise busy("the process that draws explanations ended: try again in some seconds", 5) from error

    def stop(self) -> None:
        """End the process once it is idle; returns at once."""
        self._ended = True
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


# ---- in the process --------------------------------------------------------------------------------------------------

_model: Any = None
_failure: FrostlineError | None = None


def _begin(folder: str, digest: str) -> None:
    global _model, _failure
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(5)  # answers come first
    from frostline.bundles import about, bundle

    try:
        _model = bundle.load(folder)
        if about.digest(folder) != digest:
            _failure = FrostlineError("the bundle's folder has changed since the server loaded it: reload the server")
        _ = _model.parts
    except FrostlineError as error:
        _failure = error  # raised in here, it would look like a crash


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _explain(photo: bytes, place: int) -> dict[str, Any]:
    from frostline.bundles import heat_maps
    from frostline.photos.decoding import prepare, thumbnail

    if _failure is not None:
        raise _failure
    transform = _model.transform
    pixels = prepare(photo, transform)[None]
    heat = heat_maps.heat_maps(_model.parts, pixels, [place], test_views=_model.about.test_views)[0]
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
    """What the network sees of a photo that is cut to a square."""
    side = max(1, round(share * min(photo.size)))
    left, top = (photo.width - side) // 2, (photo.height - side) // 2
    return photo.crop((left, top, left + side, top + side))
