"""The calibration error: its interval, and the test of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from frostline.documents.strategy import CalibrationFigures
from frostline.stats import calibration, clusters
from simulated.line import Line, Study

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


GROUPED = 0.3
"""Intraclass correlation of whether photos of a group are right."""


def asked(rng: np.random.Generator, photos: int, gap: str, size: int = 1) -> CalibrationFigures:
    """What is said of so many photos, in groups of `size`."""
    top = confidences(rng, photos)
    groups = np.arange(photos) // size
    luck = rng.random(photos) if size == 1 else clusters.uniforms(rng, 1, groups, GROUPED, float(top.mean()))[0]
    right = luck < GAPS[gap](top)
    shares = np.repeat(((1 - top) / (CLASSES - 1))[:, None], CLASSES, axis=1)
    shares[:, 0] = top
    return calibration.calibration(shares, np.where(right, 0, 1), int(rng.integers(2**31)), groups)


def calibration_error(photos: int, gap: str, size: int = 1) -> Study:
    many = confidences(np.random.default_rng(0), 400_000)
    truth = float(np.abs(GAPS[gap](many) - many).mean())

    def study(rng: np.random.Generator) -> bool:
        found = asked(rng, photos, gap, size)
        return found["ci"][0] <= truth <= found["ci"][1]

    return study


def called_out(photos: int, gap: str, size: int = 1) -> Study:
    return lambda rng: asked(rng, photos, gap, size)["p_value"] < 0.05


def lines() -> Iterator[Line]:
    for photos in (138, 300, 690, 2000):
        for gap in GAPS:
            # the interval spans several shapes, so it is wide; a truth of 0 can only be missed on one side
            yield Line("calibration error", f"{photos} photos, {gap}", calibration_error(photos, gap), 0.90, 1.0)
    for photos, least in ((138, 0.5), (690, 0.9)):
        yield Line("calibrated model called out", f"{photos} photos", called_out(photos, "calibrated"), 0.0, 0.07)
        gap = "overconfident, logits x 2"
        yield Line("miscalibrated model called out", f"{photos} photos, {gap}", called_out(photos, gap), least, 1.0)
    of = "300 photos in groups of 15"
    for gap in ("calibrated", "overconfident, logits x 2", "5 points too sure"):
        yield Line("calibration error, groups", f"{of}, {gap}", calibration_error(300, gap, 15), 0.90, 1.0)
    yield Line("calibrated model called out, groups", of, called_out(300, "calibrated", 15), 0.0, 0.07)
