"""`frostline check`: what is wrong with a folder of photos, before anything is trained on it.

`check` returns (and writes as check.json) a document::

    {"frostline", "created", "data", "name", "root", "photos", "classes": [..], "counts": {class: n},
     "findings": [{"kind", "paths": [..], "classes": [..], "suggested": class or null, "confidence": 0..1, "advice", "detail"}],
     "decisions": [{"path", "action": "exclude" or "relabel", "label", "why", "confidence"}],
     "summary": {"kinds": {kind: n}, "formats": {format: n}, "sizes": {"smallest", "middle", "largest": [width, height]}},
     "lines": [three sentences], "notes": [what could not be looked at, and why], "seconds": {stage: s, "total": s}}

`paths` are as the manifest writes them, `classes` says in which class each of them stands. The findings stand in order of what matters:
first what makes figures wrong, then what makes training worse, then what is only odd; the surest first within a kind. `KINDS` has them.
`decisions` is the list that ``--write`` saves (see `exclude`): only what is safe to leave out unseen. Nothing in the folder is changed.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch

import frostline
from frostline.cache.store import Key, Store
from frostline.checks import label_errors, near_duplicates, photo_quality, shortcuts
from frostline.checks.near_duplicates import DuplicateGroup
from frostline.config import EngineKind
from frostline.errors import WeightsError
from frostline.networks import backbone as backbones
from frostline.networks.activations import fill, tap
from frostline.networks.compilation import Runtime
from frostline.photos import names, scan
from frostline.photos.corrections import Decision
from frostline.photos.manifest import Manifest, Photo
from frostline.photos.names import printable
from frostline.photos.split import together
from frostline.progress import Progress
from frostline.recipes import TOGETHER


class Kind(NamedTuple):
    """A kind of finding."""

    title: str
    advice: str


KINDS: dict[str, Kind] = {  # in order of what matters
    "leak": Kind("The same photo in two parts", "Keep it in one part: a figure on photos that were trained on says nothing."),
    "near leak": Kind("Nearly the same photo in two parts", "Keep both in one part: a figure on photos that were trained on says nothing."),
    "conflict": Kind("The same photo in two classes", "At least one of the labels is wrong: leave out the wrong one."),
    "near conflict": Kind("Nearly the same photo in two classes", "At least one of the labels is likely wrong: look at both."),
    "shortcut": Kind("A class told by something else", "It may be learnt in place of the class: take all classes from the same sources."),
    "label": Kind("Likely wrong labels", "Look at it: relabel it, or leave it out. Too many to look at? Train with --loss robust."),
    "junk": Kind("Photos unlike any class", "Look at it: leave it out if it shows none of the classes."),
    "unreadable": Kind("Files that are left out", "Replace it by an intact copy, or remove it: it is never trained on."),
    "empty": Kind("Nearly empty photos", "Leave it out unless the class looks like this."),
    "tiny": Kind("Tiny photos", "Replace it by a larger one, or leave it out."),
    "dark": Kind("Dark photos", "Leave it out if you can't tell the class yourself."),
    "bright": Kind("Over-bright photos", "Leave it out if you can't tell the class yourself."),
    "blurred": Kind("Blurred photos", "Leave it out if you can't tell the class yourself."),
    "twins": Kind("The same photo more than once", "Harmless on one side of the split; it only counts more than others."),
    "near twins": Kind("Nearly the same photo more than once", "Harmless on one side of the split; they only count more than others."),
    "unequal": Kind("Unequal classes", "Add photos of the small classes, or train with --balance loss."),
    "extension": Kind("Files whose name tells another format", "Harmless here, files are told by content; other programs may stumble."),
}  # fmt: skip

SUSPECT = 0.6
"""Confidence, before `with_strangeness`, from which a label is called: benchmarks/planted_labels.py measures what that finds."""

SURE = 0.98
"""Confidence from which `decisions` leaves a photo out unseen. Of the flowers' 50 likeliest 42 % are plainly wrong or junk when looked at,
and 16 % show several classes; the rest are right but hard: look before you believe the list."""

NETWORKS = TOGETHER
"""What looks at the photos unless others are named. Of labels flipped to the likeliest other class (3 % of the flowers), average precision:
0.64 with the first, 0.75 with the second, 0.76 with both, and 93.3 % of the labels as given are told, in place of 91.1 and 91.5 %."""

_STRANGE = (
    2.4  # robust standard deviations: 16 of 19 planted pictures of other things are called, and 25 of 3,447 flowers
)
_PREFERRED = 0.9  # share from which a photo in two classes is said to belong into one of them
_UNEQUAL = 3.0  # times the smallest class
_NAMES = {
    "JPEG": {"jpg", "jpeg", "jpe", "jfif", "mpo"},
    "TIFF": {"tif", "tiff"},
    "BMP": {"bmp", "dib"},
    "HEIF": {"heic", "heif", "hif"},
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something that was found."""

    kind: str
    paths: list[str]
    classes: list[str]
    """Of the photos at `paths`, or the classes that it is about where there are none."""
    confidence: float
    suggested: str | None = None
    """The class that the photo likely shows."""
    detail: str = ""
    """What was measured, in words."""

    def to_dict(self) -> Row:
        """As check.json has it."""
        return {**asdict(self), "confidence": round(self.confidence, 3), "advice": KINDS[self.kind].advice}


@dataclass
class Looked:
    """What the pass over the photos has brought."""

    photos: Manifest
    """Those that can be read."""
    table: photo_quality.Floats | None = None
    """(N, measures), by `quality`."""
    features: label_errors.Floats | None = None
    """(N, D), by `suspects.compress`."""
    near: list[DuplicateGroup] = field(default_factory=list)
    """Twins by their bytes and by what they show."""
    preferred: dict[str, tuple[str, float]] = field(default_factory=dict)
    """What the head says of photos that stand in several classes, by their bytes: a class and its share."""
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def check(
    data: str | Path,
    *,
    backbone: str = NETWORKS,
    weights: str = "",
    image_size: int = 0,
    engine: EngineKind = "auto",
    seed: int = 0,
    progress: Progress | None = None,
) -> Row:
    """Look at the photos and say what is wrong with them; returns the document at the top of this module.

    One pass through the frozen network (kept in the cache), one at thumbnail size, then seconds. Memory is 1.3 kB a photo beyond the
    manifest.

    Raises
    ------
    DataError
        There are no photos to look at. One class, or none that can be read, is no error here where files are there.
    ConfigError, RunError
        See the errors' own words. Weights that can't be had are a note in the document: labels are not judged then.
    """
    progress = progress or Progress(quiet=True)
    started = time.perf_counter()
    listed = scan.scan(Path(data), least_classes=1, progress=progress)
    scanned = time.perf_counter()
    looked = _look(listed, backbone, weights, image_size, engine, seed, progress)
    looked.seconds["scan"] = scanned - started
    judging = time.perf_counter()
    of_features = list(_of_features(looked, seed))
    findings = _sorted([*_of_files(looked), *_of_measures(looked, seed), *of_features])
    looked.seconds["judge"] = time.perf_counter() - judging
    document = {
        "frostline": frostline.__version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": str(data),
        "name": listed.name,
        "root": str(listed.root.resolve()),
        "photos": len(looked.photos.photos),
        "classes": looked.photos.classes,
        "counts": looked.photos.counts(),
        "findings": [f.to_dict() for f in findings],
        "decisions": [d._asdict() for d in decisions(findings)],
        "summary": _summary(findings, looked.table),
        "lines": lines(findings, len(looked.photos.photos)),
        "notes": looked.notes,
    }
    looked.seconds["total"] = time.perf_counter() - started
    document["seconds"] = {stage: round(s, 3) for stage, s in looked.seconds.items()}
    return document


def _look(
    listed: Manifest, backbone: str, weights: str, image_size: int, engine: EngineKind, seed: int, progress: Progress
) -> Looked:
    """The two passes over all photos."""
    started = time.perf_counter()
    table, bad = photo_quality.survey(listed, progress)
    measured = time.perf_counter()
    looked = Looked(listed.without(bad))
    looked.seconds["measure"] = measured - started
    networks = list(_networks(backbone, weights, image_size, seed, looked, progress))
    if networks:
        runtime = Runtime(engine, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        taps = [tap(network, network.layer_count, runtime, "float16") for network in networks]
        bad = fill(taps, looked.photos, seed=seed, runtime=runtime, progress=progress)
        looked.photos = looked.photos.without(bad)
        looked.features = features_of([t.store for t in taps], looked.photos.photos, seed)
        looked.seconds["network"] = time.perf_counter() - measured
    comparing = time.perf_counter()
    looked.near = near_duplicates.find(looked.photos, progress=progress)
    looked.seconds["twins"] = time.perf_counter() - comparing
    there = {photo: i for i, photo in enumerate(listed.photos)}
    looked.table = table[[there[photo] for photo in looked.photos.photos]]
    return looked


def quick(photos: Manifest, store: Store | None, near: Sequence[DuplicateGroup] = (), seed: int = 0) -> Row:
    """What a study can say of its photos for nothing: `{"lines": [three sentences], "kinds": {kind: n}, "labels": [...]}`.

    `store`: what a pretrained network makes of the photos at its top, all of them in it; None: labels are not judged. `labels` lists the
    ten likeliest wrong ones. About 2 s for 3,500 photos.
    """
    looked = Looked(photos, near=list(near))
    of_features: list[Finding] = []
    if store is not None:
        looked.features = features_of([store], photos.photos, seed)
        of_features = list(_of_features(looked, seed, repeats=0))
    findings = _sorted([*_of_files(looked), *of_features])
    said = lines(findings, len(photos.photos))
    if store is None:
        said[1] = "Labels: not judged, no pretrained network is among the strategies."
    ways = [f.detail for f in findings if f.kind == "unequal"]
    said[2] = (
        f"Photos: {ways[0] if ways else 'no class is much larger than another'}; frostline check looks at light, sharpness and shortcuts."
    )
    labels = [f.to_dict() for f in findings if f.kind == "label"][:10]
    return {"lines": said, "kinds": dict(Counter(f.kind for f in findings)), "labels": labels}


def _networks(
    names: str, weights: str, image_size: int, seed: int, looked: Looked, progress: Progress
) -> Iterator[backbones.Backbone]:
    """The networks of A+B whose weights can be had; what can't is noted."""
    failed: list[str] = []
    several = names.split("+")
    for name in several:
        path = Path(weights) if weights and len(several) == 1 else None
        try:
            yield backbones.build(name, "pretrained", seed=seed, image_size=image_size, path=path, progress=progress)
        except WeightsError as error:
            failed.append(str(error))
    if len(failed) == len(several):
        looked.notes.append(f"labels were not judged, nor photos compared by what they show: {failed[0]}")
    elif failed:
        looked.notes.append(f"labels were judged by fewer networks, so less surely: {failed[0]}")


def features_of(stores: Sequence[Store], photos: Sequence[Photo], seed: int) -> label_errors.Floats:
    """(N, D <= 256): what the stores have of these photos, compressed."""
    keys = [Key.of(photo.sha256, 0, seed) for photo in photos]

    def read(indices: Sequence[int]) -> label_errors.Floats:
        rows = [keys[i] for i in indices]
        tensors = [t.reshape(len(rows), -1) for store in stores for t in store.read(rows)]
        return np.concatenate([label_errors.unit(t) for t in tensors], axis=1)

    return label_errors.compress(read, len(keys), seed) if keys else np.zeros((0, 1), np.float32)


# ---- the findings ----------------------------------------------------------------------------------------------------


def _of_files(looked: Looked) -> Iterator[Finding]:
    """What the manifest and the twins tell: files left out, photos that stand there twice, classes of unequal size."""
    photos = looked.photos
    for skip in photos.skipped:
        yield Finding("unreadable", [skip.path], [], 1.0, detail=skip.why)
    for group in photos.twins():
        preferred, share = looked.preferred.get(group[0].sha256, (None, 0.0))
        yield _twins(
            group, "", 1.0, preferred if share >= _PREFERRED and preferred in {p.label for p in group} else None, share
        )
    for near in looked.near:
        if near.kind != "same bytes":
            yield _twins(near.photos, near.kind, near.confidence)
    counts = photos.counts()
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[large] > _UNEQUAL * counts[small]:
        detail = f"{counts[large]:,} photos of {printable(large)}, {counts[small]:,} of {printable(small)}"
        yield Finding("unequal", [], [small, large], 1.0, detail=detail)


def _twins(
    group: Sequence[Photo], near: str, confidence: float, suggested: str | None = None, share: float = 0.0
) -> Finding:
    paths, classes = [p.path for p in group], [p.label for p in group]
    parts = sorted({p.split for p in group})
    kind = "leak" if len(parts) > 1 else "conflict" if len(set(classes)) > 1 else "twins"
    said = [near] if near else []
    said += [f"in {' and '.join(parts)}"] if len(parts) > 1 else []
    said += (
        [f"a head that never saw it says {printable(suggested)} {share:.0%}"]
        if suggested and kind == "conflict"
        else []
    )
    suggested = suggested if kind == "conflict" else None
    return Finding(f"near {kind}" if near else kind, paths, classes, confidence, suggested, ", ".join(said))


def _of_measures(looked: Looked, seed: int) -> Iterator[Finding]:
    """What light, sharpness and files tell."""
    if looked.table is None or not len(looked.table):
        return
    photos, labels = looked.photos.photos, _labels(looked.photos)
    for fault in photo_quality.faults(looked.table):
        photo = photos[fault.index]
        yield Finding(fault.kind, [photo.path], [photo.label], fault.confidence, detail=fault.said)
    for s in shortcuts.find(looked.table, labels, _groups(looked), seed):
        detail = f"{s.words} alone tells {printable(looked.photos.classes[s.index])} from the others in {s.accuracy:.0%} (chance is 50 %)"
        detail += f": {s.typical}" if s.typical else ""
        yield Finding("shortcut", [], [looked.photos.classes[s.index]], s.low, detail=detail)
    names = [*photo_quality.FORMATS, "other"]
    for photo, place in zip(photos, looked.table[:, photo_quality.COLUMNS.index("format")].astype(int), strict=True):
        ending, name = PurePosixPath(photo.path).suffix.lstrip(".").lower(), names[place]
        if ending and ending not in _NAMES.get(name, {name.lower()}):
            yield Finding(
                "extension", [photo.path], [photo.label], 1.0, detail=f"named .{printable(ending)}, is {name}"
            )


def _of_features(looked: Looked, seed: int, repeats: int = 2) -> Iterator[Finding]:
    """What the network's features tell: wrong labels and junk."""
    if looked.features is None or len(looked.features) < 2:
        return
    photos, classes = looked.photos.photos, looked.photos.classes
    groups = _groups(looked)
    once, labels = _once(looked.photos)
    features, groups = looked.features[once], groups[once]
    strange = label_errors.strangeness(features, groups, seed=seed)
    judgement = label_errors.judge(features, labels, groups, seed=seed, repeats=repeats) if len(classes) > 1 else None
    doubt = label_errors.with_strangeness(judgement.confidence, strange) if judgement is not None else strange
    for row, index in enumerate(once.tolist()):
        photo = photos[index]
        if judgement is not None and labels[row] < 0:
            best = int(judgement.probabilities[row].argmax())
            looked.preferred[photo.sha256] = (classes[best], float(judgement.probabilities[row, best]))
        if strange[row] > _STRANGE:
            confidence = min(1.0, float(strange[row]) / (2 * _STRANGE))
            detail = f"{strange[row]:.1f} standard deviations farther from its nearest photos than usual"
            yield Finding("junk", [photo.path], [photo.label], confidence, detail=detail)
        if judgement is not None and judgement.confidence[row] >= SUSPECT:
            suggested = classes[judgement.suggested[row]]
            own, other = judgement.probabilities[row, [labels[row], judgement.suggested[row]]]
            detail = f"trained without it, a head says {printable(suggested)} {other:.0%}, {printable(photo.label)} {own:.0%}"
            yield Finding("label", [photo.path], [photo.label], float(doubt[row]), suggested, detail)


def _labels(photos: Manifest) -> label_errors.Indices:
    place = {label: i for i, label in enumerate(photos.classes)}
    return np.array([place[p.label] for p in photos.photos], np.int64)


def _groups(looked: Looked) -> label_errors.Indices:
    """(N,) number of the group (twins, same plant or patient) that each photo belongs to."""
    photos = looked.photos.photos
    groups = np.zeros(len(photos), np.int64)
    for number, members in enumerate(together(photos, [group.indices for group in looked.near])):
        groups[members] = number
    return groups


def _once(photos: Manifest) -> tuple[label_errors.Indices, label_errors.Indices]:
    """Indices of photos, each of the same bytes once, and their classes: -1 where the bytes stand in several."""
    first: dict[str, int] = {}
    for index, photo in enumerate(photos.photos):
        first.setdefault(photo.sha256, index)
    labels = _labels(photos)
    several = {group[0].sha256 for group in photos.conflicts()}
    once = np.array(list(first.values()), np.int64)
    return once, np.where([photos.photos[i].sha256 in several for i in once], -1, labels[once])


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    order = {kind: place for place, kind in enumerate(KINDS)}
    return sorted(findings, key=lambda f: (order[f.kind], -f.confidence, [names.natural(p) for p in f.paths]))


# ---- what follows ----------------------------------------------------------------------------------------------------


def decisions(findings: Iterable[Finding]) -> list[Decision]:
    """What is safe to leave out unseen: photos in several classes, and labels that are surely wrong. Files that can't be read are left out
    by every study as it is; on this list, a copy put in their place would be left out too.

    No photo is relabelled: that is for people. A photo in several classes is left out of those that a head is sure it doesn't show, else
    of all of them.
    """
    made: dict[str, Decision] = {}
    for f in findings:
        for path, why in _unsafe(f):
            made.setdefault(path, Decision(path, "exclude", "", why, round(f.confidence, 3)))
    return list(made.values())


def _unsafe(f: Finding) -> Iterator[tuple[str, str]]:
    """The photos of a finding that are better left out, and why."""
    if f.kind == "conflict":
        why = f"the same photo in {' and '.join(dict.fromkeys(f.classes))}"
        yield from ((path, why) for path, label in zip(f.paths, f.classes, strict=True) if label != f.suggested)
    elif f.kind == "label" and f.confidence >= SURE:
        yield from ((path, f"likely {f.suggested}, not {f.classes[0]}") for path in f.paths)


def _summary(findings: Sequence[Finding], table: photo_quality.Floats | None) -> Row:
    counts = Counter(f.kind for f in findings)
    known = table is not None and len(table) > 0
    return {
        "kinds": {kind: counts[kind] for kind in KINDS if counts[kind]},
        "formats": photo_quality.formats(table) if known and table is not None else {},
        "sizes": photo_quality.sizes(table) if known and table is not None else {},
    }


def lines(findings: Sequence[Finding], photos: int) -> list[str]:
    """What was found, in three sentences: files and twins; labels; what the photos look like."""
    count = Counter(f.kind for f in findings)
    files = _list([
        (count["unreadable"], "file that can't be read", "files that can't be read"),
        (count["conflict"] + count["near conflict"], "photo in two classes", "photos in two classes"),
        (count["leak"] + count["near leak"], "photo in two parts", "photos in two parts"),
        (count["twins"] + count["near twins"], "group of twins", "groups of twins"),
    ])  # fmt: skip
    judged = _list([
        (count["label"], "label may be wrong", "labels may be wrong"),
        (count["junk"], "photo is unlike any class", "photos are unlike any class"),
    ])  # fmt: skip
    shown = _list(
        [(count[kind], f"{kind} photo", f"{kind} photos") for kind in ("empty", "tiny", "dark", "bright", "blurred")]
    )
    ways = [f.detail for f in findings if f.kind in ("shortcut", "unequal")]
    return [
        f"Files: {files or 'all can be read, no photo twice'} ({photos:,} usable photos).",
        f"Labels: {judged or 'none looks wrong'}.",
        f"Photos: {shown or 'light and sharpness are fine'}{'; ' if ways else ''}{'; '.join(ways[:2])}.",
    ]


def _list(counted: Iterable[tuple[int, str, str]]) -> str:
    return ", ".join(f"{n:,} {one if n == 1 else many}" for n, one, many in counted if n)
