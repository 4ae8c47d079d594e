"""Memory and time as the photos grow in number, and what a 12-megapixel JPEG costs to decode.

    python benchmarks/scale.py [DATA] [--photos 3000,50000] [--epochs 10] [--strategies frozen] [--repeats 1]
                               [--out scale.json]
    python benchmarks/scale.py [DATA] --decode [8] [--rounds 5] [--out decode.json]

DATA is a folder of class folders; without it the built-in sample is used. Only its JPEGs are taken.

**Scale.** For each count a temporary data set of so many photos is made out of DATA's, classes in proportion. Photos
repeat under other names, each with a few bytes of its own after the JPEG's end mark: no two files share a SHA-256, so
the cache can't take one for another, and each is read, decoded and computed in full. Then, each in a process of its
own:

1. ``frostline study`` with an empty cache into which the weights alone were copied, from start to written bundle and
   report;
2. ``frostline predict`` with the first strategy's bundle on the same photos, with the cache that the study left.

Measured are wall seconds and CPU seconds from start to exit; peak memory (the largest resident set, from ``os.wait4``,
MB of 10^6 bytes; mapped pages of the cache count too); the study's own seconds from study.json; bytes of rows.bin in
the activation cache. Milliseconds are per photo of the set. An epoch is a pass over all of them, those of the training
part learned from, the others validated; with several strategies, the sum of one epoch of each. In brackets the ratio to
the first count. One small uncounted study comes first, so that no run pays for reading the libraries from the disk; it
also says how much disk is needed. The sets lie in the system's temporary folder (``TMPDIR``), and since they have just
been written, mostly in the system's file cache. Accuracies mean nothing here (a photo and its repetition may be on both
sides of the split) and are not shown.

**Decode.** Photos of 4000x3000 pixels, quality 90, as mosaics of DATA's photos enlarged, with as much noise as brings
them to 3-5 MB, the size that cameras write. In one thread, in turns: (a) the full decode,
``Image.open().convert("RGB").resize((224, 224), BILINEAR)``, (b) `frostline.photos.decoding.prepare`. Medians over the
rounds, and by how much the pixels differ.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from frostline.cache.folder import cache_dir
from frostline.errors import FrostlineError, PhotoError
from frostline.files import write_json
from frostline.parallel import thread_count
from frostline.photos import sample
from frostline.photos.decoding import Transform, prepare
from frostline.photos.scan import scan

Row = dict[str, Any]
Sources = dict[str, list[Path]]  # class -> its photos

JPEG = b"\xff\xd8\xff"
SPARE = 500_000_000  # bytes of disk for run folder, engines, predictions
WIDTH, HEIGHT, QUALITY = 4000, 3000, 90
LEAST_BYTES = 3_000_000  # of a 12-megapixel photo


# ---- photos ----------------------------------------------------------------------------------------------------------


def marked(data: bytes, number: int) -> bytes:
    """The same photo with other bytes: decoders stop at the end mark."""
    return data + f"frostline scale {number:08d}".encode()


def find(data: str) -> Sources:
    """The JPEGs of a data set (or of the built-in sample) that frostline takes, a few bytes longer too."""
    root = Path(data) if data else sample.render(cache_dir() / "sample")
    photos = scan(root).photos
    with ThreadPoolExecutor(thread_count()) as pool:
        accepted = list(pool.map(lambda p: accepts(root / p.path), photos))
    sources: Sources = {}
    for photo, good in zip(photos, accepted, strict=True):
        if good:
            sources.setdefault(photo.label, []).append(root / photo.path)
    if left_out := len(photos) - sum(accepted):
        print(f"{left_out} of {len(photos)} photos are no JPEGs, or damaged: left out", file=sys.stderr)
    if not sources:
        raise SystemExit(f"{data} holds no JPEG that can be read: give a folder of class folders with JPEGs")
    return sources


def accepts(path: Path) -> bool:
    data = path.read_bytes()
    try:
        prepare(marked(data, 0), Transform())
    except PhotoError:
        return False
    return data.startswith(JPEG)


def shares(sources: Sources, count: int) -> dict[str, int]:
    """How many photos each class gets of `count`, in proportion: whole parts first, then the largest remainders."""
    total = sum(map(len, sources.values()))
    exact = {label: count * len(paths) / total for label, paths in sources.items()}
    given = {label: int(share) for label, share in exact.items()}
    late = sorted(exact, key=lambda label: given[label] - exact[label])
    for label in late[: count - sum(given.values())]:
        given[label] += 1
    return given


def plan(sources: Sources, count: int) -> Iterator[tuple[str, Path, int]]:
    """(class, photo, how many copies of it): every photo as often as the next, give or take one, spread over the
    class."""
    for label, wanted in shares(sources, count).items():
        paths = sources[label]
        rounds, rest = divmod(wanted, len(paths))
        once_more = set(np.linspace(0, len(paths) - 1, rest, dtype=int).tolist())
        for i, path in enumerate(paths):
            yield label, path, rounds + (i in once_more)


def make_set(sources: Sources, count: int, folder: Path) -> None:
    serial = itertools.count()  # one for the whole set: DATA itself may hold a photo twice
    for place, (label, path, copies) in enumerate(plan(sources, count)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        data = path.read_bytes() if copies else b""
        for copy in range(copies):
            (folder / label / f"{copy:05d}-{place:06d}.jpg").write_bytes(marked(data, next(serial)))


def set_bytes(sources: Sources, count: int) -> int:
    return sum(path.stat().st_size * copies for _, path, copies in plan(sources, count))


# ---- one process -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Spent:
    """What a process took, from start to exit."""

    wall: float  # seconds
    cpu: float  # seconds, all threads, user and system
    peak_mb: float

    def to_dict(self) -> dict[str, float]:
        return {
            "wall_seconds": round(self.wall, 3),
            "cpu_seconds": round(self.cpu, 3),
            "peak_rss_mb": round(self.peak_mb, 1),
        }


def spend(arguments: Sequence[str], work: Path) -> Spent:
    """Run ``frostline ...`` with the cache of `work`.

    The system counts the memory of the process that starts another as the other's for the moment before its own program
    is loaded, so this one is a floor; it loads no torch and stays below a tenth of what is measured.
    """
    command = [sys.executable, "-m", "frostline", *arguments]
    environment = os.environ | {"FROSTLINE_CACHE": str(work / "cache")}
    with (work / "errors.txt").open("w+b") as errors:
        started = time.perf_counter()
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=errors) as process:
            _, status, usage = os.wait4(process.pid, 0)
            wall = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)  # Popen would wait for it again
        errors.seek(0)
        said = errors.read().decode(errors="replace").strip()
    if process.returncode:
        raise SystemExit(f"frostline {arguments[0]} ended with code {process.returncode}: {said[-2000:]}")
    unit = 1 if sys.platform == "darwin" else 1024  # bytes there, KiB elsewhere
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)


def own_peak_mb() -> float:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1))


# ---- one count -------------------------------------------------------------------------------------------------------


def once(photos: Path, work: Path, weights: Path, strategies: str, epochs: int) -> Row:
    """A study and a prediction of the photos in a folder, both in `work`, with a cache that holds only the weights."""
    shutil.copytree(weights, work / "cache" / "weights")
    options = ["--strategies", strategies, "--protocol", "tutorial", "--epochs", str(epochs)]
    study = spend(["study", str(photos), *options, "--out", str(work / "run"), "--quiet"], work)
    document = json.loads((work / "run" / "study.json").read_text(encoding="utf-8"))
    rows = document["strategies"]
    cached = sum(path.stat().st_size for path in (work / "cache" / "activations").glob("*/rows.bin"))
    first = work / "run" / strategies.split(",")[0].strip() / "bundle"
    predict = spend(["predict", str(first), str(photos), "--out", str(work / "x.csv"), "--quiet"], work)
    with (work / "x.csv").open("rb") as lines:
        predicted = sum(1 for _ in lines) - 1
    usable = document["dataset"]["photos"]
    if predicted != usable:
        print(f"  studied {usable} photos, predicted {predicted}", file=sys.stderr)
    return {
        "usable": usable,
        "study": study.to_dict(),
        "predict": predict.to_dict(),
        "predicted": predicted,
        "seconds": {row["name"]: row["seconds"] for row in rows},
        "prefix_seconds": rows[0]["seconds"]["prefix"],  # one pass serves all strategies
        "epoch_seconds": round(sum(statistics.fmean(e["seconds"] for e in row["history"]) for row in rows), 4),
        "evaluate_seconds": round(sum(row["seconds"]["evaluate"] for row in rows), 3),
        "cache_bytes_per_photo": cached / usable,
        "machine": document["machine"],
    }


def measure(sources: Sources, count: int, folder: Path, weights: Path, arguments: argparse.Namespace) -> Row:
    """All repeats of one count, and the medians of what they measured."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        photos = Path(place) / "photos"
        make_set(sources, count, photos)
        runs = []
        for turn in range(arguments.repeats):
            work = Path(place) / f"run-{turn}"
            runs.append(once(photos, work, weights, arguments.strategies, arguments.epochs))
            shutil.rmtree(work)
    usable = runs[0]["usable"]

    def median(of: Callable[[Row], float]) -> float:
        return statistics.median(of(run) for run in runs)

    wall = median(lambda run: run["study"]["wall_seconds"])
    figures = {
        "wall_seconds": wall,
        "ms_total": 1000 * wall / usable,
        "ms_prefix": 1000 * median(lambda run: run["prefix_seconds"]) / usable,
        "ms_epoch": 1000 * median(lambda run: run["epoch_seconds"]) / usable,
        "ms_predict": 1000 * median(lambda run: run["predict"]["wall_seconds"] / run["predicted"]),
        "peak_mb_study": median(lambda run: run["study"]["peak_rss_mb"]),
        "peak_mb_predict": median(lambda run: run["predict"]["peak_rss_mb"]),
        "cache_bytes": median(lambda run: run["cache_bytes_per_photo"]),
    }
    return {"photos": count, "usable": usable, "figures": figures, "runs": runs}


def rehearse(sources: Sources, folder: Path, arguments: argparse.Namespace) -> tuple[Path, float]:
    """A small study that is not counted: (folder of the weights, fetched if need be; cache bytes per photo)."""
    weights, kept = cache_dir() / "weights", folder / "weights"
    if weights.is_dir():
        shutil.copytree(weights, kept)
    kept.mkdir(exist_ok=True)
    photos, work = folder / "few", folder / "rehearsal"
    make_set(sources, 20 * len(sources), photos)
    row = once(photos, work, kept, arguments.strategies, 1)
    shutil.copytree(work / "cache" / "weights", kept, dirs_exist_ok=True)
    shutil.rmtree(work)
    return kept, float(row["cache_bytes_per_photo"])


def check_room(sources: Sources, counts: Sequence[int], row_bytes: float, folder: Path) -> None:
    """Say what the largest set takes on the disk, and end here where that is not free."""
    most = max(counts)
    photos, rows, free = set_bytes(sources, most), most * row_bytes, shutil.disk_usage(folder).free
    needed = photos + rows + SPARE
    text = (
        f"{most:,} photos need {photos / 1e9:.2f} GB for themselves and {rows / 1e9:.2f} GB for their rows in the "
        "cache, "
        f"with {SPARE / 1e9:.1f} GB to spare {needed / 1e9:.2f} GB; {free / 1e9:.1f} GB are free in the temporary "
        "folder"
    )
    if needed > free:
        raise SystemExit(f"{text}: set TMPDIR to a folder on a larger disk, or ask for fewer --photos")
    print(text, file=sys.stderr)


# ---- what is shown ---------------------------------------------------------------------------------------------------

COLUMNS = {  # heading -> (figure, its format)
    "wall, s": ("wall_seconds", ",.1f"),
    "ms a photo, study": ("ms_total", ".3f"),
    "prefix": ("ms_prefix", ".3f"),
    "training, an epoch": ("ms_epoch", ".4f"),
    "predict": ("ms_predict", ".3f"),
    "peak MB, study": ("peak_mb_study", ",.0f"),
    "peak MB, predict": ("peak_mb_predict", ",.0f"),
    "cache bytes a photo": ("cache_bytes", ",.0f"),
}


def table(counts: Sequence[Row]) -> str:
    """Markdown; behind each figure its ratio to the first count's."""
    lines = [f"| photos | {' | '.join(COLUMNS)} |", f"|{' ---: |' * (len(COLUMNS) + 1)}"]
    for row in counts:
        cells = [f"{row['usable']:,}"]
        for name, form in COLUMNS.values():
            value, first = row["figures"][name], counts[0]["figures"][name]
            cells.append(f"{value:{form}}" + (f" ({value / first:.2f}x)" if row is not counts[0] and first else ""))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def further(counts: Sequence[Row]) -> str:
    """What each photo beyond the first count's costs: the start-up, which is the same for all counts, drops out."""
    first, last = counts[0], counts[-1]
    if (more := last["usable"] - first["usable"]) <= 0:
        return ""
    study = last["figures"]["wall_seconds"] - first["figures"]["wall_seconds"]
    passes = [row["figures"]["ms_prefix"] * row["usable"] for row in (first, last)]
    return (
        f"Each photo beyond the first {first['usable']:,}: {1000 * study / more:.3f} ms in the study, "
        f"{(passes[1] - passes[0]) / more:.3f} ms of it in the prefix (start-up and compiling left out)."
    )


def about(arguments: argparse.Namespace) -> Row:
    return {
        "benchmark": "decode" if arguments.decode else "scale",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": "DATA" if arguments.data else "built-in sample",
        "cores": thread_count(),
        "python": sys.version.split()[0],
        "pillow": metadata.version("pillow"),
    }


def scale(sources: Sources, arguments: argparse.Namespace) -> None:
    counts: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="frostline-scale-") as place:
        folder = Path(place)
        weights, row_bytes = rehearse(sources, folder, arguments)
        check_room(sources, arguments.photos, row_bytes, folder)
        for count in arguments.photos:
            counts.append(measure(sources, count, folder, weights, arguments))
            figures = counts[-1]["figures"]
            print(
                f"{count:,} photos: {figures['wall_seconds']:.1f} s, {figures['peak_mb_study']:.0f} MB", file=sys.stderr
            )
            if arguments.out:
                settings = {name: getattr(arguments, name) for name in ("strategies", "epochs", "repeats")}
                floor = {"peak_rss_floor_mb": own_peak_mb()}
                write_json(arguments.out, {**about(arguments), **settings, **floor, "counts": counts})
    print(table(counts))
    if words := further(counts):
        print(f"\n{words}")


# ---- decode ----------------------------------------------------------------------------------------------------------


def large(paths: Sequence[Path], seed: int) -> bytes:
    """A JPEG of 4000x3000: four by three photos enlarged to 1000x1000, and noise until it has the bytes of a
    camera's."""
    canvas = Image.new("RGB", (WIDTH, HEIGHT))
    side = 1000
    places = [(x, y) for y in range(0, HEIGHT, side) for x in range(0, WIDTH, side)]
    for i, place in enumerate(places):
        with Image.open(paths[i % len(paths)]) as photo:
            canvas.paste(photo.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), place)
    clean = np.asarray(canvas, dtype=np.float32)
    grain = np.random.default_rng(seed).standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32)
    for strength in range(12):
        noisy = (clean + strength * grain).clip(0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(noisy).save(stream, "JPEG", quality=QUALITY)
        if stream.tell() >= LEAST_BYTES:
            break
    return stream.getvalue()


def full(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))


def scaled(data: bytes) -> np.ndarray:
    return prepare(data, Transform())


def decode(sources: Sources, arguments: argparse.Namespace) -> None:
    everything = [path for paths in sources.values() for path in paths]
    rng = np.random.default_rng(0)
    photos = []
    for seed in range(arguments.decode):
        chosen = rng.choice(len(everything), min(12, len(everything)), replace=False)
        photos.append(large([everything[i] for i in chosen], seed))
    ways: dict[str, Callable[[bytes], np.ndarray]] = {"full": full, "frostline": scaled}
    spent: dict[str, list[float]] = {name: [] for name in ways}  # ms a photo, by round
    for turn in range(arguments.rounds + 1):
        sums = dict.fromkeys(ways, 0.0)
        for i, data in enumerate(photos):
            for name in list(ways) if (turn + i) % 2 else list(ways)[::-1]:
                started = time.perf_counter()
                ways[name](data)
                sums[name] += time.perf_counter() - started
        for name in ways if turn else ():  # the first round warms up
            spent[name].append(1000 * sums[name] / len(photos))
    ratios = [a / b for a, b in zip(spent["full"], spent["frostline"], strict=True)]
    pairs = [(full(data).astype(np.int16), scaled(data).astype(np.int16)) for data in photos]
    difference = statistics.fmean(float(np.abs(a - b).mean()) for a, b in pairs)
    megabytes = [len(data) / 1e6 for data in photos]
    print(f"{len(photos)} photos of {WIDTH}x{HEIGHT}, {min(megabytes):.1f} to {max(megabytes):.1f} MB, one thread\n")
    print("| 12 megapixels to 224x224 | ms a photo, median | least to most |\n| --- | ---: | ---: |")
    for name, title in (("full", "full decode, bilinear"), ("frostline", "`frostline.photos.decoding.prepare`")):
        print(f"| {title} | {statistics.median(spent[name]):.1f} | {min(spent[name]):.1f} to {max(spent[name]):.1f} |")
    print(f"| ratio | {statistics.median(ratios):.2f}x | {min(ratios):.2f}x to {max(ratios):.2f}x |")
    print(f"\nMean absolute difference of the pixels: {difference:.2f} of 255.")
    if arguments.out:
        figures = {"photos": len(photos), "bytes": [len(data) for data in photos], "ms": spent, "ratios": ratios}
        write_json(arguments.out, {**about(arguments), **figures, "mean_absolute_difference": difference})


# ---- command ---------------------------------------------------------------------------------------------------------


def whole_numbers(text: str) -> list[int]:
    """Counts, the smallest first: later ones are held against the first."""
    return sorted({positive(part) for part in text.split(",")})


def positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="", help="folder of class folders; default: the built-in sample")
    parser.add_argument("--photos", type=whole_numbers, default=[3000, 50000], help="counts, comma-separated")
    parser.add_argument("--epochs", type=positive, default=10)
    parser.add_argument("--strategies", default="frozen", help="comma-separated; the first one's bundle predicts")
    parser.add_argument("--repeats", type=positive, default=1, help="runs of each count; medians are shown")
    parser.add_argument("--decode", type=positive, nargs="?", const=8, help="time 12-megapixel photos instead, so many")
    parser.add_argument("--rounds", type=positive, default=5, help="of --decode")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if not (arguments.decode or hasattr(os, "wait4")):
        parser.error("peak memory comes from os.wait4, which this system lacks: only --decode runs here")
    try:
        (decode if arguments.decode else scale)(find(arguments.data), arguments)
    except FrostlineError as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    main()
