"""Leakage: what a split that ignores near-duplicates would have shown, measured by a quick head on features at hand.

A naive split keeps only byte-identical photos together, so some test photos have a near-duplicate among the training
photos. Five such splits (80 / 20) are drawn. On each, a ridge classifier is trained twice on frozen features: on the
whole 80 %, and on what is left of it without the near-duplicates of the other 20 %. Both predict the same 20 %. The
difference of their accuracies is how much the naive split inflates the figure. It takes about a second for 3,500
photos.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from frostline.cache.store import Key
from frostline.documents.shared import LeakageFigures, NearDuplicates
from frostline.errors import DataError
from frostline.parallel import groups
from frostline.photos.manifest import Manifest
from frostline.photos.split import make_split
from frostline.training.prepare import Prepared, network_name

Matrix = npt.NDArray[np.float32]

_REPEATS = 5
_RESAMPLES = 2000
_RIDGE = 0.3  # per photo, on features of spread 1; anything from 0.1 to 1 is as good
_WIDTH = 512  # features are projected at random to so many: a fifth of the time, half a point less accuracy
_ROWS = 4096


def near_duplicates(prepared: Prepared) -> NearDuplicates:
    """``dataset.near_twins`` of study.json; its `naive` is what `measure` returns, later."""
    found = prepared.near_twins
    return {
        "groups": [list(group.paths) for group in found],
        "kinds": [group.kind for group in found],
        "photos": sum(len(group.indices) for group in found),
        "across_classes": [
            [{"path": photo.path, "class": photo.label} for photo in group.photos]
            for group in found
            if group.across_classes
        ],
        "naive": None,
    }


def measure(prepared: Prepared) -> LeakageFigures | None:
    """How much a split that ignores near-duplicates would have inflated the accuracy, with a 95 % interval over photos.

    None where there are no near-duplicates, no features of a pretrained network, or the data set gives its own parts.
    """
    photos = prepared.photos.photos
    if not prepared.near_twins or any(photo.split for photo in photos):
        return None
    name, features = _features(prepared)
    if features is None:
        return None
    free = Manifest(prepared.photos.root, [replace(photo, group="") for photo in photos])
    places = {name: place for place, name in enumerate(prepared.classes)}
    labels = np.array([places[photo.label] for photo in photos])
    group = np.arange(len(photos))
    for number, alike in enumerate(prepared.near_twins):
        group[list(alike.indices)] = len(photos) + number
    ridge = _Ridge(features, labels, len(prepared.classes))
    rows = []
    for repeat in range(_REPEATS):
        try:
            split = make_split(free, "tutorial", prepared.config.seed * _REPEATS + repeat)
        except DataError:  # fewer photos of a class than parts
            return None
        rows += _predicted(ridge, labels, group, split.train, split.validation, repeat)
    table = np.array(rows, dtype=np.float64)  # group, concerned, correct on the naive split, on the safe one, repeat
    if not table[:, 1].any():
        return None
    concerned = table[table[:, 1] == 1]
    naive, safe = table[:, 2].mean(), table[:, 3].mean()
    return {
        "head": f"ridge classifier on frozen features of {name}",
        "repeats": _REPEATS,
        "photos": round(len(table) / _REPEATS),
        "concerned": round(len(concerned) / _REPEATS, 1),
        "accuracy_naive": round(float(naive), 5),
        "accuracy_safe": round(float(safe), 5),
        "difference": round(float(naive - safe), 5),
        "ci": [round(bound, 5) for bound in _interval(table, prepared.config.seed)],
        "concerned_naive": round(float(concerned[:, 2].mean()), 5),
        "concerned_safe": round(float(concerned[:, 3].mean()), 5),
    }


def sentence(found: NearDuplicates) -> str:
    """`dataset.near_twins` in a line: how many photos it concerns, and how much a naive split would have inflated the
    accuracy.
    """
    count, number = found["photos"], len(found["groups"])
    groups = "group" if number == 1 else "groups"
    text = f"Near-duplicates: {count} photos in {number} {groups}, each kept on one side of the split"
    if across := len(found["across_classes"]):
        text += f"; {across} {'stands' if across == 1 else 'stand'} in two classes"
    naive = found["naive"]
    if naive is None:
        return f"{text}."
    low, high = (100 * bound for bound in naive["ci"])
    return (
        f"{text}. A split that ignores them would have shown {100 * naive['difference']:.2f} points more (95 % CI "
        f"{low:.2f} to {high:.2f}; a quick head, {naive['repeats']} splits)."
    )


def _features(prepared: Prepared) -> tuple[str, Matrix | None]:
    """Clean features (N, D) of a pretrained network at its top, of spread 1, and its name; None where the run has
    none.
    """
    for s in prepared.config.strategies:
        network = prepared.backbones[network_name(s)]
        tap = prepared.taps.get((network_name(s), network.layer_count))
        if s.weights != "pretrained" or tap is None:
            continue
        keys = [Key.of(photo.sha256, 0, 0) for photo in prepared.photos.photos]
        features = np.concatenate([_narrow(tap.store.read(some)) for some in groups(keys, _ROWS)])
        return s.backbone, (features - features.mean(0)) / np.maximum(features.std(0), 1e-6)
    return "", None


def _narrow(tensors: Sequence[npt.NDArray[Any]]) -> Matrix:
    """What stands at the top, averaged over places where there still are some, as (N, at most _WIDTH)."""
    flat = np.concatenate([t.astype(np.float32).reshape(*t.shape[:2], -1).mean(2) for t in tensors], axis=1)
    if flat.shape[1] <= _WIDTH:
        return np.asarray(flat)
    signs = np.random.default_rng(0).integers(0, 2, (flat.shape[1], _WIDTH)).astype(np.float32) * 2 - 1
    return np.asarray(flat @ signs)


class _Ridge:
    """A least-squares classifier, trained again and again on all photos but a few: sums over those are taken off the
    sums over all.
    """

    def __init__(self, features: Matrix, labels: npt.NDArray[np.int64], classes: int) -> None:
        self.x = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)
        self.y = (np.eye(classes, dtype=np.float32) * 2 - 1)[labels]
        self.squares, self.products = self.x.T @ self.x, self.x.T @ self.y

    def correct(self, without: npt.NDArray[np.intp], test: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
        """Which of the `test` photos are predicted correctly by a head that was trained on all but `without`."""
        x, y = self.x[without], self.y[without]
        squares = self.squares - x.T @ x
        squares[np.diag_indices_from(squares)] += _RIDGE * (len(self.x) - len(without))
        weights = cho_solve(cho_factor(squares, check_finite=False), self.products - x.T @ y, check_finite=False)
        return np.asarray((self.x[test] @ weights).argmax(1) == self.y[test].argmax(1))


def _predicted(
    ridge: _Ridge,
    labels: npt.NDArray[np.int64],
    group: npt.NDArray[np.int64],
    train: npt.NDArray[np.intp],
    test: npt.NDArray[np.intp],
    repeat: int,
) -> list[tuple[int, bool, bool, bool, int]]:
    """A row for each test photo: its group, whether training has a near-duplicate of it, correct with those and
    without.
    """
    concerned = np.isin(group[test], group[train])
    given_away = train[np.isin(group[train], group[test])]
    naive = ridge.correct(test, test)
    enough = set(labels[train].tolist()) == set(labels[np.setdiff1d(train, given_away)].tolist())
    safe = ridge.correct(np.concatenate([test, given_away]), test) if len(given_away) and enough else naive
    columns: Sequence[Any] = (group[test], concerned, naive, safe)
    return [(int(g), bool(c), bool(n), bool(s), repeat) for g, c, n, s in zip(*columns, strict=True)]


def _interval(table: npt.NDArray[np.float64], seed: int) -> tuple[float, float]:
    """95 % interval of the difference: photos are resampled, near-duplicates as one, each with all its predictions."""
    sums: defaultdict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for group, _, naive, safe, _ in table:
        sums[int(group)][0] += naive - safe
        sums[int(group)][1] += 1
    values = np.array(list(sums.values()))
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), _RESAMPLES) @ values
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975])
    return float(low), float(high)
