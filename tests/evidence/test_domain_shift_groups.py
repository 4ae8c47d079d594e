"""A shift between sets of groups: groups are permuted whole."""

from __future__ import annotations

import numpy as np

from frostline.evidence import domain_shift


def test_other_groups_of_one_kind_are_no_shift() -> None:
    """Photo by photo any two sets of groups differ."""
    rng = np.random.default_rng(0)
    told = plain = 0
    for trial in range(20):
        groups = np.arange(30).repeat(10)
        rows = rng.normal(size=(300, 8)) + rng.normal(size=(30, 8))[groups]
        labels = [("daisy", "rose")[group % 2] for group in groups]
        sides = rows[:200], labels[:200], rows[200:], labels[200:]
        told += domain_shift.difference(*sides, trial, groups)[1] < domain_shift.LEVEL
        plain += domain_shift.difference(*sides, trial)[1] < domain_shift.LEVEL
    assert told <= 1
    assert plain == 20


def test_another_kind_of_groups_is_a_shift() -> None:
    rng = np.random.default_rng(1)
    groups = np.arange(40).repeat(10)
    rows = rng.normal(size=(400, 8)) + rng.normal(size=(40, 8))[groups]
    rows[200:] += 1.5
    labels = ["rose"] * 200
    assert domain_shift.difference(rows[:200], labels, rows[200:], labels, 0, groups)[1] < domain_shift.LEVEL
