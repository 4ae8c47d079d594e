"""The calibration error: its interval, and the test of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from frostline.documents.strategy import CalibrationFigures
from frostline.stats import calibration
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


def lines() -> Iterator[Line]:
    for photos in (138, 300, 690, 2000):
        for gap in GAPS:
            # the interval spans several shapes, so it is wide; a truth of 0 can only be missed on one side
            yield Line("calibration error", f"{photos} photos, {gap}", calibration_error(photos, gap), 0.90, 1.0)
    for photos, least in ((138, 0.5), (690, 0.9)):
        yield Line("calibrated model called out", f"{photos} photos", called_out(photos, "calibrated"), 0.0, 0.07)
        gap = "overconfident, logits x 2"
        yield Line("miscalibrated model called out", f"{photos} photos, {gap}", called_out(photos, gap), least, 1.0)
