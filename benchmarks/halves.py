"""Two fixed halves of a folder of photos: constants are chosen within one, figures are reported on the other.

    python benchmarks/halves.py FOLDER OUT [--test 690]

FOLDER holds a folder for each class. OUT gets two tables that frostline reads in place of a folder:

choose.csv   the photos of half A alone. Presets' constants are chosen on them: nothing else of FOLDER is there.
report.csv   all photos: `--test` of half B's as the test set, stratified, and everything else as `train`, from which a
             study cuts its validation set by seed. No photo of half A is ever reported on.

The halves follow from the photos' bytes alone: byte-identical photos and near-duplicates are one group, and a group
goes where the last bit of its smallest digest says. Names, seeds and the order of files have no say.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from frostline.checks import near_duplicates
from frostline.photos.manifest import Manifest, Photo
from frostline.photos.scan import scan
from frostline.photos.split import together
from frostline.progress import Progress

Group = list[Photo]


def groups_of(manifest: Manifest) -> list[Group]:
    """Photos that stay together, in an order that follows from their bytes."""
    with Progress() as progress:
        found = near_duplicates.find(manifest, progress=progress)
    united = together(manifest.photos, near_duplicates.ties(found, manifest))
    return sorted(([manifest.photos[i] for i in group] for group in united), key=_rank)


def _smallest(group: Group) -> str:
    return min(photo.sha256 for photo in group)


def _rank(group: Group) -> str:
    """Digest of the smallest digest: large groups, which have smaller ones, don't come first."""
    return hashlib.sha256(_smallest(group).encode()).hexdigest()


def in_half_a(group: Group) -> bool:
    return int(_smallest(group)[-1], 16) % 2 == 0


def quotas(counts: dict[str, int], total: int) -> Counter[str]:
    """`total` photos in proportion to `counts`, by largest remainder."""
    exact = {label: total * count / sum(counts.values()) for label, count in counts.items()}
    whole = Counter({label: int(value) for label, value in exact.items()})
    by_remainder = sorted(exact, key=lambda label: (whole[label] - exact[label], label))
    whole.update(by_remainder[: total - whole.total()])
    return whole


def drawn(groups: Iterable[Group], wanted: Counter[str]) -> list[Group]:
    """Groups in their order, as long as each class has room for all photos of the group."""
    left, taken = Counter(wanted), []
    for group in groups:
        counts = Counter(photo.label for photo in group)
        if all(left[label] >= count for label, count in counts.items()):
            left -= counts
            taken.append(group)
    if left.total():
        raise SystemExit(f"half B has too few photos for that test set: {dict(left)} are missing; ask for fewer")
    return taken


def write(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *sorted(rows, key=str)])


def split(folder: Path, out: Path, test: int) -> dict[str, int]:
    """Write both tables; returns how many photos each part has."""
    manifest = scan(folder)
    groups = groups_of(manifest)
    half_a = [group for group in groups if in_half_a(group)]
    half_b = [group for group in groups if not in_half_a(group)]
    tested = {photo.path for group in drawn(half_b, quotas(manifest.counts(), test)) for photo in group}
    root = manifest.root.resolve()
    chosen = [(root / photo.path, photo.label) for group in half_a for photo in group]
    write(out / "choose.csv", ("path", "label"), chosen)
    parts = [(root / p.path, p.label, "test" if p.path in tested else "train") for p in manifest.photos]
    write(out / "report.csv", ("path", "label", "split"), parts)
    return {
        "photos": len(manifest.photos),
        "half A": sum(map(len, half_a)),
        "half B": sum(map(len, half_b)),
        "test, all of half B": len(tested),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--test", type=int, default=690, help="photos of half B that are reported on")
    options = parser.parse_args()
    for part, count in split(options.folder, options.out, options.test).items():
        print(f"{part}: {count:,}")


if __name__ == "__main__":
    main()
