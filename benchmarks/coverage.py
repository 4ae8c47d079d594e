"""Do the 95 % CIs hold the truth 95 times in 100, and do equal models come out equal? Simulated studies whose
truth is known.

    python benchmarks/coverage.py                    # 2,000 simulated studies of each kind, some minutes
    python benchmarks/coverage.py --studies 200      # a look
    python benchmarks/coverage.py --out coverage.md

Every line draws studies (photos right or wrong, confidences and outcomes) from a truth, asks frostline's own functions,
and counts how often the interval held the truth: 93 to 97 % is meant. The truth of an accuracy moves within a narrow
range from study to study, as that of real studies does: at one fixed truth any interval for counts jumps, since there
are only so many counts. For tests it counts how often two equally good models, or a perfectly calibrated one, come out
as different or miscalibrated: 5 % is meant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from frostline.documents.strategy import CalibrationFigures
from frostline.stats import calibration, intervals

Study = Callable[[np.random.Generator], bool]


# ---- accuracy --------------------------------------------------------------------------------------------------------


def accuracy(photos: int, low: float, high: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        truth = rng.uniform(low, high)
        ends = intervals.mean_interval(rng.random(photos) < truth)
        return ends[0] <= truth <= ends[1]

    return study


def macro_recall(photos: tuple[int, ...], recalls: tuple[float, ...]) -> Study:
    labels = np.repeat(np.arange(len(photos)), photos)

    def study(rng: np.random.Generator) -> bool:
        truth = np.clip(np.array(recalls) + rng.uniform(-0.02, 0.02, len(recalls)), 0, 1)
        ends = intervals.balanced_interval((rng.random(len(labels)) < truth[labels]).astype(float), labels)
        return bool(ends[0] <= truth.mean() <= ends[1])

    return study


# ---- two models ------------------------------------------------------------------------------------------------------


def outcomes(rng: np.random.Generator, photos: int, only_a: float, only_b: float) -> tuple[np.ndarray, np.ndarray]:
    """Which photos each of two models gets right, of which these shares are right with one alone; the rest mostly with
    both."""
    kind = rng.random(photos)
    a, b = kind < only_a, (kind >= only_a) & (kind < only_a + only_b)
    both = kind > only_a + only_b + 0.04
    return a | both, b | both


def difference(photos: int, only_a: float, only_b: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        more = rng.uniform(0, 0.01)
        found = intervals.compare("a", (o := outcomes(rng, photos, only_a + more, only_b))[0], "b", o[1])
        return found.ci[0] <= only_a + more - only_b <= found.ci[1]

    return study


def told_apart(photos: int, each: float) -> Study:
    def study(rng: np.random.Generator) -> bool:
        a, b = outcomes(rng, photos, each, each)
        return intervals.compare("a", a, "b", b).p_value < 0.05

    return study


def made_worse(photos: int, drop: float) -> Study:
    """The mean drop over 60 changed versions of each photo; right ones withstand to different degrees."""

    def study(rng: np.random.Generator) -> bool:
        right = rng.random(photos) < 0.93
        kept = np.where(right, rng.beta(4 * (1 - drop), 4 * drop, photos), 0.2)
        ends = intervals.average_interval(right - rng.binomial(60, kept) / 60)
        return bool(ends[0] <= 0.93 * drop - 0.07 * 0.2 <= ends[1])

    return study


# ---- calibration -----------------------------------------------------------------------------------------------------

CLASSES = 5


def confidences(rng: np.random.Generator, photos: int) -> np.ndarray:
    """As a good model of five classes has them: most near 1."""
    return np.maximum(1 / (1 + np.exp(-rng.normal(2.6, 1.6, photos))), 1.05 / CLASSES)


GAPS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "calibrated": lambda c: c,
    "overconfident, logits x 1.3": lambda c: 1 / (1 + (1 / c - 1) ** (1 / 1.3)),
    "overconfident, logits x 2": lambda c: 1 / (1 + (1 / c - 1) ** 0.5),
    "underconfident, logits / 1.5": lambda c: 1 / (1 + (1 / c - 1) ** 1.5),
    "5 points too sure": lambda c: np.clip(c - 0.05, 0, 1),
    "the surest alone, 6 points too sure": lambda c: np.where(c > 0.97, c - 0.06, c),
    "the middle alone, 10 points too sure": lambda c: np.where((c > 0.6) & (c < 0.95), c - 0.1, c),
    "8 % wrong labels": lambda c: 0.92 * c + 0.004,
    "too sure and not sure enough": lambda c: np.clip(c + 0.08 * np.sin(2 * np.pi * (c - 0.2) / 0.8), 0, 1),
}


def asked(rng: np.random.Generator, photos: int, gap: str) -> CalibrationFigures:
    top = confidences(rng, photos)
    right = rng.random(photos) < GAPS[gap](top)
    shares = np.repeat(((1 - top) / (CLASSES - 1))[:, None], CLASSES, axis=1)
    shares[:, 0] = top
    return calibration.calibration(shares, np.where(right, 0, 1), int(rng.integers(2**31)))


def calibration_error(photos: int, gap: str) -> Study:
    many = confidences(np.random.default_rng(0), 400_000)
    truth = float(np.abs(GAPS[gap](many) - many).mean())

    def study(rng: np.random.Generator) -> bool:
        found = asked(rng, photos, gap)
        return found["ci"][0] <= truth <= found["ci"][1]

    return study


def called_out(photos: int, gap: str) -> Study:
    return lambda rng: asked(rng, photos, gap)["p_value"] < 0.05


# ---- the table -------------------------------------------------------------------------------------------------------


Line = tuple[str, str, Study, float, float]
"""What, of what, a study, and the least and most that is meant."""


def interval_lines() -> Iterator[Line]:
    for photos in (60, 138, 300, 690, 2000):
        for low, high in ((0.65, 0.75), (0.88, 0.92), (0.94, 0.96), (0.985, 0.995)):
            yield "accuracy", f"{photos} photos, {low} to {high}", accuracy(photos, low, high), 0.93, 0.97
    for counts, recalls in (
        ((138,) * 5, (0.95, 0.96, 0.85, 0.95, 0.88)), ((20, 20, 20), (0.9, 0.8, 0.7)),
        ((50,) * 5, (0.97, 0.96, 0.95, 0.97, 0.96)),
        ((100, 60, 30, 20), (0.93, 0.9, 0.8, 0.7)), ((12,) * 10, (0.9,) * 10), ((200, 20), (0.95, 0.85)),
    ):  # fmt: skip
        of = f"{len(counts)} classes of {', '.join(map(str, dict.fromkeys(counts)))} photos"
        yield "macro recall", of, macro_recall(counts, recalls), 0.93, 0.97
    for photos in (138, 300, 690, 2000):
        for a, b in ((0.05, 0.05), (0.04, 0.02), (0.1, 0.1), (0.25, 0.04)):
            yield "paired difference", f"{photos} photos, {a} and {b} alone", difference(photos, a, b), 0.93, 0.97
    for photos in (48, 300):
        for drop in (0.05, 0.2):
            yield "mean drop", f"{photos} photos, {drop}", made_worse(photos, drop), 0.92, 0.97
    for photos in (138, 300, 690, 2000):
        for gap in GAPS:
            # the interval spans several shapes, so it is wide; a truth of 0 can only be missed on one side
            yield "calibration error", f"{photos} photos, {gap}", calibration_error(photos, gap), 0.90, 1.0


def tests() -> Iterator[Line]:
    for photos in (300, 690, 2000):
        for each in (0.02, 0.05, 0.1):
            yield "equal models told apart", f"{photos} photos, {each} alone", told_apart(photos, each), 0.02, 0.06
    for photos, least in ((138, 0.5), (690, 0.9)):
        yield "calibrated model called out", f"{photos} photos", called_out(photos, "calibrated"), 0.0, 0.07
        gap = "overconfident, logits x 2"
        yield "miscalibrated model called out", f"{photos} photos, {gap}", called_out(photos, gap), least, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies a line")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="lines whose name starts so")
    parser.add_argument("--out", default="", help="write the table to this Markdown file")
    options = parser.parse_args()
    rows = ["| what | of what | share | meant | |", "| --- | --- | --- | --- | --- |"]
    off = 0
    print("\n".join(rows))
    for number, (what, of, study, least, most) in enumerate([*interval_lines(), *tests()]):
        if not what.startswith(options.only):
            continue
        rng = np.random.default_rng([options.seed, number])
        share = float(np.mean([study(rng) for _ in range(options.studies)]))
        chance = 2 * np.sqrt(0.05 * 0.95 / options.studies)  # of this simulation
        good = least - chance <= share <= most + chance
        off += not good
        rows.append(
            f"| {what} | {of} | {100 * share:.1f} % | {100 * least:.0f} to {100 * most:.0f} % | "
            f"{'' if good else 'off'} |"
        )
        print(rows[-1], flush=True)
    if options.out:
        Path(options.out).write_text("\n".join(rows) + "\n", encoding="utf-8")
    print(f"{off} of {len(rows) - 2} off")
    sys.exit(1 if off else 0)


if __name__ == "__main__":
    main()
