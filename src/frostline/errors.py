"""Every error that frostline raises on purpose.

FrostlineError            one line: what came, what was expected, how to fix it; the command line exits with 1
├── ConfigError           an option, a configuration file or a combination of them can't be used
├── DataError             the photos as a whole can't be used (no such folder, one class, nothing readable)
├── PhotoError            one photo can't be used; callers list it under "skipped" and go on
├── WeightsError          a backbone's weights could not be had from any source
├── BundleError           a bundle is missing, damaged or of another version
├── RunError              a run folder or the cache folder can't be read or written, or a run can't be resumed
├── HubError              a hub repository can't be reached or written
└── MissingExtraError     an optional dependency is absent; the message holds the exact pip line

Four more never leave the package, and stand where they are raised: SourceError and NoSourceError (cache.download),
NoRoomError (serving.batching) and ApiError (serving.limits).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FrostlineError(Exception):
    """Base of all errors that a user can put right; its text is one line."""


class ConfigError(FrostlineError):
    """An option, a configuration file or a combination of them can't be used."""


class DataError(FrostlineError):
    """The photos as a whole can't be used."""


class PhotoError(FrostlineError):
    """One photo can't be used. Its text is the reason alone, without the path."""


class WeightsError(FrostlineError):
    """A backbone's weights could not be had from any source."""


class BundleError(FrostlineError):
    """A bundle is missing, damaged or of another version."""


class RunError(FrostlineError):
    """A run folder or the cache folder can't be read or written, or a run can't be resumed."""


class HubError(FrostlineError):
    """A hub repository can't be reached or written."""


class MissingExtraError(FrostlineError):
    """An optional dependency is absent."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}, which is not installed: pip install 'frostline[{extra}]'")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: ``"; did you mean 'frozen'? (known: ...)"``. Never used in the name's place."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"{hint} (known: {', '.join(names)})"


def one_line(error: BaseException, most: int = 300) -> str:
    """What another library's error says, in one line of at most so many characters; its kind where it has no text."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= most else f"{text[: most - 1]}…"
