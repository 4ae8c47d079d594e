"""The temperature: it undoes a known scaling where many photos say so, and stays near 1 where few do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.stats.calibration import fit_temperature
from frostline.stats.probabilities import softmax


def world(rng: np.random.Generator, photos: int, temperature: float, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, 5) that are calibrated at this temperature, and labels (N,); `strength` makes the classes easy to
    tell.
    """
    labels = rng.integers(0, 5, photos)
    seen = rng.standard_normal((photos, 5))
    seen[np.arange(photos), labels] += strength
    return temperature * strength * seen, labels


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return float(-np.log(softmax(logits, temperature)[np.arange(len(labels)), labels] + 1e-12).mean())


@pytest.mark.parametrize("photos", [20, 40, 90, 200, 700])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_it_is_never_much_worse_than_none(photos: int, temperature: float) -> None:
    """In the mean over draws, at most 0.01 nats worse on photos that were not seen; much better where it can tell."""
    rng = np.random.default_rng([photos, int(10 * temperature)])
    for strength in (2.0, 3.0, 4.5):
        fresh, labels = world(rng, 4000, temperature, strength)
        excess = []
        for _ in range(40):
            fitted = fit_temperature(*world(rng, photos, temperature, strength))
            excess.append(log_loss(fresh, labels, fitted) - log_loss(fresh, labels, 1.0))
        assert np.mean(excess) < 0.01
        if photos >= 200 and temperature == 2.5 and strength == 2.0:
            assert np.mean(excess) < -0.1


def test_a_handful_of_correct_photos_tells_nothing() -> None:
    logits = np.eye(3)[[0, 1, 2, 0]] * 4
    assert fit_temperature(logits, np.array([0, 1, 2, 0])) > 0.6
    assert fit_temperature(np.empty((0, 3)), np.empty(0, np.int64)) == 1.0


@given(st.integers(1, 40), st.floats(0.1, 10), st.integers(0, 2**16))
def test_weights_that_are_all_alike_are_as_none(photos: int, weight: float, seed: int) -> None:
    logits, labels = world(np.random.default_rng(seed), photos, 1.5, 2.0)
    with_weights = fit_temperature(logits, labels, np.full(photos, weight))
    assert with_weights == pytest.approx(fit_temperature(logits, labels), rel=1e-3)
