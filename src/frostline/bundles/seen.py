"""Which photos and groups a bundle has seen: digests of those it was trained on and validated on.

So `frostline evaluate` can tell figures on new photos from figures on photos that the model knows. The file holds the
first 8 bytes of each SHA-256, of a photo's bytes or a group's name, sorted: 8 kB for 1,000 photos, and no way back to
a photo or a name that isn't at hand already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from frostline.bundles import side_files
from frostline.documents.bundle import SeenFile
from frostline.photos.manifest import Photo

FILE = "seen.safetensors"

Digests = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Seen:
    """What a bundle has seen, each an ascending list of digests."""

    trained: Digests
    validated: Digests
    """Photos by which the epoch and the temperature were chosen."""
    groups: Digests
    """Of both."""

    def trained_on(self, photos: Sequence[Photo]) -> npt.NDArray[np.bool_]:
        """(N,) whether these bytes were trained on."""
        return np.isin(_of_photos(photos), self.trained)

    def validated_on(self, photos: Sequence[Photo]) -> npt.NDArray[np.bool_]:
        """(N,) whether these bytes were validated on."""
        return np.isin(_of_photos(photos), self.validated)

    def of_known_groups(self, photos: Sequence[Photo]) -> npt.NDArray[np.bool_]:
        """(N,) whether a group of this name was trained or validated on."""
        named = np.array([bool(photo.group) for photo in photos], dtype=bool)
        return named & np.isin(_digests(_of_group(photo.group) for photo in photos), self.groups)


def to_bytes(trained: Sequence[Photo], validated: Sequence[Photo]) -> bytes:
    """The file of a bundle that was trained and validated on these photos."""
    from safetensors.numpy import save

    names = {photo.group for photo in (*trained, *validated) if photo.group}
    return save(
        {
            "trained": np.unique(_of_photos(trained)),
            "validated": np.unique(_of_photos(validated)),
            "groups": np.unique(_digests(map(_of_group, names))),
        }
    )


def describe(data: bytes, trained: int, validated: int) -> SeenFile:
    """What bundle.json says of the file."""
    return {"trained": trained, "validated": validated, "sha256": hashlib.sha256(data).hexdigest()}


def read(path: Path, digest: str) -> Seen:
    """Read the file of a bundle.

    Raises
    ------
    BundleError
        It is missing, or not what bundle.json says.
    """
    from safetensors.numpy import load

    with side_files.checked(path, digest) as data:
        tensors = load(data)
        return Seen(*(tensors[name].astype(np.uint64) for name in ("trained", "validated", "groups")))


def _of_photos(photos: Sequence[Photo]) -> Digests:
    return _digests(photo.sha256 for photo in photos)


def _digests(hexadecimal: Iterable[str]) -> Digests:
    return np.array([int(text[:16], 16) for text in hexadecimal], dtype=np.uint64)


def _of_group(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
