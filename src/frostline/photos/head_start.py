"""A head start: photos are listed and decoded while PyTorch is imported and the network is built and compiled.

That takes seconds on one core, and decoding does not depend on it. Nothing here imports PyTorch. The pixels are exactly
those that the pass through the frozen layers (`frostline.networks.activations`) would decode. Photos that can't be
decoded are left to that pass, which lists them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path

from frostline.cache.folder import cache_dir
from frostline.config import Config
from frostline.errors import PhotoError
from frostline.parallel import ahead
from frostline.photos import hf_datasets, scan
from frostline.photos.decoding import Pixels, Transform
from frostline.photos.loading import pixels
from frostline.photos.manifest import Manifest, Photo
from frostline.recipes import OWN_SIDES, enlarged

_BYTES = 300_000_000  # decoded photos that may wait: 2,000 of 224 x 224
_NAMES = 16 * 1024**2  # bytes of stores' lists of rows that are looked through: 240,000 rows
_WAITING = 16  # photos under way
_PATIENCE = 5.0  # seconds


class HeadStart:
    """Lists the photos of a folder in a thread, then decodes the first ones whose activations are not in the cache.

    Parameters
    ----------
    transform
        That of the run's first pass; None where it is not known: no photo is decoded then.
    """

    def __init__(self, data: Path, transform: Transform | None) -> None:
        self._transform = transform.frame() if transform else None
        self._listed: Future[Manifest] = Future()
        self._decoded: dict[str, Pixels] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(data,), daemon=True)
        self._thread.start()

    def photos(self) -> Manifest:
        """Wait for the list of photos. Raises what `scan.scan` raises."""
        return self._listed.result()

    def stop(self) -> None:
        """Decode no more photos; the pass decodes the rest."""
        self._stopped.set()

    def end(self) -> None:
        """Stop, wait for the photos under way (at most a few seconds: a file system may hang), and free all pixels."""
        self.stop()
        self._thread.join(timeout=_PATIENCE)
        self._decoded.clear()

    def take(self, photo: Photo, transform: Transform) -> Pixels | None:
        """The pixels of a photo, (size, size, 3) uint8, freed here; None if it wasn't decoded with this `transform`."""
        return self._decoded.pop(photo.sha256, None) if transform.frame() == self._transform else None

    def _work(self, data: Path) -> None:
        try:
            self._listed.set_result(scan.scan(data, stopped=self._stopped.is_set))
        except BaseException as error:  # `photos` raises it
            self._listed.set_exception(error)
            return
        if self._transform is not None and not self._stopped.is_set():
            with suppress(Exception):  # the pass will meet the same error, and report it
                self._decode(self.photos(), self._transform)

    def _decode(self, photos: Manifest, transform: Transform) -> None:
        known = _known()
        most = _BYTES // (3 * transform.size**2)
        fresh = {p.sha256: p for p in photos.photos if known is not None and p.sha256 not in known}
        some = islice(fresh.values(), most)
        with closing(ahead(lambda photo: pixels(photos.root / photo.path, transform), some, depth=_WAITING)) as decoded:
            for photo, found in decoded:
                if self._stopped.is_set():
                    break
                if not isinstance(found, PhotoError):
                    self._decoded[photo.sha256] = found


def _known() -> set[str] | None:
    """Digests of all photos in the stores of activations; None where there are too many to look through."""
    lists = list((cache_dir() / "activations").glob("*/names.txt"))
    try:
        if sum(path.stat().st_size for path in lists) > _NAMES:
            return None
        return {line[:64] for path in lists for line in path.read_text("ascii", "replace").splitlines()}
    except OSError:  # removed meanwhile, or not ours to read
        return None


@contextmanager
def begin(config: Config) -> Iterator[HeadStart | None]:
    """A head start on a run, ended with the block; None where the photos have to be unpacked or rendered first."""
    data = Path(config.data)
    if not data.is_dir() or hf_datasets.is_saved(data):
        yield None
        return
    start = HeadStart(data, _transform(config))
    try:
        yield start
    finally:
        start.end()


def _transform(config: Config) -> Transform | None:
    """The transform of the first pass, where it is known without importing timm; else None."""
    first = config.strategies[0]
    own = OWN_SIDES.get(first.backbone)
    return Transform(config.image_size or enlarged(own, first.enlarge), config.resize) if own else None
