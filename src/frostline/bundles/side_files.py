"""Files that stand beside a bundle's weights and are named, with their SHA-256, in bundle.json."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frostline.errors import BundleError, one_line


@contextmanager
def checked(path: Path, digest: str) -> Iterator[bytes]:
    """The bytes of a safetensors file, to be taken apart within the block.

    Raises
    ------
    BundleError
        The file is missing, or not what bundle.json says: its SHA-256 is not `digest`, or the block can't read it.
    """
    from safetensors import SafetensorError

    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise BundleError(f"{path} is damaged (its SHA-256 is not the one in bundle.json): copy the bundle again")
        yield data
    except OSError as error:
        raise BundleError(f"can't read {path}: {error.strerror or error}; copy the whole bundle folder") from error
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise BundleError(f"{path} is damaged ({one_line(error)}): copy the bundle again") from error
