"""Do the 95 % CIs hold the truth 95 times in 100, and do equal models come out equal? Simulated studies whose
truth is known.

    python benchmarks/coverage.py                    # 2,000 simulated studies of each kind, some minutes
    python benchmarks/coverage.py --studies 200      # a look
    python benchmarks/coverage.py --out docs/coverage.md

Every line draws studies (photos right or wrong, confidences and outcomes) from a truth, asks frostline's own functions,
and counts how often the interval held the truth: 93 to 97 % is meant. The truth of an accuracy moves within a narrow
range from study to study, as that of real studies does: at one fixed truth any interval for counts jumps, since there
are only so many counts. For tests it counts how often two equally good models, or a perfectly calibrated one, come out
as different or miscalibrated: 5 % is meant.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import joblib
import numpy as np
from simulated import calibration, claims, decisions, elsewhere, groups, intervals, labels, null, seeds, thresholds
from simulated.line import Line

FAMILIES = (intervals, groups, calibration, thresholds, labels, seeds, claims, decisions, elsewhere, null)


def share(line: Line, studies: int, seed: int) -> float:
    """Of so many simulated studies; the same for a line whichever others are counted beside it."""
    rng = np.random.default_rng([seed, *f"{line.what}, {line.of}".encode()])
    return float(np.mean([line.study(rng) for _ in range(studies)]))


def row(line: Line, found: float, studies: int) -> tuple[str, bool]:
    """A row of the table, and whether the share is as meant."""
    chance = 2 * np.sqrt(0.05 * 0.95 / studies)  # of this simulation
    good = line.least - chance <= found <= line.most + chance
    meant = f"{100 * line.least:.0f} to {100 * line.most:.0f} %"
    return f"| {line.what} | {line.of} | {100 * found:.1f} % | {meant} | {'' if good else 'off'} |", good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="lines whose name starts so")
    parser.add_argument("--jobs", type=int, default=-1, help="processes (default: one a core)")
    parser.add_argument("--out", default="", help="write the table to this Markdown file")
    options = parser.parse_args()
    lines = [line for family in FAMILIES for line in family.lines() if line.what.startswith(options.only)]
    rows, off = ["| what | of what | share | meant | |", "| --- | --- | --- | --- | --- |"], 0
    print("\n".join(rows))
    work = (joblib.delayed(share)(line, options.studies, options.seed) for line in lines)
    for line, found in zip(lines, joblib.Parallel(n_jobs=options.jobs, return_as="generator")(work), strict=True):
        text, good = row(line, found, options.studies)
        rows.append(text)
        off += not good
        print(text, flush=True)
    if options.out:
        Path(options.out).write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{off} of {len(lines)} off")
    sys.exit(1 if off else 0)


if __name__ == "__main__":
    main()
