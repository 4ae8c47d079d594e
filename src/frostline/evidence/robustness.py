"""Robustness: how a study's models fare on corrupted photos, each corruption at five severities.

What lies below the freeze line is run once for all models that share a network: a corrupted photo goes through the
frozen layers, and the activations at each model's line go to that model, as in the study itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frostline.bundles.bundle import Bundle, both_sides, of_run
from frostline.config import Config
from frostline.documents.strategy import CorruptionFigures, RobustnessFigures
from frostline.documents.study import RobustnessPair
from frostline.errors import PhotoError, RunError
from frostline.evidence.corruptions import CORRUPTIONS, SEVERITIES, Corruption, corrupt
from frostline.files import write_csv
from frostline.networks.activations import Tap, engines, rows_of
from frostline.networks.freeze_line import one_thread
from frostline.parallel import ahead
from frostline.photos.decoding import Pixels
from frostline.photos.loading import pixels
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.recipes import Strategy
from frostline.stats import intervals, predictions
from frostline.stats.clusters import Clusters
from frostline.stats.probabilities import softmax
from frostline.training.prepare import Prepared, network_name

FILE = "robustness.csv"
CLEAN = "clean"
VERSIONS = len(CORRUPTIONS) * SEVERITIES
"""Corrupted versions of each photo."""
_PHOTOS = {"fast": 24, "balanced": 48, "best": 300}
"""How many photos a study takes, by its preset."""

Floats = npt.NDArray[np.float64]


def photo_count(config: Config, reported: int) -> int:
    """How many of the reported photos a study corrupts, as its configuration says."""
    if config.robustness == "auto":
        return min(reported, _PHOTOS[config.preset])
    return reported if config.robustness == "all" else min(reported, int(config.robustness))


def chosen(photos: Sequence[Photo], count: int, seed: int) -> list[int]:
    """Ascending places of `count` photos, drawn at random; each class has its share, and fewer photos are a part of
    more.
    """
    places: list[tuple[float, int]] = []
    for number, label in enumerate(sorted({p.label for p in photos})):
        members = sorted((i for i, p in enumerate(photos) if p.label == label), key=lambda i: photos[i].sha256)
        drawn = np.random.default_rng([seed, number]).permutation(members).tolist()
        places += [((rank + 0.5) / len(drawn), place) for rank, place in enumerate(drawn)]
    return sorted(place for _, place in sorted(places)[:count])


# ---- measuring -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Subject:
    """A trained strategy, and where in its network it takes over."""

    name: str
    model: Bundle
    tap: Tap


def run(folder: Path, prepared: Prepared, strategies: Sequence[Strategy], count: int, progress: Progress) -> None:
    """Predict corrupted photos with the finished `strategies` of a run folder; writes each one's robustness.csv.

    Parameters
    ----------
    count
        How many of the reported photos to corrupt.

    Raises
    ------
    BundleError
        A strategy's bundle is not what it was.
    RunError
        No room on the disk, or a photo is gone.
    """
    photos = prepared.reported()
    some = [photos[i] for i in chosen(photos, count, prepared.config.seed)]
    root = (prepared.others or prepared.photos).root
    lines: dict[str, list[list[str]]] = {s.name: [] for s in strategies}
    groups = _by_pixels(prepared, strategies)
    task = progress.task(
        f"Robustness: {len(CORRUPTIONS)} corruptions at {SEVERITIES} severities", len(some) * len(groups)
    )
    for group in groups:
        subjects = [
            _Subject(s.name, of_run(folder / s.name / "bundle", t.backbone, prepared.runtime), t) for s, t in group
        ]
        for photo, answers in _answers(subjects, some, root, prepared):
            for name, probabilities in answers.items():
                lines[name] += _lines(photo, probabilities, prepared.classes)
            task.advance(1)
    task.finish()
    for name, own in lines.items():
        write_csv(folder / name / FILE, _HEADER, own)


def _by_pixels(prepared: Prepared, strategies: Sequence[Strategy]) -> list[list[tuple[Strategy, Tap]]]:
    """The strategies with their taps, those that see the same pixels together."""
    groups: dict[Any, list[tuple[Strategy, Tap]]] = {}
    for s in strategies:
        network = prepared.backbones[network_name(s)]
        tap = prepared.taps[network_name(s), network.lines.place(s)]
        groups.setdefault(network.transform.frame(), []).append((s, tap))
    return list(groups.values())


def _answers(
    subjects: Sequence[_Subject], photos: Sequence[Photo], root: Path, prepared: Prepared
) -> Iterator[tuple[Photo, dict[str, Floats]]]:
    """For each photo each subject's probabilities (1 + V, C): of the clean photo, then of `_conditions` in their
    order.
    """
    taps = list({id(s.tap): s.tap for s in subjects}.values())
    runs = engines([t for t in taps if t.line], prepared.runtime)
    transform = taps[0].backbone.transform
    mirrored = any(s.model.about.test_views > 1 for s in subjects)

    def work(photo: Photo) -> dict[str, Floats]:
        clean = pixels(root / photo.path, transform)
        if isinstance(clean, PhotoError):
            raise RunError(f"{root / photo.path} can't be read any more: {clean}")
        looks = [versions(clean, photo, prepared.config.seed)]
        looks += [np.ascontiguousarray(looks[0][:, :, ::-1])] if mirrored else []
        rows = [dict(zip(map(id, taps), rows_of(taps, runs, look), strict=True)) for look in looks]
        return {s.name: _probabilities(s, [row[id(s.tap)] for row in rows]) for s in subjects}

    with one_thread():  # as many photos are under way as there are cores: 1.5 times as fast
        yield from ahead(work, photos, depth=4)


def versions(clean: Pixels, photo: Photo, seed: int) -> Pixels:
    """The prepared photo and its corrupted versions, (1 + V, H, W, 3)."""
    corrupted = [corrupt(clean, corruption, severity, photo.sha256, seed) for corruption, severity in _conditions()]
    return np.stack([clean, *corrupted])


def _conditions() -> list[tuple[Corruption, int]]:
    """Every corruption with every severity: the V versions of a photo."""
    return [(corruption, severity) for corruption in CORRUPTIONS for severity in range(1, SEVERITIES + 1)]


def _probabilities(subject: _Subject, views: Sequence[Any]) -> Floats:
    logits = [subject.model.outputs_at_line(view).logits for view in views[: subject.model.about.test_views]]
    both = logits[0] if len(logits) == 1 else both_sides(logits[0], logits[1])
    return softmax(both, subject.model.about.temperature)


# ---- on disk ---------------------------------------------------------------------------------------------------------

_HEADER = ("path", "cause", "strength", "true", "predicted", "confidence")


def _lines(photo: Photo, probabilities: Floats, classes: Sequence[str]) -> list[list[str]]:
    names = [(CLEAN, 0), *((corruption.name, severity) for corruption, severity in _conditions())]
    return [
        [photo.path, name, str(severity), photo.label, classes[int(p.argmax())], f"{p.max():.6f}"]
        for (name, severity), p in zip(names, probabilities, strict=True)
    ]


@dataclass(frozen=True)
class CorruptionResults:
    """A model's answers on photos and their corrupted versions."""

    corruptions: tuple[Corruption, ...]
    """K of them, in the order of the columns; fewer than `CORRUPTIONS` where an older version measured."""
    correct: npt.NDArray[np.bool_]
    """(N photos, 1 + 5 K) whether the answer is the true class: on the clean photo, then by corruption and severity."""
    confidence: Floats
    """(N, 1 + 5 K)."""
    paths: tuple[str, ...] = ()
    """(N,) of the photos."""
    clusters: Clusters | None = None
    """(N,) Numbers shared by photos that are not independent; None = all are."""

    def columns(self, corruption: Corruption) -> slice:
        """Where the five severities of a corruption stand."""
        first = 1 + SEVERITIES * self.corruptions.index(corruption)
        return slice(first, first + SEVERITIES)

    def of(self, corruption: Corruption) -> Floats:
        """(N, 5) 1 where the corrupted photo was correct, mild to strong."""
        return self.correct[:, self.columns(corruption)].astype(np.float64)

    def of_kind(self, kind: str) -> list[Floats]:
        """`of` each corruption of a kind."""
        return [self.of(corruption) for corruption in self.corruptions if corruption.kind == kind]

    @property
    def clean(self) -> Floats:
        """(N,) 1 where the clean photo was correct."""
        return self.correct[:, 0].astype(np.float64)


def read(folder: Path) -> CorruptionResults | None:
    """A strategy's robustness.csv; None where there is none, or it names a corruption that this version does not know.

    Raises
    ------
    RunError
        It can't be read.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        known = {corruption.name: corruption for corruption in CORRUPTIONS}
        names = list(dict.fromkeys(row["cause"] for row in rows))
        if names[:1] != [CLEAN] or not known.keys() >= set(names[1:]):
            return None
        order = [(CLEAN, "0"), *((name, str(i)) for name in names[1:] for i in range(1, SEVERITIES + 1))]
        if [(row["cause"], row["strength"]) for row in rows] != order * (len(rows) // len(order)):
            return None
        correct = np.array([row["true"] == row["predicted"] for row in rows]).reshape(-1, len(order))
        confidence = np.array([float(row["confidence"]) for row in rows]).reshape(-1, len(order))
        paths = tuple(row["path"] for row in rows[:: len(order)])
        kinds = tuple(known[name] for name in names[1:])
        return CorruptionResults(kinds, correct, confidence, paths, _clusters(folder, paths))
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}") from error


def _clusters(folder: Path, paths: Sequence[str]) -> Clusters | None:
    """The clusters of some of the photos reported on, as the strategy's predictions.csv has them."""
    file = folder / "predictions.csv"
    own = predictions.read_predictions(file, probabilities=False) if file.exists() else []
    of = {p.path: p.cluster for p in own if p.cluster is not None}
    return np.array([of[path] for path in paths], dtype=np.intp) if of.keys() >= set(paths) else None


# ---- figures ---------------------------------------------------------------------------------------------------------


def figures(results: CorruptionResults) -> RobustnessFigures:
    """A strategy's ``robustness`` in study.json."""
    causes = [_corruption(results, corruption) for corruption in results.corruptions]
    drops = results.clean - results.correct[:, 1:].mean(1)
    return {
        "photos": len(results.correct),
        "clean": float(results.clean.mean()),
        "clean_ci": intervals.mean_interval(results.clean, results.clusters),
        "causes": causes,
        "worst": max(causes, key=lambda c: c["mean_drop"])["cause"],
        "mean_drop": float(drops.mean()),
        "mean_drop_ci": intervals.average_interval(drops, results.clusters),
    }


def _corruption(results: CorruptionResults, corruption: Corruption) -> CorruptionFigures:
    correct = results.of(corruption)
    drops = results.clean - correct.mean(1)
    return {
        "cause": corruption.name,
        "title": corruption.title,
        "kind": corruption.kind,
        "amounts": list(corruption.amounts),
        "unit": corruption.unit,
        "accuracy": correct.mean(0).tolist(),
        "ci": [intervals.mean_interval(column, results.clusters) for column in correct.T],
        "confidence": results.confidence[:, results.columns(corruption)].mean(0).tolist(),
        "mean_drop": float(drops.mean()),
        "mean_drop_ci": intervals.average_interval(drops, results.clusters),
    }


def pairs(names: Sequence[str], results: Mapping[str, CorruptionResults]) -> list[RobustnessPair]:
    """Every pair of the named strategies on the same corrupted photos."""
    return [_pair(a, results[a], b, results[b]) for i, a in enumerate(names) for b in names[i + 1 :]]


def _pair(a: str, results_a: CorruptionResults, b: str, results_b: CorruptionResults) -> RobustnessPair:
    """The mean over all versions, paired by photo, and corruption by corruption."""
    difference = results_a.correct[:, 1:].mean(1) - results_b.correct[:, 1:].mean(1)
    low, high = intervals.average_interval(difference, results_a.clusters)
    mean = float(difference.mean())
    first, second, sign = (a, b, 1) if mean >= 0 else (b, a, -1)
    ends = sorted((100 * sign * low, 100 * sign * high))
    sure = "" if low > 0 or high < 0 else ", but that may be chance"
    differences = [results_a.of(c).mean(1) - results_b.of(c).mean(1) for c in results_a.corruptions]
    return {
        "a": a,
        "b": b,
        "difference": mean,
        "ci": (low, high),
        "verdict": (
            f"on corrupted photos {first} is {100 * abs(mean):.1f} points ahead of {second}{sure} (95 % CI "
            f"{ends[0]:.1f} to {ends[1]:.1f}; {len(difference)} photos, {results_a.correct.shape[1] - 1} versions of "
            "each)"
        ),
        "causes": [
            {"cause": c.name, "difference": float(d.mean()), "ci": intervals.average_interval(d, results_a.clusters)}
            for c, d in zip(results_a.corruptions, differences, strict=True)
        ],
    }
