"""Corruptions: each grows with its severity, is the same each time, and does what its name says."""

from __future__ import annotations

import numpy as np
import pytest

from frostline.evidence import corruptions
from frostline.evidence.corruptions import CORRUPTIONS
from support.photos import picture

PHOTO = np.asarray(picture(3, 160, 160))


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.name)
def test_each_corruption_is_stronger_at_each_severity_and_the_same_each_time(
    corruption: corruptions.Corruption,
) -> None:
    versions = [corruptions.corrupt(PHOTO, corruption, severity, "ab", 0) for severity in range(1, 6)]
    assert all(v.shape == PHOTO.shape and v.dtype == np.uint8 for v in versions)
    changes = [np.abs(v.astype(float) - PHOTO).mean() for v in versions]
    assert changes[0] > 0
    assert changes[4] > 1.2 * changes[0]
    if corruption.name not in ("rotation", "scale"):  # a quarter turn may be nearer than an eighth
        assert changes == sorted(changes)
    again = corruptions.corrupt(PHOTO.copy(), corruption, 3, "ab", 0)
    assert np.array_equal(again, versions[2])


def test_each_photo_has_a_random_generator_of_its_own() -> None:
    hidden = next(c for c in CORRUPTIONS if c.name == "occlusion")
    one, other, reseeded = (corruptions.corrupt(PHOTO, hidden, 2, *key) for key in (("a", 0), ("b", 0), ("a", 1)))
    assert not np.array_equal(one, other)
    assert not np.array_equal(one, reseeded)


def test_what_the_corruptions_do() -> None:
    def done(name: str, photo: np.ndarray = PHOTO) -> np.ndarray:
        return corruptions.corrupt(photo, next(c for c in CORRUPTIONS if c.name == name), 5, "ab", 0).astype(float)

    assert done("dark").mean() < 0.2 * PHOTO.mean()
    assert done("contrast").std() < 0.2 * PHOTO.std()
    assert abs(np.diff(done("colour-cast").mean((0, 1))[[0, 2]])[0]) > 50
    dot = np.zeros((65, 65, 3), np.uint8)
    dot[32, 32] = 255
    for name, width in (("defocus", 5), ("motion", 9)):  # a disc, a line; both keep the light
        blurred = done(name, dot)[..., 0]
        assert blurred.sum() == pytest.approx(255, rel=0.2)
        down, across = np.nonzero(blurred)
        assert max(np.ptp(down), np.ptp(across)) >= width - 1
    assert (done("occlusion") == 127).all(2).mean() == pytest.approx(0.48, abs=0.03)
