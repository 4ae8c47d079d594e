"""The kinds of findings, `KINDS`: each is a row of one table and a function that finds it. A new kind is one of each.

A function takes the photos as `Examined` and yields a `Finding` for each photo, group of photos or class concerned. It
yields nothing where a measure that it needs is missing: the quick check of a study has no measures of light, for
example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from frostline.checks import photo_quality, shortcuts
from frostline.checks.examine import HARD, Examined
from frostline.documents.shared import Finding as FindingRow
from frostline.photos import names
from frostline.photos.manifest import Photo
from frostline.photos.names import printable
from frostline.wording import percent

_UNUSUAL = 2.4  # robust standard deviations from which a photo is listed; those beyond chance are reported
_PREFERRED = 0.9  # probability from which a photo in two classes is said to belong to one of them
_UNEQUAL = 3.0  # times the smallest class
_EXTENSIONS = {
    "JPEG": {"jpg", "jpeg", "jpe", "jfif", "mpo"},
    "TIFF": {"tif", "tiff"},
    "BMP": {"bmp", "dib"},
    "HEIF": {"heic", "heif", "hif"},
}


@dataclass(frozen=True)
class Finding:
    """Something that was found."""

    kind: str
    paths: list[str]
    classes: list[str]
    """Of the photos at `paths`; without paths, the classes that the finding is about."""
    confidence: float
    """0 to 1."""
    suggested: str | None = None
    """The class that the photo likely shows."""
    detail: str = ""
    """What was measured, in words."""

    def to_dict(self) -> FindingRow:
        """As check.json has it."""
        return {
            "kind": self.kind,
            "paths": self.paths,
            "classes": self.classes,
            "confidence": round(self.confidence, 3),
            "suggested": self.suggested,
            "detail": self.detail,
            "advice": KINDS[self.kind].advice,
        }


@dataclass(frozen=True)
class Kind:
    """A kind of finding."""

    title: str
    advice: str
    find: Callable[[Examined], Iterable[Finding]]
    line: Literal["Files", "Labels", "Photos"]
    """The line of the summary that counts or tells these findings."""
    counted: tuple[str, str] | None
    """One finding and several, in words; None: the line gives the first findings' details."""
    certain: bool = False
    """A finding is a fact: the page shows no confidence beside it."""


def find(examined: Examined) -> list[Finding]:
    """All findings: kind by kind in the order of `KINDS`, the surest first within a kind."""
    return [
        finding
        for kind in KINDS.values()
        for finding in sorted(kind.find(examined), key=lambda f: (-f.confidence, [names.natural(p) for p in f.paths]))
    ]


# ---- files -----------------------------------------------------------------------------------------------------------


def _duplicates(examined: Examined, *, kind: str) -> Iterator[Finding]:
    """Groups of the same photo, or nearly the same: leaks between parts, conflicts between classes, harmless ones."""
    for group in examined.photos.duplicates():
        if kind == _kind_of(group) and group[0].sha256 not in examined.placeholders:
            if kind == "conflict" and (own := examined.own_class.get(group[0].sha256)):
                classes, other = [photo.label for photo in group], ", ".join(map(printable, sorted(examined.copies)))
                detail = f"{other} holds copies of other classes"
                yield Finding(kind, [photo.path for photo in group], classes, 1.0, own, detail)
                continue
            yield _same_bytes(group, kind, *examined.predicted.get(group[0].sha256, ("", 0.0)))
    for near in examined.near:
        placeholder = near.photos[0].sha256 in examined.placeholders
        if near.kind != "same bytes" and kind == f"near {_kind_of(near.photos)}" and not placeholder:
            detail = ", ".join([near.kind, *_parts(near.photos)])
            yield Finding(kind, list(near.paths), list(near.classes), near.confidence, detail=detail)


def _placeholders(examined: Examined) -> Iterator[Finding]:
    """A finding for each picture, with all its copies, near ones too."""
    same = [group for group in examined.photos.duplicates() if group[0].sha256 in examined.placeholders]
    told: set[str] = set()
    for group in [*(near.photos for near in examined.near), *same]:  # a near group has the same bytes too
        paths = {photo.path for photo in group}
        if group[0].sha256 in examined.placeholders and told.isdisjoint(paths):
            told |= paths
            classes = [photo.label for photo in group]
            detail = f"{len(group):,} copies in {len(set(classes)):,} classes"
            yield Finding("placeholder", [photo.path for photo in group], classes, 1.0, detail=detail)


def _kind_of(group: Sequence[Photo]) -> str:
    if len({photo.split for photo in group}) > 1:
        return "leak"
    return "conflict" if len({photo.label for photo in group}) > 1 else "twins"


def _same_bytes(group: Sequence[Photo], kind: str, predicted: str, probability: float) -> Finding:
    classes = [photo.label for photo in group]
    sure = kind == "conflict" and probability >= _PREFERRED and predicted in classes
    words = _parts(group)
    if sure:
        words.append(f"cross-validated prediction: {printable(predicted)} ({percent(probability, 0)})")
    return Finding(kind, [photo.path for photo in group], classes, 1.0, predicted if sure else None, ", ".join(words))


def _parts(group: Sequence[Photo]) -> list[str]:
    parts = sorted({photo.split for photo in group})
    return [f"in {' and '.join(parts)}"] if len(parts) > 1 else []


def _unreadable(examined: Examined) -> Iterator[Finding]:
    for skip in examined.photos.skipped:
        yield Finding("unreadable", [skip.path], [], 1.0, detail=skip.why)


def _unequal(examined: Examined) -> Iterator[Finding]:
    counts = examined.photos.counts()
    if not counts:  # no photo can be read
        return
    small, large = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    if counts[large] > _UNEQUAL * counts[small]:
        detail = f"{counts[large]:,} photos of {printable(large)}, {counts[small]:,} of {printable(small)}"
        yield Finding("unequal", [], [small, large], 1.0, detail=detail)


def _misnamed(examined: Examined) -> Iterator[Finding]:
    if examined.table is None:
        return
    formats = [*photo_quality.FORMATS, "other"]
    column = examined.table[:, photo_quality.COLUMNS.index("format")].astype(int)
    for photo, place in zip(examined.photos.photos, column, strict=True):
        ending, name = PurePosixPath(photo.path).suffix.lstrip(".").lower(), formats[place]
        if ending and ending not in _EXTENSIONS.get(name, {name.lower()}):
            detail = f"named .{printable(ending)}, is {name}"
            yield Finding("extension", [photo.path], [photo.label], 1.0, detail=detail)


# ---- what the photos look like ---------------------------------------------------------------------------------------


def _poor(examined: Examined, *, kind: str) -> Iterator[Finding]:
    if examined.table is None:
        return
    for fault in photo_quality.faults(examined.table):
        if fault.kind == kind:
            photo = examined.photos.photos[fault.index]
            yield Finding(kind, [photo.path], [photo.label], fault.confidence, detail=fault.detail)


def _shortcuts(examined: Examined) -> Iterator[Finding]:
    if examined.table is None or not len(examined.table):
        return
    for s in shortcuts.find(examined.table, examined.labels, examined.groups, examined.seed):
        label = examined.photos.classes[s.index]
        accuracy = f"balanced accuracy {percent(s.accuracy, 0)} (chance: 50 %)"
        typical = f", {s.typical}" if s.typical else ""
        detail = f"{s.words} alone predicts {printable(label)}: {accuracy}{typical}"
        yield Finding("shortcut", [], [label], s.low, detail=detail)


# ---- what the network's features tell --------------------------------------------------------------------------------


def _label_errors(examined: Examined) -> Iterator[Finding]:
    if examined.wrong_labels is not None:
        called, confidence = examined.wrong_labels.called, examined.wrong_labels.wrong
        yield from _doubted(examined, "label", called.nonzero()[0].tolist(), confidence)


def _hard_labels(examined: Examined) -> Iterator[Finding]:
    """Photos that are predicted as another class, as chance explains."""
    if examined.wrong_labels is not None and examined.judgement is not None:
        doubt = examined.judgement.confidence
        rows = ((doubt >= HARD) & ~examined.wrong_labels.called).nonzero()[0].tolist()
        yield from _doubted(examined, "hard", rows, doubt)


def _doubted(
    examined: Examined, kind: str, rows: Iterable[int], confidence: npt.NDArray[np.floating[Any]]
) -> Iterator[Finding]:
    judgement, classes = examined.judgement, examined.photos.classes
    if judgement is None:
        return
    for row in rows:
        photo = examined.photos.photos[examined.distinct[row]]
        suggested = classes[judgement.suggested[row]]
        probability = percent(float(judgement.probabilities[row, judgement.suggested[row]]), 0)
        detail = f"Cross-validated prediction: {printable(suggested)} ({probability}). Label: {printable(photo.label)}."
        yield Finding(kind, [photo.path], [photo.label], float(confidence[row]), suggested, detail)


def _unlike_others(examined: Examined, *, beyond_chance: bool) -> Iterator[Finding]:
    if examined.strangeness is None or examined.outliers is None:
        return
    called = examined.outliers.called
    rows = called if beyond_chance else (examined.strangeness > _UNUSUAL) & ~called
    for row in rows.nonzero()[0].tolist():
        photo, far = examined.photos.photos[examined.distinct[row]], float(examined.strangeness[row])
        if photo.sha256 not in examined.placeholders:
            detail = f"{far:.1f} standard deviations farther from its nearest photos than usual"
            confidence = float(np.clip(far / (2 * _UNUSUAL), 0, 1))
            kind = "junk" if beyond_chance else "unusual"
            yield Finding(kind, [photo.path], [photo.label], confidence, detail=detail)


# ---- the table -------------------------------------------------------------------------------------------------------

_IN_TWO_PARTS = ("photo in two parts", "photos in two parts")
_IN_TWO_CLASSES = ("photo in two classes", "photos in two classes")
_MORE_THAN_ONCE = ("group of duplicates", "groups of duplicates")

KINDS: dict[str, Kind] = {  # what matters most comes first: wrong figures, then worse training, then the merely odd
    "leak": Kind(
        "The same photo in two parts",
        "Keep it in one part: a test photo that was also trained on says nothing about new photos.",
        partial(_duplicates, kind="leak"),
        "Files",
        _IN_TWO_PARTS,
        certain=True,
    ),
    "near leak": Kind(
        "Nearly the same photo in two parts",
        "Keep both in one part: a test photo that was also trained on says nothing about new photos.",
        partial(_duplicates, kind="near leak"),
        "Files",
        _IN_TWO_PARTS,
    ),
    "conflict": Kind(
        "The same photo in two classes",
        "At least one of the labels is wrong. Leave out the wrong one.",
        partial(_duplicates, kind="conflict"),
        "Files",
        _IN_TWO_CLASSES,
        certain=True,
    ),
    "near conflict": Kind(
        "Nearly the same photo in two classes",
        "At least one of the labels is likely wrong. Review both.",
        partial(_duplicates, kind="near conflict"),
        "Files",
        _IN_TWO_CLASSES,
    ),
    "placeholder": Kind(
        "Placeholders: the same picture in several classes",
        "Leave it out: a picture that stands for several classes shows none of them.",
        _placeholders,
        "Files",
        ("placeholder in several classes", "placeholders in several classes"),
        certain=True,
    ),
    "shortcut": Kind(
        "Shortcuts: something other than the subject gives a class away",
        "A network may learn it instead of the subject. Take photos of all classes from the same sources.",
        _shortcuts,
        "Photos",
        None,
    ),
    "label": Kind(
        "Likely wrong labels",
        "Review them: relabel a photo, or leave it out. Too many to review? Train with --loss robust.",
        _label_errors,
        "Labels",
        ("label is likely wrong", "labels are likely wrong"),
    ),
    "junk": Kind(
        "Photos unlike any class",
        "Review them: leave out what shows none of the classes.",
        partial(_unlike_others, beyond_chance=True),
        "Labels",
        ("photo is unlike any class", "photos are unlike any class"),
    ),
    "unreadable": Kind(
        "Files that are left out",
        "Replace the file by an intact copy, or remove it: it is never trained on.",
        _unreadable,
        "Files",
        ("file that can't be read", "files that can't be read"),
        certain=True,
    ),
    "empty": Kind(
        "Nearly empty photos",
        "Leave it out unless the class looks like this.",
        partial(_poor, kind="empty"),
        "Photos",
        ("empty photo", "empty photos"),
    ),
    "tiny": Kind(
        "Tiny photos",
        "Replace it by a larger one, or leave it out.",
        partial(_poor, kind="tiny"),
        "Photos",
        ("tiny photo", "tiny photos"),
    ),
    "dark": Kind(
        "Dark photos",
        "Leave it out if you can't tell the class yourself.",
        partial(_poor, kind="dark"),
        "Photos",
        ("dark photo", "dark photos"),
    ),
    "bright": Kind(
        "Over-bright photos",
        "Leave it out if you can't tell the class yourself.",
        partial(_poor, kind="bright"),
        "Photos",
        ("bright photo", "bright photos"),
    ),
    "blurred": Kind(
        "Blurred photos",
        "Leave it out if you can't tell the class yourself.",
        partial(_poor, kind="blurred"),
        "Photos",
        ("blurred photo", "blurred photos"),
    ),
    "twins": Kind(
        "The same photo more than once",
        "Harmless within one part of the split, but the photo counts more than others.",
        partial(_duplicates, kind="twins"),
        "Files",
        _MORE_THAN_ONCE,
        certain=True,
    ),
    "near twins": Kind(
        "Nearly the same photo more than once",
        "Harmless within one part of the split, but these photos count more than others.",
        partial(_duplicates, kind="near twins"),
        "Files",
        _MORE_THAN_ONCE,
    ),
    "hard": Kind(
        "Photos that are hard to tell apart",
        "No more than chance explains. Most of these labels are right: review them only if you have the time.",
        _hard_labels,
        "Labels",
        ("photo is hard to tell apart", "photos are hard to tell apart"),
    ),
    "unusual": Kind(
        "Unusual photos",
        "No more than chance explains: the outermost of any set of photos. Review them only if you have the time.",
        partial(_unlike_others, beyond_chance=False),
        "Labels",
        ("photo is unusual", "photos are unusual"),
    ),
    "unequal": Kind(
        "Unequal classes",
        "Add photos of the small classes, or train with --balance loss.",
        _unequal,
        "Photos",
        None,
        certain=True,
    ),
    "extension": Kind(
        "Files whose name tells another format",
        "Harmless here, as files are recognised by their content. Other programs may fail on them.",
        _misnamed,
        "Files",
        ("file named as another format", "files named as another format"),
        certain=True,
    ),
}
