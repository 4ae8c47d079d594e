"""The presets' main constants, tried on one half of the flowers that no figure is reported on.

    python benchmarks/halves.py ../shared/flowers runs/halves
    python benchmarks/choose.py runs/halves/choose.csv runs/choose [--seeds 2] [--only frozen,fine-tuned,thawing]
    python benchmarks/choose.py runs/halves/choose.csv runs/choose --table      # of what is there so far

Each cell is a study of one strategy whose recipe differs from `balanced` in what the cell's name says, without the
training on validation photos at its end. The table shows accuracy and log loss on the photos of half A that a study
did not train on (its validation and its test set; all of them choose here, none is reported anywhere), as means over
seeds, and the difference from the cell with today's constants, with its interval over photos and seeds. Training stops
early by the validation set in every cell alike. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import frostline
from frostline import wording
from frostline.config import Config, configure
from frostline.stats import across_seeds, intervals
from frostline.stats.predictions import Prediction, read_predictions

FIRST_SEED = 200


@dataclass(frozen=True)
class Cell:
    """A strategy with constants of its own."""

    strategy: str
    side: int
    line: str = ""
    rate: float = 0.0
    """Learning rate of the head (frozen), or above the line (fine-tuned); 0: as the preset has it."""
    views: int = 0
    upper: str = ""
    """The line above which layers are frozen too."""

    @property
    def kind(self) -> str:
        """Cells of one kind are compared with the same one."""
        return self.strategy if self.strategy in KINDS else "thawing"

    @property
    def name(self) -> str:
        said = [self.strategy, f"{self.side} px", self.line, f"upper line {self.upper}" if self.upper else ""]
        said += [f"{name} {value:g}" for name, value in self.changed.items()]
        return ", ".join(part for part in said if part)

    @property
    def changed(self) -> dict[str, float]:
        rate = "learning rate" if self.strategy == "frozen" else "learning rate above the line"
        return {k: v for k, v in ((rate, self.rate), ("views", self.views)) if v}

    def config(self, data: Path, seed: int) -> Config:
        given = configure(
            data, strategies=[self.strategy], seed=seed, image_size=self.side, explain=0, robustness="0",
            line=self.line or None,
        )  # fmt: skip
        whole = replace(given.strategies[0], line_counts="all")  # as when the cells were named: top-6 is the tutorial's
        recipe = whole.recipe
        if self.rate:
            which = "learning_rate" if self.strategy == "frozen" else "learning_rate_above_line"
            recipe = replace(recipe, **{which: self.rate})
        recipe = replace(recipe, views=self.views or recipe.views)
        upper = self.upper or whole.upper_line
        return replace(given, strategies=(replace(whole, recipe=recipe, upper_line=upper, refit=False),))


CELLS = (
    # `balanced` as it is, then what differs from it most, so that a grid that is stopped early has told something
    Cell("frozen", 288),
    Cell("fine-tuned", 288, "top-6"),
    *(Cell("frozen", 288, rate=rate) for rate in (3e-4, 3e-3)),
    *(Cell("fine-tuned", 288, "top-6", rate=rate) for rate in (1e-4, 1e-3)),
    Cell("frozen", 224),
    Cell("fine-tuned", 288, "top-27"),
    Cell("fine-tuned", 224, "top-6"),
    Cell("frozen", 320),
    Cell("fine-tuned", 288, "top-27", rate=1e-4),
    Cell("fine-tuned", 224, "top-27"),
    Cell("frozen", 256),
    Cell("fine-tuned", 320, "top-27"),
    Cell("fine-tuned", 288, "top-27", rate=1e-3),
    Cell("frozen", 288, views=4),
    # other ways to thaw, against `fine-tuned`
    *(Cell("fine-tuned-norms", 288, "30%", rate=rate) for rate in (3e-3, 1e-3)),
    Cell("fine-tuned-window", 288, "65%", upper="30%"),
    Cell("fine-tuned-norms", 288, "65%", rate=3e-3),
    Cell("fine-tuned-window", 288, "39%", upper="18%"),
    Cell("fine-tuned-norms", 288, "30%", rate=1e-2),
    Cell("fine-tuned-window", 288, "65%", upper="30%", rate=1e-3),
    Cell("fine-tuned-norms", 288, "65%", rate=1e-2),
)
KINDS = ("frozen", "fine-tuned", "thawing")
TODAY = {"frozen": CELLS[0], "fine-tuned": CELLS[1], "thawing": CELLS[1]}
"""With which cell those of a kind are compared."""


@dataclass(frozen=True)
class Answers:
    """What the studies of a cell said of photos that they did not train on."""

    correct: dict[tuple[str, int], bool]
    """By path and seed."""
    log_loss: float

    def accuracy(self) -> float:
        seeds = {seed for _, seed in self.correct}
        return float(np.mean([np.mean([c for (_, s), c in self.correct.items() if s == seed]) for seed in seeds]))


def answers(folder: Path, seeds: list[int]) -> Answers:
    said = [(p, seed) for seed in seeds for p in _held_out(folder / f"seed-{seed}")]
    losses = [-math.log(max(p.probabilities[p.true], 1e-6)) for p, _ in said]
    return Answers({(p.path, seed): p.correct for p, seed in said}, float(np.mean(losses)))


def _held_out(run: Path) -> Iterator[Prediction]:
    (strategy,) = (path.parent for path in run.glob("*/predictions.csv"))
    for name in ("predictions.csv", "validation.csv"):
        yield from read_predictions(strategy / name)


def compared(ours: Answers, usual: Answers, seeds: list[int]) -> tuple[float, tuple[float, float], float]:
    """The difference in accuracy from `usual`, its 95 % CI, and p: over photos and seeds, or photos of one seed."""
    paths = sorted({path for path, _ in usual.correct})
    counts = np.array([[float((path, s) in usual.correct) for s in seeds] for path in paths])
    mine, theirs = (
        np.array([[float(one.correct.get((path, s), False)) for s in seeds] for path in paths]) for one in (ours, usual)
    )
    if len(seeds) == 1:
        alone = intervals.compare("this", mine[:, 0], "today's", theirs[:, 0])
        return alone.difference, alone.ci, alone.p_value
    found = across_seeds.compare_across("this", mine, "today's", theirs, counts, seed=0)
    return found.mean, found.ci, found.p_value


def table(out: Path, count: int) -> list[str]:
    """Markdown; each kind of strategy in the order of `CELLS`, p corrected for the comparisons of its kind (Holm)."""
    lines = [
        "| constants | seeds | accuracy, % | log loss | against today's, points (95 % CI) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        usual = out / _slug(TODAY[kind])
        today = _seeds(usual, count)
        ended = [(cell, _seeds(out / _slug(cell), count)) for cell in CELLS if cell.kind == kind]
        rows = [(cell, seeds, answers(out / _slug(cell), seeds)) for cell, seeds in ended if seeds]
        beside = {}
        for cell, seeds, ours in rows:
            shared = [seed for seed in seeds if seed in today]
            if cell != TODAY[kind] and shared:
                beside[cell] = compared(ours, answers(usual, shared), shared)
        corrected = dict(zip(beside, intervals.holm([p for _, _, p in beside.values()]), strict=True))
        for cell, seeds, ours in rows:
            said = "today's" if cell == TODAY[kind] else ""
            if cell in beside:
                mean, ci, _ = beside[cell]
                said = f"{wording.points(mean)} ({wording.span(ci)}), {wording.p_value(corrected[cell])}"
            lines.append(f"| {cell.name} | {len(seeds)} | {100 * ours.accuracy():.1f} | {ours.log_loss:.3f} | {said} |")
    return lines


def _seeds(folder: Path, count: int) -> list[int]:
    """Those of which the cell's study has ended."""
    every = range(FIRST_SEED, FIRST_SEED + count)
    return [seed for seed in every if list((folder / f"seed-{seed}").glob("*/predictions.csv"))]


def _slug(cell: Cell) -> str:
    return cell.name.replace(", ", "_").replace(" ", "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="choose.csv of halves.py")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="frozen,fine-tuned", help=f"comma-separated: {', '.join(KINDS)}")
    parser.add_argument("--table", action="store_true", help="run nothing")
    options = parser.parse_args()
    with options.data.open(encoding="utf-8", newline="") as file:
        if "split" in (csv.DictReader(file).fieldnames or ()):
            raise SystemExit(f"{options.data} has a column split: expected choose.csv, where no photo is reported on")
    wanted = () if options.table else options.only.split(",")
    usual = [TODAY[kind] for kind in wanted]
    for cell in (cell for cell in CELLS if cell.kind in wanted or cell in usual):
        folder = options.out / _slug(cell)
        every = range(FIRST_SEED, FIRST_SEED + options.seeds)
        for seed in sorted({*every} - {*_seeds(folder, options.seeds)}):
            frostline.study(cell.config(options.data, seed), folder / f"seed-{seed}", existing="resume")
        print(cell.name, flush=True)
    print("\n".join(table(options.out, options.seeds)))


if __name__ == "__main__":
    main()
