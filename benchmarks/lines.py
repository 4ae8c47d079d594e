"""What a sweep of freeze lines costs beside the same lines trained one by one, and whether both say the same.

    python benchmarks/lines.py [DATA] [--lines auto] [--preset fast] [--repeats 1] [--out lines.json]

In turns: ``frostline sweep --lines``, and ``frostline fit --line`` once for each of its lines. Each side begins with a
cache that holds the published weights alone, and the fits share theirs. Seconds are from start to exit of each process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from frostline.cache.folder import cache_dir
from frostline.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", help="folder of class folders; default: the built-in sample")
    parser.add_argument("--lines", default="auto")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/lines.json"))
    arguments = parser.parse_args()
    subprocess.run([sys.executable, "-m", "frostline", "weights", "mobilenet_v2", "--quiet"], check=True)
    turns = [turn(arguments) for _ in range(arguments.repeats)]
    write_json(arguments.out, turns)
    for row in turns[0]["lines"]:
        print(
            f"line {row['line']:>11}: sweep {100 * row['sweep']:.1f} %, alone {100 * row['alone']:.1f} %, "
            f"{row['seconds']:.0f} s alone"
        )
    together, apart = ([t[side] for t in turns] for side in ("together", "apart"))
    ratio = statistics.median(a / t for a, t in zip(apart, together, strict=True))
    print(f"sweep {statistics.median(together):.0f} s, one by one {statistics.median(apart):.0f} s: {ratio:.1f}x")


def turn(arguments: argparse.Namespace) -> dict[str, Any]:
    data = [arguments.data] if arguments.data else []
    common = [*data, "--preset", arguments.preset, "--quiet", "--overwrite"]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "sweep"
        together = timed(["sweep", *common, "--lines", arguments.lines, "--out", str(out)], Path(folder) / "together")
        swept = json.loads((out / "sweep.json").read_text(encoding="utf-8"))["lines"]
        rows = []
        for point in sorted(swept, key=lambda p: -int(p["freeze_line"])):
            run = Path(folder) / f"line-{point['freeze_line']}"
            what = ["--strategy", "fine-tuned", "--line", point["name"], "--explain", "0"]
            seconds = timed(["fit", *common, *what, "--out", str(run)], Path(folder) / "apart")
            (alone,) = json.loads((run / "study.json").read_text(encoding="utf-8"))["strategies"]
            rows.append(
                {
                    "line": point["name"],
                    "sweep": point["accuracy"],
                    "alone": alone["accuracy"],
                    "seconds": seconds,
                }
            )
    return {"together": together, "apart": sum(row["seconds"] for row in rows), "lines": rows}


def timed(command: list[str], cache: Path) -> float:
    """Seconds of a process of frostline's with this cache, which gets the published weights."""
    if not cache.exists():
        cache.mkdir()
        shutil.copytree(cache_dir() / "weights", cache / "weights")
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "frostline", *command], env=os.environ | {"FROSTLINE_CACHE": str(cache)}, check=True
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
