"""What a study or a sweep will cost here, told before its long work starts. Only what is missing counts: rows that the
cache lacks, strategies and evidence that an earlier sitting left undone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from frostline import wording
from frostline.bundles import neighbours
from frostline.config import Config
from frostline.documents import Study, Sweep
from frostline.errors import PhotoError
from frostline.evidence import explanations, faithfulness, gather, learning_curve, robustness
from frostline.parallel import thread_count
from frostline.photos.loading import pixels
from frostline.photos.manifest import Manifest
from frostline.recipes import Strategy, trains_the_head_of
from frostline.training import estimate
from frostline.training.estimate import Speeds, Training
from frostline.training.prepare import Frozen, may_join, network_name

_TOLD = 1e9
"""Bytes of rows from which they are told too."""
_LOADING = 0.5
"""Seconds to compile and load a strategy's model."""
_REPORT = 1.5
"""Seconds for what comes before and after: the check of the photos, the report."""
_GRADIENTS = 8
"""How many times as long a photo takes where a heat map is drawn, in PyTorch, as in the compiled frozen layers."""


@dataclass(frozen=True)
class Cost:
    """What is left to do."""

    photos: int
    seconds: float
    bytes: int
    """Of rows that will be written."""

    def __str__(self) -> str:
        """In one line."""
        told = f"About {wording.roughly(self.seconds)} for {self.photos:,} photos here"
        disk = f", and {wording.gigabytes(self.bytes / 1e6)} of disk in the cache folder"
        return told + (disk if self.bytes > _TOLD else "")


Coster = Callable[[Config, Frozen, Manifest, Manifest | None], Cost]
"""Called with the settings of a run, its networks, its photos and those of its test folder. Raises FrostlineError where
the run itself can't go on."""


def of_study(old: Study | None) -> Coster:
    """The cost of a study, or of what `old` lacks of it."""

    def cost(config: Config, frozen: Frozen, photos: Manifest, others: Manifest | None) -> Cost:
        left = _Left(config, frozen, photos, others, [row["name"] for row in old["strategies"]] if old else [])
        evidence, maps = gather.wanted(config), explanations.count(config)
        curve = _curve(left) if evidence and not (old and "data_curve" in old) else []
        corrupted = (
            robustness.photo_count(config, left.reported) if evidence and not (old and "robustness" in old) else 0
        )
        again = list(config.strategies) if corrupted else left.strategies if maps else []
        speeds = left.measured(curve, again)
        seconds = sum(speeds.training(t) + left.evaluating(t.strategy, speeds) for t in [*left.trainings(), *curve])
        seconds += sum(_heat_maps(left, s, maps, speeds) for s in left.strategies if maps)
        seconds += _corruptions(left, corrupted, speeds) if corrupted else 0.0
        return left.cost(seconds, speeds)

    return cost


def of_lines(old: Sweep | None) -> Coster:
    """The cost of a sweep over freeze lines, or of what `old` lacks of it."""

    def cost(config: Config, frozen: Frozen, photos: Manifest, others: Manifest | None) -> Cost:
        left = _Left(config, frozen, photos, others, [row["name"] for row in old["lines"]] if old else [])
        speeds = left.measured()
        seconds = sum(speeds.training(t) + left.evaluating(t.strategy, speeds) for t in left.trainings())
        return left.cost(seconds, speeds)

    return cost


def of_sizes(old: Sweep | None, sizes: Sequence[int | str], repeats: int) -> Coster:
    """The cost of a sweep over numbers of photos of a class (a text: all), or of what `old` lacks of it."""

    def cost(config: Config, frozen: Frozen, photos: Manifest, others: Manifest | None) -> Cost:
        left = _Left(config, frozen, photos, others, [])
        done = {row["name"] for row in old["photos"]} if old else set()
        labels = [photos.photos[i].label for i in left.split.train.tolist()]
        counts = [labels.count(label) for label in set(labels)]
        trainings = [
            Training(s, sum(n if isinstance(size, str) else min(n, size) for n in counts), len(left.split.validation),
                     head=left.trains_head(s))
            for s in left.strategies for size in sizes for repeat in range(repeats)
            if f"{s.name}/{size}-{repeat}" not in done
        ]  # fmt: skip
        speeds = left.measured(trainings)
        seconds = sum(speeds.training(t) + left.evaluating(t.strategy, speeds) for t in trainings)
        return left.cost(seconds, speeds)

    return cost


class _Left:
    """What a run has left to do."""

    def __init__(
        self, config: Config, frozen: Frozen, photos: Manifest, others: Manifest | None, done: Collection[str]
    ) -> None:
        self.config, self.frozen, self.photos = config, frozen, photos
        self.split = estimate.split_of(config, photos, others)
        self.refits = may_join(photos, self.split, tested=others is not None)
        self.strategies = [s for s in config.strategies if s.name not in done]
        self.lacking = estimate.lacking(config, frozen, photos, others, self.split, self.refits)
        of_test_folder = len(others.photos) if others is not None else 0
        self.reported = of_test_folder or len(self.split.test) or len(self.split.validation)
        """Photos that the figures will be of."""
        self._all = len(photos.photos) + of_test_folder

    def trainings(self) -> list[Training]:
        """Of the strategies that are not done."""
        train, validation = len(self.split.train), len(self.split.validation)
        return [
            Training(s, train, validation, self.trains_head(s), train + validation if s.refit and self.refits else 0)
            for s in self.strategies
        ]

    def trains_head(self, s: Strategy) -> bool:
        """Whether no other strategy leaves it the head that it starts from."""
        refitted = [x.name for x in self.config.strategies if x.refit and self.refits]
        return not any(trains_the_head_of(x, s) and x.name not in refitted for x in self.config.strategies)

    def measured(self, more: Iterable[Training] = (), again: Sequence[Strategy] = ()) -> Speeds:
        """The speeds of all that is to be done; `again`: strategies whose frozen layers see photos beside the rows."""
        names = {s.name for s in [*self.strategies, *(t.strategy for t in more), *again]}
        strategies = [s for s in self.config.strategies if s.name in names]
        networks = {network_name(s) for s in again}
        return estimate.measure(self.config, self.frozen, self.photos, self.lacking, strategies, networks)

    def evaluating(self, s: Strategy, speeds: Speeds) -> float:
        """Seconds to predict with a trained strategy all photos that it is asked for."""
        pixels_alone = s.line == "0"
        kept = min(len(self.split.train), neighbours.MOST_FROM_PIXELS if pixels_alone else neighbours.MOST)
        asked = s.test_views * (len(self.split.validation) + self.reported)
        return _LOADING + (kept + asked) * speeds.predicting(s)

    def cost(self, seconds: float, speeds: Speeds) -> Cost:
        """In all: so many seconds, the rows that the cache lacks, and what every run takes."""
        rows = estimate.rows(self.lacking, speeds, self.frozen)
        return Cost(self._all, _REPORT + rows.seconds + seconds, rows.bytes)


def _curve(left: _Left) -> list[Training]:
    """The trainings on fewer photos."""
    pair = [s for s in left.config.strategies if s.name in learning_curve.PAIR]
    if len(pair) < len(learning_curve.PAIR) or left.config.learning_curve == "no":
        return []
    train, validation, classes = len(left.split.train), len(left.split.validation), len(left.photos.classes)
    found = []
    for share in learning_curve.shares(train, classes):
        for s in pair:
            joined = s.refit and left.refits
            photos = round(share * (train + (validation if joined else 0)))
            again = Training(s, photos, 0 if joined else round(share * validation), head=True)
            found += [again] * learning_curve.REPEATS
    return found


def _heat_maps(left: _Left, s: Strategy, photos: int, speeds: Speeds) -> float:
    """Seconds for the heat maps of a strategy, and to put them to the test."""
    frozen, above = speeds.frozen.get(network_name(s), 0.0), speeds.predicting(s)
    drawn = min(photos, left.reported)
    tried = min(explanations.TRIED, drawn) * (4 * faithfulness.STEPS - 1)
    return _LOADING + tried * (frozen + above) + 2 * drawn * (_GRADIENTS * frozen + above)


def _corruptions(left: _Left, photos: int, speeds: Speeds) -> float:
    """Seconds for the corrupted versions of photos, and for all strategies to predict them."""
    groups: dict[object, list[Strategy]] = {}
    for s in left.config.strategies:
        groups.setdefault(left.frozen.backbones[network_name(s)].transform.frame(), []).append(s)
    seconds = 0.0
    for group in groups.values():
        transform = left.frozen.backbones[network_name(group[0])].transform
        photo = left.photos.photos[len(left.photos.photos) // 2]
        clean = pixels(left.photos.root / photo.path, transform)
        began = time.perf_counter()
        if not isinstance(clean, PhotoError):
            robustness.versions(clean, photo, left.config.seed)
        corrupting = (time.perf_counter() - began) / thread_count()
        looks = max(s.test_views for s in group)
        frozen = sum(speeds.frozen.get(name, 0.0) for name in {network_name(s) for s in group})
        above = sum(s.test_views * speeds.predicting(s) for s in group)
        seconds += photos * (corrupting + (1 + robustness.VERSIONS) * (looks * frozen + above))
    return seconds
