"""Shortcuts: each trait that gives a class away is named, the simplest one alone, and none where there is none."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostline.checks import shortcuts
from frostline.checks.photo_quality import COLUMNS, FORMATS
from frostline.checks.shortcuts import LEAST, Table

Change = Callable[[Table, np.random.Generator], None]


def measures(count: int, seed: int = 0) -> Table:
    """(count, len(COLUMNS)): measures of photos that have nothing in common."""
    rng = np.random.default_rng(seed)
    table = rng.uniform(30, 220, (count, len(COLUMNS)))
    table[:, COLUMNS.index("width")] = rng.integers(200, 900, count)
    table[:, COLUMNS.index("height")] = rng.integers(200, 900, count)
    table[:, COLUMNS.index("format")] = rng.integers(0, 3, count)
    table[:, COLUMNS.index("camera")] = rng.integers(0, 4, count)
    return table.astype(np.float32)


def put(**values: float) -> Change:
    def change(rows: Table, _: np.random.Generator) -> None:
        for name, value in values.items():
            rows[:, COLUMNS.index(name)] = value

    return change


def square(rows: Table, _: np.random.Generator) -> None:
    rows[:, COLUMNS.index("width")] = rows[:, COLUMNS.index("height")]


def dim(rows: Table, rng: np.random.Generator) -> None:
    for name in ("brightness", "low", "high"):
        rows[:, COLUMNS.index(name)] = rng.uniform(1, 20, len(rows))


def compressed(rows: Table, _: np.random.Generator) -> None:
    of = {name: rows[:, COLUMNS.index(name)] for name in ("width", "height", "size")}
    of["size"][:] = of["width"] * of["height"] * 1e-5


def blue(rows: Table, rng: np.random.Generator) -> None:
    for name, low in (("red", 1), ("green", 1), ("blue", 230)):
        rows[:, COLUMNS.index(name)] = rng.uniform(low, low + 20, len(rows))


TRAITS: dict[str, tuple[Change, str]] = {
    "size": (put(width=640, height=480), "640 x 480 in 100 % of them"),
    "shape": (square, ""),
    "format": (put(format=FORMATS.index("TIFF")), "TIFF in 100 % of them"),
    "camera": (put(camera=7), ""),
    "compression": (compressed, ""),
    "border": (put(ring=0, red=250, green=250, blue=250), "about rgb(250, 250, 250)"),
    "background": (blue, "about rgb("),
    "light": (dim, ""),
}


@pytest.mark.parametrize("trait", TRAITS)
def test_each_trait_is_named(trait: str) -> None:
    change, typical = TRAITS[trait]
    table, labels = measures(150), np.arange(150) % 3
    rows = table[labels == 1]
    change(rows, np.random.default_rng(1))
    table[labels == 1] = rows
    found = [s for s in shortcuts.find(table, labels, np.arange(150)) if s.index == 1]
    assert [s.trait for s in found] == [trait]
    assert found[0].accuracy > 0.9
    assert found[0].low < found[0].accuracy
    assert found[0].typical.startswith(typical)


@pytest.mark.parametrize("seed", range(5))
def test_photos_that_have_nothing_in_common_have_no_shortcut(seed: int) -> None:
    assert shortcuts.find(measures(200, seed), np.arange(200) % 4, np.arange(200)) == []


def test_few_photos_prove_nothing() -> None:
    table = measures(2 * LEAST - 2)
    labels = np.arange(len(table)) % 2
    table[labels == 1, COLUMNS.index("ring")] = 0
    assert shortcuts.find(table, labels, np.arange(len(table))) == []


def test_a_burst_of_one_photo_is_no_shortcut() -> None:
    """All photos of a class are one group: none is predicted by the others of its group, so nothing is reported."""
    table, labels = measures(60), np.arange(60) % 2
    table[labels == 1] = table[1]
    groups = np.where(labels == 1, 1, np.arange(60) + 100)
    assert [s for s in shortcuts.find(table, labels, groups) if s.index == 1] == []


@settings(deadline=None, max_examples=30)
@given(
    st.integers(1, 60).flatmap(
        lambda n: st.tuples(*[st.lists(st.integers(0, 3), min_size=n, max_size=n) for _ in range(2)])
    ),
    st.integers(0, 99),
)
def test_any_table_is_taken(case: tuple[list[int], list[int]], seed: int) -> None:
    labels, groups = (np.array(column, np.int64) for column in case)
    found = shortcuts.find(measures(len(labels), seed), labels, groups)
    assert all(0 <= s.low <= s.accuracy <= 1 and s.index in labels for s in found)
    assert [s.accuracy for s in found] == sorted((s.accuracy for s in found), reverse=True)


def test_photos_of_a_single_group_have_no_shortcut() -> None:
    labels = np.repeat([0, 1], 2 * LEAST)
    assert shortcuts.find(measures(4 * LEAST), labels, np.zeros(4 * LEAST, np.int64)) == []
