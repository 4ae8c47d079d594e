"""Photos from disk to pixels, ahead of whoever needs them: in threads, in order, never more than a few batches in memory."""

from __future__ import annotations

import stat
from pathlib import Path

from frostline.errors import PhotoError
from frostline.photos.decoding import Pixels, Transform, View, prepare, too_large


def raw(path: Path) -> bytes | PhotoError:
    """A photo's file, or why it can't be had: given back, since one bad file stops nothing."""
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


def pixels(path: Path, transform: Transform, view: View | None = None) -> Pixels | PhotoError:
    """A photo as the network sees it, (size, size, 3) uint8, or why it can't be."""
    data = raw(path)
    if isinstance(data, PhotoError):
        return data
    try:
        return prepare(data, transform, view)
    except PhotoError as error:
        return error
