"""Where the cache folder is, and what it is marked by."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:  # it takes seconds to import: only when it is needed
    pass


SAMPLE_MARKER = ".frostline-sample.json"
"""The file that says that a folder of photos is the built-in sample, and which."""


def cache_dir() -> Path:
    """The folder for everything that can be made or fetched again: ``FROSTLINE_CACHE``, else the user's cache folder."""
    named = os.environ.get("FROSTLINE_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("frostline"))
