"""How a study's models fare when its reported photos get worse: dark, blurred, turned, hidden and so on, each at five strengths.

What lies below the line is run once for all models that share a network: a changed photo goes through the frozen layers, and what comes
out at each model's line goes to that model, as in the study itself.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frostline.bundles.bundle import Bundle, both_sides, load
from frostline.config import Config
from frostline.errors import PhotoError, RunError
from frostline.evidence.corruptions import CAUSES, STRENGTHS, Cause, corrupt
from frostline.files import write_csv
from frostline.networks.activations import Tap, engines, rows_of
from frostline.networks.freeze_line import one_thread
from frostline.parallel import ahead
from frostline.photos.decoding import Pixels
from frostline.photos.loading import pixels
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.recipes import Strategy, resolve
from frostline.stats import intervals
from frostline.stats.probabilities import softmax
from frostline.training.prepare import Prepared, network_name

Row = dict[str, Any]

FILE = "robustness.csv"
CLEAN = "clean"
_PHOTOS = {"fast": 24, "balanced": 48, "best": 300}
"""How many photos a study takes by its preset: 60 changed versions of each."""


def photo_count(config: Config, reported: int) -> int:
    """How many of the reported photos a study measures robustness on, as its configuration says."""
    if config.robustness == "auto":
        return min(reported, _PHOTOS[config.preset])
    return reported if config.robustness == "all" else min(reported, int(config.robustness))


def chosen(photos: Sequence[Photo], count: int, seed: int) -> list[int]:
    """Ascending places of `count` photos in which each class has its share, drawn at random; fewer are a part of more."""
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
    """Ask the finished `strategies` of a run folder about changed photos; what they say goes to each one's robustness.csv.

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
    said: dict[str, list[list[Any]]] = {s.name: [] for s in strategies}
    task = progress.task("Photos made worse, in 60 ways each", len(some) * len(_looks(prepared, strategies)))
    for group in _looks(prepared, strategies):
        subjects = [_Subject(s.name, load(folder / s.name / "bundle", prepared.config.engine), t) for s, t in group]
        for photo, answers in _answers(subjects, some, root, prepared):
            for name, probabilities in answers.items():
                said[name] += _lines(photo, probabilities, prepared.classes)
            task.advance(1)
    task.finish()
    for name, lines in said.items():
        write_csv(folder / name / FILE, _HEADER, lines)


def _looks(prepared: Prepared, strategies: Sequence[Strategy]) -> list[list[tuple[Strategy, Tap]]]:
    """The strategies with their taps, those that see the same pixels together."""
    groups: dict[Any, list[tuple[Strategy, Tap]]] = {}
    for s in strategies:
        network = prepared.backbones[network_name(s)]
        tap = prepared.taps[network_name(s), resolve(s.line, network.layer_count)]
        groups.setdefault(network.transform.frame(), []).append((s, tap))
    return list(groups.values())


def _answers(
    subjects: Sequence[_Subject], photos: Sequence[Photo], root: Path, prepared: Prepared
) -> Iterator[tuple[Photo, dict[str, npt.NDArray[np.float64]]]]:
    """For each photo each subject's probabilities (1 + 60, C): of the photo as it is, then of the causes' strengths in order."""
    taps = list({id(s.tap): s.tap for s in subjects}.values())
    runs = engines([t for t in taps if t.line], prepared.runtime)
    transform = taps[0].backbone.transform
    mirrored = any(s.model.about.test_views > 1 for s in subjects)

    def work(photo: Photo) -> dict[str, npt.NDArray[np.float64]]:
        clean = pixels(root / photo.path, transform)
        if isinstance(clean, PhotoError):
            raise RunError(f"{root / photo.path} can't be read any more: {clean}")
        looks = [_versions(clean, photo, prepared.config.seed)]
        looks += [np.ascontiguousarray(looks[0][:, :, ::-1])] if mirrored else []
        rows = [dict(zip(map(id, taps), rows_of(taps, runs, look), strict=True)) for look in looks]
        return {s.name: _probabilities(s, [row[id(s.tap)] for row in rows]) for s in subjects}

    with one_thread():  # as many photos are under way as there are cores: 1.5 times as fast
        yield from ahead(work, photos, depth=4)


def _versions(clean: Pixels, photo: Photo, seed: int) -> Pixels:
    """The prepared photo and its changed versions, (1 + 60, H, W, 3)."""
    changed = [corrupt(clean, cause, strength, photo.sha256, seed) for cause, strength in _conditions()]
    return np.stack([clean, *changed])


def _conditions() -> list[tuple[Cause, int]]:
    return [(cause, strength) for cause in CAUSES for strength in range(1, STRENGTHS + 1)]


def _probabilities(subject: _Subject, views: Sequence[Any]) -> npt.NDArray[np.float64]:
    logits = [subject.model.outputs_at_line(view).logits for view in views[: subject.model.about.test_views]]
    both = logits[0] if len(logits) == 1 else both_sides(logits[0], logits[1])
    return softmax(both, subject.model.about.temperature)


# ---- on disk ---------------------------------------------------------------------------------------------------------

_HEADER = ("path", "cause", "strength", "true", "predicted", "confidence")


def _lines(photo: Photo, probabilities: npt.NDArray[np.float64], classes: Sequence[str]) -> list[list[Any]]:
    names = [(CLEAN, 0), *((cause.name, strength) for cause, strength in _conditions())]
    return [
        [photo.path, cause, strength, photo.label, classes[int(p.argmax())], f"{p.max():.6f}"]
        for (cause, strength), p in zip(names, probabilities, strict=True)
    ]


@dataclass(frozen=True)
class Said:
    """What a model said of photos and their changed versions."""

    right: npt.NDArray[np.bool_]
    """(N photos, 1 + 60) as they are, then by cause and strength in the order of `corruptions.CAUSES`."""
    confidence: npt.NDArray[np.float64]
    """(N, 1 + 60)."""

    def of(self, cause: Cause) -> npt.NDArray[np.float64]:
        """(N, 5) 1 where the changed photo was right, mild to strong."""
        first = 1 + STRENGTHS * CAUSES.index(cause)
        return self.right[:, first : first + STRENGTHS].astype(np.float64)

    @property
    def clean(self) -> npt.NDArray[np.float64]:
        """(N,) 1 where the photo as it is was right."""
        return self.right[:, 0].astype(np.float64)


def read(folder: Path) -> Said | None:
    """What a strategy's robustness.csv holds; None where there is none, or it is of other causes.

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
        each = 1 + len(_conditions())
        names = [(CLEAN, "0"), *((cause.name, str(strength)) for cause, strength in _conditions())]
        if not rows or [(r["cause"], r["strength"]) for r in rows] != names * (len(rows) // each):
            return None
        right = np.array([r["true"] == r["predicted"] for r in rows]).reshape(-1, each)
        return Said(right, np.array([float(r["confidence"]) for r in rows]).reshape(-1, each))
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} can't be read: {error}") from error


# ---- figures ---------------------------------------------------------------------------------------------------------


def row(said: Said) -> Row:
    """A strategy's ``robustness`` in study.json."""
    causes = [_cause(said, cause) for cause in CAUSES]
    drops = said.clean - said.right[:, 1:].mean(1)
    return {
        "photos": len(said.right),
        "clean": float(said.clean.mean()),
        "clean_ci": intervals.mean_interval(said.clean),
        "causes": causes,
        "worst": max(causes, key=lambda c: c["mean_drop"])["cause"],
        "mean_drop": float(drops.mean()),
        "mean_drop_ci": intervals.average_interval(drops),
    }


def _cause(said: Said, cause: Cause) -> Row:
    right = said.of(cause)
    first = 1 + STRENGTHS * CAUSES.index(cause)
    drops = said.clean - right.mean(1)
    return {
        "cause": cause.name,
        "title": cause.title,
        "kind": cause.kind,
        "amounts": list(cause.amounts),
        "unit": cause.unit,
        "accuracy": right.mean(0).tolist(),
        "ci": [intervals.mean_interval(column) for column in right.T],
        "confidence": said.confidence[:, first : first + STRENGTHS].mean(0).tolist(),
        "mean_drop": float(drops.mean()),
        "mean_drop_ci": intervals.average_interval(drops),
    }


def pair(a: str, said_a: Said, b: str, said_b: Said) -> Row:
    """Two strategies on the same changed photos: the mean over the 60 ways, paired by photo, and cause by cause."""
    difference = said_a.right[:, 1:].mean(1) - said_b.right[:, 1:].mean(1)
    low, high = intervals.average_interval(difference)
    mean = float(difference.mean())
    first, second, sign = (a, b, 1) if mean >= 0 else (b, a, -1)
    ends = sorted((100 * sign * low, 100 * sign * high))
    sure = "" if low > 0 or high < 0 else ", but that may be chance"
    by_cause = [said_a.of(c).mean(1) - said_b.of(c).mean(1) for c in CAUSES]
    return {
        "a": a,
        "b": b,
        "difference": mean,
        "ci": (low, high),
        "verdict": (
            f"on changed photos {first} is {100 * abs(mean):.1f} points ahead of {second}{sure} "
            f"(95 % CI {ends[0]:.1f} to {ends[1]:.1f}, {len(difference)} photos in {len(CAUSES) * STRENGTHS} ways)"
        ),
        "causes": [
            {"cause": c.name, "difference": float(d.mean()), "ci": intervals.average_interval(d)}
            for c, d in zip(CAUSES, by_cause, strict=True)
        ],
    }
