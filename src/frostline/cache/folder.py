"""Where the cache folder is, and what marks the built-in sample in it."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

SAMPLE_MARKER = ".frostline-sample.json"
"""The file that says that a folder of photos is the built-in sample, and which."""


def cache_dir() -> Path:
    """The folder for what can be made or fetched again: ``FROSTLINE_CACHE``, else one in the user's cache folder."""
    named = os.environ.get("FROSTLINE_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("frostline"))
