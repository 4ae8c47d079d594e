"""Faults planted into a copy of a set of photos, and how many of them are found.

    python benchmarks/planted.py twins [DATA] [--photos 300] [--seed 0] [--show] [--out twins.json]
    python benchmarks/planted.py rows [DATA] [--rows 100000] [--seed 0]

DATA is a folder of class folders; without it the built-in sample is used. It is only read: the copy is a temporary
folder of links.

**twins** makes a copy of each kind below of some of the photos, puts it into the same class, and looks for them with
`frostline.checks.near_duplicates.find`. A copy is found when it is in one group with its photo. *Unrelated pairs* are
all pairs of photos, no two of which are copies of one photo: those in one group are counted as false. Some of these are
no error: DATA has near-duplicates of its own, which can't be known beforehand; ``--show`` lists them, to be looked at.
`hard` is the same share among the pairs that a search has to look at: each photo with its three nearest ones.

**rows** fills a temporary cache with small pictures of so many photos (two of DATA's laid over each other, each moved
at random, so that all differ; one in a hundred is repeated, dimmed and with noise) and finds the near-duplicates. It
shows time, memory and recall without decoding 100,000 files, which takes 0.4 ms each on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import itertools
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from frostline.cache.folder import cache_dir
from frostline.cache.store import Key
from frostline.checks import alignment, near_duplicates
from frostline.files import write_json
from frostline.photos import sample
from frostline.photos.manifest import Manifest, Photo
from frostline.photos.scan import scan
from frostline.progress import Progress

Change = Callable[[Image.Image, np.random.Generator], Image.Image]
MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


# ---- the kinds of copies ---------------------------------------------------------------------------------------------


def scaled(photo: Image.Image, share: float) -> Image.Image:
    return photo.resize((max(24, round(photo.width * share)), max(24, round(photo.height * share))))


def cropped(photo: Image.Image, share: float, x: float, y: float) -> Image.Image:
    width, height = round(photo.width * share), round(photo.height * share)
    left, top = round((photo.width - width) * x), round((photo.height - height) * y)
    return photo.crop((left, top, left + width, top + height))


def bright(photo: Image.Image, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(photo).enhance(factor)


COPIES: dict[str, tuple[Change, int]] = {
    # kind: (what is done, JPEG quality)
    "resized to a half": (lambda p, _: scaled(p, 0.5), 90),
    "resized to two thirds, PNG": (lambda p, _: scaled(p, 0.66), 0),
    "quality 40": (lambda p, _: p, 40),
    "10 % cropped, middle": (lambda p, _: cropped(p, 0.9, 0.5, 0.5), 90),
    "10 % cropped, anywhere": (lambda p, rng: cropped(p, 0.9, rng.random(), rng.random()), 90),
    "10 % cropped off each side": (lambda p, _: cropped(p, 0.8, 0.5, 0.5), 90),
    "mirrored": (lambda p, _: p.transpose(MIRROR), 90),
    "brighter by 30 %": (lambda p, _: bright(p, 1.3), 90),
    "darker by 40 %": (lambda p, _: bright(p, 0.6), 90),
    "grey": (lambda p, _: p.convert("L").convert("RGB"), 90),
    "blurred a little": (lambda p, _: p.filter(ImageFilter.GaussianBlur(max(p.size) / 300)), 90),
    "mirrored, cropped, brighter, half": (
        lambda p, rng: scaled(bright(cropped(p.transpose(MIRROR), 0.9, rng.random(), rng.random()), 1.2), 0.5),
        40,
    ),
}


def encoded(photo: Image.Image, quality: int) -> bytes:
    stream = io.BytesIO()
    photo.save(stream, "JPEG", quality=quality) if quality else photo.save(stream, "PNG")
    return stream.getvalue()


# ---- near-duplicates -------------------------------------------------------------------------------------------------


def plant(data: Path, folder: Path, count: int, seed: int) -> tuple[Manifest, dict[str, tuple[str, str]]]:
    """A folder of links to all photos, and copies of `count` of them; {path of a copy: (kind, path of its photo)}."""
    photos = [photo for photo in scan(data).photos if not photo.split]
    for photo in photos:
        link = folder / photo.path
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((data / photo.path).resolve())
    chosen = np.random.default_rng(seed).permutation(len(photos))[:count]
    planted: dict[str, tuple[str, str]] = {}
    for number, i in enumerate(chosen):
        try:
            with Image.open(data / photos[i].path) as opened:
                original = opened.convert("RGB")
        except OSError:
            continue
        for kind, (change, quality) in COPIES.items():
            rng = np.random.default_rng([seed, number])
            name = f"planted {number} {list(COPIES).index(kind)}.{'jpg' if quality else 'png'}"
            path = folder / photos[i].label / name
            path.write_bytes(encoded(change(original, rng), quality))
            planted[path.relative_to(folder).as_posix()] = (kind, photos[i].path)
    return scan(folder), planted


def find_planted(data: Path, count: int, seed: int, show: bool) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as folder:
        manifest, planted = plant(data, Path(folder), count, seed)
        started = time.perf_counter()
        with Progress() as progress:
            groups = near_duplicates.find(manifest, progress=progress)
        seconds = time.perf_counter() - started
    of = {path: group for group in groups for path in group.paths}
    found: defaultdict[str, list[bool]] = defaultdict(list)
    for path, (kind, source) in planted.items():
        found[kind].append(path in of and source in of[path].paths)
    origin = {photo.path: planted[photo.path][1] if photo.path in planted else photo.path for photo in manifest.photos}
    called = {
        tuple(sorted((origin[a], origin[b])))
        for group in groups
        for a, b in itertools.combinations(group.paths, 2)
        if origin[a] != origin[b]
    }
    same = {photo.path: photo.sha256 for photo in manifest.photos}
    called = {(a, b) for a, b in called if same[a] != same[b]}
    sources = len(set(origin.values()))
    every = [hit for hits in found.values() for hit in hits]
    print(f"{len(manifest.photos):,} photos, {len(planted):,} of them planted; {seconds:.1f} s, reading included")
    for kind, hits in found.items():
        print(f"  {kind:36} {100 * np.mean(hits):6.1f} % of {len(hits)} found")
    print(f"  {'all':36} {100 * np.mean(every):6.1f} %")
    pairs = sources * (sources - 1) // 2
    print(
        f"unrelated pairs called near-duplicates: {len(called)} of {pairs:,} ({100 * len(called) / pairs:.5f} %); "
        f"of the nearest ones: {100 * len(called) / (3 * sources):.2f} %"
    )
    for a, b in sorted(called) if show else []:
        print(f"  {a}  {b}")
    return {
        "photos": len(manifest.photos),
        "recall": {kind: float(np.mean(hits)) for kind, hits in found.items()} | {"all": float(np.mean(every))},
        "unrelated_called": sorted(called),
        "unrelated_pairs": pairs,
        "seconds": round(seconds, 2),
    }


# ---- many rows -------------------------------------------------------------------------------------------------------


def moved(pictures: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each picture rolled by an eighth to seven eighths both ways: further than an alignment reaches."""
    shifts = rng.integers(8, alignment.SIDE - 8, size=(len(pictures), 2))
    return np.stack([np.roll(p, tuple(s), (0, 1)) for p, s in zip(pictures, shifts, strict=True)])


def many_rows(data: Path, rows: int, seed: int) -> None:
    manifest = scan(data)
    with Progress() as progress:
        near_duplicates.find(manifest, progress=progress)  # fills the cache with DATA's own
    digests = sorted({photo.sha256 for photo in manifest.photos})
    (pictures,) = near_duplicates.store().read([Key(digest, 0, 0) for digest in digests])
    pictures = pictures.astype(np.float32)
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FROSTLINE_CACHE"] = folder
        photos, pairs = [], []
        for start in range(0, rows, 2000):
            count = min(2000, rows - start)
            one, other = (pictures[rng.integers(len(pictures), size=count)] for _ in range(2))
            one, other = moved(one, rng), moved(other, rng)
            mixed = 0.5 * one + 0.5 * other
            copies = np.flatnonzero(np.arange(count) % 100 == 99)
            mixed[copies] = 0.8 * mixed[copies - 50] + rng.normal(0, 2, mixed[copies].shape)
            names = [hashlib.sha256(f"{seed} {start + i}".encode()).hexdigest() for i in range(count)]
            near_duplicates.store().append(
                [Key(n, 0, 0) for n in names], [np.clip(np.rint(mixed), 0, 255).astype(np.uint8)]
            )
            photos += [Photo(f"c{i % 5}/{start + i}.jpg", f"c{i % 5}", "", n) for i, n in enumerate(names)]
            pairs += [(start + int(i), start + int(i) - 50) for i in copies]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started, spent = time.perf_counter(), time.process_time()
        groups = near_duplicates.find(Manifest(Path(folder), photos))
        seconds, spent = time.perf_counter() - started, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    of = {i: group.indices for group in groups for i in group.indices}
    hits = np.mean([a in of and b in of[a] for a, b in pairs])
    wrong = sum(len(group.indices) for group in groups) - 2 * sum(a in of and b in of[a] for a, b in pairs)
    print(
        f"{rows:,} rows: {seconds:.0f} s ({spent:.0f} s of processor), "
        f"peak {peak * 1024 / 1e6:,.0f} MB ({before * 1024 / 1e6:,.0f} MB before the search); "
        f"{100 * hits:.1f} % of {len(pairs)} copies found, {wrong} other photos in groups"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fault", choices=["twins", "rows"])
    parser.add_argument("data", nargs="?", default="")
    parser.add_argument("--photos", type=int, default=300)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    data = Path(arguments.data) if arguments.data else sample.render(cache_dir() / "sample")
    if arguments.fault == "rows":
        many_rows(data, arguments.rows, arguments.seed)
        return
    result = find_planted(data, arguments.photos, arguments.seed, arguments.show)
    if arguments.out:
        write_json(arguments.out, result)


if __name__ == "__main__":
    sys.exit(main())
