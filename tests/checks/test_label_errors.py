"""Label errors: planted ones are found in features; odd sets of photos make nothing fail; what folds promise holds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.checks import label_errors
from frostline.checks.label_errors import FOLDS, LEAST, Floats, Indices


def clusters(each: int, classes: int, seed: int = 0, apart: float = 3.0) -> tuple[Floats, Indices]:
    """Features (N, 20) of photos around a centre for each class, and their labels (N,)."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    features = rng.normal(size=(classes, 20))[labels] * apart + rng.normal(size=(len(labels), 20))
    return features.astype(np.float32), labels


@st.composite
def photos(draw: st.DrawFn) -> tuple[Floats, Indices, Indices]:
    """Features, labels (-1: none) and groups of a few photos; one class and one group are among the cases."""
    count = draw(st.integers(1, 40))
    labels = draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count))
    groups = draw(st.lists(st.integers(0, count), min_size=count, max_size=count))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    features = rng.normal(size=(count, 4)) + 2 * np.array(labels)[:, None]
    return features.astype(np.float32), np.array(labels, np.int64), np.array(groups, np.int64)


@settings(deadline=None, max_examples=60)
@given(photos(), st.integers(0, 2))
def test_any_set_of_photos_is_judged(case: tuple[Floats, Indices, Indices], repeats: int) -> None:
    features, labels, groups = case
    found = label_errors.judge(features, labels, groups, repeats=repeats)
    np.testing.assert_allclose(found.probabilities.sum(1), 1, rtol=1e-4)
    assert ((found.confidence >= 0) & (found.confidence <= 1)).all()
    counts = np.array([len(np.unique(groups[labels == label])) for label in range(4)])
    assert not found.judged[labels < 0].any()
    assert not found.judged[counts[labels] < LEAST].any()
    assert not found.confidence[~found.judged].any()
    assert (found.suggested != labels)[found.judged].all()


@pytest.mark.parametrize("repeats", [0, 1, 2])
def test_planted_label_errors_are_found(repeats: int) -> None:
    features, labels = clusters(60, 3)
    planted = np.arange(0, len(labels), 30)
    true = labels[planted].copy()
    labels[planted] = (true + 1) % 3
    found = label_errors.judge(features, labels, np.arange(len(labels)), repeats=repeats)
    assert (found.confidence[planted] > 0.9).all()
    assert (found.suggested[planted] == true).all()
    assert np.delete(found.confidence, planted).max() < 0.5


def test_a_copy_of_a_photo_does_not_vouch_for_its_label() -> None:
    """Without groups, the copies of mislabelled photos would be trained on, and would confirm the label."""
    features, labels = clusters(30, 2, apart=1.0)
    copies, wrong = np.repeat(features[:1], 40, axis=0), np.ones(40, np.int64)
    features, labels = np.concatenate([features, copies]), np.concatenate([labels, wrong])
    own = np.arange(len(labels))
    together = np.where(own >= 60, 0, own)
    alone, grouped = (label_errors.judge(features, labels, groups).confidence[-40:] for groups in (own, together))
    assert alone.max() < 0.5 < grouped.min()


def test_a_photo_without_a_label_is_predicted() -> None:
    features, labels = clusters(40, 3)
    asked = np.array([0, 50, 100])
    expected = labels[asked].copy()
    labels[asked] = -1
    found = label_errors.judge(features, labels, np.arange(len(labels)))
    assert (found.probabilities[asked].argmax(1) == expected).all()
    assert not found.judged[asked].any()


def test_the_same_seed_gives_the_same_judgement() -> None:
    features, labels = clusters(20, 4, apart=0.5)
    one, same = (label_errors.judge(features, labels, np.arange(len(labels)), seed=3) for _ in range(2))
    other = label_errors.judge(features, labels, np.arange(len(labels)), seed=4)
    assert one.probabilities.tobytes() == same.probabilities.tobytes()
    assert one.probabilities.tobytes() != other.probabilities.tobytes()


@settings(deadline=None, max_examples=60)
@given(photos(), st.integers(0, 999))
def test_folds_keep_groups_whole_and_deal_classes_evenly(case: tuple[Floats, Indices, Indices], seed: int) -> None:
    _, labels, groups = case
    folds = label_errors.deal_folds(labels, groups, np.random.default_rng(seed))
    assert all(len(set(folds[groups == group])) == 1 for group in np.unique(groups))
    assert set(folds.tolist()) <= set(range(FOLDS))
    alone = label_errors.deal_folds(labels, np.arange(len(labels)), np.random.default_rng(seed))
    for label in np.unique(labels):
        counts = np.bincount(alone[labels == label], minlength=FOLDS)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("count", [0, 1, 2, 30, 400])
def test_components_keep_distances(count: int) -> None:
    features = np.random.default_rng(0).normal(size=(count, 300)).astype(np.float32)
    features[:, 256:] = 0  # so that no more than 256 components are needed
    small = label_errors.compress(lambda rows: features[list(rows)], count, 0)
    assert small.dtype == np.float32
    assert len(small) == count
    assert small.shape[1] <= 256
    if count > 1:
        wide, narrow = (np.linalg.norm(x - x[0], axis=1) for x in (features, small))
        np.testing.assert_allclose(narrow, wide, rtol=1e-3, atol=1e-3)


@settings(max_examples=30)
@given(st.floats(1e-3, 1e3))
def test_each_network_s_features_weigh_alike(scale: float) -> None:
    features = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    lengths = np.linalg.norm(label_errors.unit(scale * features), axis=1)
    np.testing.assert_allclose(lengths, 8, rtol=1e-3)


def test_a_photo_unlike_all_others_is_strange_and_its_copies_do_not_hide_it() -> None:
    features, _ = clusters(60, 2)
    features[:3] = features[0] + 40
    groups = np.arange(len(features))
    groups[:3] = 0
    strange = label_errors.strangeness(features, groups)
    assert strange[:3].min() > 5
    assert np.sort(strange)[-4] < 4
    assert not label_errors.strangeness(features[:15], groups[:15]).any()


@pytest.mark.parametrize("count", [10, 60])
def test_features_that_are_the_same_for_all_photos_are_compressed_in_silence(count: int) -> None:
    """A warning would fail this test: sklearn divides by their variance, which is 0."""
    same = np.ones((count, 40), np.float32)
    rows = label_errors.compress(lambda some: same[list(some)], count, seed=0)
    assert len(rows) == count
    assert np.abs(rows).max() < 1e-5
