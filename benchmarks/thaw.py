"""Other ways to thaw against `fine-tuned`, over seeds, on photos that had no say in their constants.

    python benchmarks/halves.py ../shared/flowers runs/halves
    python benchmarks/thaw.py runs/thaw --flowers runs/halves/report.csv --insects ../shared/insects --seeds 3
    python benchmarks/thaw.py runs/thaw --table                  # run nothing: the table of what is there so far

Each set of photos is an ordinary study over several seeds, with the preset `balanced` and MobileNetV2, but without the
training on validation photos at its end, which doubles the time and is the same for all. The table shows
each strategy's mean accuracy and seconds of training, and the paired difference from `fine-tuned` with its interval
over photos and seeds. p is corrected for all differences in the table (Holm). The same command goes on where it was
stopped, also with more seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from frostline import documents, wording
from frostline.config import configure
from frostline.documents import Seeds, Study
from frostline.documents.seeds import SeedsComparison
from frostline.errors import RunError
from frostline.stats import intervals
from frostline.studies import seeds

USUAL = "fine-tuned"
STRATEGIES = (USUAL, "fine-tuned-window", "fine-tuned-norms")


def measure(data: str, out: Path, count: int) -> None:
    """The first `count` seeds, or those that are missing."""
    given = configure(data, strategies=STRATEGIES, backbone="mobilenet_v2", explain=0, robustness="0")
    config = replace(given, strategies=tuple(replace(s, refit=False) for s in given.strategies))
    seeds.several(config, out, count, existing="resume", quiet=True)


def table(out: Path) -> list[str]:
    """Markdown: the sets of photos in alphabetical order."""
    lines = [
        "| photos | strategy | trained | accuracy, % (by seed) | training, s | against fine-tuned, points (95 % CI) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    found = {file.parent.name: documents.read(file.parent, Seeds) for file in sorted(out.glob("*/seeds.json"))}
    pairs = {(name, way): pair for name, document in found.items() for way, pair in _against(document)}
    corrected = dict(zip(pairs, intervals.holm([pair["p_value"] for pair in pairs.values()]), strict=True))
    for name, document in found.items():
        for row in document["strategies"]:
            said, key = "", (name, row["name"])
            if key in pairs:
                sign = 1 if pairs[key]["a"] == row["name"] else -1
                ends = sorted(sign * end for end in pairs[key]["ci"])
                difference = f"{wording.points(sign * pairs[key]['mean'])} ({wording.span(ends)})"
                said = f"{difference}, {wording.p_value(corrected[key])}"
            accuracies = f"{100 * row['mean']:.1f} ({', '.join(f'{100 * one:.1f}' for one in row['seeds'])})"
            trained, spent = wording.count(row["parameters"]["trainable"]), _seconds(out / name, document, row["name"])
            lines.append(f"| {name} | {row['name']} | {trained} | {accuracies} | {spent:.0f} | {said} |")
    return lines


def _against(document: Seeds) -> Iterator[tuple[str, SeedsComparison]]:
    """Each other strategy against the usual one."""
    for pair in document["comparisons"]:
        names = {pair["a"], pair["b"]}
        if USUAL in names:
            (way,) = names - {USUAL}
            yield way, pair


def _seconds(out: Path, document: Seeds, strategy: str) -> float:
    """Mean seconds of training."""
    runs = [documents.read(out / run["folder"], Study) for run in document["runs"]]
    return float(np.mean([s["seconds"]["train"] for run in runs for s in run["strategies"] if s["name"] == strategy]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--flowers", default="", help="report.csv of halves.py")
    parser.add_argument("--insects", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    for name in () if options.table else ("insects", "flowers"):
        if data := getattr(options, name):
            (options.out / name).mkdir(parents=True, exist_ok=True)
            measure(data, options.out / name, options.seeds)
            print(f"{name}: ended", flush=True)
    try:
        print("\n".join(table(options.out)))
    except (KeyError, RunError) as error:
        raise SystemExit(f"no table yet: {error}") from error


if __name__ == "__main__":
    main()
