"""The passes over all photos that a check needs, and what the kinds of findings share: `Examined`."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from frostline.cache.store import Key, Store
from frostline.checks import chance, label_errors, near_duplicates, photo_quality
from frostline.checks.chance import Outliers, WrongLabels
from frostline.checks.label_errors import Floats, Indices, Judgement
from frostline.checks.near_duplicates import DuplicateGroup
from frostline.errors import PhotoError, WeightsError
from frostline.networks import backbone as backbones
from frostline.networks.activations import fill, tap
from frostline.networks.compilation import Runtime
from frostline.photos.loading import decoded
from frostline.photos.manifest import Manifest, Photo
from frostline.photos.split import together
from frostline.progress import Progress
from frostline.recipes import DEFAULT_BACKBONE, strategy

NETWORKS = DEFAULT_BACKBONE
"""The network whose features are used unless another is named: that of a study, at its size, so that both say the same
of the same photos, and the second of them finds the features in the cache. Of labels flipped to the likeliest other
class (3 % of half of the flowers) its average precision is 0.95 at 288 pixels; MobileNetV2 and EfficientNet-Lite0
together have 0.92 at 224 pixels, in more time."""

ENLARGE = strategy("frozen").enlarge
"""Side of the photos as a multiple of the network's own, where no size is named: as a study has it by default."""

HARD = 0.6
"""Doubt, p(suggested class) / (p(that) + p(label)), from which a photo is hard to tell from the suggested class."""

_PLAIN = 0.8  # share of the pixels that look like the median one: lettering on a plain ground has more

_COPIED = 0.9  # share of a class's photos that are copies of other classes' photos


@dataclass
class Examined:
    """The photos of a check, N of them, and everything that was measured."""

    photos: Manifest
    """Those that can be read."""
    table: photo_quality.Floats | None = None
    """(N, measures), by `photo_quality.survey`; None: not measured."""
    features: Floats | None = None
    """(N, D), by `label_errors.compress`; None: no network saw the photos."""
    near: list[DuplicateGroup] = field(default_factory=list)
    """Groups of duplicates and near-duplicates."""
    seed: int = 0
    notes: list[str] = field(default_factory=list)
    """What could not be examined, and why."""
    seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""

    @cached_property
    def labels(self) -> Indices:
        """(N,): each photo's class, as its place in `photos.classes`."""
        place = {label: i for i, label in enumerate(self.photos.classes)}
        return np.array([place[p.label] for p in self.photos.photos], np.int64)

    @cached_property
    def groups(self) -> Indices:
        """(N,): the number of the group (near-duplicates, same plant or patient) that each photo belongs to."""
        photos = self.photos.photos
        groups = np.zeros(len(photos), np.int64)
        for number, members in enumerate(together(photos, [group.indices for group in self.near])):
            groups[members] = number
        return groups

    @cached_property
    def distinct(self) -> Indices:
        """(M,): indices of photos, each of the same bytes once."""
        first: dict[str, int] = {}
        for index, photo in enumerate(self.photos.photos):
            first.setdefault(photo.sha256, index)
        return np.array(list(first.values()), np.int64)

    @cached_property
    def distinct_labels(self) -> Indices:
        """(M,): the classes of the `distinct` photos; -1 where the same bytes stand in several, or show none."""
        conflicts = {group[0].sha256 for group in self.photos.conflicts()} | self.placeholders
        place = {label: i for i, label in enumerate(self.photos.classes)}
        clear = {sha256: place[label] for sha256, label in self.own_class.items()}
        digests = [self.photos.photos[i].sha256 for i in self.distinct]
        labels = self.labels[self.distinct].tolist()
        known = [clear.get(d, -1 if d in conflicts else i) for d, i in zip(digests, labels, strict=True)]
        return np.array(known, np.int64)

    @cached_property
    def copies(self) -> set[str]:
        """Classes that hold little but copies of several other classes' photos, as a set packed inside itself does."""
        count: Counter[str] = Counter()
        others: dict[str, set[str]] = {}
        for group in self.photos.conflicts():
            labels = {photo.label for photo in group}
            count.update(photo.label for photo in group)
            for label in labels:
                others.setdefault(label, set()).update(labels - {label})
        photos = self.photos.counts()
        return {
            label
            for label, n in count.items()
            if n > 2 * len(others[label]) > 2 and n >= _COPIED * photos[label]  # more than a photo or two of each
        }

    @cached_property
    def own_class(self) -> dict[str, str]:
        """The class of photos that stand in one class and in `copies`, by SHA-256."""
        found = {}
        for group in self.photos.conflicts() if self.copies else []:
            labels = {photo.label for photo in group} - self.copies
            if len(labels) == 1:
                found[group[0].sha256] = labels.pop()
        return found

    @cached_property
    def strangeness(self) -> Floats | None:
        """(M,): see `label_errors.strangeness`; None without features."""
        if self.features is None or len(self.features) < 2:
            return None
        distinct = self.distinct
        return label_errors.strangeness(self.features[distinct], self.groups[distinct], seed=self.seed)

    @cached_property
    def judgement(self) -> Judgement | None:
        """Of the `distinct` photos' labels; None without features or with one class."""
        if self.features is None or len(self.features) < 2 or len(self.photos.classes) < 2:
            return None
        distinct, labels = self.distinct, self.distinct_labels
        return label_errors.judge(self.features[distinct], labels, self.groups[distinct], seed=self.seed)

    @cached_property
    def wrong_labels(self) -> WrongLabels | None:
        """Which of the `distinct` photos' labels are wrong beyond what chance explains; None without a judgement."""
        if self.judgement is None:
            return None
        found, groups = self.judgement, self.groups[self.distinct]
        return chance.wrong_labels(found.probabilities, self.distinct_labels, groups, found.judged, hard=HARD)

    @cached_property
    def outliers(self) -> Outliers | None:
        """Which of the `distinct` photos are farther from the others than chance explains; None without features."""
        return None if self.strangeness is None else chance.outliers(self.strangeness)

    @cached_property
    def placeholders(self) -> set[str]:
        """SHA-256 of pictures that stand in several classes and show none of them, such as "image not found".

        These are in three classes or more, twice or more in each of two, or in two and nearly of one brightness.
        """
        found: set[str] = set()
        for group in [*self.photos.duplicates(), *(near.photos for near in self.near)]:
            counts = Counter(photo.label for photo in group if photo.label not in self.copies).most_common()
            several = len(counts) > 2 or (len(counts) == 2 and counts[1][1] > 1)
            if several or (len(counts) == 2 and self._is_plain(group[0])):
                found |= {photo.sha256 for photo in group}
        return found

    def _is_plain(self, photo: Photo) -> bool:
        measures = decoded(self.photos.root / photo.path, photo_quality.measure)
        return not isinstance(measures, PhotoError) and measures.same >= _PLAIN

    @cached_property
    def predicted(self) -> dict[str, tuple[str, float]]:
        """The predicted class and its probability for photos that stand in several classes, by their SHA-256."""
        if self.judgement is None:
            return {}
        found = {}
        for row in np.flatnonzero(self.distinct_labels < 0).tolist():
            probabilities = self.judgement.probabilities[row]
            best = int(probabilities.argmax())
            photo = self.photos.photos[self.distinct[row]]
            found[photo.sha256] = (self.photos.classes[best], float(probabilities[best]))
        return found


def examine(
    listed: Manifest, names: str, weights: str, image_size: int, runtime: Runtime, seed: int, progress: Progress
) -> Examined:
    """Two passes over all photos: one at thumbnail size, one through the frozen networks of `names` (A or A+B).

    Networks whose weights can't be had are left out, with a note. Raises ConfigError and RunError for everything else.
    """
    backbones.preload([names])
    started = time.perf_counter()
    table, bad = photo_quality.survey(listed, progress)
    measured = time.perf_counter()
    examined = Examined(listed.without(bad), seed=seed)
    examined.seconds["measure"] = measured - started
    networks = list(_networks(names, weights, image_size, seed, examined.notes, progress))
    if networks:
        taps = [tap(network, network.layer_count, runtime, "float16") for network in networks]
        bad = fill(taps, examined.photos, seed=seed, runtime=runtime, progress=progress)
        examined.photos = examined.photos.without(bad)
        examined.features = features_of([t.store for t in taps], examined.photos.photos, seed)
        examined.seconds["network"] = time.perf_counter() - measured
    comparing = time.perf_counter()
    examined.near = near_duplicates.find(examined.photos, progress=progress)
    examined.seconds["twins"] = time.perf_counter() - comparing
    row_of = {photo: i for i, photo in enumerate(listed.photos)}
    examined.table = table[[row_of[photo] for photo in examined.photos.photos]]
    return examined


def _networks(
    names: str, weights: str, image_size: int, seed: int, notes: list[str], progress: Progress
) -> Iterator[backbones.Backbone]:
    """The networks of A+B whose weights can be had; `notes` gets a line about those whose can't."""
    failed: list[str] = []
    several = names.split("+")
    for name in several:
        path = Path(weights) if weights and len(several) == 1 else None
        try:
            size = image_size or backbones.enlarged(name, ENLARGE)
            yield backbones.build(name, "pretrained", seed=seed, image_size=size, path=path, progress=progress)
        except WeightsError as error:
            failed.append(str(error))
    if len(failed) == len(several):
        notes.append(f"labels were not judged, nor were photos unlike any class looked for: {failed[0]}")
    elif failed:
        notes.append(f"labels were judged by fewer networks, so less surely: {failed[0]}")


def features_of(stores: Sequence[Store], photos: Sequence[Photo], seed: int) -> Floats:
    """(N, D <= 256): the stores' activations of these photos, compressed to their principal components."""
    keys = [Key.of(photo.sha256, 0, seed) for photo in photos]

    def read(indices: Sequence[int]) -> Floats:
        rows = [keys[i] for i in indices]
        tensors = [t.reshape(len(rows), -1) for store in stores for t in store.read(rows)]
        return np.concatenate([label_errors.unit(t) for t in tensors], axis=1)

    return label_errors.compress(read, len(keys), seed)
