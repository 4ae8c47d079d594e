"""Intervals and tests over photos that are not independent."""

from __future__ import annotations

import numpy as np
import pytest

from frostline.stats import across_seeds, intervals
from frostline.stats.clusters import flipped
from frostline.stats.resampling import photo_counts

Drawn = tuple[np.ndarray, np.ndarray]


def photos(rng: np.random.Generator, groups: int, size: int, accuracy: float, correlation: float) -> Drawn:
    """Which photos (N,) are correct, in groups of an intraclass correlation, and the group of each."""
    a, b = (share * (1 / correlation - 1) for share in (accuracy, 1 - accuracy))
    own = rng.beta(a, b, groups).repeat(size)
    return (rng.random(groups * size) < own).astype(float), np.arange(groups).repeat(size)


def test_clusters_of_one_photo_change_nothing() -> None:
    rng = np.random.default_rng(0)
    a, b, labels = (rng.random(80) < 0.9).astype(float), (rng.random(80) < 0.8).astype(float), np.arange(80) % 4
    alone = rng.permutation(80) * 3
    assert intervals.mean_interval(a, alone) == intervals.mean_interval(a)
    assert intervals.balanced_interval(a, labels, alone) == intervals.balanced_interval(a, labels)
    assert intervals.average_interval(a - b, alone) == intervals.average_interval(a - b)
    assert intervals.compare("a", a, "b", b, alone) == intervals.compare("a", a, "b", b)
    for with_clusters, without in zip(photo_counts(80, 1, clusters=alone), photo_counts(80, 1), strict=True):
        assert np.array_equal(with_clusters, without)
    sums, counts = np.stack([a, b], 1), np.ones((80, 2))
    assert across_seeds.mean_across(sums, counts, 0, alone) == across_seeds.mean_across(sums, counts, 0)


def test_copies_of_photos_tell_nothing_new() -> None:
    """Five copies of each of 40 photos: about the interval of 40 photos, not of 200."""
    correct = np.arange(40) >= 8
    copies, clusters = correct.repeat(5).astype(float), np.arange(40).repeat(5)
    low, high = intervals.mean_interval(copies, clusters)
    once, naive = intervals.mean_interval(correct.astype(float)), intervals.mean_interval(copies)
    assert 0.9 * (once[1] - once[0]) < high - low < 1.3 * (once[1] - once[0])
    assert high - low > 1.8 * (naive[1] - naive[0])


def test_the_interval_over_20_groups_of_30_holds() -> None:
    """Intervals of independent photos hold in 45 % (issue 17)."""
    rng = np.random.default_rng(5)
    held = plain = 0
    for _ in range(200):
        correct, groups = photos(rng, 20, 30, 0.85, 0.3)
        low, high = intervals.mean_interval(correct, groups)
        held += low <= 0.85 <= high
        low, high = intervals.mean_interval(correct)
        plain += low <= 0.85 <= high
    assert plain < 120
    assert 184 <= held <= 199


def test_equal_models_are_seldom_told_apart_over_groups() -> None:
    rng = np.random.default_rng(6)
    told = plain = 0
    for _ in range(200):
        (a, groups), (b, _) = (photos(rng, 40, 15, 0.85, 0.3) for _ in range(2))
        told += intervals.compare("a", a, "b", b, groups).p_value < 0.05
        plain += intervals.compare("a", a, "b", b).p_value < 0.05
    assert plain > 40
    assert told <= 18


def test_sign_flips_of_single_photos_are_mcnemars_test() -> None:
    for only_a, only_b in ((0, 0), (5, 0), (7, 2), (30, 21)):
        sums = np.array([1] * only_a + [-1] * only_b, dtype=np.intp)
        assert flipped(sums) == pytest.approx(intervals.mid_p(only_a, only_b))


def test_a_resample_takes_a_cluster_whole() -> None:
    clusters = np.array([0, 0, 0, 1, 2, 2, 3, 3])
    for counts in photo_counts(8, 0, resamples=100, clusters=clusters):
        assert np.allclose(counts.sum(1), 8)
        assert np.array_equal(counts[:, 0], counts[:, 2])
        assert np.array_equal(counts[:, 4], counts[:, 5])
