"""What every test shares: a cache folder of its own, and the published weights when a source of them can be reached."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from frostline.errors import WeightsError
from frostline.networks import weights
from support.runs import Run, held_out, tangled

# found before the session's cache folder takes its place: a developer's own copies save downloads
_OWN_COPIES = {name: weights.cached_path(spec) for name, spec in weights.KNOWN.items()}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of this session's own, in FROSTLINE_CACHE for child processes too."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("FROSTLINE_CACHE")
    os.environ["FROSTLINE_CACHE"] = str(folder)
    os.environ["FROSTLINE_CHECK_DOCUMENTS"] = "1"  # every document that is written is held against its type first
    yield folder
    if before is None:
        del os.environ["FROSTLINE_CACHE"]
    else:
        os.environ["FROSTLINE_CACHE"] = before


@pytest.fixture(scope="session")
def published(cache: Path) -> Callable[[str], Path]:
    """A network's published weights in the session's cache folder; skips when no source can be reached."""

    def fetched(name: str) -> Path:
        spec = weights.KNOWN[name]
        target = weights.cached_path(spec)
        if not target.exists() and spec.holds(_OWN_COPIES[name]):
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(_OWN_COPIES[name].read_bytes())
        try:
            return weights.fetch(spec)
        except WeightsError as error:
            pytest.skip(f"no source of {name}'s weights can be reached: {error}")

    return fetched


@pytest.fixture(scope="session")
def pretrained(published: Callable[[str], Path]) -> Path:
    """mobilenet_v2's."""
    return published("mobilenet_v2")


@pytest.fixture(scope="session")
def flowers() -> Path:
    """A folder of real photos in five class folders; skips when it isn't beside the repository."""
    folder = Path(__file__).parents[2] / "shared" / "flowers"
    if not folder.is_dir():
        pytest.skip(f"needs the real photos in {folder}, which is not there")
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents any user may enter, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def run(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The study that several modules look at."""
    return tangled(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="session")
def tested(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The one reported on another folder."""
    return held_out(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()
