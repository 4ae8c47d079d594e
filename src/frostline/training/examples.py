"""The rows that training reads: photos and their classes, in batches on the device that computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from frostline.cache.store import Key, Store
from frostline.networks import devices
from frostline.parallel import ahead, groups

Batch = tuple[list[Tensor], Tensor]
"""The tensors at the line, each (N, ...), in their stored number format; and the classes (N,)."""

_AT_A_TIME = 256  # rows that are read at a time where all are kept


@dataclass(frozen=True)
class Examples:
    """Photos and their classes; the rows come from the cache."""

    store: Store
    keys: Sequence[Sequence[Key]]
    """``keys[i][v]``: the row of view v of photo i."""
    labels: np.ndarray
    """Class index of each photo, int64 (N,)."""

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def targets(self) -> Tensor:
        """The labels as a tensor, int64 (N,)."""
        return torch.from_numpy(self.labels)

    def batch(self, photos: np.ndarray, views: np.ndarray) -> Batch:
        """The rows of these photos' views, and their classes, on the processor."""
        wanted = zip(photos.tolist(), views.tolist(), strict=True)
        arrays = self.store.read([self.keys[i][v % len(self.keys[i])] for i, v in wanted])
        return [torch.from_numpy(a) for a in arrays], torch.from_numpy(self.labels[photos])


class Feed:
    """Batches of examples on a device, in the order in which they are asked for.

    The processor reads each batch from the disk when it is asked for. An accelerator keeps all rows in its own memory
    where these take at most `room` bytes; else each batch is read and copied while it computes the one before. The
    batches are the same bit for bit.

    Parameters
    ----------
    views
        How many views of each photo may be asked for, the first ones.
    room
        Bytes; None: `devices.room_for_rows`. On the processor a number makes it do as an accelerator does.
    """

    def __init__(self, examples: Examples, device: torch.device, *, views: int = 1, room: int | None = None) -> None:
        self.examples = examples
        """Whose rows they are."""
        self._device, self._room = device, room
        self._views = [min(views, len(keys)) for keys in examples.keys]
        self._kept: list[Tensor] | None = None
        self._labels: Tensor | None = None

    def batches(self, photos: Sequence[np.ndarray], views: Sequence[np.ndarray]) -> Iterator[Batch]:
        """For each batch the places of its photos (N,), and which view of each (N,)."""
        wanted = list(zip(photos, views, strict=True))
        if self._device.type == "cpu" and not self._room:
            yield from (self.examples.batch(*each) for each in wanted)
        elif self._keeps():
            yield from self._of_kept(wanted)
        else:
            for _, (live, labels) in ahead(self._read, wanted, depth=1):
                yield [devices.sent(t, self._device) for t in live], devices.sent(labels, self._device)

    def _read(self, wanted: tuple[np.ndarray, np.ndarray]) -> Batch:
        live, labels = self.examples.batch(*wanted)
        return [devices.pinned(t, self._device) for t in live], labels

    def _keeps(self) -> bool:
        """Whether all rows are on the device; they are copied there when they are first asked for and fit."""
        if self._kept is None:
            if self._room is None:
                self._room = devices.room_for_rows(self._device)
            if sum(self._views) * self.examples.store.row_bytes > self._room:
                return False
            self._kept = self._copied()
            self._labels = devices.sent(self.examples.targets, self._device)
        return True

    def _copied(self) -> list[Tensor]:
        """All rows, photo by photo and view by view: tensors (rows, ...) on the device."""
        store = self.examples.store
        keys = [key for own, views in zip(self.examples.keys, self._views, strict=True) for key in own[:views]]
        whole = [
            torch.empty((len(keys), *shape), dtype=torch.from_numpy(np.empty(0, dtype)).dtype, device=self._device)
            for shape, dtype in zip(store.shapes, store.dtypes, strict=True)
        ]
        start = 0
        for some, arrays in ahead(store.read, groups(keys, _AT_A_TIME), depth=1):
            for rows, array in zip(whole, arrays, strict=True):
                rows[start : start + len(some)] = devices.sent(torch.from_numpy(array), self._device)
            start += len(some)
        return whole

    def _of_kept(self, wanted: Sequence[tuple[np.ndarray, np.ndarray]]) -> Iterator[Batch]:
        """The places of all batches are copied at once: a copy for each would make the device wait for each."""
        assert self._kept is not None and self._labels is not None  # noqa: S101 - `_keeps` said so
        if not wanted:
            return
        photos, views = (np.concatenate(each) for each in zip(*wanted, strict=True))
        count = np.array(self._views)
        first = np.cumsum(count) - count
        places = torch.from_numpy(np.stack([first[photos] + views % count[photos], photos]))
        sizes = [len(each) for each, _ in wanted]
        for rows, own in zip(*(t.split(sizes) for t in devices.sent(places, self._device)), strict=True):
            yield [t.index_select(0, rows) for t in self._kept], self._labels.index_select(0, own)
