"""What the rule that chooses the model to ship costs, beside other rules: accuracy lost to the best model, in points.

    python benchmarks/decision.py                    # 400 simulated runs a cell, a minute or two
    python benchmarks/decision.py --runs 100         # a look

Each run draws models whose true accuracies lie 0 to 3 points apart (rising with what is unfrozen, falling, highest in
the middle) and validation photos on which they are right or wrong, together more often than not. A rule chooses one of
them by those photos; its regret is the best model's true accuracy minus the chosen one's. `frostline` is the product's
own function, `frostline.stats.decision.highest`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

import numpy as np
from scipy.stats import norm

from frostline.stats import decision

PHOTOS = (50, 90, 200, 500, 700)
GAPS = (0.0, 0.5, 1.0, 2.0, 3.0)
FOUND_IN_COMMON = 0.8  # correlation of two models' margins on a photo
LEAST = 0.91

Right = np.ndarray
Rule = Callable[[Right], int]
"""Chooses one of M models from which photos (N, M) each got right; the first trains the fewest parameters."""


def frostline(right: Right) -> int:
    models = right.shape[1]
    return decision.highest(right.mean(0), list(range(models)), lines=models > 3)


def highest(right: Right) -> int:
    return int(right.mean(0).argmax())


def within(errors: float) -> Rule:
    """The first model that is not so many standard errors of the paired difference below the highest."""

    def rule(right: Right) -> int:
        behind = right - right[:, [highest(right)]].astype(float)
        return int((behind.mean(0) >= -errors * behind.std(0, ddof=1) / np.sqrt(len(right)) - 1e-12).argmax())

    return rule


def shrunk(right: Right) -> int:
    """The highest after shrinking each difference from the first model towards 0 by its own noise (1 point is
    usual)."""
    apart = right - right[:, :1].astype(float)
    noise = apart.var(0, ddof=1) / len(right)
    return int((apart.mean(0) * 0.01**2 / (0.01**2 + noise)).argmax())


RULES: dict[str, Rule] = {
    "frostline": frostline,
    "highest": highest,
    "shrunk means": shrunk,
    "one standard error": within(1.0),
    "95 % CI": within(1.96),
    "always frozen": lambda _: 0,
    "always deepest": lambda right: right.shape[1] - 1,
}


def truths(models: int) -> Iterator[np.ndarray]:
    """True accuracies (M,) of the models, in every shape and gap."""
    place = np.linspace(0, 1, models)
    shapes = {"rising": place, "falling": 1 - place, "peak": 1 - np.abs(2 * place - 1)}
    for name, shape in shapes.items():
        for gap in GAPS:
            if models > 2 or name != "peak":
                yield LEAST + gap / 100 * shape


def regrets(models: int, photos: int, runs: int) -> dict[str, list[float]]:
    """By rule: mean regret in points at each truth."""
    rng = np.random.default_rng([models, photos])
    found: dict[str, list[float]] = {rule: [] for rule in RULES}
    for truth in truths(models):
        common = rng.standard_normal((runs, photos, 1))
        own = rng.standard_normal((runs, photos, models))
        right = np.sqrt(FOUND_IN_COMMON) * common + np.sqrt(1 - FOUND_IN_COMMON) * own < norm.ppf(truth)
        for name, rule in RULES.items():
            found[name].append(100 * float(np.mean([truth.max() - truth[rule(run)] for run in right])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=400, help="simulated runs a cell")
    options = parser.parse_args()
    print(f"| models | validation photos | {' | '.join(RULES)} |")
    print(f"| --- | --- | {' | '.join('---' for _ in RULES)} |")
    for models in (2, 3, 9):
        for photos in PHOTOS:
            found = regrets(models, photos, options.runs)
            cells = (f"{np.mean(values):.2f} ({max(values):.2f})" for values in found.values())
            print(f"| {models} | {photos} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
