"""The time that a run is told to take before it starts, against the time that it took.

    python benchmarks/told.py [DATA] [--cases mobilenet,vit] [--preset balanced] [--out told.json]

DATA is a folder of class folders; without it the built-in sample is used. Each case begins with an empty cache (but for
published weights), then the same run is begun again with the cache filled. The ViT has random weights from a file.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import frostline
from frostline.cache.folder import cache_dir
from frostline.config import SAMPLE
from frostline.networks import backbone
from frostline.networks.engine import processor
from frostline.parallel import thread_count
from frostline.progress import Progress

NETWORKS = {"mobilenet": "mobilenet_v2", "vit": "vit_tiny_patch16_224"}


class Listener(Progress):
    """Remembers when the cost was told."""

    at = 0.0

    def say(self, text: str) -> None:
        """As ever."""
        if text.startswith("About "):
            self.at = time.perf_counter()
            self.told = text
        print(f"  {text}", file=sys.stderr)


def ratio(data: str, out: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """One study: what was told, and what it took from then on."""
    config = frostline.configure(data, **settings)
    with Path(os.devnull).open("w") as nothing, Listener(stream=nothing) as progress:
        frostline.study(config, out, progress=progress)
    taken = time.perf_counter() - progress.at
    events = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    told = next(event["seconds"] for event in events if event["event"] == "cost")
    return {"line": progress.told, "told": told, "taken": round(taken, 1), "ratio": round(told / taken, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default=SAMPLE)
    parser.add_argument("--cases", default="mobilenet,vit")
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--strategies", default="baseline,frozen,fine-tuned")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    kept = cache_dir() / "weights"
    rows = []
    for case in arguments.cases.split(","):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["FROSTLINE_CACHE"] = folder
            if kept.is_dir():
                shutil.copytree(kept, Path(folder) / "weights")
            settings = {"backbone": NETWORKS[case], "preset": arguments.preset, "strategies": arguments.strategies}
            if case == "vit":
                file = Path(folder) / "random.safetensors"
                torch.manual_seed(0)
                save_file(backbone.architecture(backbone.info(NETWORKS[case])).state_dict(), file)
                settings["weights"] = str(file)
            for cache in ("empty", "filled"):
                load = os.getloadavg()[0]
                row = ratio(arguments.data, Path(folder) / f"run-{cache}", settings)
                rows.append({"network": NETWORKS[case], "cache": cache, "load": round(load, 1), **row})
                print(rows[-1], flush=True)
    print(f"\n{processor()}, {thread_count()} cores, torch {torch.__version__}, preset {arguments.preset}\n")
    print(
        "| network | cache | told, s | taken, s | told / taken | load before |\n| --- | --- | --- | --- | --- | --- |"
    )
    for row in rows:
        cells = [row[key] for key in ("network", "cache", "told", "taken", "ratio", "load")]
        print("| " + " | ".join(map(str, cells)) + " |")
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
