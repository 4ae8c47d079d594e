"""Shortcuts: traits such as size, format, camera, border or light that give a class away, whatever the photos show.

A network learns whatever separates the classes. Where all photos of one class come from another source, it learns the
source, and fails on photos from anywhere else. So small decision trees predict the class from one trait alone,
cross-validated; a trait that predicts a class almost without error is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from frostline.checks.label_errors import Indices, deal_folds
from frostline.checks.photo_quality import COLUMNS, FORMATS

Table = npt.NDArray[np.float32]

LEAST = 8
"""Photos of a class, and of the others, below which nothing is reported."""

_MOST = 6000  # photos that the trees are trained on and tested with
_CAMERAS = 20  # the commonest ones, each a column of its own


class _Trait(NamedTuple):
    name: str
    words: str
    strong: float  # balanced accuracy from which it is reported


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
    """A trait that gives a class away."""

    trait: str
    words: str
    """The trait in words."""
    index: int
    """Of the class."""
    accuracy: float
    """Balanced accuracy of "this class or not", from the trait alone; 0.5 is chance."""
    low: float
    """Lower end of the accuracy's 95 % CI."""
    typical: str
    """The trait's usual value among the class's photos, in words; "" where it can't be said briefly."""


def find(table: Table, labels: Indices, groups: Indices, seed: int = 0) -> list[Shortcut]:
    """The shortcuts, the strongest first; for each class only the simplest trait of those that follow from one another.

    Parameters
    ----------
    table
        (N, len(photo_quality.COLUMNS)), without NaN.
    labels, groups
        (N,): class, and what stays in one fold.
    """
    rng = np.random.default_rng(seed)
    some = np.sort(rng.permutation(len(labels))[:_MOST])
    table, labels, groups = table[some], labels[some], groups[some]
    if len(labels) < 2 * LEAST or len(np.unique(labels)) < 2:
        return []
    folds = deal_folds(labels, groups, rng)
    if len(np.unique(folds)) < 2:  # all photos are one group: none is left to train a tree on
        return []
    found: list[Shortcut] = []
    for trait, columns in zip(_TRAITS, _columns(table).values(), strict=True):
        if not (columns != columns[0]).any():
            continue
        predicted = _predicted(columns, labels, folds)
        for label in np.unique(labels).tolist():
            own = labels == label
            accuracy, low = _accuracy(predicted == label, own)
            if low >= trait.strong - 0.1 and accuracy >= trait.strong:
                typical = _typical(trait.name, table[own])
                found.append(Shortcut(trait.name, trait.words, label, accuracy, low, typical))
    return sorted(_simplest(found), key=lambda s: -s.accuracy)


def _columns(table: Table) -> Mapping[str, Table]:
    """The inputs of each trait's tree, (N, ...), by trait."""
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


def _predicted(columns: Table, labels: Indices, folds: Indices) -> Indices:
    """(N,): the class that a small tree, trained on the other folds, predicts from these columns."""
    from sklearn.model_selection import PredefinedSplit, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    leaves = max(16, 4 * len(np.unique(labels)))
    tree = DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=3, class_weight="balanced", random_state=0)
    return np.asarray(cross_val_predict(tree, columns, labels, cv=PredefinedSplit(folds)), dtype=np.int64)


def _accuracy(predicted: npt.NDArray[np.bool_], true: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Balanced accuracy and the lower end of its 95 % CI (Agresti-Coull: two successes and failures more)."""
    if min(true.sum(), (~true).sum()) < LEAST:
        return 0.0, 0.0
    shares = [float(predicted[true].mean()), float((~predicted)[~true].mean())]
    counts = [int(true.sum()), int((~true).sum())]
    near = [(share * count + 2) / (count + 4) for share, count in zip(shares, counts, strict=True)]
    variance = sum(p * (1 - p) / (count + 4) for p, count in zip(near, counts, strict=True)) / 4
    return sum(shares) / 2, sum(near) / 2 - 1.96 * variance**0.5


def _simplest(found: list[Shortcut]) -> list[Shortcut]:
    """Without those that follow from another of the same class: a size has a shape, a border has a colour."""
    follows = {
        "shape": ("size",),
        "background": ("border",),
        "compression": ("format", "size", "border"),
        "light": ("border",),
    }
    named = {(s.index, s.trait) for s in found}
    return [s for s in found if not any((s.index, cause) in named for cause in follows.get(s.trait, ()))]


def _typical(trait: str, table: Table) -> str:
    of = {name: table[:, i] for i, name in enumerate(COLUMNS)}
    if trait == "size":
        sizes, counts = np.unique(np.stack([of["width"], of["height"]], 1), axis=0, return_counts=True)
        most = counts.argmax()
        return f"{sizes[most][0]:.0f} x {sizes[most][1]:.0f} in {100 * counts[most] / len(table):.0f} % of them"
    if trait == "format":
        place = int(np.bincount(of["format"].astype(int)).argmax())
        return f"{[*FORMATS, 'other'][place]} in {100 * (of['format'] == place).mean():.0f} % of them"
    if trait in ("border", "background"):
        red, green, blue = (round(float(np.median(of[name]))) for name in ("red", "green", "blue"))
        return f"about rgb({red}, {green}, {blue})"
    return ""
