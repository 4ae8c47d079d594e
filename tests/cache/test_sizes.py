"""Sizes as people write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostline.cache import sizes
from frostline.errors import ConfigError
from support.cache_folders import listing
from support.commands import call, must


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("123", 123), ("7 B", 7), ("20GB", 20 * 10**9), (" 1.5 gib ", 3 * 2**29), ("0.0000015MB", 1),
        ("2kb", 2000), ("2KiB", 2048), ("3 TB", 3 * 10**12), ("3tib", 3 * 2**40), ("12 MiB", 12 * 2**20),
    ],
)  # fmt: skip
def test_sizes_are_read(text: str, size: int) -> None:
    assert sizes.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "20 G", "-1GB", "1e9", "1,5GB", "20GB!", "2 0GB", "inf", "٣GB", "9" * 5000])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a number and a unit .*, e\.g\. 20GB"):
        sizes.parse_size(text)


@given(
    number=st.integers(0, 10**15),
    unit=st.sampled_from([("", 1), ("B", 1), ("kB", 1000), ("MB", 10**6), ("GiB", 2**30), ("TiB", 2**40)]),
    space=st.sampled_from(["", " ", "  "]),
    case=st.sampled_from([str, str.lower, str.upper]),
)
def test_sizes_come_back(number: int, unit: tuple[str, int], space: str, case: Any) -> None:
    assert sizes.parse_size(case(f"{space}{number}{space}{unit[0]}{space}")) == number * unit[1]


@given(st.integers(0, 10**16))
def test_a_printed_size_is_enough_and_hardly_more(size: int) -> None:
    printed = sizes.parse_size(sizes.readable(size).replace(",", ""))
    assert size <= printed <= size * 1.1


def test_the_limit_of_the_environment(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    assert sizes.limit() is None
    for text, expected in (("", None), ("  ", None), ("2GB", 2 * 10**9)):
        monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", text)
        assert sizes.limit() == expected
        assert listing()["limit"] == expected
    assert "(limit 2.0 GB)" in must("cache").out
    monkeypatch.setenv("FROSTLINE_CACHE_LIMIT", "plenty")
    assert "FROSTLINE_CACHE_LIMIT: size 'plenty': expected a number" in call("cache").error
