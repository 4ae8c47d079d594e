"""Names of files and classes: their order, which are passed over, which can't be used, and how they are shown."""

from __future__ import annotations

from typing import Any

import natsort

_LITTER = {"thumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
_LITTER |= {"readme.md", "readme.txt", "license", "license.txt"}

NaturalKey = tuple[Any, str]
_natural = natsort.natsort_keygen(alg=natsort.ns.IGNORECASE)


def natural(text: str) -> NaturalKey:
    """Sort key: digits by value, letters without regard to case; the text itself decides between equals ("1", "01")."""
    return _natural(text), text


def is_litter(name: str) -> bool:
    """Whether it is hidden, a file manager's, or a note on the data set: such files are passed over in silence."""
    return name.startswith(".") or name.lower() in _LITTER


def unusable(name: str) -> str:
    """Why a name can't be written into the run's CSV and JSON files; "" when it can."""
    if "\r" in name:  # Python's csv module writes it bare and reads it as the end of the line
        return "the name holds a carriage return: rename it"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "the name is not UTF-8: rename it"
    return ""


def printable(text: str) -> str:
    """A path or name for messages, in one line: control characters and bytes that are no UTF-8 as escapes."""
    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half a surrogate pair, as names on Windows may hold: it stands for no byte
        text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
