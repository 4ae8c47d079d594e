"""What frostline says of unfreezing and of pairs of models: false differences, and the number of photos that would
tell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from frostline.stats import decision, intervals
from simulated.line import Line, Study

CLASSES = 5


def right(rng: np.random.Generator, photos: int, models: int, apart: float, lead: float = 0.0) -> np.ndarray:
    """Which photos (M, N) each of the models gets right: each differs from a common outcome on a share `apart` of the
    photos; the last one is `lead` ahead of the others."""
    common = rng.random(photos) < 0.9
    drawn = np.where(rng.random((models, photos)) < apart, rng.random((models, photos)) < 0.9, common)
    # where the last model was wrong, a few are made right, so that it is ahead by `lead` on average
    drawn[-1] |= rng.random(photos) < lead / 0.1
    return np.asarray(drawn)


def told(rng: np.random.Generator, photos: int, models: int, apart: float, lead: float, unequal: bool) -> bool:
    """Whether unfreezing is said to help or to hurt, in a study of so many models."""
    outcomes = right(rng, photos, models, apart, lead)
    shares = (0.35, 0.25, 0.2, 0.12, 0.08) if unequal else (0.2,) * CLASSES
    labels = rng.choice(CLASSES, photos, p=shares).astype(np.intp)
    found = [
        decision.difference(outcomes[i], outcomes[j], labels, unequal)
        for i in range(models - 1, 0, -1)
        for j in range(i)
    ]
    own = decision.difference(outcomes[-1], outcomes[-2], labels, unequal)
    metric, family = decision.metric_of(unequal), [one.p_value for one in found]
    return decision.unfreezing("a", "b", own, metric, "test photos", family)["helps"] != "unknown"


def false_difference(photos: int, models: int, unequal: bool) -> Study:
    return lambda rng: told(rng, photos, models, 0.1, 0.0, unequal)


def any_beats(photos: int, models: int) -> Study:
    """Equal models, all compared with each other, as `frostline compare` does."""

    def study(rng: np.random.Generator) -> bool:
        outcomes = right(rng, photos, models, 0.1)
        pairs = intervals.compare_all({str(i): own for i, own in enumerate(outcomes)})
        return any(" beats " in pair.verdict for pair in pairs)

    return study


def any_line_below(photos: int) -> Study:
    """Nine equal freeze lines: some line is said to differ from the top, or to be clearly below the best one."""

    def study(rng: np.random.Generator) -> bool:
        chosen, reported = right(rng, photos, 9, 0.06), right(rng, photos, 9, 0.06)
        labels = np.zeros(photos, dtype=np.intp)
        lines = [decision.LineOnValidation(str(i), own, np.ones(photos), trainable=i) for i, own in enumerate(chosen)]
        found = decision.recommended_line(lines, 0)
        apart = {str(i): decision.difference(own, reported[0], labels) for i, own in enumerate(reported) if i}
        rows, about = decision.against_top(found, apart, "accuracy", "test photos", chosen_here=False)
        said = about is not None and about["helps"] != "unknown"
        return said or any(row["p_corrected"] < 0.05 for row in rows)

    return study


def power(apart: float, lead: float) -> Study:
    """Whether a difference is told from as many photos as frostline says would tell it."""
    many = np.random.default_rng(0)
    outcomes = right(many, 400_000, 2, apart, lead)
    scatter, size = float((outcomes[0] != outcomes[1]).mean()), float(outcomes[1].mean() - outcomes[0].mean())
    needed = round(decision.photos_to_tell(scatter, size))
    return lambda rng: told(rng, needed, 2, apart, lead, unequal=False)


def lines() -> Iterator[Line]:
    for photos in (138, 345, 690):
        for models in (2, 3):
            for unequal in (False, True):
                of = f"{models} equal models, {photos} photos, {decision.metric_of(unequal)}"
                yield Line("unfreezing falsely told", of, false_difference(photos, models, unequal), 0.0, 0.05)
    for models in (3, 9):
        yield Line(
            "some of equal models beats another", f"{models} models, 345 photos", any_beats(345, models), 0.0, 0.05
        )
    yield Line("some of equal lines told apart from the top", "9 lines, 345 photos", any_line_below(345), 0.0, 0.05)
    for apart, lead in ((0.1, 0.01), (0.1, 0.03), (0.2, 0.02)):
        of = f"{100 * lead:g} points, models that differ on {100 * apart:g} % of the photos"
        yield Line("difference told from the number of photos that would tell", of, power(apart, lead), 0.76, 0.86)
