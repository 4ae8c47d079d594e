"""Classes that something other than what the photos show gives away: their size, shape, format, camera, border or light.

A network learns whatever tells classes apart. Where all photos of one class come from another source, it learns the source, and
fails on photos from anywhere else. So small trees are asked to tell the class from one trait alone, cross-validated; a trait that
tells a class almost without fault is called.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from frostline.checks.label_errors import deal
from frostline.checks.photo_quality import COLUMNS, FORMATS

Table = npt.NDArray[np.float32]

LEAST = 8
"""Photos of a class, and of the others, that it takes to call anything."""

_MOST = 6000  # photos looked at
_CAMERAS = 20  # the commonest ones, each a column of its own


class _Trait(NamedTuple):
    name: str
    said: str
    strong: float  # balanced accuracy from which it is called


_TRAITS = (
    _Trait("size", "the photos' size in pixels", 0.85),
    _Trait("shape", "the photos' shape (width to height)", 0.85),
    _Trait("format", "the file format", 0.75),
    _Trait("camera", "the camera named in EXIF", 0.80),
    _Trait("compression", "the file's bytes for each pixel", 0.90),
    _Trait("border", "a border of one colour", 0.80),
    _Trait("background", "the colour at the photo's edge", 0.90),
    _Trait("light", "how bright the photo is", 0.90),
)


@dataclass(frozen=True)
class Shortcut:
    """A trait that tells a class."""

    trait: str
    said: str
    """The trait in words."""
    index: int
    """Of the class."""
    accuracy: float
    """Mean of the shares of its photos and of the others' that the trait alone places rightly; 0.5 is chance."""
    low: float
    """Lower end of the accuracy's 95 % interval."""
    typical: str
    """What most of its photos have there, in words; "" where it can't be said briefly."""


def find(table: Table, labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64], seed: int = 0) -> list[Shortcut]:
    """The shortcuts, the strongest first; for each class only the simplest trait of those that say the same.

    Parameters
    ----------
    table
        (N, len(quality.COLUMNS)), without NaN.
    labels, groups
        (N,): class, and what stays in one fold.
    """
    dice = np.random.default_rng(seed)
    some = np.sort(dice.permutation(len(labels))[:_MOST])
    table, labels, groups = table[some], labels[some], groups[some]
    if len(labels) < 2 * LEAST or len(np.unique(labels)) < 2:
        return []
    folds = deal(labels, groups, dice)
    found: list[Shortcut] = []
    for trait, columns in zip(_TRAITS, _columns(table).values(), strict=True):
        if not (columns != columns[0]).any():
            continue
        told = _told(columns, labels, folds)
        for label in np.unique(labels):
            accuracy, low = _accuracy(told == label, labels == label)
            if low >= trait.strong - 0.1 and accuracy >= trait.strong:
                found.append(
                    Shortcut(
                        trait.name, trait.said, int(label), accuracy, low, _typical(trait.name, table, labels == label)
                    )
                )
    return sorted(_simplest(found), key=lambda s: -s.accuracy)


def _columns(table: Table) -> Mapping[str, Table]:
    """What each trait's tree gets to see, (N, ...), by trait."""
    of = {name: table[:, i] for i, name in enumerate(COLUMNS)}
    common = [c for c in np.unique(of["camera"]) if c]
    common = sorted(common, key=lambda c: -(of["camera"] == c).sum())[:_CAMERAS]
    columns = {
        "size": [of["width"], of["height"]],
        "shape": [of["width"] / of["height"]],
        "format": [of["format"] == i for i in range(len(FORMATS) + 1)],
        "camera": [of["camera"] != 0, *(of["camera"] == c for c in common)],
        "compression": [of["size"] / (of["width"] * of["height"])],
        "border": [of["ring"], of["ring"] < 3],
        "background": [of["red"], of["green"], of["blue"]],
        "light": [of["brightness"], of["low"], of["high"]],
    }
    return {name: np.stack(values, axis=1).astype(np.float32) for name, values in columns.items()}


def _told(columns: Table, labels: npt.NDArray[np.int64], folds: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(N,): the class that a small tree of the other folds tells from these columns."""
    from sklearn.tree import DecisionTreeClassifier

    told = np.full(len(labels), -1)
    for fold in np.unique(folds):
        train = folds != fold
        if len(np.unique(labels[train])) > 1:
            leaves = max(16, 4 * len(np.unique(labels)))
            tree = DecisionTreeClassifier(
                max_leaf_nodes=leaves, min_samples_leaf=3, class_weight="balanced", random_state=0
            )
            told[~train] = tree.fit(columns[train], labels[train]).predict(columns[~train])
    return told


def _accuracy(told: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Balanced accuracy and the lower end of its 95 % interval (each share with two successes and two failures more)."""
    if min(true.sum(), (~true).sum()) < LEAST:
        return 0.0, 0.0
    shares = [float(told[true].mean()), float((~told)[~true].mean())]
    counts = [int(true.sum()), int((~true).sum())]
    near = [(share * count + 2) / (count + 4) for share, count in zip(shares, counts, strict=True)]
    variance = sum(p * (1 - p) / (count + 4) for p, count in zip(near, counts, strict=True)) / 4
    return sum(shares) / 2, sum(near) / 2 - 1.96 * variance**0.5


def _simplest(found: list[Shortcut]) -> list[Shortcut]:
    """Without those that follow from another of the same class: a size has a shape, a border has a colour and compresses well."""
    follows = {
        "shape": ("size",),
        "background": ("border",),
        "compression": ("format", "size", "border"),
        "light": ("border",),
    }
    named = {(s.index, s.trait) for s in found}
    return [s for s in found if not any((s.index, cause) in named for cause in follows.get(s.trait, ()))]


def _typical(trait: str, table: Table, own: npt.NDArray[np.bool_]) -> str:
    of = {name: table[own, i] for i, name in enumerate(COLUMNS)}
    if trait == "size":
        sizes, counts = np.unique(np.stack([of["width"], of["height"]], 1), axis=0, return_counts=True)
        most = counts.argmax()
        return f"{sizes[most][0]:.0f} x {sizes[most][1]:.0f} in {100 * counts[most] / own.sum():.0f} % of them"
    if trait == "format":
        place = int(np.bincount(of["format"].astype(int)).argmax())
        return f"{[*FORMATS, 'other'][place]} in {100 * (of['format'] == place).mean():.0f} % of them"
    if trait in ("border", "background"):
        red, green, blue = (round(float(np.median(of[name]))) for name in ("red", "green", "blue"))
        return f"about rgb({red}, {green}, {blue})"
    return ""
