"""The training photos that look most like a new one, to the network's own eye.

A bundle keeps what its network makes of the photos it was trained on (validation photos too, where it was trained on
those in the end): the features before the head or, where those are wider than `WIDEST` numbers, the head's hidden
layer. So whoever asks about a photo can be shown which known photos it resembles, and of which classes those are:
evidence beside the confidence, found by cosine similarity (k nearest neighbours; Cover and Hart, 1967).

The file holds numbers, labels and file names, no photos: 2.6 kB a photo for MobileNetV2.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from frostline.bundles import side_files
from frostline.documents.bundle import NeighboursFile
from frostline.errors import BundleError

FILE = "neighbours.safetensors"
WIDEST = 4096
"""Features wider than this are not kept: 20,000 photos of them would take 160 MB."""
MOST = 20_000
"""Photos kept of a larger training set, each class by its share."""
MOST_FROM_PIXELS = 500
"""The same where the line is at 0: there each costs a pass through the whole network when the bundle is written."""

Features = npt.NDArray[np.floating[Any]]


class Neighbour(NamedTuple):
    """A training photo that looks like the one asked about."""

    path: str
    """As in the manifest of the study."""
    label: int
    """Index of its class."""
    similarity: float
    """Cosine of the angle between the features, -1 to 1."""


@dataclass(frozen=True)
class Neighbours:
    """What a network makes of its training photos."""

    features: npt.NDArray[np.float32]
    """(N, D), each row of length 1."""
    labels: npt.NDArray[np.int32]
    """Class index of each, (N,)."""
    paths: list[str]

    def nearest(self, features: Features, count: int) -> list[Neighbour]:
        """The `count` photos most like one with these `features` (D,), the most similar first; equal ones in the
        order kept."""
        asked = features.astype(np.float32)
        likeness = self.features @ (asked / max(float(np.linalg.norm(asked)), 1e-12))
        first = np.argsort(-likeness, kind="stable")[:count]
        return [Neighbour(self.paths[i], int(self.labels[i]), float(likeness[i])) for i in first]


def chosen(labels: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Places of at most `most` photos, in order: every class keeps its share (one photo at least), spread evenly over
    its photos."""
    if len(labels) <= most:
        return np.arange(len(labels))
    kept = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        count = max(1, int(len(places) * most / len(labels)))
        kept.append(places[np.arange(count) * len(places) // count])
    return np.sort(np.concatenate(kept))


def to_bytes(features: Features, labels: npt.NDArray[np.integer[Any]], paths: list[str]) -> bytes:
    """The file of a bundle: `features` (N, D) in half precision, `labels` (N,), and the names in its header."""
    from safetensors.numpy import save

    # in half precision only directions matter, and the largest number of a row may be beyond its range
    largest = np.abs(features).max(axis=1, keepdims=True, initial=1e-12)
    tensors = {"features": (features / largest).astype(np.float16), "labels": labels.astype(np.int32)}
    return save(tensors, metadata={"paths": json.dumps(paths, ensure_ascii=False)})


def describe(data: bytes, photos: int) -> NeighboursFile:
    """What bundle.json says of the file."""
    return {"photos": photos, "sha256": hashlib.sha256(data).hexdigest()}


def read(path: Path, digest: str, classes: int) -> Neighbours:
    """Read the file of a bundle.

    Raises
    ------
    BundleError
        It is missing, or not what bundle.json says.
    """
    from safetensors import safe_open

    with side_files.checked(path, digest), safe_open(path, "numpy") as file:
        features, labels = file.get_tensor("features").astype(np.float32), file.get_tensor("labels")
        paths = [str(name) for name in json.loads((file.metadata() or {})["paths"])]
    fits = features.ndim == 2 and labels.shape == (len(features),) and len(paths) == len(features)
    if not fits or (len(labels) and not 0 <= labels.min() <= labels.max() < classes):
        raise BundleError(
            f"{path} is damaged (features {features.shape}, labels {labels.shape}): copy the bundle again"
        )
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return Neighbours(features / np.maximum(lengths, 1e-12), labels, paths)
