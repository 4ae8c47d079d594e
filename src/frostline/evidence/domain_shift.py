"""Whether the photos reported on are of another kind than those trained on: another camera, another season, another
place.

Photos that were drawn at random from one collection can't differ but by chance, so only a test folder (`--test`) or a
part that the data set gives itself is tested. The test compares what the frozen network makes of both, class by class
(Rabanser et al., Failing loudly, NeurIPS 2019: tests on a trained representation find shifts that tests on pixels
miss), by permutation within classes: other class shares alone are no finding. Photos of one group or near-duplicates
are permuted together: else any two sets of groups would seem to differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from frostline.cache.store import Key, Store
from frostline.documents.study import DomainShift
from frostline.networks.activations import Tap
from frostline.parallel import groups
from frostline.photos.manifest import Photo
from frostline.training.prepare import Prepared

Floats = npt.NDArray[np.float64]

LEVEL = 0.01
DIMENSIONS = 32
_PERMUTATIONS = 999
_MOST = 3000  # photos of each side: more make no difference to the finding


def measure(prepared: Prepared) -> DomainShift | None:
    """``shift`` of study.json: ``measured`` in words, ``p_value``, ``distance`` and ``verdict``; None where there is
    nothing to test.

    The distance is the mean over classes of how far apart the two sides' means are, in standard deviations of a
    photo, less what chance makes of it.
    """
    tap = _representation(prepared)
    if not prepared.reported_apart or tap is None:
        return None
    trained = prepared.part(prepared.split.train.tolist())
    reported = prepared.reported()
    seed = prepared.config.seed
    home, away = (_some(side, seed) for side in (trained, reported))
    own = prepared.clusters([*home, *away])
    distance, p = difference(
        features(tap.store, home),
        [x.label for x in home],
        features(tap.store, away),
        [x.label for x in away],
        seed,
        own,
    )
    differs = p < LEVEL
    chance = "p < 0.001" if p <= 1 / (1 + _PERMUTATIONS) else f"p = {p:.3f}"
    measured = (
        f"{len(away):,} reported photos against {len(home):,} trained on, by what the frozen network makes of them: "
        f"{distance:.2f} standard deviations apart beyond chance, class by class (permutation test, {chance})"
    )
    verdict = "your reported photos differ from your training photos" if differs else "no difference shown"
    return {"measured": measured, "p_value": p, "distance": distance, "differs": differs, "verdict": verdict}


def _representation(prepared: Prepared) -> Tap | None:
    """The highest line of a pretrained network in this run."""
    names = {f"{s.backbone} {s.weights} {s.enlarge:g}" for s in prepared.config.strategies if s.weights == "pretrained"}
    taps = [t for (name, line), t in prepared.taps.items() if line and name in names]
    return max(taps, key=lambda t: t.line, default=None)


def _some(photos: Sequence[Photo], seed: int) -> list[Photo]:
    if len(photos) <= _MOST:
        return list(photos)
    places = np.random.default_rng(seed).choice(len(photos), _MOST, replace=False)
    return [photos[i] for i in np.sort(places)]


def features(store: Store, photos: Sequence[Photo]) -> Floats:
    """What a store has of photos, averaged over the grid: (N, F)."""
    rows = []
    for group in groups(photos, 64):
        live = store.read([Key.of(p.sha256, 0, 0) for p in group])[0].astype(np.float32)
        rows.append(live if live.ndim == 2 else live.reshape(*live.shape[:2], -1).mean(2))
    return np.concatenate(rows).astype(np.float64)


def difference(
    home: Floats,
    home_labels: Sequence[str],
    away: Floats,
    away_labels: Sequence[str],
    seed: int,
    clusters: npt.NDArray[np.intp] | None = None,
) -> tuple[float, float]:
    """(distance, p) of two sets of features (N, F) and (M, F), by permutation within the classes that both have.

    Photos of one class that share one of the `clusters` (N + M,) and stand on one side are permuted as one.
    """
    both = np.concatenate([home, away])
    labels = np.array([*home_labels, *away_labels])
    is_away = np.arange(len(both)) >= len(home)
    shared = [c for c in np.unique(labels) if is_away[labels == c].any() and not is_away[labels == c].all()]
    keep = np.isin(labels, shared)
    if not shared or keep.sum() < 4:
        return 0.0, 1.0
    z = _whitened(both[keep], labels[keep])
    own = (np.arange(len(both)) if clusters is None else clusters)[keep]
    labels, is_away = labels[keep], is_away[keep]
    rng = np.random.default_rng([seed, 3])
    squares = np.zeros(1 + _PERMUTATIONS)
    for c in shared:
        sums, sizes, outside = _units(z[labels == c], own[labels == c], is_away[labels == c])
        order = rng.random((_PERMUTATIONS, len(sums))).argsort(1)
        picked = np.vstack([outside[None], order < outside.sum()]).astype(float)  # (1 + permutations, units)
        count, total = picked @ sizes, sizes.sum()
        means = picked @ sums / count[:, None]
        rest = (sums.sum(0) - picked @ sums) / (total - count)[:, None]
        squares += ((means - rest) ** 2).sum(1) * count * (total - count) / total
    weight = sum(
        int(is_away[labels == c].sum()) * int((~is_away[labels == c]).sum()) / int((labels == c).sum()) for c in shared
    )
    beyond = max(0.0, float(squares[0] - squares[1:].mean()))
    p = float((1 + (squares[1:] >= squares[0] - 1e-12).sum()) / (1 + _PERMUTATIONS))
    return float(np.sqrt(beyond / weight)), p


def _units(
    rows: Floats, clusters: npt.NDArray[np.intp], is_away: npt.NDArray[np.bool_]
) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
    """What is permuted as one: sums of `rows` (N, F), sizes, and the side of each, in the order of their first rows."""
    pairs = 2 * np.unique(clusters, return_inverse=True)[1] + is_away
    _, first, unit = np.unique(pairs, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))[unit]
    sums = np.zeros((len(first), rows.shape[1]))
    np.add.at(sums, rank, rows)
    return sums, np.bincount(rank).astype(float), is_away[np.sort(first)]


def _whitened(rows: Floats, labels: npt.NDArray[Any]) -> Floats:
    """The first principal components of what differs within classes, each with standard deviation 1."""
    centred = rows.copy()
    for c in np.unique(labels):
        centred[labels == c] -= rows[labels == c].mean(0)
    count = min(DIMENSIONS, *(max(1, side - 1) for side in rows.shape))
    spread, axes = np.linalg.eigh(centred.T @ centred / len(rows))
    spread, axes = spread[-count:], axes[:, -count:]
    return np.asarray((rows @ axes) / np.sqrt(np.maximum(spread, 1e-12)))
