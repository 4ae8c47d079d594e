"""The processor beside each accelerator that is there: the stages of a study, and whole studies.

    python benchmarks/device.py [DATA] [--photos 512] [--repeats 3] [--backbone mobilenet_v2] [--out runs/device.json]

DATA is a folder of class folders; without it the built-in sample is used. Each figure is the median of the repeats,
which take turns between the devices; a round before them, in which kernels are chosen and files are read, does not
count. `--record` puts the figures into docs/figures.toml too. Weights are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import every_network
import figures
import numpy as np
import torch

from frostline.cache.store import Key
from frostline.config import configure
from frostline.files import write_text
from frostline.networks import backbone, devices, freeze_line, trainable
from frostline.networks.activations import fill, tap
from frostline.networks.compilation import Runtime, compiled
from frostline.parallel import ahead, thread_count
from frostline.photos import sample
from frostline.photos.manifest import Manifest
from frostline.photos.scan import scan
from frostline.progress import Progress
from frostline.recipes import Recipe
from frostline.studies.study import study as run_study
from frostline.training import loop
from frostline.training.examples import Examples
from frostline.training.precision import settle

QUIET = Progress(True)
ROOT = Path(__file__).parents[1]
Stage = Callable[[], float]
"""Does its work once and gives its figure."""

LINE = "30%"
"""Of the backbone's parameters are above the line that is trained."""


def engine_alone(network: backbone.Backbone, runtime: Runtime, folder: Path) -> Stage:
    """Photos/s through the frozen layers alone: photos that are decoded already."""
    top = freeze_line.taps(network.traced, [network.layer_count])
    engine = compiled(top, [network.example()], runtime, half=True, folder=folder)
    engine.expect(1024)
    side, at_a_time = network.transform.size, max(engine.batch, 8)
    photos = np.random.default_rng(0).integers(0, 256, (at_a_time, side, side, 3), np.uint8)
    times = -(-1024 // at_a_time)

    def once() -> float:
        started = time.perf_counter()
        for _ in ahead(lambda _: engine.run([photos]), range(times), depth=4):
            pass
        return times * at_a_time / (time.perf_counter() - started)

    return once


def prefix(network: backbone.Backbone, runtime: Runtime, line: int, photos: Manifest) -> Stage:
    """Photos/s decoded and through the frozen layers, into the cache: what a study does before it trains."""
    turn = iter(range(10**6))

    def once() -> float:
        seed, taps = next(turn), [tap(network, each, runtime, "float16") for each in (line, network.layer_count)]
        started = time.perf_counter()
        fill(taps, photos, views=(1,), seed=seed, runtime=runtime, progress=QUIET)  # another seed: rows of its own
        return len(photos.photos) / (time.perf_counter() - started)

    return once


def epoch(network: backbone.Backbone, runtime: Runtime, line: int, photos: Manifest) -> Stage:
    """Seconds of an epoch above a line: the second one, when the rows are where they stay."""
    place = tap(network, line, runtime, "float16")
    fill([place], photos, runtime=runtime, progress=QUIET)
    labels = np.array([photos.classes.index(p.label) for p in photos.photos])
    examples = Examples(place.store, [[Key.of(p.sha256, 0, 0)] for p in photos.photos], labels)
    few = replace(examples, keys=examples.keys[:1], labels=labels[:1])
    own = copy.deepcopy(network.traced)  # training moves its layers to the device
    head = trainable.make_head(network.features, len(photos.classes), Recipe(), 0)
    above = trainable.Above(freeze_line.cut(own, line).suffix, head, learn_statistics=False)
    device = runtime.device
    settings = loop.Settings("own", "", seed=0, device=device, precision=settle("auto", device), reduced=True)
    return lambda: loop.train(above, examples, few, Recipe(epochs=2), settings, QUIET).history[-1].seconds


def whole_study(data: Path, name: str, device: Any, weights: Path, folder: Path) -> Stage:
    """Seconds of a study of the frozen and the fine-tuned strategy, robustness and heat maps left aside, from an empty
    cache."""
    turn = iter(range(10**6))

    def once() -> float:
        own = folder / f"study {device} {next(turn)}"
        before, os.environ["FROSTLINE_CACHE"] = os.environ["FROSTLINE_CACHE"], str(own / "cache")
        try:
            config = configure(
                data, strategies=["frozen", "fine-tuned"], backbone=name, preset="fast", device=device,
                weights=str(weights), explain=0, robustness="0",
            )  # fmt: skip
            started = time.perf_counter()
            run_study(config, own / "run")
            return time.perf_counter() - started
        finally:
            os.environ["FROSTLINE_CACHE"] = before

    return once


def stages_of(name: str, device: torch.device, data: Path, photos: Manifest, folder: Path) -> dict[str, Stage]:
    """What is measured on a device."""
    kind: Any = device.type
    runtime = Runtime("auto", devices.choose(kind))
    weights = folder / f"{name}.safetensors"
    weights = weights if weights.exists() else every_network.weights(name, folder)
    network = backbone.build(name, "pretrained", path=weights)
    line, top = network.lines.find(LINE), network.layer_count
    return {
        "frozen layers alone, photos/s": engine_alone(network, runtime, folder / "engines"),
        "decode and frozen layers, photos/s": prefix(network, runtime, line, photos),
        "an epoch of the head, s": epoch(network, runtime, top, photos),
        f"an epoch above line {LINE}, s": epoch(network, runtime, line, photos),
        "study of frozen and fine-tuned, s": whole_study(data, name, kind, weights, folder),
    }


def measure(stages: Mapping[str, Mapping[str, Stage]], repeats: int) -> dict[str, dict[str, list[float]]]:
    """The figures of each stage on each device, in turns, after one round that does not count."""
    found: dict[str, dict[str, list[float]]] = {device: {name: [] for name in own} for device, own in stages.items()}
    for turn in range(repeats + 1):
        for device, own in stages.items():
            for name, stage in own.items():
                figure = stage()
                if turn:
                    found[device][name].append(figure)
    return found


def table(found: Mapping[str, Mapping[str, list[float]]]) -> str:
    """Medians, with the least and the most, a column for each device."""
    lines = [f"| stage | {' | '.join(found)} |", "| --- |" + " --- |" * len(found)]
    for stage in next(iter(found.values())):
        cells = ["{} ({} to {})".format(*map(_short, _three(own[stage]))) for own in found.values()]
        lines.append(f"| {stage} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _three(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder of class folders; default: the built-in sample")
    parser.add_argument("--photos", type=int, default=512, help="of the stages, at most; the study takes all")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--backbone", default="mobilenet_v2")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "device.json")
    parser.add_argument(
        "--record", action="store_true", help="put the figures into docs/figures.toml, for docs/devices.md"
    )
    arguments = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    there = devices.present()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["FROSTLINE_CACHE"] = str(folder / "cache")
        data = Path(arguments.data) if arguments.data else sample.render(folder / "sample")
        everything = scan(data)
        spread = np.linspace(0, len(everything.photos) - 1, min(arguments.photos, len(everything.photos)), dtype=int)
        photos = Manifest(everything.root, [everything.photos[i] for i in spread])
        stages = {d.type: stages_of(arguments.backbone, d, data, photos, folder) for d in there}
        found = measure(stages, arguments.repeats)
    about = {d.type: {"name": devices.name(d), "precision": settle("auto", d)} for d in there}
    document = {
        "backbone": arguments.backbone, "photos": len(photos.photos), "devices": about, "machine": figures.machine(),
        "versions": figures.versions(), "commit": figures.commit(ROOT), "load": load, "figures": found,
    }  # fmt: skip
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(arguments.out, json.dumps(document, indent=1) + "\n")
    print(", ".join(f"{kind}: {row['name']} ({row['precision']})" for kind, row in about.items()))
    print(f"{arguments.backbone}, {len(photos.photos)} photos, {thread_count()} cores, torch {torch.__version__}")
    print(table(found))
    if len(there) == 1:
        print("no accelerator: only the processor was measured")
    elif arguments.record:
        command = f"python benchmarks/device.py --backbone {arguments.backbone} --record"
        figures.record("device", command, {"devices": about, "table": table(found)}, loads=[load])


if __name__ == "__main__":
    main()
