"""Prepare the data of a run: list, decode and split the photos, and compute their frozen activations.

    photos -> manifest -> split -> backbone cut at the line -> activations (cache)

`frostline.training.strategy` does the rest, for each strategy.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frostline.checks import near_duplicates
from frostline.checks.near_duplicates import TwinGroup
from frostline.config import Config, Precision
from frostline.errors import ConfigError, DataError, nearest
from frostline.networks import backbone as backbones
from frostline.networks.activations import Tap, fill, tap
from frostline.networks.backbone import Backbone
from frostline.photos import corrections, sample, scan
from frostline.photos.decoding import MIRROR
from frostline.photos.head_start import HeadStart
from frostline.photos.manifest import Manifest, Photo, Skip
from frostline.photos.split import Split, leaks, make_split, seen
from frostline.progress import Progress
from frostline.recipes import Strategy, resolve
from frostline.training import loop

Row = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """The data of a run, shared by all its strategies: decoded photos, their split, their frozen activations."""

    config: Config
    photos: Manifest
    """The usable photos."""
    near_twins: list[TwinGroup]
    """Groups of them that are more than byte-identical, where the configuration asks for those."""
    split: Split
    others: Manifest | None
    """The photos of `config.test`, less those that are also among `photos`."""
    skipped: list[Skip]
    """Everything left out of both, with the reason."""
    backbones: dict[str, Backbone]
    taps: dict[tuple[str, int], Tap]
    """By (backbone's name here, line)."""
    device: torch.device
    precision: Precision
    prefix_seconds: float
    """The one pass of all photos through the frozen layers, all lines of the run at once."""
    training_seed: int
    """Starting weights of the head, the order of photos and dropout; the split and the augmented views keep the configuration's."""
    as_given: list[Photo] = field(default_factory=list)
    """The photos reported on as the user's folder has them, where a list of decisions changes any; else none."""
    cleaned: Row = field(default_factory=dict)
    """{"list", "left_out", "relabelled"} where there is such a list."""

    @property
    def classes(self) -> list[str]:
        """Class names; position = class index everywhere."""
        return self.photos.classes

    @property
    def reported_on(self) -> str:
        """Which photos the figures are of."""
        return "test" if self.others is not None or len(self.split.test) else "validation"

    @property
    def validation_is_reported(self) -> bool:
        """Whether the photos that were watched in training are the ones reported on, as in the tutorial."""
        return _is_reported(self.split, tested=self.others is not None)

    @property
    def rendered(self) -> bool:
        """Whether any of the photos are the built-in sample's, drawn by code."""
        roots = [self.photos.root, *([self.others.root] if self.others else [])]
        return any((root / sample.MARKER).is_file() for root in roots)

    @property
    def refits(self) -> bool:
        """Whether validation photos may join the training photos once they have had their say."""
        return _may_join(self.photos, self.split, tested=self.others is not None)

    def joined(self) -> Prepared:
        """The same with the validation photos among those to train on."""
        everything = np.concatenate([self.split.train, self.split.validation])
        return replace(self, split=replace(self.split, train=everything))

    def reported(self) -> list[Photo]:
        """The photos reported on."""
        if self.others is not None:
            return self.others.photos
        return [self.photos.photos[i] for i in (self.split.test if len(self.split.test) else self.split.validation)]

    def part(self, indices: Sequence[int]) -> list[Photo]:
        """Photos by their place in the manifest."""
        return [self.photos.photos[i] for i in indices]


def _is_reported(split: Split, *, tested: bool) -> bool:
    return not tested and (not len(split.test) or np.array_equal(split.test, split.validation))


def _may_join(photos: Manifest, split: Split, *, tested: bool) -> bool:
    """Not validation photos that are reported on, nor those that the data set itself gives as such."""
    given = any(photos.photos[i].split == "validation" for i in split.validation.tolist())
    return not given and not _is_reported(split, tested=tested)


# ---- photos, split, backbones, activations ---------------------------------------------------------------------------


def prepare(config: Config, progress: Progress, head_start: HeadStart | None = None) -> Prepared:
    """Do what all strategies share: list, decode and check the photos, push them through the frozen layers, split them.

    Raises
    ------
    DataError
        The photos as a whole can't be used.
    ConfigError, WeightsError, RunError
        See the errors' own words.
    """
    backbones.preload({s.backbone for s in config.strategies})
    photos = head_start.photos() if head_start else scan.scan(Path(config.data), progress=progress)
    others = scan.scan(Path(config.test), least_classes=1, progress=progress) if config.test else None
    _check_classes(photos, others, config)
    decisions = corrections.read(Path(config.exclude), config.exclude_sha256) if config.exclude else []
    corrections.check_known(photos, decisions, config.exclude)  # now, and not after minutes
    device = _device(config)
    networks = _backbones(config, progress)
    taps = _taps(config, networks, device)

    started = time.perf_counter()
    engine = {"seed": config.seed, "kind": config.engine, "device": device, "progress": progress}
    usable = _usable(photos, fill(list(taps.values()), photos, head_start=head_start, **engine), config.data)  # type: ignore[arg-type]
    tested = None
    if others is not None:
        tested = _usable(others, fill(list(taps.values()), others, **engine), config.test)  # type: ignore[arg-type]
    alike = near_duplicates.find(usable, others=tested, progress=progress) if config.twins == "near" else []
    usable = usable.without(leaks(usable, near_duplicates.ties(alike, usable)))
    skipped = list(usable.skipped)
    if tested is not None:
        tested = tested.without(seen(usable, tested, near_duplicates.ties(alike, usable, tested)))
        _check_classes(usable, tested, config)
        if not tested.photos:
            raise DataError(
                f"every photo of {config.test} is also in {config.data}: give photos that were not trained on"
            )
        skipped += [Skip(str(Path(config.test) / s.path), s.why) for s in tested.skipped]
    alike = near_duplicates.near(alike, usable)
    split = make_split(usable, config.protocol, config.seed, tested is not None, near_duplicates.ties(alike, usable))
    refits = _may_join(usable, split, tested=tested is not None)
    joining = [s for s in config.strategies if s.refit and refits]
    rest = [s for s in config.strategies if s not in joining]
    for some, indices in ((joining, np.concatenate([split.train, split.validation])), (rest, split.train)):
        fill_views(some, networks, taps, usable, indices, len(split.train), engine)
    _fill_mirrored(config, networks, taps, usable, split, tested, engine)
    seconds = time.perf_counter() - started
    precision = loop.settle(config.precision, device)
    as_given = [usable.photos[i] for i in (split.test if len(split.test) else split.validation)]
    usable, split, cleaned = _cleaned(config, decisions, usable, split)
    _check_classes(usable, tested, config)  # a list may leave a class out altogether
    alike = near_duplicates.near(alike, usable)
    known = set(skipped)
    skipped += [s for s in usable.skipped if s not in known]
    return Prepared(
        config, usable, alike, split, tested, skipped, networks, taps, device, precision, seconds, config.seed,
        as_given=as_given if cleaned and tested is None else [], cleaned=cleaned,
    )  # fmt: skip


def _cleaned(
    config: Config, decisions: Sequence[corrections.Decision], photos: Manifest, split: Split
) -> tuple[Manifest, Split, Row]:
    """The photos without those to leave out, and with the labels put right. The split was made before: parts only shrink, so figures
    with and without the list are of the same photos.
    """
    if not config.exclude:
        return photos, split, {}
    kept, places = corrections.clean(photos, decisions, config.exclude)
    now = {old: new for new, old in enumerate(places)}
    parts = [
        np.array([now[i] for i in part.tolist() if i in now], np.intp)
        for part in (split.train, split.validation, split.test)
    ]
    names = {
        part: {kept.photos[i].label for i in parts[n].tolist()}
        for n, part in enumerate(("train", "validation", "test"))
    }
    lost = [c for c in kept.classes if c not in names["train"]]
    if lost or len(kept.classes) < 2 or not names["validation"] or (len(split.test) and not names["test"]):
        what = f"class '{lost[0]}' has no photo left to train on" if lost else "too few photos or classes are left"
        raise DataError(f"--exclude {config.exclude}: {what}; leave out fewer, or all photos of a class")
    relabelled = sum(kept.photos[new].label != photos.photos[old].label for old, new in now.items())
    told = {"list": config.exclude, "left_out": len(photos.photos) - len(places), "relabelled": relabelled}
    return kept, Split(*parts), told


def _check_classes(photos: Manifest, others: Manifest | None, config: Config) -> None:
    strange = [c for c in (others.classes if others else []) if c not in photos.classes]
    if strange:
        raise DataError(
            f"{config.test} has a class '{strange[0]}' that {config.data} has not{nearest(strange[0], photos.classes)}"
        )


def _usable(photos: Manifest, bad: Sequence[Skip], folder: str) -> Manifest:
    """The photos without those that could not be decoded."""
    usable = photos.without(bad)
    if not usable.photos:
        raise DataError(
            f"none of the {len(photos.photos)} photos in {folder} could be read; the first: {bad[0].path}: {bad[0].why}"
        )
    counts = photos.counts()
    lost = [c for c in photos.classes if c not in usable.classes]
    if len(usable.classes) < 2 <= len(photos.classes):
        raise DataError(
            f"{folder} has only the class '{usable.classes[0]}' left: no photo of {', '.join(lost)} could be read; "
            "at least two classes are needed"
        )
    return usable.without(Skip(c, f"class left out: none of its {counts[c]} files could be read") for c in lost)


def _device(config: Config) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device 'cuda': PyTorch sees no CUDA device here; use --device cpu")
    return torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")


def network_name(strategy: Strategy) -> str:
    """What tells backbones apart in a run."""
    return f"{strategy.backbone} {strategy.weights} {strategy.enlarge:g}"


def _backbones(config: Config, progress: Progress) -> dict[str, Backbone]:
    networks: dict[str, Backbone] = {}
    for s in config.strategies:
        if network_name(s) not in networks:
            networks[network_name(s)] = backbones.build(
                s.backbone,
                s.weights,
                seed=config.seed,
                image_size=config.image_size or backbones.enlarged(s.backbone, s.enlarge),
                resize=config.resize,
                path=Path(config.weights) if config.weights and s.weights == "pretrained" else None,
                progress=progress,
            )
    return networks


def _lines(strategy: Strategy, network: Backbone, photos: int) -> dict[int, int]:
    """The lines at which a strategy draws photos, and how many views of each of so many training photos it wants there."""
    lines = {resolve(strategy.line, network.layer_count): loop.stretched(strategy.recipe, photos).views}
    if strategy.head_first:
        top = network.layer_count
        lines[top] = max(lines.get(top, 1), loop.stretched(strategy.head_recipe, photos).views)
    return lines


def _taps(config: Config, networks: dict[str, Backbone], device: torch.device) -> dict[tuple[str, int], Tap]:
    return {
        (network_name(s), line): tap(networks[network_name(s)], line, config.engine, device, config.stored_as)
        for s in config.strategies
        for line in _lines(s, networks[network_name(s)], 1)
    }


def fill_views(
    strategies: Sequence[Strategy], networks: dict[str, Backbone], taps: dict[tuple[str, int], Tap], usable: Manifest,
    indices: np.ndarray, count: int, engine: dict[str, Any],
) -> None:  # fmt: skip
    """The augmented views of these photos that the strategies learn from, as many as they make of `count` training photos."""
    for views, places in _views(strategies, networks, count):
        fill([taps[p] for p in places], usable, indices=indices.tolist(), views=views, **engine)


def _views(
    strategies: Sequence[Strategy], networks: dict[str, Backbone], photos: int
) -> list[tuple[range, list[tuple[str, int]]]]:
    """The augmented views to fill, and at which lines: a view of a photo is decoded once for all lines that want it."""
    most: dict[tuple[str, int], int] = {}
    for s in strategies:
        for line, views in _lines(s, networks[network_name(s)], photos).items():
            if views > 1:
                most[network_name(s), line] = max(views, most.get((network_name(s), line), 1))
    ends = sorted({1, *most.values()})
    return [(range(low, high), [p for p, views in most.items() if views >= high]) for low, high in pairwise(ends)]


def _fill_mirrored(
    config: Config, networks: dict[str, Backbone], taps: dict[tuple[str, int], Tap], usable: Manifest, split: Split,
    tested: Manifest | None, engine: dict[str, Any],
) -> None:  # fmt: skip
    """The mirror images of the photos that a model is asked about, for the strategies that look at those too."""
    places = [
        (network_name(s), resolve(s.line, networks[network_name(s)].layer_count))
        for s in config.strategies
        if s.test_views > 1
    ]
    if not places:
        return
    wanted = [taps[place] for place in dict.fromkeys(places)]
    asked = np.concatenate([split.validation, split.test])
    fill(wanted, usable, indices=np.unique(asked).tolist(), views=(MIRROR,), **engine)
    if tested is not None:
        fill(wanted, tested, views=(MIRROR,), **engine)
