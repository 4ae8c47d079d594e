"""The list of a data set's photos: the file, label, split and group of each, and which files were left out and why.

Photos and classes stand in natural order ("2" before "10"), the same on every machine. `scan` makes such a list.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from frostline.files import write_csv
from frostline.photos import tables
from frostline.photos.names import NaturalKey, natural

_COLUMNS = ["path", "label", "split", "sha256"]


@dataclass(frozen=True)
class Photo:
    """One photo and its label."""

    path: str
    """Posix, relative to the manifest's root; absolute only where a table names a file outside its folder."""
    label: str
    split: str
    """The part the data set itself puts it in: "" (none given), "train", "validation" or "test"."""
    sha256: str
    """Hex digest of the file's bytes."""
    group: str = ""
    """Photos of the same plant or patient have the same one, from the column "group" of a table; "": none."""


@dataclass(frozen=True)
class Skip:
    """A file or folder that was left out, and why (the reason alone, for people)."""

    path: str
    why: str


@dataclass(frozen=True)
class Manifest:
    """The photos of a data set in natural order, and what was left out."""

    root: Path
    """``root / photo.path`` is the file."""
    photos: list[Photo]
    skipped: list[Skip] = field(default_factory=list)
    packed: Path | None = None
    """The archive or data set that was given, where `root` is the folder in the cache that it was unpacked into."""

    @property
    def name(self) -> str:
        """The name of the data set: that of its folder, or of its archive without the suffix."""
        if self.packed is None or self.packed.is_dir():
            return (self.packed or self.root).resolve().name
        return re.sub(r"(\.tar)?\.\w+$", "", self.packed.resolve().name)

    @property
    def classes(self) -> list[str]:
        """Names of the classes that have photos, in natural order; the position is the class index everywhere."""
        return sorted({photo.label for photo in self.photos}, key=natural)

    def counts(self) -> dict[str, int]:
        """Photos per class, in the order of `classes`."""
        counts = dict.fromkeys(self.classes, 0)
        for photo in self.photos:
            counts[photo.label] += 1
        return counts

    def without(self, skips: Iterable[Skip]) -> Manifest:
        """The manifest without the photos at these paths, which are added to `skipped`: they can't be decoded."""
        new = list(skips)
        gone = {skip.path for skip in new}
        kept = [photo for photo in self.photos if photo.path not in gone]
        return replace(self, photos=kept, skipped=in_order([*self.skipped, *new]))

    def listing(self, skips: Iterable[Skip]) -> Manifest:
        """The manifest with `skips` added to `skipped`; all photos stay."""
        return replace(self, skipped=in_order([*self.skipped, *skips]))

    def duplicates(self) -> list[list[Photo]]:
        """Groups of two or more byte-identical photos, each group and the list in the order of `photos`."""
        groups: defaultdict[str, list[Photo]] = defaultdict(list)
        for photo in self.photos:
            groups[photo.sha256].append(photo)
        return [group for group in groups.values() if len(group) > 1]

    def conflicts(self) -> list[list[Photo]]:
        """Those `duplicates` that have more than one label: at least one of them is wrong."""
        return [group for group in self.duplicates() if len({photo.label for photo in group}) > 1]

    def write(self, path: Path, splits: Sequence[str]) -> None:
        """Write manifest.csv: path,label,split,sha256, and group where there are some. `splits[i]` is the part of photo
        i.

        Raises RunError when `path` can't be written.
        """
        width = len(_COLUMNS) + any(photo.group for photo in self.photos)
        rows = ([p.path, p.label, part, p.sha256, p.group] for p, part in zip(self.photos, splits, strict=True))
        write_csv(path, [*_COLUMNS, "group"][:width], (row[:width] for row in rows))


def read(path: Path, root: Path) -> Manifest:
    """Read what `Manifest.write` wrote; `root` is the folder that the paths are relative to. Raises DataError."""
    rows = tables.rows(path, _COLUMNS)
    photos = [Photo(r["path"], r["label"], r["split"], r["sha256"], r.get("group", "")) for _, r in rows]
    return Manifest(root, photos)


def place_of(path: str) -> tuple[NaturalKey, ...]:
    """The key that sorts paths in natural order."""
    return tuple(natural(part) for part in path.split("/"))


def in_order(skips: Iterable[Skip]) -> list[Skip]:
    """Skipped photos in the natural order of their paths."""
    return sorted(skips, key=lambda skip: (place_of(skip.path), skip.why))
