"""Photos/s of frozen networks by engine, beside PyTorch: is the compiled form at least as quick?

    python benchmarks/speeds.py [NAMES] [--turns 5] [--out speeds.json] [--record]

Each engine has one core to itself and takes noise of the network's own size; weights are random, which changes no
speed. Engines take turns, so that a machine whose speed drifts drifts for all of them. Times are the processor's, not
the clock's: other processes take a core away, but are not counted. PyTorch takes sixteen photos at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import figures
import numpy as np
import torch

from frostline.networks import backbone, freeze_line
from frostline.networks.compilation import exported
from frostline.networks.engine import SEVERAL, OpenVinoEngine, multiplies_bfloat16, opened, processor
from frostline.networks.short_list import NAMED
from frostline.parallel import thread_count

BATCH = 16
Pass = Callable[[], int]
"""Takes some photos through a network; returns how many."""


def passes(built: backbone.Backbone, folder: Path) -> dict[str, Pass]:
    """The network in each engine."""
    side = built.transform.size
    photos = np.random.default_rng(0).integers(0, 256, (BATCH, side, side, 3), np.uint8)
    with exported(freeze_line.taps(built.traced, [built.layer_count]), [built.example()], folder) as file:
        engines = {"ONNX Runtime float32": opened("onnx", file, half=False)}
        name = "bfloat16" if multiplies_bfloat16() else "float32"
        engines[f"OpenVINO {name}"] = opened("openvino", file, half=True)
        several = OpenVinoEngine(file, half=True)
        several.expect(10**9)
        if several.batch > 1:
            engines[f"OpenVINO {name}, {SEVERAL} at a time"] = several

    def compiled(engine: object) -> Pass:
        count = engine.batch  # type: ignore[attr-defined]
        return lambda: len(engine.run([photos[:count]])[0])  # type: ignore[attr-defined]

    def plain(half: bool) -> Pass:
        def once() -> int:
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                return len(built.network(torch.from_numpy(photos)))

        return once

    return {"PyTorch float32": plain(False), "PyTorch bfloat16": plain(True)} | {
        name: compiled(engine) for name, engine in engines.items()
    }


def rates(work: dict[str, Pass], turns: int) -> dict[str, list[float]]:
    """Photos for each second of a core, turn by turn, after one that isn't counted."""
    found: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(turns + 1):
        for name, once in work.items():
            began, spent, done = time.perf_counter(), time.process_time(), 0
            while not done or time.perf_counter() < began + 0.3:
                done += once()
            if turn:
                found[name].append(done / (time.process_time() - spent))
    return found


def recorded(everything: dict[str, dict[str, list[float]]]) -> dict[str, object]:
    """What docs/figures.toml holds: medians, by network and engine."""
    rows = {name: {k: round(statistics.median(v), 1) for k, v in found.items()} for name, found in everything.items()}
    return {"columns": list(dict.fromkeys(c for row in rows.values() for c in row)), "networks": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks, NAME or NAME:SIDE; default: the short list")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--record", action="store_true", help="into docs/figures.toml")
    arguments = parser.parse_args()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()
    if cores:
        os.sched_setaffinity(0, {max(cores)})  # before any engine counts them
    torch.set_num_threads(1)
    load, everything, columns = os.getloadavg()[0], {}, dict[str, None]()
    for spec in arguments.names or [row.name for row in NAMED]:
        name, _, side = spec.partition(":")
        with tempfile.TemporaryDirectory() as folder:
            built = backbone.build(name, "random", image_size=int(side or 0))
            found = rates(passes(built, Path(folder)), arguments.turns)
        everything[f"{name}, {built.transform.size} px"] = found
        columns |= dict.fromkeys(found)
        print(name, {k: round(statistics.median(v), 1) for k, v in found.items()}, flush=True)
    print(f"\n{processor()}, one of {len(cores) or thread_count()} cores, torch {torch.__version__}, load {load:.1f}\n")
    print(f"| network | {' | '.join(columns)} |\n| --- | {' | '.join('---' for _ in columns)} |")
    for name, found in everything.items():
        cells = [f"{statistics.median(found[c]):.1f}" if c in found else "" for c in columns]
        print(f"| {name} | {' | '.join(cells)} |")
    if arguments.record:
        command = " ".join(["python benchmarks/speeds.py", *arguments.names, f"--turns {arguments.turns}", "--record"])
        figures.record("engines", command, recorded(everything), loads=[load])
    if arguments.out:
        arguments.out.write_text(json.dumps(everything, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
