"""Photos from disk to pixels, ahead of whoever needs them: in threads, in order, never more than a few batches in memory."""

from __future__ import annotations

import stat
from pathlib import Path

from frostline.errors import PhotoError
from frostline.photos.decoding import MAX_BYTES, Pixels, Transform, View, prepare


def raw(path: Path) -> bytes | PhotoError:
    """A photo's file, or why it can't be had: given back, since one bad file stops nothing."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would hang
            return PhotoError("not a regular file")
        if status.st_size > MAX_BYTES:  # before a film of 40 GB fills the memory
            size = status.st_size / 1024**2
            return PhotoError(f"too large: {size:.0f} MiB, at most {MAX_BYTES // 1024**2} MiB")
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
