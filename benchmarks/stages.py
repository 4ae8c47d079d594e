"""frostline's own stages in images/s, beside the limit measured on the spot: the decoder, the engine and the matrix
product alone.

    python benchmarks/stages.py [DATA] [--photos 512] [--repeats 3] [--out stages.json]

DATA is a folder of class folders; without it the built-in sample is used. Figures are medians over the repeats, which
take turns, so that a machine whose speed drifts drifts for all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from frostline.cache.store import Key
from frostline.config import configure
from frostline.networks import backbone, freeze_line, trainable
from frostline.networks.activations import fill, tap
from frostline.networks.compilation import Runtime, compiled
from frostline.parallel import ahead, thread_count
from frostline.photos import decoding, sample
from frostline.photos.manifest import Manifest
from frostline.photos.scan import scan
from frostline.progress import Progress
from frostline.recipes import Recipe, resolve
from frostline.reports import study_page
from frostline.studies.run_folder import settle_torch
from frostline.studies.study import study as run_study
from frostline.training import loop
from frostline.training.examples import Examples
from frostline.training.precision import settle

CPU = torch.device("cpu")
QUIET = Progress(True)
Stage = Callable[[], int]


def decode_alone(photos: Manifest) -> Stage:
    """Read, decode and resize, in as many threads as there are cores."""
    transform = backbone.info("mobilenet_v2").transform(0, "squash")

    def once() -> int:
        with ThreadPoolExecutor(thread_count()) as pool:
            work = pool.map(lambda p: decoding.prepare((photos.root / p.path).read_bytes(), transform), photos.photos)
            return sum(1 for _ in work)

    return once


def engine_alone(network: backbone.Backbone, lines: list[int], folder: Path) -> Stage:
    """The compiled prefix on photos that are decoded already, in as many threads as there are cores."""
    run = compiled(freeze_line.taps(network.traced, lines), [network.example()], Runtime(), half=True, folder=folder)
    some = np.random.default_rng(0).integers(0, 256, (512, 1, 224, 224, 3), np.uint8)
    return lambda: _drained(ahead(lambda photo: run.run([photo]), some, depth=64))


def product_alone() -> Stage:
    """The multiplications of MobileNetV2's last six layers, forth and back, as one matrix product of bfloat16: no
    memory to wait for.

    3 x 35.5 million multiplications a photo: forward, and the gradients of weights and inputs.
    """
    a, b = (torch.randn(1024, 1024, dtype=torch.bfloat16) for _ in range(2))

    def once() -> int:
        for _ in range(64):
            torch.mm(a, b)
        return int(64 * 1024**3 / (3 * 35.5e6))

    return once


def prefix(network: backbone.Backbone, lines: list[int], photos: Manifest) -> Stage:
    """Decode and prefix together, into new stores: what a study does before it trains."""
    turn = iter(range(10**6))

    def once() -> int:
        seed = next(turn)  # another seed: rows of its own
        taps = [tap(network, line, Runtime(), "float16") for line in lines]
        fill(taps, photos, views=(1,), seed=seed, progress=QUIET)
        return len(photos.photos)

    return once


def epochs(name: str, line: str, photos: Manifest, count: int) -> tuple[Stage, Stage]:
    """(training epochs, validation) above a line, on rows that are in the cache."""
    network = backbone.build(name, "random")
    cut = freeze_line.cut(network.traced, resolve(line, network.layer_count))
    place = tap(network, cut.line, Runtime(), "float16")
    fill([place], photos, progress=QUIET)
    labels = np.array([photos.classes.index(p.label) for p in photos.photos])
    examples = Examples(place.store, [[Key.of(p.sha256, 0, 0)] for p in photos.photos], labels)
    few = replace(examples, keys=examples.keys[:1], labels=labels[:1])
    precision = settle("auto", CPU)
    head = trainable.make_head(network.features, len(photos.classes), Recipe(), 0)
    above = trainable.Above(cut.suffix, head, learn_statistics=False)

    def learn() -> int:
        settings = loop.Settings("own", "", seed=0, device=CPU, precision=precision, reduced=True)
        loop.train(above, examples, few, Recipe(epochs=count), settings, QUIET)
        return count * len(photos.photos)

    def validate() -> int:
        loop.measure(above, examples, CPU, precision)
        return len(photos.photos)

    return learn, validate


def reporting(data: Path, folder: Path) -> Stage:
    """The report of a finished study, in photos of the data set."""
    config = configure(data, strategies=["frozen"], protocol="tutorial", epochs=1, backbone="small_cnn")
    config = replace(config, strategies=tuple(replace(s, weights="random", line="top") for s in config.strategies))
    photos = run_study(config, folder)["dataset"]["photos"]

    def once() -> int:
        study_page.build(folder)
        return int(photos)

    return once


def _drained(work: Iterable[object]) -> int:
    return sum(1 for _ in work)


def measure(stages: dict[str, Stage], repeats: int) -> dict[str, list[float]]:
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
    settle_torch()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FROSTLINE_CACHE"] = folder
        data = Path(arguments.data) if arguments.data else sample.render(Path(folder) / "sample")
        everything = scan(data)
        spread = np.linspace(0, len(everything.photos) - 1, min(arguments.photos, len(everything.photos)), dtype=int)
        photos = Manifest(everything.root, [everything.photos[i] for i in spread])
        network = backbone.build("mobilenet_v2", "random")
        lines = [network.layer_count - 6, network.layer_count]
        head, head_validation = epochs("mobilenet_v2", "top", photos, 4)
        suffix, suffix_validation = epochs("mobilenet_v2", "top-6", photos, 1)
        stages = {
            "decode alone (limit of reading)": decode_alone(photos),
            "engine alone (limit of the prefix)": engine_alone(network, lines, Path(folder) / "engines"),
            "matrix product alone (limit of the last six)": product_alone(),
            "decode + prefix, two lines": prefix(network, lines, photos),
            "training: head": head,
            "training: last six layers": suffix,
            "training: small CNN": epochs("small_cnn", "0", photos, 1)[0],
            "validation: head": head_validation,
            "validation: last six layers": suffix_validation,
            "report (photos of the data set)": reporting(data, Path(folder) / "run"),
        }
        rates = measure(stages, arguments.repeats)
    print(
        f"{platform.processor() or platform.machine()}, {thread_count()} cores, torch {torch.__version__}, "
        f"{len(photos.photos)} photos"
    )
    print("| stage | images/s | spread |\n| --- | --- | --- |")
    for name, values in rates.items():
        print(f"| {name} | {statistics.median(values):,.0f} | {min(values):,.0f} to {max(values):,.0f} |")
    if arguments.out:
        arguments.out.write_text(json.dumps(rates, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
