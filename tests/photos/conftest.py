"""What tests of packed photos share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from frostline.cache import marks


@pytest.fixture
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Each test unpacks for itself."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("FROSTLINE_CACHE", str(folder))
    with marks.session():
        yield folder
