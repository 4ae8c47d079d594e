"""A cache folder of each test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.cache_folders import DAY, NOW, hollow


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test's own."""
    monkeypatch.setenv("FROSTLINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FROSTLINE_CACHE_LIMIT", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def four(cache: Path) -> list[Path]:
    """Stores of 400, 300, 200 and 100 bytes, used 1, 9, 5 and 20 days ago; an engine (50, 7 days); weights (50)."""
    for name in ("weights/own.pth", "engines/e0.onnx"):
        (cache / name).parent.mkdir(parents=True)
        (cache / name).write_bytes(bytes(50))
        os.utime(cache / name, (NOW - 7 * DAY,) * 2)
    return [hollow(cache, n, size, age) for n, (size, age) in enumerate([(400, 1), (300, 9), (200, 5), (100, 20)])]
