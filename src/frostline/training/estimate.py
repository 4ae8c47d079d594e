"""What a run costs on this machine, found in a second or two before it starts: some photos through each frozen
network, and some steps of each strategy's training. What the cache holds already costs nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from frostline.bundles import bundle
from frostline.cache.store import Key
from frostline.config import Config
from frostline.errors import PhotoError
from frostline.networks import devices, freeze_line, thawing
from frostline.networks.activations import Tap, by_transform, rows_of
from frostline.networks.devices import autocast
from frostline.networks.engine import Engine
from frostline.networks.trainable import Above, make_head
from frostline.parallel import ahead, groups, thread_count
from frostline.photos.decoding import MIRROR, Pixels, Transform, View
from frostline.photos.loading import pixels
from frostline.photos.manifest import Manifest, Photo
from frostline.photos.split import Split, make_split
from frostline.recipes import Recipe, Strategy
from frostline.training.optimiser import Learner, stretched
from frostline.training.precision import converted, settle
from frostline.training.prepare import Frozen, network_name

T = TypeVar("T")

_SECONDS = 0.3
"""How long photos and steps of one kind are measured; a third of that where there are few photos."""
_FEW = 200
"""Photos."""
_PHOTOS = 32
"""Photos that are measured on."""
_PARTS = 8
"""Whole photos that are trained on at a time."""
_FORWARD = 1 / 3
"""A pass forward, as a part of a step of training: gradients cost twice as much."""


@dataclass(frozen=True)
class Training:
    """A training that is to be done."""

    strategy: Strategy
    photos: int
    """To train on."""
    validation: int
    """To validate on after each epoch; 0 where the number of epochs is given."""
    head: bool
    """Whether its head is trained here, where it needs one first."""
    refit: int = 0
    """Photos of the second training; 0 = none."""


@dataclass(frozen=True)
class Speeds:
    """Seconds on this machine, all its cores at work."""

    decoding: dict[int, float]
    """To read, decode and resize a photo, by the side that it is brought to."""
    frozen: dict[str, float]
    """Of a photo in the frozen layers, by `network_name`."""
    steps: dict[tuple[str, bool], float]
    """Of a photo in training, by a strategy's name and whether its head is trained alone."""

    def training(self, wanted: Training) -> float:
        """Seconds of a training, with all epochs of its recipe."""
        own, head = wanted.strategy.recipe, wanted.strategy.head_recipe
        stages = [(own, False), (head, True)] if wanted.strategy.head_first and wanted.head else [(own, False)]
        return sum(self._stage(wanted, recipe, alone) for recipe, alone in stages)

    def _stage(self, wanted: Training, recipe: Recipe, alone: bool) -> float:
        epochs = stretched(recipe, wanted.photos).epochs
        each = self.steps[wanted.strategy.name, alone]
        again = epochs * wanted.refit if wanted.refit else 0
        return each * (epochs * (wanted.photos + _FORWARD * wanted.validation) + again)

    def predicting(self, strategy: Strategy) -> float:
        """Of a photo in the layers above the line."""
        return _FORWARD * self.steps[strategy.name, False]

    def reading(self, side: int) -> float:
        """To read, decode and resize a photo to this side; other sides cost much the same."""
        return self.decoding.get(side, max(self.decoding.values(), default=0.0))


@dataclass(frozen=True)
class Rows:
    """The rows that the cache lacks."""

    seconds: float
    bytes: int


def split_of(config: Config, photos: Manifest, others: Manifest | None) -> Split:
    """The split that the run will make, but for photos that turn out to be unreadable or near-duplicates.

    Raises
    ------
    DataError
        As the run will.
    """
    return make_split(photos, config.protocol, config.seed, others is not None)


def lacking(
    config: Config, frozen: Frozen, photos: Manifest, others: Manifest | None, split: Split, refits: bool
) -> list[tuple[Tap, int]]:
    """How many rows of each tap the cache lacks."""
    counts: dict[int, int] = {}

    def count(taps: Iterable[Tap], some: Sequence[Photo], views: Sequence[int]) -> None:
        keys = [Key.of(p.sha256, v, frozen.seed) for p in some for v in views]
        for t in taps:
            counts[id(t)] = counts.get(id(t), 0) + len(t.store.missing(keys))

    taps = list(frozen.taps.values())
    tested = others.photos if others is not None else []
    count(taps, [*photos.photos, *tested], (0,))
    asked = np.unique(np.concatenate([split.validation, split.test])).tolist()
    count(frozen.mirrored_taps(config.strategies), [*(photos.photos[i] for i in asked), *tested], (MIRROR,))
    for s in config.strategies:
        joined = [split.train, split.validation] if s.refit and refits else [split.train]
        some = [photos.photos[i] for i in np.concatenate(joined).tolist()]
        for views, places in frozen.views_wanted([s], len(split.train)):
            count([frozen.taps[place] for place in places], some, views)
    return [(t, counts[id(t)]) for t in taps if counts[id(t)]]


def rows(missing: Sequence[tuple[Tap, int]], speeds: Speeds, frozen: Frozen) -> Rows:
    """What the missing rows cost. A photo is decoded once for all lines, and goes once through its network."""
    names = {id(t): name for (name, _), t in frozen.taps.items()}
    seconds = 0.0
    for transform, taps in by_transform([t for t, _ in missing]).items():
        of = {id(t): n for t, n in missing}
        networks: dict[str, int] = {}
        for t in taps:
            if t.line:
                networks[names[id(t)]] = max(networks.get(names[id(t)], 0), of[id(t)])
        seconds += max(of[id(t)] for t in taps) * speeds.reading(transform.size)
        seconds += sum(n * speeds.frozen[name] for name, n in networks.items())
    return Rows(seconds, sum(n * t.store.row_bytes for t, n in missing))


# ---- measuring -------------------------------------------------------------------------------------------------------


def measure(
    config: Config,
    frozen: Frozen,
    photos: Manifest,
    missing: Sequence[tuple[Tap, int]],
    strategies: Sequence[Strategy],
    again: Collection[str],
) -> Speeds:
    """Measure what is to be done: reading and the frozen layers, where rows are missing or photos go through them later
    (`again`, by `network_name`), and a step of each of `strategies`."""
    spread = np.linspace(0, len(photos.photos) - 1, min(_PHOTOS, len(photos.photos)), dtype=int)
    some = [photos.photos[i] for i in np.unique(spread).tolist()]
    names = {id(t): name for (name, _), t in frozen.taps.items()}
    expected = {id(t): n for t, n in missing}
    decoding: dict[int, float] = {}
    engines: dict[str, float] = {}
    chosen = [t for t in frozen.taps.values() if id(t) in expected or names[id(t)] in again]
    seconds = _SECONDS if len(photos.photos) >= _FEW else _SECONDS / 3
    for transform, taps in by_transform(chosen).items():
        reading = [(photos.root / photo.path, View(0, i % 2)) for i, photo in enumerate(some)]  # some views are clean
        loaded: list[Pixels] = []
        read = partial(_read, transform, loaded)
        decoding[transform.size] = each(read, reading, seconds)
        # the same taps as in the run's first pass, so that they are compiled once
        busy = [t for t in taps if id(t) in expected] or taps
        for engine, own in frozen.kept.engines(busy, frozen.runtime) if loaded else []:
            engine.expect(max(expected.get(id(t), 0) for t in own))
            some_photos = islice(cycle(loaded), max(_PHOTOS, engine.batch))
            batches = [np.stack(group) for group in groups(some_photos, engine.batch)]
            found = each(partial(_through, engine, own), batches, seconds) / engine.batch
            name = names[id(own[0])]
            engines[name] = engines.get(name, 0.0) + found
    steps = {
        (s.name, alone): step(config, frozen, s, len(photos.classes), alone=alone)
        for s in strategies
        for alone in ((False, True) if s.head_first else (False,))
    }
    return Speeds(decoding, engines, steps)


def _read(transform: Transform, loaded: list[Pixels], photo: tuple[Path, View]) -> None:
    path, view = photo
    found = pixels(path, transform, view)
    if not isinstance(found, PhotoError) and len(loaded) < _PHOTOS:
        loaded.append(found)


def _through(engine: Engine, own: list[Tap], batch: Pixels) -> object:
    return rows_of(own, [(engine, own)], batch)


def each(work: Callable[[T], object], items: Sequence[T], seconds: float) -> float:
    """Seconds for each of `items`, as many under way as in a run; measured for so many `seconds`, in which they may be
    worked on again."""
    few = min(len(items), 2 * thread_count())
    sum(1 for _ in ahead(work, items[:few], depth=few))  # the first calls set things up
    began = time.perf_counter()

    def until() -> Iterator[T]:
        for item in cycle(items):
            yield item
            if time.perf_counter() > began + seconds:
                return

    done = sum(1 for _ in ahead(work, until(), depth=2 * thread_count()))
    return (time.perf_counter() - began) / done


def step(config: Config, frozen: Frozen, strategy: Strategy, classes: int, *, alone: bool) -> float:
    """Seconds for each photo of a training step on noise: forward, backward, and the step of the optimiser."""
    network, device = frozen.backbones[network_name(strategy)], frozen.runtime.device
    recipe = strategy.head_recipe if alone else strategy.recipe
    place = network.layer_count if alone else network.lines.place(strategy)
    cut = freeze_line.cut(network.traced, place)
    head = make_head(network.features, classes, recipe, 0)
    suffix = cut.suffix if alone else bundle.detached(cut)
    if not alone:
        thawing.thaw(suffix, network.lines.trained(strategy), strategy, config.seed)
    model = Above(suffix, head, learn_statistics=strategy.weights == "random" and not alone)
    model.to(device).to(memory_format=torch.channels_last)
    model.set_training(True)
    precision = settle(config.precision, device)
    learner = Learner.of(model, recipe, reduced=False, scaled=precision == "float16")
    whole = cut.dtypes[0] == torch.uint8
    count = min(recipe.batch_size, _PARTS) if whole else recipe.batch_size
    rng = torch.Generator().manual_seed(0)
    noise = [torch.rand(count, *shape, generator=rng) for shape in cut.shapes]
    live = [(255 * t).to(d) if d == torch.uint8 else t.half() for t, d in zip(noise, cut.dtypes, strict=True)]
    labels = torch.arange(count).remainder(classes)
    threads = torch.get_num_threads()
    torch.set_num_threads(thread_count() if any(True for _ in suffix.parameters()) else 1)

    def once() -> tuple[float, float]:
        began = time.perf_counter()
        learner.optimiser.zero_grad(set_to_none=True)
        batch = [t.to(device) for t in live]
        with autocast(device, precision):
            logits = model(*converted(batch, precision)).float()
        learner.backward(nn.functional.cross_entropy(logits, labels.to(device)))
        devices.synchronise(device)
        half = time.perf_counter()
        learner.step()
        devices.synchronise(device)
        return (half - began) / count, (time.perf_counter() - half) / recipe.batch_size

    with torch.random.fork_rng(devices=[]):
        once()
        began = time.perf_counter()
        found: list[float] = []
        while not found or (time.perf_counter() < began + _SECONDS / 2 and len(found) < _PHOTOS):
            found.append(sum(once()))
    torch.set_num_threads(threads)
    return float(np.median(found))
