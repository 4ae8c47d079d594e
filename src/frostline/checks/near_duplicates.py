"""Near-duplicates: photos that are copies of one photo (resized, recompressed, cropped, mirrored, brightened) or shots
of one burst.

    small grey pictures (cache) -> candidates by a nearest-neighbour index -> aligned and compared in detail -> groups

A photo's candidates are found by its picture at 8 x 8 pixels, brightness and contrast taken out: as it is, mirrored,
and as seven crops. The index is a graph (HNSW, Malkov and Yashunin 2018), so no photo is compared with all others. A
candidate is a near-duplicate only if the detail of the two pictures agrees once they are aligned (`alignment`):
look-alikes share outlines, near-duplicates share detail. A picture without detail has no near-duplicates, and detail
that a whole class shares (the same background) doesn't count.

The result depends on the photos' bytes and classes alone, not on names, order or the network that is studied. Memory:
64 numbers a photo and the index on them, about 0.6 kB; the small pictures stay on disk (4 kB a photo).
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from frostline.cache.folder import cache_dir
from frostline.cache.store import Key, Store, open_store
from frostline.checks import alignment
from frostline.checks.alignment import SIDE, Floats
from frostline.errors import PhotoError
from frostline.parallel import ahead, groups
from frostline.photos.decoding import Transform
from frostline.photos.loading import pixels
from frostline.photos.manifest import Manifest, Photo
from frostline.progress import Progress

Places = npt.NDArray[np.int64]
Kind = Literal["same bytes", "resized or recompressed", "mirrored", "cropped", "near"]
KINDS: tuple[Kind, ...] = ("same bytes", "resized or recompressed", "mirrored", "cropped", "near")
"""From the surest to the least sure. `near`: another shot of the same thing, or a copy that was worked over."""

_VERSION = 1
_COARSE = 8  # pixels of a side by which candidates are found
_BOXES = (
    (0.0, 1.0, 0.0, 1.0),  # the whole, then crops: nine tenths from the middle and from each corner, eight tenths
    (0.05, 0.95, 0.05, 0.95),
    (0.0, 0.9, 0.0, 0.9),
    (0.1, 1.0, 0.0, 0.9),
    (0.0, 0.9, 0.1, 1.0),
    (0.1, 1.0, 0.1, 1.0),
    (0.1, 0.9, 0.1, 0.9),
)
_CANDIDATES = 3  # nearest photos that are looked at for each photo
_LIKELY = 0.6  # correlation of the coarse pictures below which nothing is a candidate
_FITTING = 0.75  # and once aligned at 16 x 16, below which detail is not compared
_BLOCK = 256  # pairs compared at a time: 4 MB for each picture of them
_ROWS = 1024  # small pictures read at a time: 17 MB as numbers
_AHEAD = 32  # photos
_COMMON = 0.2  # share of a class's detail that its mean has before it counts as background
_PATTERN = 0.5  # repetition from which a picture fits many others by being moved, so that it has to fit as it lies
_SURE, _STILL = 0.9, 0.01  # agreement, and by how much of a side it may lie elsewhere, then
_ROUNDS = 4  # of looking further, from what was found, past those found already
_FAINT = 1.5  # grey levels of detail, on average, from which one of 8 x 8 cells has any
_CELLS = 6  # of them that a picture needs to have near-duplicates
_MANY = 20  # photos of a class from which such a mean means anything


@dataclass(frozen=True)
class Link:
    """Two photos that are duplicates or near-duplicates of each other."""

    a: int
    b: int
    kind: Kind
    confidence: float
    """How far the detail of the two agrees, 0 to 1; near-duplicates from 0.6 or 0.7."""


@dataclass(frozen=True)
class DuplicateGroup:
    """Photos that show one photo (or one burst), in ascending order of their indices."""

    indices: tuple[int, ...]
    """Into the manifest's photos; photos of a second manifest are counted on from the first one's last."""
    photos: tuple[Photo, ...]
    links: tuple[Link, ...]
    """What holds the group together, with the same indices."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Each photo's path, relative to its manifest's root."""
        return tuple(photo.path for photo in self.photos)

    @property
    def classes(self) -> tuple[str, ...]:
        """Each photo's class."""
        return tuple(photo.label for photo in self.photos)

    @property
    def kind(self) -> Kind:
        """The kind of its least sure link."""
        return max((link.kind for link in self.links), key=KINDS.index)

    @property
    def confidence(self) -> float:
        """That of its least sure link."""
        return min(link.confidence for link in self.links)

    @property
    def across_classes(self) -> bool:
        """Whether its photos are in more than one class: at least one label is wrong, or the photo shows both."""
        return len(set(self.classes)) > 1


def find(
    manifest: Manifest,
    *,
    others: Manifest | None = None,
    progress: Progress | None = None,
) -> list[DuplicateGroup]:
    """All groups of near-duplicates among the photos, byte-identical ones included, in the order of their first photos.

    Reads each photo once and keeps 4 kB of it in the cache; photos that can't be decoded have only byte-identical
    duplicates.

    Parameters
    ----------
    others
        The photos of a second folder, which join in: see `DuplicateGroup.indices`.

    Raises
    ------
    RunError
        No room in the cache folder.
    """
    photos = [*manifest.photos, *(others.photos if others else [])]
    known = _pictures([m for m in (manifest, others) if m], progress or Progress(quiet=True))
    label: dict[str, str] = {}
    for photo in photos:
        label[photo.sha256] = min(photo.label, label.get(photo.sha256, photo.label))
    digests = sorted(digest for digest in label if digest in known)
    links = _linked(str(cache_dir()), tuple(digests), tuple(label[d] for d in digests))
    return _grouped(photos, digests, links)


def ties(groups: Iterable[DuplicateGroup], *manifests: Manifest) -> list[list[int]]:
    """The groups as indices into these photos, counted on from manifest to manifest: what `split` is to keep together.

    Photos are known by their bytes, so the manifests may have lost some since the groups were found.
    """
    places: defaultdict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(photo for manifest in manifests for photo in manifest.photos):
        places[photo.sha256].append(index)
    found = [sorted({i for photo in group.photos for i in places.get(photo.sha256, [])}) for group in groups]
    return [indices for indices in found if len(indices) > 1]


def near(groups: Iterable[DuplicateGroup], manifest: Manifest) -> list[DuplicateGroup]:
    """The groups that are more than byte-identical photos, as far as they still stand in the manifest."""
    place: defaultdict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(manifest.photos):
        place[photo.sha256].append(index)
    found = []
    for group in groups:
        digests = [photo.sha256 for photo in group.photos if photo.sha256 in place]
        if len(set(digests)) > 1:
            indices = sorted({i for digest in digests for i in place[digest]})
            found.append(DuplicateGroup(tuple(indices), tuple(manifest.photos[i] for i in indices), group.links))
    return sorted(found, key=lambda group: group.indices)


def _grouped(photos: Sequence[Photo], digests: Sequence[str], links: Iterable[Link]) -> list[DuplicateGroup]:
    """Groups of photos from links between digests."""
    places: defaultdict[str, list[int]] = defaultdict(list)
    for index, photo in enumerate(photos):
        places[photo.sha256].append(index)
    all_links = [Link(a, b, "same bytes", 1.0) for same in places.values() for a, b in pairwise(same)]
    for link in links:
        a, b = sorted((places[digests[link.a]][0], places[digests[link.b]][0]))
        all_links.append(Link(a, b, link.kind, link.confidence))
    roots = _roots(len(photos), all_links)
    members: defaultdict[int, set[int]] = defaultdict(set)
    held: defaultdict[int, list[Link]] = defaultdict(list)
    for link in sorted(all_links, key=lambda link: (link.a, link.b)):
        members[int(roots[link.a])] |= {link.a, link.b}
        held[int(roots[link.a])].append(link)
    return [
        DuplicateGroup(tuple(sorted(members[r])), tuple(photos[i] for i in sorted(members[r])), tuple(held[r]))
        for r in sorted(members)
    ]


def _roots(count: int, links: Sequence[Link]) -> Places:
    """For each of so many photos the first one of its group."""
    a, b = np.array([link.a for link in links], dtype=np.int64), np.array([link.b for link in links], dtype=np.int64)
    graph = coo_array((np.ones(len(links), bool), (a, b)), shape=(count, count))
    number, component = connected_components(graph, directed=False)
    first = np.full(number, count, dtype=np.int64)
    np.minimum.at(first, component, np.arange(count))
    return np.asarray(first[component], dtype=np.int64)


# ---- small pictures --------------------------------------------------------------------------------------------------


def store() -> Store:
    """Where the small pictures are kept, (SIDE, SIDE) of grey levels by the photo's digest."""
    shaped_by = {
        "kind": "small grey pictures",
        "version": _VERSION,
        "size": SIDE,
        "resize": "squash",
        "pillow": PIL.__version__,
        "line": 0,
    }
    what = "small grey pictures, to find near-duplicates"
    return open_store(shaped_by, [(SIDE, SIDE)], [np.dtype(np.uint8)], what=what)


def _pictures(manifests: Sequence[Manifest], progress: Progress) -> set[str]:
    """Make the small pictures that are not there yet; returns the digests of the photos that have one."""
    kept = store()
    files = {photo.sha256: m.root / photo.path for m in manifests for photo in m.photos}
    todo = [key.sha256 for key in kept.missing(Key(digest, 0, 0) for digest in files)]
    if not todo:
        return set(files)
    task = progress.task("Looking for near-duplicates", len(todo))
    transform = Transform(SIDE)
    failed: set[str] = set()

    def work(some: Sequence[str]) -> list[tuple[str, npt.NDArray[np.uint8]]]:
        read = [(digest, pixels(files[digest], transform)) for digest in some]
        failed.update(digest for digest, got in read if isinstance(got, PhotoError))
        return [(digest, _grey(got)) for digest, got in read if not isinstance(got, PhotoError)]

    waiting = ahead(work, groups(todo, 8), depth=_AHEAD // 8)
    while several := list(islice(waiting, _AHEAD)):
        rows = [row for _, found in several for row in found]
        if rows:
            kept.append([Key(digest, 0, 0) for digest, _ in rows], [np.stack([picture for _, picture in rows])])
        task.advance(sum(len(some) for some, _ in several))
    return set(files) - failed


def _grey(photo: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Luminance (ITU-R 601) of a photo (H, W, 3)."""
    return np.rint(photo @ np.array([0.299, 0.587, 0.114], np.float32)).astype(np.uint8)


class _Pictures:
    """Small pictures by the place of their digest in a list."""

    def __init__(self, digests: Sequence[str]) -> None:
        self._digests, self._store = digests, store()

    def __len__(self) -> int:
        return len(self._digests)

    def read(self, places: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Those pictures, (N, S, S)."""
        return self._store.read([Key(self._digests[i], 0, 0) for i in places])[0] if len(places) else _NONE

    def blocks(self) -> Iterable[tuple[range, npt.NDArray[np.uint8]]]:
        """All of them, some at a time."""
        for start in range(0, len(self), _ROWS):
            some = range(start, min(start + _ROWS, len(self)))
            yield some, self.read(some)


_NONE = np.zeros((0, SIDE, SIDE), np.uint8)


# ---- candidates ------------------------------------------------------------------------------------------------------


class _Candidates(NamedTuple):
    """Pairs of photos, `moved` to be laid over `fixed`, each array (P,)."""

    moved: Places
    fixed: Places
    view: Places
    """Which box of `moved`, and (from len(_BOXES) on) which of its mirror image, fits best."""


def _coarse(pictures: Floats, view: int) -> Floats:
    """Pictures (N, S, S) at 8 x 8 pixels, mean 0 and length 1: (N, 64). Zeros for a picture without contrast."""
    left, right, top, bottom = _BOXES[view % len(_BOXES)]
    shown = pictures[:, :, ::-1] if view >= len(_BOXES) else pictures
    across, down = (alignment.area_means(SIDE, *ends, _COARSE) for ends in ((left, right), (top, bottom)))
    small = (down @ shown @ across.T).reshape(len(pictures), -1)
    small = small - small.mean(1, keepdims=True)
    length = np.linalg.norm(small, axis=1, keepdims=True)
    return np.asarray(np.where(length > 1, small / np.maximum(length, 1e-6), 0), dtype=np.float32)


def _candidates(pictures: _Pictures, asked: Places, chosen: Places, roots: Places) -> _Candidates:
    """Pairs of each photo in `asked` and its nearest ones among the `chosen`, in the nearest view; each pair once.

    Of each group, known by its root in `roots` (by place), only one is there to be found.
    """
    from usearch.index import Index  # brings its own compiled library: loaded when it is needed

    representatives = chosen[np.unique(roots[chosen], return_index=True)[1]]
    index = Index(ndim=_COARSE**2, metric="ip", dtype="f32", connectivity=16, expansion_add=64, expansion_search=48)
    for some in groups(representatives.tolist(), _ROWS):  # one thread: several would build another graph each time
        index.add(np.array(some, np.uint64), _coarse(pictures.read(some).astype(np.float32), 0), threads=1)
    found: list[npt.NDArray[np.float64]] = []
    for some in groups(asked.tolist(), _ROWS):
        read = pictures.read(some).astype(np.float32)
        nearest = []
        for view in range(2 * len(_BOXES)):
            matches = index.search(_coarse(read, view), min(_CANDIDATES + 1, len(representatives)))
            keys = np.asarray(matches.keys).reshape(len(some), -1).astype(np.int64)
            likeness = 1 - np.asarray(matches.distances).reshape(len(some), -1)
            mine = np.broadcast_to(np.array(some)[:, None], keys.shape)
            good = (roots[keys] != roots[mine]) & (likeness > _LIKELY)
            nearest.append(np.stack([mine[good], keys[good], np.full(good.sum(), view), likeness[good]], 1))
        found.append(_best(np.concatenate(nearest)))
    rows = np.concatenate(found)
    low, high = rows[:, :2].min(1), rows[:, :2].max(1)
    order = np.lexsort((-rows[:, 3], high, low))
    first = np.ones(len(order), bool)
    first[1:] = (np.diff(low[order]) != 0) | (np.diff(high[order]) != 0)
    kept = rows[order[first]].astype(np.int64)
    return _Candidates(kept[:, 0], kept[:, 1], kept[:, 2])


def _best(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of rows (photo, other, view, likeness): for each photo the most alike others, each in its best view."""
    rows = rows[np.lexsort((rows[:, 2], -rows[:, 3], rows[:, 1], rows[:, 0]))]
    first = np.ones(len(rows), bool)
    first[1:] = (np.diff(rows[:, 0]) != 0) | (np.diff(rows[:, 1]) != 0)
    rows = rows[first]
    rows = rows[np.lexsort((rows[:, 1], -rows[:, 3], rows[:, 0]))]
    starts = np.searchsorted(rows[:, 0], rows[:, 0])
    return rows[np.arange(len(rows)) - starts < _CANDIDATES]


# ---- comparison ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4)  # a study over several seeds, and the check before it, ask the same
def _linked(_cache: str, digests: tuple[str, ...], labels: tuple[str, ...]) -> tuple[Link, ...]:
    """Links between places in `digests`, which are sorted, so that names and the order of files don't matter."""
    pictures = _Pictures(digests)
    first, links, detailed, common = _surveyed(pictures, labels)
    chosen = np.array([i for i in first if detailed[i]], dtype=np.int64)
    roots, asked = np.arange(len(digests)), chosen

    def work(pairs: _Candidates) -> list[Link]:
        return _judged(pictures, pairs, labels, common)

    for _ in range(_ROUNDS if len(chosen) > 1 else 0):
        candidates = _candidates(pictures, asked, chosen, roots)
        numbers = groups(range(len(candidates.moved)), _BLOCK)
        blocks = (_Candidates(*(column[some] for column in candidates)) for some in numbers)
        fresh = [link for _, found in ahead(work, blocks, depth=2) for link in found]
        if not fresh:
            break
        links += fresh
        roots = _roots(len(digests), links)
        asked = chosen[np.isin(roots[chosen], roots[[link.a for link in fresh]])]
    return tuple(links)


def _surveyed(
    pictures: _Pictures, labels: Sequence[str]
) -> tuple[list[int], list[Link], npt.NDArray[np.bool_], dict[str, Floats]]:
    """Read all small pictures once.

    Returns the first of each different picture; links from its exact copies to it; which pictures have any detail; and
    for classes whose photos share much of their detail (one background), that detail (SIDE, SIDE).
    """
    seen: dict[bytes, int] = {}
    first, links, detailed = [], [], np.zeros(len(pictures), bool)
    energy = np.zeros(len(pictures))
    sums: dict[str, npt.NDArray[np.float64]] = {}
    for some, block in pictures.blocks():
        detail = alignment.detail(block.astype(np.float32))
        names = np.array([labels[i] for i in some])
        for name in sorted(set(names.tolist())):
            sums[name] = sums.get(name, np.zeros((SIDE, SIDE))) + detail[names == name].sum(0)
        energy[some.start : some.stop] = (detail * detail).sum((1, 2))
        cells = np.abs(detail).reshape(len(block), 8, SIDE // 8, 8, SIDE // 8).mean((2, 4))
        detailed[some.start : some.stop] = (cells > _FAINT).sum((1, 2)) >= _CELLS
        for i, picture in zip(some, block, strict=True):
            original = seen.setdefault(hashlib.sha256(picture.tobytes()).digest(), i)
            if original == i:
                first.append(i)
            elif detailed[i]:
                links.append(Link(original, i, "resized or recompressed", 1.0))
    return first, links, detailed, _common(sums, energy, np.array(labels))


def _common(
    sums: dict[str, npt.NDArray[np.float64]], energy: npt.NDArray[np.float64], labels: npt.NDArray[np.str_]
) -> dict[str, Floats]:
    found = {}
    for name, total in sums.items():
        own = energy[labels == name]
        mean = (total / len(own)).astype(np.float32)
        if len(own) >= _MANY and (mean * mean).sum() > _COMMON * own.mean():
            found[name] = mean
    return found


def _judged(pictures: _Pictures, pairs: _Candidates, labels: Sequence[str], common: dict[str, Floats]) -> list[Link]:
    """The candidates that are near-duplicates. Costs 0.1 ms for a pair that is clearly not one, else 0.6 ms."""
    moved, fixed = (pictures.read(side.tolist()).astype(np.float32) for side in (pairs.moved, pairs.fixed))
    mirrored = pairs.view >= len(_BOXES)
    moved[mirrored] = moved[mirrored][:, :, ::-1]
    boxes = np.array(_BOXES, np.float32)[pairs.view % len(_BOXES)]

    boxes, fit = alignment.align(moved, fixed, boxes, SIDE // 4, steps=6)
    near = np.nonzero(fit > _FITTING)[0]
    near = near[alignment.agreement_at(moved[near], fixed[near], boxes[near], SIDE // 2) > 0.35]
    if not len(near):
        return []
    moved, fixed = moved[near], fixed[near]
    boxes, _ = alignment.align(moved, fixed, boxes[near], SIDE // 2, steps=3)
    shared = None
    if common:
        names = [[labels[i] for i in side[near]] for side in (pairs.moved, pairs.fixed)]
        empty = np.zeros((SIDE, SIDE), np.float32)
        of_moved, of_fixed = (np.stack([common.get(name, empty) for name in side]) for side in names)
        of_moved[mirrored[near]] = of_moved[mirrored[near]][:, :, ::-1]
        shared = (of_moved, of_fixed)
    agreed, covered = alignment.agreement(moved, fixed, boxes, shared)
    repeated = alignment.repetition(fixed)
    return [
        Link(int(pairs.moved[i]), int(pairs.fixed[i]), _kind(box, bool(mirrored[i]), float(a)), round(float(a), 3))
        for i, box, a, c, r in zip(near, boxes, agreed, covered, repeated, strict=True)
        if is_near_duplicate(float(a), float(c)) and (r < _PATTERN or (a > _SURE and _moved(box) < _STILL))
    ]


def is_near_duplicate(agreed: float, covered: float) -> bool:
    """The rule: 0.7 of the detail agrees, or 0.6 where there is detail nearly everywhere to compare; and there is some.

    Planted copies reach 0.77 to 1, other photos of one set below 0.65, and above 0.5 only where a plain subject on
    plain ground leaves little to compare; other shots of one burst lie anywhere.
    """
    return covered >= 0.1 and agreed >= (0.6 if covered >= 0.9 else 0.7)


def _kind(box: Floats, mirrored: bool, agreed: float) -> Kind:
    if agreed < 0.85:
        return "near"
    if mirrored:
        return "mirrored"
    return "cropped" if _moved(box) > 0.02 else "resized or recompressed"


def _moved(box: Floats) -> float:
    """How far the edges of a box are from the picture's own, in sides."""
    return float(np.abs(box - np.array(_BOXES[0])).max())
