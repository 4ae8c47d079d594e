"""Which photos train, validate and test: a stratified split in which duplicates and groups of photos stay together.

========  ==========================================  =================================================
protocol  no split given by the data set              given in part
========  ==========================================  =================================================
tutorial  80 / 20 train / validation, no test         test without validation: the test photos are the
                                                      validation photos too, as in the tutorial
rigorous  65 / 15 / 20 train / validation / test;     what is missing is cut from train, in the same
          80 / 20 / 0 when another folder is the      proportion to what is left of it
          test
========  ==========================================  =================================================

What belongs together is one group and stays in one part: byte-identical photos, photos of the same `group` in a table
(the same plant, the same patient), and what `ties` add (near-duplicates). This is transitive. Parts that the data set
gives are used as they are; `leaks` names the photos that they separate from their group.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from frostline.errors import DataError
from frostline.photos.manifest import Manifest, Photo, Skip
from frostline.photos.names import printable

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
        """The part of each photo in manifest order, for `Manifest.write`; "test" for a photo of two parts."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        of = {int(i): part for part, indices in parts.items() for i in indices}
        return [of[i] for i in range(len(of))]


def make_split(
    manifest: Manifest,
    protocol: Protocol,
    seed: int,
    external_test: bool = False,
    ties: Iterable[Sequence[int]] = (),
) -> Split:
    """Split the photos, class by class, at random by `seed` (any whole number from 0).

    Photos with the same bytes, photos of the same `Photo.group` and photos that stand in one of `ties` (indices into
    `manifest.photos`) are one group and stay together. A photo whose bytes are found in two classes counts for neither
    of them; a group of such photos alone is placed as one of its classes. In each part that is cut here, each class has
    its share of photos to within one (groups permitting) and at least one group. The outcome depends on the seed and on
    the photos' bytes, classes and groups, not on names or file order.

    With `external_test` no test part is cut, since another folder is the test. A test part that the data set gives is
    still kept out of training.

    Raises
    ------
    DataError
        Names every class that has too few different photos or groups for the parts to cut, or none left to train on.
    """
    given = _given(manifest)
    shares = _SHARES["external" if protocol == "rigorous" and external_test else protocol]
    missing = [part for part in shares if part != "train" and part not in given]
    if protocol == "tutorial" and "test" in given:
        missing = []
    pool = given.get("train", [])
    tied = [tie for tie in ties if len(tie) > 1]
    united = together(manifest.photos, tied)
    try:
        cut = _cut(manifest, pool, united, {part: shares[part] for part in ("train", *missing)}, seed, protocol)
    except DataError as error:
        hint = "; near-duplicates count as one photo, unless you give --twins bytes" if tied else ""
        raise DataError(f"{error}{hint}") from None
    parts = {part: np.array(sorted(indices), dtype=np.intp) for part, indices in {**given, **cut}.items()}
    none = np.array([], dtype=np.intp)
    test = parts.get("test", none)
    return Split(parts["train"], parts.get("validation", test), test)


def together(photos: Sequence[Photo], ties: Iterable[Sequence[int]] = ()) -> list[list[int]]:
    """The groups of photos that belong together, as indices in ascending order: connected by bytes, `Photo.group` or
    `ties`.

    Every photo is in exactly one group; a group may be a single photo.
    """
    parent = list(range(len(photos)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, photo in enumerate(photos):
        for key in [("bytes", photo.sha256), *([("group", photo.group)] if photo.group else [])]:
            parent[root(index)] = root(first.setdefault(key, index))
    for tie in ties:
        for index in tie:
            parent[root(index)] = root(tie[0])
    members: defaultdict[int, list[int]] = defaultdict(list)
    for index in range(len(photos)):
        members[root(index)].append(index)
    return list(members.values())


def clusters(photos: Sequence[Photo], ties: Iterable[Sequence[int]] = ()) -> Indices:
    """A number for each photo (N,), the same for photos that belong together (see `together`): photos with the same
    number are not independent."""
    numbers = np.zeros(len(photos), dtype=np.intp)
    for indices in together(photos, ties):
        numbers[indices] = indices[0]
    return numbers


def leaks(manifest: Manifest, ties: Iterable[Sequence[int]] = ()) -> list[Skip]:
    """Photos that leak from one given part into another: the same photo, group or near-duplicate is in a part that
    matters more.

    Test matters more than validation, validation more than train. If the network trained on such photos, the figures
    would be of photos (plants, patients) that it has already seen. `ties` are groups of indices into `manifest.photos`.
    """
    rank = {"": 0, "train": 0, "validation": 1, "test": 2}
    untied = {i: number for number, group in enumerate(together(manifest.photos)) for i in group}
    found = []
    for indices in together(manifest.photos, ties):
        foremost = max(indices, key=lambda i: rank[manifest.photos[i].split])
        part = manifest.photos[foremost].split
        for i in indices:
            photo = manifest.photos[i]
            if rank[photo.split] < rank[part]:
                # name a photo of that part with the same bytes or group, if there is one
                close = [j for j in indices if manifest.photos[j].split == part and untied[j] == untied[i]]
                other = manifest.photos[next(iter(close), foremost)]
                group = [manifest.photos[j] for j in indices if untied[j] == untied[i]]
                what = _what_stands(photo, group, part) if close else "a near-duplicate of it"
                found.append(Skip(photo.path, f"{what} stands in {part}: {printable(other.path)}"))
    return found


def _what_stands(photo: Photo, group: list[Photo], part: str) -> str:
    """What of a photo is in another part: the same photo, or another one of its group."""
    if any(other.sha256 == photo.sha256 for other in group if other.split == part):
        return "the same photo"
    name = photo.group or next((other.group for other in group if other.group), "")
    return f"another photo of its group '{printable(name)}'"


def overlap(photos: Manifest, others: Manifest, ties: Iterable[Sequence[int]] = ()) -> list[Skip]:
    """Those of `others` (a test folder) that are among the `photos` of a run: figures on them would be too good.

    The same bytes count, and what `ties` connect: indices into ``photos.photos + others.photos``.
    """
    both = [replace(photo, group="") for photo in (*photos.photos, *others.photos)]
    found = []
    for indices in together(both, ties):
        known = [both[i] for i in indices if i < len(photos.photos)]
        for photo in (both[i] for i in indices if known and i >= len(photos.photos)):
            same = next((p for p in known if p.sha256 == photo.sha256), None)
            what, where = ("the same photo", same) if same else ("a near-duplicate of it", known[0])
            found.append(Skip(photo.path, f"{what} is trained on: {printable(where.path)}"))
    return found


def shared_groups(photos: Manifest, others: Manifest) -> list[Skip]:
    """Those of `others` (a test folder) whose `Photo.group` some of the `photos` of a run have too: the same plant or
    patient was trained on. Groups are known by their names."""
    first = {photo.group: photo.path for photo in reversed(photos.photos) if photo.group}
    return [
        Skip(photo.path, f"another photo of its group '{printable(photo.group)}' is trained on: {printable(known)}")
        for photo in others.photos
        if photo.group and (known := first.get(photo.group))
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
    """Photos that stay together."""

    key: str  # the smallest of its photos' digests: an order that names don't decide
    members: list[int]
    counts: dict[str, int]  # photos per class
    homes: list[str] = field(default_factory=list)  # the classes that it counts for
    pinned: bool = False  # a given part holds some of it


@dataclass
class _Plan:
    """Photos that each part still has to get, per class."""

    parts: list[str]
    wanted: dict[str, dict[str, int]]
    held: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # class -> parts with a group of it

    def place(self, group: _Group, part: str) -> None:
        for label in group.homes:
            self.held[label].add(part)
        for label, count in group.counts.items():
            self.wanted[label][part] -= count


_TRIES = 50  # at a split where groups of several classes get in each other's way


def _cut(
    manifest: Manifest, pool: list[int], united: list[list[int]], shares: dict[str, float], seed: int, protocol: str
) -> dict[str, list[int]]:
    """Divide the photos at the indices `pool` into the parts of `shares`."""
    groups = _groups(manifest, pool, united)
    parts = list(shares)
    where = " in train" if len(pool) < len(manifest.photos) else ""
    grouped = any(photo.group for photo in manifest.photos)
    if fault := _shortage(manifest.classes, groups, parts, where, grouped):
        raise DataError(f"{fault[0]}; the {protocol} protocol needs at least {fault[1]}")

    rng = np.random.default_rng(seed)
    needy = [label for label in manifest.classes if len(parts) > 1 and any(label in g.homes for g in groups)]
    for _ in range(_TRIES):
        plan = _Plan(parts, {label: _apportion(n, shares) for label, n in _tally(groups).items()})
        result = _placed(groups, plan, rng)
        poor = [label for label in needy if len(plan.held[label]) < len(parts)]
        if not poor:
            return result
    raise DataError(
        f"no split was found in which class '{printable(poor[0])}' stands in each of {', '.join(parts)}: "
        "its groups also hold photos of other classes; add photos in groups of their own, or give the split in a column"
    )


def _placed(groups: list[_Group], plan: _Plan, rng: np.random.Generator) -> dict[str, list[int]]:
    """Every group in a part of the plan."""
    result: dict[str, list[int]] = {part: [] for part in plan.parts}
    for group in groups:
        if group.pinned:  # a given part has the rest of it: in a part cut from train it would leak a second time
            plan.place(group, "train")
            result["train"] += group.members
    free = [group for group in groups if not group.pinned]
    order = [free[i] for i in rng.permutation(len(free))]
    order.sort(key=lambda group: (len(group.counts), len(group.members)), reverse=True)  # the hard ones first
    left = _homes(order)
    for group in order:
        part = _choose(group, plan, left, rng)
        for label in group.homes:
            left[label] -= 1
        plan.place(group, part)
        result[part] += group.members
    return result


def _choose(group: _Group, plan: _Plan, left: dict[str, int], rng: np.random.Generator) -> str:
    """A part at random, by what each still wants of the group's classes; so each gets exactly its share in the end.

    `left`: groups of each class not placed yet, this one included. When they are only just enough to give every part
    one, they go to the parts that have none.
    """
    allowed = plan.parts
    for label in group.homes:
        lacking = [part for part in plan.parts if part not in plan.held[label]]
        if left[label] <= len(lacking):
            allowed = [part for part in allowed if part in lacking] or allowed
    room = {part: min(plan.wanted[label][part] - n for label, n in group.counts.items()) for part in allowed}
    fitting = [part for part in allowed if room[part] >= 0]
    if not fitting:
        return max(allowed, key=lambda part: room[part])
    weights = np.array([sum(plan.wanted[label][part] for label in group.counts) for part in fitting], dtype=float)
    return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]


def _groups(manifest: Manifest, pool: list[int], united: list[list[int]]) -> list[_Group]:
    """The groups among `pool`, in an order that depends on bytes, classes and groups only."""
    photos, inside = manifest.photos, set(pool)
    seen: defaultdict[str, set[str]] = defaultdict(set)
    for photo in photos:
        seen[photo.sha256].add(photo.label)
    groups = []
    for indices in united:
        if members := [i for i in indices if i in inside]:
            key = min(photos[i].sha256 for i in members)
            sure = sorted({photos[i].label for i in members if len(seen[photos[i].sha256]) == 1})
            groups.append(_Group(key, members, _labels(manifest, members), sure, len(members) < len(indices)))
    groups.sort(key=lambda group: group.key)
    totals = _tally(groups)
    for group in groups:  # nothing sure: its commonest class; between equals the smaller one, which needs it more
        group.homes = group.homes or [min(group.counts, key=lambda c: (-group.counts[c], totals[c], c))]
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
        for label in group.homes:
            homes[label] += 1
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
    classes: list[str], groups: list[_Group], parts: list[str], where: str, grouped: bool
) -> tuple[str, str] | None:
    """(which classes are too small, what is needed), or None: each needs a group in train and in each part to cut."""
    own, movable, counts = _homes(groups), _homes([g for g in groups if not g.pinned]), _tally(groups)
    needed = len(parts)
    if needed == 1:  # nothing to cut: photos that conflict with another class will do
        poor = [label for label in classes if label not in counts]
    else:
        poor = [label for label in classes if own.get(label, 0) < needed or movable.get(label, 0) < needed - 1]
    if not poor:
        return None
    named = ", ".join(_described(label, counts.get(label, 0), own.get(label, 0), where, grouped) for label in poor)
    of_each = " of each" if len(poor) > 1 else ""
    ones = "groups" if grouped else "different ones"
    what = f"{needed} {ones}{of_each} ({', '.join(parts)})" if needed > 1 else f"one{of_each}"
    if parts == list(_SHARES["rigorous"]):
        return named, f"{what}: add photos, remove the class, or use --protocol tutorial (2)"
    return named, f"{what}: add photos or remove the class"


def _described(label: str, count: int, different: int, where: str, grouped: bool) -> str:
    photos = f"{count} {'photo' if count == 1 else 'photos'}{where}"
    fewer = f", only {different} of them different and its own" if different < count else ""
    if grouped and different < count:
        fewer = f", in only {different} {'group' if different == 1 else 'groups'} of its own"
    return f"class '{printable(label)}' has {photos}{fewer}"
