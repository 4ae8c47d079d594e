"""Photos from disk to pixels. A photo that can't be used is returned as its PhotoError: one bad file stops nothing."""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from frostline.errors import PhotoError
from frostline.photos.decoding import Pixels, Transform, View, prepare, too_large

T = TypeVar("T")


def raw(path: Path) -> bytes | PhotoError:
    """The bytes of a photo's file, or why it can't be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would hang
            return PhotoError("not a regular file")
        if why := too_large(status.st_size):  # before a film of 40 GB fills the memory
            return PhotoError(why)
        return path.read_bytes()
    except FileNotFoundError:
        return PhotoError("no such file")
    except (OSError, ValueError) as error:
        return PhotoError(f"unreadable: {getattr(error, 'strerror', None) or error}")


def decoded(path: Path, decode: Callable[[bytes], T]) -> T | PhotoError:
    """What `decode` makes of a photo's bytes, or why the photo can't be read or decoded."""
    data = raw(path)
    if isinstance(data, PhotoError):
        return data
    try:
        return decode(data)
    except PhotoError as error:
        return error


def pixels(path: Path, transform: Transform, view: View | None = None) -> Pixels | PhotoError:
    """A photo as input of a network, (size, size, 3) uint8 RGB, or why it can't be read or decoded."""
    return decoded(path, lambda data: prepare(data, transform, view))
