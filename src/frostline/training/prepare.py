"""Prepare the data of a run: list, decode and split the photos, and compute their frozen activations.

    photos -> manifest -> split -> backbone cut at the line -> activations (cache)

`frostline.training.strategy` does the rest, for each strategy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from frostline import wording
from frostline.checks import near_duplicates
from frostline.checks.near_duplicates import DuplicateGroup
from frostline.config import Config, Precision
from frostline.errors import ConfigError, DataError, nearest
from frostline.networks import backbone as backbones
from frostline.networks import devices
from frostline.networks.activations import KeptEngines, Tap, fill, tap
from frostline.networks.backbone import Backbone
from frostline.networks.compilation import Runtime
from frostline.photos import corrections, sample, scan
from frostline.photos import split as splitting
from frostline.photos.decoding import MIRROR
from frostline.photos.head_start import HeadStart
from frostline.photos.manifest import Manifest, Photo, Skip
from frostline.photos.split import Indices, Split, leaks, make_split, overlap, shared_groups
from frostline.progress import Progress
from frostline.recipes import Strategy
from frostline.training.optimiser import stretched
from frostline.training.precision import settle

Row = dict[str, Any]

LEAST_UNFROZEN = 0.01
"""The share of the backbone's parameters that a fine-tuned strategy trains at least, unless the user asks for less."""


@dataclass(frozen=True)
class Frozen:
    """The frozen layers of a run: its networks, the lines at which they are cut, and the stores of their
    activations."""

    backbones: dict[str, Backbone]
    """By `network_name`."""
    taps: dict[tuple[str, int], Tap]
    """By (`network_name`, line)."""
    runtime: Runtime
    seed: int
    """Of the augmented views."""
    kept: KeptEngines = field(default_factory=KeptEngines)
    """The compiled networks, while the data is prepared."""

    @classmethod
    def of(cls, config: Config, progress: Progress) -> Frozen:
        """Build the networks of all strategies and open the stores that these draw from."""
        runtime = Runtime(config.engine, devices.choose(config.device))
        _tell_device(runtime.device, progress)
        networks = _backbones(config, progress)
        for s in config.strategies:
            _check_line(s, networks[network_name(s)], progress)
        taps = {
            (network_name(s), line): tap(networks[network_name(s)], line, runtime, config.stored_as)
            for s in config.strategies
            for line in _lines(s, networks[network_name(s)], 1)
        }
        return cls(networks, taps, runtime, config.seed)

    def fill(
        self,
        taps: Iterable[Tap],
        photos: Manifest,
        indices: np.ndarray | None,
        views: Sequence[int],
        progress: Progress,
    ) -> None:
        """Compute the missing activations of these views of photos that are known to be decodable; `indices` None =
        all."""
        chosen = None if indices is None else indices.tolist()
        fill(
            list(taps),
            photos,
            indices=chosen,
            views=views,
            seed=self.seed,
            runtime=self.runtime,
            kept=self.kept,
            progress=progress,
        )

    def fill_clean(
        self, photos: Manifest, folder: str, progress: Progress, head_start: HeadStart | None = None
    ) -> Manifest:
        """Decode all photos of `folder` and compute the activations of their clean views; returns the photos that are
        usable.

        Raises
        ------
        DataError
            Too few of them could be decoded.
        """
        bad = fill(
            list(self.taps.values()),
            photos,
            seed=self.seed,
            runtime=self.runtime,
            head_start=head_start,
            kept=self.kept,
            progress=progress,
        )
        return _usable(photos, bad, folder)

    def fill_views(
        self, strategies: Sequence[Strategy], photos: Manifest, indices: np.ndarray, count: int, progress: Progress
    ) -> None:
        """The augmented views of these photos that the strategies train on, as many as they use for `count` training
        photos."""
        for views, places in self.views_wanted(strategies, count):
            self.fill([self.taps[place] for place in places], photos, indices, views, progress)

    def views_wanted(self, strategies: Sequence[Strategy], count: int) -> list[tuple[range, list[tuple[str, int]]]]:
        """The augmented views to fill, and at which lines: a view of a photo is decoded once for all lines that want
        it."""
        most: dict[tuple[str, int], int] = {}
        for s in strategies:
            for line, views in _lines(s, self.backbones[network_name(s)], count).items():
                if views > 1:
                    most[network_name(s), line] = max(views, most.get((network_name(s), line), 1))
        ends = sorted({1, *most.values()})
        return [(range(low, high), [p for p, views in most.items() if views >= high]) for low, high in pairwise(ends)]

    def mirrored_taps(self, strategies: Sequence[Strategy]) -> list[Tap]:
        """The taps of the strategies that look at a photo's mirror image too."""
        places = [
            (network_name(s), self.backbones[network_name(s)].lines.place(s)) for s in strategies if s.test_views > 1
        ]
        return [self.taps[place] for place in dict.fromkeys(places)]


OnListed = Callable[["Frozen", Manifest, Manifest | None], None]
"""Called with the networks of a run, its photos, and those of its test folder."""


@dataclass(frozen=True)
class Prepared:
    """The data of a run, shared by all its strategies: decoded photos, their split, their frozen activations."""

    config: Config
    photos: Manifest
    """The usable photos."""
    near_twins: list[DuplicateGroup]
    """Groups of near-duplicates among them beyond identical files, where the configuration asks for those."""
    split: Split
    others: Manifest | None
    """The photos of `config.test`, less those that are also among `photos`."""
    skipped: list[Skip]
    """Everything left out of both, with the reason."""
    frozen: Frozen
    precision: Precision
    """Of training, settled for this machine."""
    prefix_seconds: float
    """Time to decode all photos and compute their activations, for all lines of the run at once."""
    training_seed: int
    """Of the head's starting weights, the order of photos and dropout; the split and the augmented views keep the
    configuration's seed."""
    as_given: list[Photo] = field(default_factory=list)
    """The photos reported on as the user's folder has them, where a list of decisions changes any; else none."""
    asked: Manifest | None = None
    """All readable photos of `config.test`, where some of them were left out because they, near-duplicates of them or
    others of their group are among `photos`."""
    cluster_of: Mapping[str, int] = field(default_factory=dict)
    """By digest of a photo, those of the test folder included: a number that it shares with the photos that it is not
    independent of (one group, near-duplicates, the same bytes)."""
    cleaned: Row = field(default_factory=dict)
    """{"list", "left_out", "relabelled"} where there is such a list."""

    @property
    def backbones(self) -> dict[str, Backbone]:
        """The networks of the run, by `network_name`."""
        return self.frozen.backbones

    @property
    def taps(self) -> dict[tuple[str, int], Tap]:
        """Where training data comes from, by (`network_name`, line)."""
        return self.frozen.taps

    @property
    def runtime(self) -> Runtime:
        """What the frozen layers, and later the bundles, run on."""
        return self.frozen.runtime

    @property
    def device(self) -> torch.device:
        """Where training computes."""
        return self.frozen.runtime.device

    @property
    def classes(self) -> list[str]:
        """Class names; position = class index everywhere."""
        return self.photos.classes

    @property
    def reported_on(self) -> Literal["test", "validation"]:
        """Which part the figures are of: `test` or `validation`."""
        return "test" if self.others is not None or len(self.split.test) else "validation"

    @property
    def validation_is_reported(self) -> bool:
        """Whether the figures are of the validation photos, as in the tutorial."""
        return _is_reported(self.split, tested=self.others is not None)

    @property
    def rendered(self) -> bool:
        """Whether any of the photos belong to the built-in sample, whose images are synthetic."""
        roots = [self.photos.root, *([self.others.root] if self.others else [])]
        return any((root / sample.MARKER).is_file() for root in roots)

    @property
    def refits(self) -> bool:
        """Whether validation photos may join the training photos for a second training, once the epochs are chosen."""
        return may_join(self.photos, self.split, tested=self.others is not None)

    @property
    def reported_apart(self) -> bool:
        """Whether the photos reported on may be of another kind: a test folder, or a part that the data set gives."""
        return self.others is not None or any(p.split for p in self.photos.photos)

    def joined(self) -> Prepared:
        """The same run with the validation photos among those to train on."""
        everything = np.concatenate([self.split.train, self.split.validation])
        return replace(self, split=replace(self.split, train=everything))

    def fill_views(self, strategy: Strategy, progress: Progress) -> None:
        """Compute the augmented views that a strategy trains on and that are missing.

        `prepare` has computed those of the whole split. A part of its photos needs more views of each photo.
        """
        train = self.split.train
        self.frozen.fill_views([strategy], self.photos, train, len(train), progress)

    def reported(self) -> list[Photo]:
        """The photos that the figures are of."""
        if self.others is not None:
            return self.others.photos
        return [self.photos.photos[i] for i in (self.split.test if len(self.split.test) else self.split.validation)]

    def clusters(self, photos: Sequence[Photo]) -> Indices:
        """The cluster of each of these photos (N,), as intervals take them: see `frostline.stats.clusters`."""
        return np.array([self.cluster_of[photo.sha256] for photo in photos], dtype=np.intp)

    def part(self, indices: Sequence[int]) -> list[Photo]:
        """Photos by their place in the manifest."""
        return [self.photos.photos[i] for i in indices]


def _is_reported(split: Split, *, tested: bool) -> bool:
    return not tested and (not len(split.test) or np.array_equal(split.test, split.validation))


def may_join(photos: Manifest, split: Split, *, tested: bool) -> bool:
    """Whether validation photos may be trained on once the epochs are chosen: not those that are reported on, nor those
    that the data set itself gives as such."""
    given = any(photos.photos[i].split == "validation" for i in split.validation.tolist())
    return not given and not _is_reported(split, tested=tested)


# ---- photos, split, backbones, activations ---------------------------------------------------------------------------


def prepare(
    config: Config,
    progress: Progress,
    head_start: HeadStart | None = None,
    on_listed: OnListed | None = None,
) -> Prepared:
    """Prepare the data of a run: list, decode, check and split the photos, and compute their frozen activations.

    Parameters
    ----------
    on_listed
        Called once the photos are listed and the networks built, before the long work.

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
    frozen = Frozen.of(config, progress)

    if on_listed is not None:
        if head_start:
            head_start.stop()  # it would be measured too
        on_listed(frozen, photos, others)

    # -- decode every photo; drop those that can't be decoded, and duplicates that would leak from one part to another
    started = time.perf_counter()
    usable = frozen.fill_clean(photos, config.data, progress, head_start)
    tested = frozen.fill_clean(others, config.test, progress) if others is not None else None
    alike = near_duplicates.find(usable, others=tested, progress=progress) if config.twins == "near" else []
    usable = usable.without(leaks(usable, near_duplicates.ties(alike, usable)))
    asked = tested  # with the photos that are also trained on, and those of groups that are
    if tested is not None:
        tested = _not_trained_on(tested, usable, alike, config)
    skipped = [*usable.skipped, *_skipped_in(tested, config.test)]

    # -- split, then apply the user's list of decisions: the split must not depend on it
    cluster_of = _clusters(usable, asked, alike)
    alike = near_duplicates.near(alike, usable)
    split = make_split(usable, config.protocol, config.seed, tested is not None, near_duplicates.ties(alike, usable))
    _fill_mirrored(config, frozen, usable, split, asked, progress)
    as_given = [usable.photos[i] for i in (split.test if len(split.test) else split.validation)]
    usable, split, cleaned = _cleaned(config, decisions, usable, split)
    _check_classes(usable, tested, config)  # a list may leave a class out altogether
    _fill_views(config, frozen, usable, split, tested, progress)
    frozen.kept.clear()
    known = set(skipped)
    return Prepared(
        config=config,
        photos=usable,
        near_twins=near_duplicates.near(alike, usable),
        split=split,
        others=tested,
        skipped=[*skipped, *(s for s in usable.skipped if s not in known)],
        frozen=frozen,
        precision=settle(config.precision, frozen.runtime.device),
        prefix_seconds=time.perf_counter() - started,
        training_seed=config.seed,
        as_given=as_given if cleaned and tested is None else [],
        cluster_of=cluster_of,
        asked=asked if asked is not None and tested is not None and len(asked.photos) > len(tested.photos) else None,
        cleaned=cleaned,
    )


def _not_trained_on(tested: Manifest, usable: Manifest, alike: Sequence[DuplicateGroup], config: Config) -> Manifest:
    """The photos of `config.test` without those that are also in `config.data`, or of a group that is.

    Where every photo is of such a group all stay: then the groups may be those of two lists that count alike.
    """
    tested = tested.without(overlap(usable, tested, near_duplicates.ties(alike, usable, tested)))
    shared = shared_groups(usable, tested)
    if len(shared) < len(tested.photos):
        tested = tested.without(shared)
    _check_classes(usable, tested, config)
    if not tested.photos:
        raise DataError(f"every photo of {config.test} is also in {config.data}: give photos that were not trained on")
    return tested


def _clusters(usable: Manifest, tested: Manifest | None, alike: Sequence[DuplicateGroup]) -> dict[str, int]:
    """The cluster of each photo, by digest: see `Prepared.cluster_of`."""
    manifests = [usable, *([tested] if tested is not None else [])]
    photos = [photo for manifest in manifests for photo in manifest.photos]
    numbers = splitting.clusters(photos, near_duplicates.ties(alike, *manifests))
    return dict(zip((photo.sha256 for photo in photos), numbers.tolist(), strict=True))


def _skipped_in(tested: Manifest | None, folder: str) -> list[Skip]:
    """The photos left out of the folder of test photos, under their full path."""
    return [Skip(str(Path(folder) / s.path), s.why) for s in tested.skipped] if tested is not None else []


def _fill_views(
    config: Config, frozen: Frozen, usable: Manifest, split: Split, tested: Manifest | None, progress: Progress
) -> None:
    """Compute the augmented views of all photos to train on."""
    refits = may_join(usable, split, tested=tested is not None)
    joining = [s for s in config.strategies if s.refit and refits]
    rest = [s for s in config.strategies if s not in joining]
    for some, indices in ((joining, np.concatenate([split.train, split.validation])), (rest, split.train)):
        frozen.fill_views(some, usable, indices, len(split.train), progress)


def _fill_mirrored(
    config: Config, frozen: Frozen, usable: Manifest, split: Split, tested: Manifest | None, progress: Progress
) -> None:
    """Compute the mirror images of all photos to predict, for the strategies that look at those too."""
    if mirrored := frozen.mirrored_taps(config.strategies):
        asked = np.unique(np.concatenate([split.validation, split.test]))
        frozen.fill(mirrored, usable, asked, (MIRROR,), progress)
        if tested is not None:
            frozen.fill(mirrored, tested, None, (MIRROR,), progress)


def _cleaned(
    config: Config, decisions: Sequence[corrections.Decision], photos: Manifest, split: Split
) -> tuple[Manifest, Split, Row]:
    """The photos without those to leave out, and with corrected labels. The split was made before, so its parts only
    shrink: figures with and without the list are of the same photos.
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
    figures = {"list": config.exclude, "left_out": len(photos.photos) - len(places), "relabelled": relabelled}
    return kept, Split(*parts), figures


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


def _tell_device(device: torch.device, progress: Progress) -> None:
    """Name the accelerator that a run computes on; the processor goes without saying."""
    if device.type == "cpu":
        return
    differs = "" if devices.deterministic(device) else ": figures may differ in the last digits from run to run"
    progress.say(f"computing on {devices.name(device)} ({device.type}){differs}")


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


def _check_line(strategy: Strategy, network: Backbone, progress: Progress) -> None:
    """Refuse to train what is not there, or to fine-tune hardly anything; say the latter where the user named the
    line."""
    network.lines.trained(strategy)
    if not strategy.head_first:
        return
    above, total = network.lines.between(strategy), network.lines.total
    share = above / total if total else 0.0
    if share >= LEAST_UNFROZEN:
        return
    window = f" and below '{strategy.upper_line}'" if network.lines.upper(strategy) < network.lines.top else ""
    found = (
        f"{strategy.name}: {above:,} of the {total:,} parameters of {network.name} are above line '{strategy.line}'"
        f"{window} ({wording.percent(share, 2)})"
    )
    if not strategy.line_asked:
        raise ConfigError(f"{found}, expected {wording.percent(LEAST_UNFROZEN, 0)} or more: name a line, --line 30%")
    progress.say(f"{found}: hardly more is trained than by the frozen strategy; --line 30% trains more")


def _lines(strategy: Strategy, network: Backbone, photos: int) -> dict[int, int]:
    """The lines at which a strategy draws photos, and how many views of each of so many training photos it wants
    there."""
    lines = {network.lines.place(strategy): stretched(strategy.recipe, photos).views}
    if strategy.head_first:
        top = network.layer_count
        lines[top] = max(lines.get(top, 1), stretched(strategy.head_recipe, photos).views)
    return lines
