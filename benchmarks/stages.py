"""frostline's own stages in images/s, beside the limit measured on the spot: the decoder alone, the engine alone.

    python benchmarks/stages.py [DATA] [--photos 512] [--repeats 3] [--out stages.json]

DATA is a folder of class folders; without it the built-in sample is used. Figures are medians over the repeats, which take turns, so that
a machine whose speed drifts drifts for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch

from frostline import backbone, freeze, sample, train
from frostline.cache import Key, fill, tap
from frostline.config import Recipe
from frostline.engine import BATCH, compiled
from frostline.images import prepare
from frostline.manifest import Manifest, scan
from frostline.progress import Progress
from frostline.reading import thread_count

CPU = torch.device("cpu")
QUIET = Progress(True)


def decode_alone(photos: Manifest) -> int:
    """Read, decode and resize, in as many threads as there are cores."""
    transform = backbone.info("mobilenet_v2").transform(0, "squash")
    with ThreadPoolExecutor(thread_count()) as pool:
        done = list(pool.map(lambda p: prepare((photos.root / p.path).read_bytes(), transform), photos.photos))
    return len(done)


def engine_alone(network: backbone.Backbone, lines: list[int], folder: Path) -> Callable[[], int]:
    """The compiled prefix on photos that are decoded already."""
    run = compiled(freeze.taps(network.traced, lines), "auto", CPU, size=224, folder=folder)
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, 224, 224, 3), np.uint8)

    def once() -> int:
        for _ in range(8):
            run.run(batch)
        return 8 * BATCH

    return once


def prefix(network: backbone.Backbone, lines: list[int], photos: Manifest) -> int:
    """Decode and prefix together, into a new cache: what a study does before it trains."""
    with tempfile.TemporaryDirectory() as folder:
        engines = Path(os.environ["FROSTLINE_CACHE"]) / "engines"
        os.environ["FROSTLINE_CACHE"], kept = folder, os.environ["FROSTLINE_CACHE"]
        try:
            (Path(folder) / "engines").symlink_to(engines)
            fill([tap(network, line, "auto", CPU, "float16") for line in lines], photos, progress=QUIET)
        finally:
            os.environ["FROSTLINE_CACHE"] = kept
    return len(photos.photos)


def epochs(name: str, line: str, photos: Manifest, count: int) -> Callable[[], int]:
    """Training epochs above a line, on rows that are in the cache."""
    network = backbone.build(name, "random")
    cut = freeze.cut(network.traced, freeze.resolve(line, network.layer_count))
    place = tap(network, cut.line, "auto", CPU, "float16")
    fill([place], photos, progress=QUIET)
    labels = np.array([photos.classes.index(p.label) for p in photos.photos])
    examples = train.Examples(place.store, [[Key.of(p, 0, 0)] for p in photos.photos], labels)
    few = train.Examples(place.store, examples.keys[:1], labels[:1])

    def once() -> int:
        head = train.make_head(network.features, len(photos.classes), Recipe(), 0)
        above = train.Above(cut.suffix, head, learn_statistics=False)
        precision = train.settle("auto", CPU)
        train.train(
            above, examples, few, Recipe(epochs=count), seed=0, stage="own", reduced=True, device=CPU,
            precision=precision, checkpoint=None, progress=QUIET, title="",
        )  # fmt: skip
        return count * len(photos.photos)

    return once


def measure(stages: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Images/s of each stage, in turns, after one uncounted round."""
    rates: dict[str, list[float]] = {name: [] for name in stages}
    for turn in range(repeats + 1):
        for name, stage in stages.items():
            started = time.perf_counter()
            done = stage()
            if turn:
                rates[name].append(done / (time.perf_counter() - started))
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder of class folders; default: the built-in sample")
    parser.add_argument("--photos", type=int, default=512, help="at most so many photos")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FROSTLINE_CACHE"] = folder
        data = Path(arguments.data) if arguments.data else sample.render(Path(folder) / "sample")
        everything = scan(data)
        spread = np.linspace(0, len(everything.photos) - 1, min(arguments.photos, len(everything.photos)), dtype=int)
        photos = Manifest(everything.root, [everything.photos[i] for i in spread])
        network = backbone.build("mobilenet_v2", "random")
        lines = [network.layer_count - 6, network.layer_count]
        stages = {
            "decode alone (the limit of reading)": lambda: decode_alone(photos),
            "engine alone (the limit of the prefix)": engine_alone(network, lines, Path(folder) / "engines"),
            "decode + prefix, both lines": lambda: prefix(network, lines, photos),
            "training: head": epochs("mobilenet_v2", "top", photos, 4),
            "training: last six layers": epochs("mobilenet_v2", "top-6", photos, 1),
            "training: small CNN": epochs("small_cnn", "0", photos, 1),
        }
        rates = measure(stages, arguments.repeats)
    print(
        f"{platform.processor() or platform.machine()}, {thread_count()} cores, torch {torch.__version__}, {len(photos.photos)} photos"
    )
    print(f"{'stage':42}{'images/s':>10}{'spread':>18}")
    for name, values in rates.items():
        print(f"{name:42}{statistics.median(values):10.0f}{min(values):10.0f} to {max(values):.0f}")
    if arguments.out:
        arguments.out.write_text(json.dumps(rates, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
