"""Names of networks: what is meant by a wrong one, and under which licence a network's weights are. No import of
timm."""

from __future__ import annotations

import difflib

from frostline.errors import ConfigError
from frostline.networks import timm_names
from frostline.networks.short_list import BY_NAME


def licence_of(name: str) -> str:
    """The licence of a network's weights, by timm's name of it; empty where it is not known or there are none."""
    return BY_NAME[name].licence if name in BY_NAME else timm_names.facts(name).licence


def unknown(name: str) -> ConfigError:
    """The error for a name that no network has."""
    return ConfigError(f"unknown backbone '{name}'{hint(name)} ('frostline backbones FIND' lists them)")


def hint(name: str) -> str:
    """Which network was probably meant: a phrase to add to an error, or nothing."""
    close = likely(name)
    return f"; did you mean '{close}'?" if close else ""


def likely(name: str) -> str:
    """The network that somebody who wrote `name` most likely means; empty where none comes close.

    Names that begin like it come first, then those that hold all its parts, then those spelt nearly so. Among several
    the short list comes first, then those with published weights, for photos of 224 x 224, with short names.
    """
    wanted = name.strip().lower().replace("-", "_").replace(" ", "_").rstrip("._")
    known = list(dict.fromkeys([*BY_NAME, "small_cnn", *timm_names.names()]))
    if not wanted or wanted in known:
        return wanted
    parts = wanted.split("_")
    for fits in (
        [n for n in known if n.startswith(wanted)],
        [n for n in known if all(part in n for part in parts)],
    ):
        if fits:
            return min(fits, key=_rank)
    close = difflib.get_close_matches(wanted, known, n=1, cutoff=0.4)
    return close[0] if close else ""


def _rank(name: str) -> tuple[bool, bool, bool, int, str]:
    known = timm_names.facts(name)
    return name not in BY_NAME, not known.hub, known.side != 224, len(name), name
