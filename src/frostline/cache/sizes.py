"""Sizes as people write them, and the limit of the cache folder."""

from __future__ import annotations

import os
import re
from fractions import Fraction

from frostline.errors import ConfigError

LIMIT_VARIABLE = "FROSTLINE_CACHE_LIMIT"

_FACTORS = {"": 1, "b": 1}
_FACTORS |= {f"{prefix}b": 1000**n for n, prefix in enumerate("kmgt", 1)}
_FACTORS |= {f"{prefix}ib": 1024**n for n, prefix in enumerate("kmgt", 1)}
_SIZE = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Bytes of a size as people write it: "20GB", "1.5 TiB", "800 mb" or "1000000".

    kB, MB, GB and TB are powers of 1000; KiB, MiB, GiB and TiB of 1024. Parts of a byte are dropped.

    Raises
    ------
    ConfigError
        Anything else.
    """
    found = _SIZE.fullmatch(text)
    factor = _FACTORS.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ConfigError(
            f"size {text!r}: expected a number and a unit (kB, MB, GB, TB, KiB, MiB, GiB, TiB), e.g. 20GB"
        )
    return int(Fraction(found[1]) * factor)


def limit() -> int | None:
    """The limit that FROSTLINE_CACHE_LIMIT sets, bytes; None: there is none.

    Raises
    ------
    ConfigError
        It holds something else than a size.
    """
    text = os.environ.get(LIMIT_VARIABLE, "").strip()
    try:
        return parse_size(text) if text else None
    except ConfigError as error:
        raise ConfigError(f"{LIMIT_VARIABLE}: {error}") from error


def readable(size: int) -> str:
    """2500000 -> "2.5 MB", in powers of 1000. Rounded up: a limit set to it is large enough."""
    if size < 1000:
        return f"{size} B"
    power = next((p for p in (1, 2, 3) if size <= 999.9 * 1000**p), 4)
    tenths = -(-size * 10 // 1000**power)
    return f"{tenths // 10:,}.{tenths % 10} {'kMGT'[power - 1]}B"
