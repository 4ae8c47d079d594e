"""Who trains and who is asked: a stratified split that byte-identical photos never straddle.

========  ==========================================  =================================================
protocol  no split given by the data set              given in part
========  ==========================================  =================================================
tutorial  80 / 20 train / validation, no test         test without validation: the test photos are the
                                                      validation photos too, as in the tutorial
rigorous  65 / 15 / 20 train / validation / test;     what is missing is cut from train, in the same
          80 / 20 / 0 when another folder is the      proportion to what is left of it
          test
========  ==========================================  =================================================

Parts that the data set gives are used as they are, twins or not; `straddling` says which twins they separate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from frostline.errors import DataError
from frostline.manifest import Manifest, Photo, Skip, printable

Protocol = Literal["tutorial", "rigorous"]
Indices = npt.NDArray[np.intp]

_SHARES: Mapping[str, dict[str, float]] = {
    "tutorial": {"train": 0.80, "validation": 0.20},
    "rigorous": {"train": 0.65, "validation": 0.15, "test": 0.20},
    "external": {"train": 0.80, "validation": 0.20},
}


@dataclass(frozen=True)
class Split:
    """Ascending indices into `manifest.photos`.

    The parts are disjoint and together hold every photo, but for one case: under the tutorial's protocol, when the data
    set gives a test part and no validation part, `validation` and `test` are the same array.
    """

    train: Indices
    validation: Indices
    test: Indices

    def names(self) -> list[str]:
        """The part of each photo in manifest order, for `Manifest.write`; a photo in both is told as "test"."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        of = {int(i): part for part, indices in parts.items() for i in indices}
        return [of[i] for i in range(len(of))]


def make_split(manifest: Manifest, protocol: Protocol, seed: int, external_test: bool = False) -> Split:
    """Split the photos, class by class, at random by `seed` (any whole number from 0).

    Photos with the same bytes are one group and stay together; a group that stands in two classes is placed as one of
    them. In each part that is cut here, each class has its share of photos to within one (twins permitting) and at
    least one group. The outcome depends on the seed and on the photos' bytes and classes, not on names or file order.

    With `external_test` no test part is cut, another folder being the test. A test part that the data set gives is
    kept apart nonetheless: it is not trained on.

    Raises
    ------
    DataError
        Names every class that has too few different photos for the parts to cut, or none left to train on.
    """
    given = _given(manifest)
    shares = _SHARES["external" if protocol == "rigorous" and external_test else protocol]
    missing = [part for part in shares if part != "train" and part not in given]
    if protocol == "tutorial" and "test" in given:
        missing = []
    pool = given.get("train", [])
    cut = _cut(manifest, pool, {part: shares[part] for part in ("train", *missing)}, seed, protocol)
    parts = {part: np.array(sorted(indices), dtype=np.intp) for part, indices in {**given, **cut}.items()}
    none = np.array([], dtype=np.intp)
    test = parts.get("test", none)
    return Split(parts["train"], parts.get("validation", test), test)


def leaks(manifest: Manifest) -> list[Skip]:
    """Photos that a given part can't keep, because the same bytes stand in a part that is asked more: test before validation
    before train. With them in training, a figure would be of photos that the network had seen.
    """
    rank = {"": 0, "train": 0, "validation": 1, "test": 2}
    found = []
    for group in manifest.twins():
        first = max(group, key=lambda photo: rank[photo.split])
        found += [
            Skip(photo.path, f"the same photo stands in {first.split}: {printable(first.path)}")
            for photo in group
            if rank[photo.split] < rank[first.split]
        ]
    return found


def straddling(manifest: Manifest, split: Split) -> list[list[Photo]]:
    """Groups of byte-identical photos that stand in more than one part; only given splits can have them."""
    parts = (split.train, split.validation, split.test)
    places: defaultdict[int, set[int]] = defaultdict(set)
    for number, part in enumerate(parts):
        for index in part:
            places[int(index)].add(number)
    groups: defaultdict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(manifest.photos):
        groups[photo.sha256].append(index)
    return [
        [manifest.photos[i] for i in group]
        for group in groups.values()
        if any(places[i] != places[group[0]] for i in group)
    ]


def _given(manifest: Manifest) -> dict[str, list[int]]:
    """Indices by the part that the data set puts them in; all in train when it gives none."""
    given: defaultdict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(manifest.photos):
        given[photo.split].append(index)
    if "" in given:
        if len(given) > 1:
            first = manifest.photos[given[""][0]].path
            raise DataError(f"{printable(first)} has no split, others have: either every photo has one or none has")
        given["train"] = given.pop("")
    return dict(given)


@dataclass
class _Group:
    """Photos of the same bytes."""

    sha256: str
    members: list[int]
    counts: dict[str, int]  # photos per class; more than one class only where labels conflict
    home: str = ""  # the class that it is counted in


@dataclass
class _Plan:
    """Photos that each part still has to get, per class."""

    parts: list[str]
    wanted: dict[str, dict[str, int]]
    held: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # class -> parts with a group of it

    def place(self, group: _Group, part: str) -> None:
        self.held[group.home].add(part)
        for label, count in group.counts.items():
            self.wanted[label][part] -= count


def _cut(
    manifest: Manifest, pool: list[int], shares: dict[str, float], seed: int, protocol: str
) -> dict[str, list[int]]:
    """Divide the photos at the indices `pool` into the parts of `shares`."""
    groups = _groups(manifest, pool)
    inside = set(pool)
    outside = {photo.sha256 for index, photo in enumerate(manifest.photos) if index not in inside}
    parts = list(shares)
    pinned = [group for group in groups if group.sha256 in outside]
    free = [group for group in groups if group.sha256 not in outside]
    where = " in train" if len(pool) < len(manifest.photos) else ""
    if fault := _shortage(manifest.classes, pinned, free, parts, where):
        raise DataError(f"{fault[0]}; the {protocol} protocol needs at least {fault[1]}")

    plan = _Plan(parts, {label: _apportion(n, shares) for label, n in _tally(groups).items()})
    result: dict[str, list[int]] = {part: [] for part in parts}
    for group in pinned:  # a twin stands in a given part: to cut it off from train would make one straddle more
        plan.place(group, "train")
        result["train"] += group.members
    dice = np.random.default_rng(seed)
    order = [free[i] for i in dice.permutation(len(free))]
    order.sort(key=lambda group: (len(group.counts), len(group.members)), reverse=True)  # the hard ones first
    left = _homes(order)
    for group in order:
        part = _choose(group, plan, left[group.home], dice)
        left[group.home] -= 1
        plan.place(group, part)
        result[part] += group.members
    return result


def _choose(group: _Group, plan: _Plan, left: int, dice: np.random.Generator) -> str:
    """A part at random, by what each still wants of the group's classes; so each gets exactly its share in the end.

    `left`: groups of this home class not placed yet, this one included. When they are only just enough to give every
    part one, they go to the parts that have none.
    """
    lacking = [part for part in plan.parts if part not in plan.held[group.home]]
    allowed = lacking if left <= len(lacking) else plan.parts
    room = {part: min(plan.wanted[label][part] - n for label, n in group.counts.items()) for part in allowed}
    fitting = [part for part in allowed if room[part] >= 0]
    if not fitting:
        return max(allowed, key=lambda part: room[part])
    weights = np.array([sum(plan.wanted[label][part] for label in group.counts) for part in fitting], dtype=float)
    return fitting[int(dice.choice(len(fitting), p=weights / weights.sum()))]


def _groups(manifest: Manifest, pool: list[int]) -> list[_Group]:
    """The groups of byte-identical photos among `pool`, in an order that depends on bytes and classes only."""
    members: defaultdict[str, list[int]] = defaultdict(list)
    for index in pool:
        members[manifest.photos[index].sha256].append(index)
    groups = [_Group(digest, members[digest], _labels(manifest, members[digest])) for digest in sorted(members)]
    totals = _tally(groups)
    for group in groups:  # its commonest class; between equals the smaller one, which needs it more
        group.home = min(group.counts, key=lambda label: (-group.counts[label], totals[label], label))
    return groups


def _labels(manifest: Manifest, members: list[int]) -> dict[str, int]:
    counts: defaultdict[str, int] = defaultdict(int)
    for index in members:
        counts[manifest.photos[index].label] += 1
    return dict(sorted(counts.items()))


def _tally(groups: list[_Group]) -> dict[str, int]:
    totals: defaultdict[str, int] = defaultdict(int)
    for group in groups:
        for label, count in group.counts.items():
            totals[label] += count
    return dict(totals)


def _homes(groups: list[_Group]) -> dict[str, int]:
    homes: defaultdict[str, int] = defaultdict(int)
    for group in groups:
        homes[group.home] += 1
    return dict(homes)


def _apportion(count: int, shares: dict[str, float]) -> dict[str, int]:
    """`count` photos by largest remainder, at least one for each part while there are enough."""
    total = sum(shares.values())
    exact = {part: count * share / total for part, share in shares.items()}
    whole = {part: int(value) for part, value in exact.items()}
    by_remainder = sorted(shares, key=lambda part: whole[part] - exact[part])
    for part in by_remainder[: count - sum(whole.values())]:
        whole[part] += 1
    for part in shares:
        richest = max(whole, key=lambda other: whole[other])
        if not whole[part] and whole[richest] > 1:
            whole[part] += 1
            whole[richest] -= 1
    return whole


def _shortage(
    classes: list[str], pinned: list[_Group], free: list[_Group], parts: list[str], where: str
) -> tuple[str, str] | None:
    """(which classes are too small, what is needed), or None: each needs a group in train and in each part to cut."""
    own, movable, counts = _homes([*pinned, *free]), _homes(free), _tally([*pinned, *free])
    needed = len(parts)
    if needed == 1:  # nothing to cut: photos that conflict with another class will do
        poor = [label for label in classes if label not in counts]
    else:
        poor = [label for label in classes if own.get(label, 0) < needed or movable.get(label, 0) < needed - 1]
    if not poor:
        return None
    named = ", ".join(_described(label, counts.get(label, 0), own.get(label, 0), where) for label in poor)
    of_each = " of each" if len(poor) > 1 else ""
    what = f"{needed} different ones{of_each} ({', '.join(parts)})" if needed > 1 else f"one{of_each}"
    if parts == list(_SHARES["rigorous"]):
        return named, f"{what}: add photos, remove the class, or use --protocol tutorial (2)"
    return named, f"{what}: add photos or remove the class"


def _described(label: str, count: int, different: int, where: str) -> str:
    photos = f"{count} {'photo' if count == 1 else 'photos'}{where}"
    twins = f", only {different} of them different and its own" if different < count else ""
    return f"class '{printable(label)}' has {photos}{twins}"
