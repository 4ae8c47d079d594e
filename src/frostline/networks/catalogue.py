"""What `frostline backbones` lists: the networks to choose from, and what is known of each.

All of it is known without importing PyTorch or timm, which takes seconds. Layers and speed are counted and measured on
demand (`frostline.networks.measure`).
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from frostline.errors import ConfigError
from frostline.networks import naming, timm_names, timm_weights, weights
from frostline.networks.measure import Notes
from frostline.networks.short_list import BY_NAME, Named, side_of
from frostline.progress import Progress
from frostline.recipes import OWN_SIDES

Row = dict[str, Any]


def listing(
    find: str = "", *, speed: bool = False, layers: bool = False, progress: Progress | None = None
) -> list[Row]:
    """The short list, or all networks whose names hold `find`: what `frostline backbones` shows.

    Parameters
    ----------
    speed
        Measure how many photos/s each network takes here, compiled; some seconds each, most of them compilation.
    layers
        Count each network's layers; a second or more each.

    Returns
    -------
    list of dict
        name, home, parameters, photos (sides in pixels), layers (that the line can count), blocks (how many of those
        are whole blocks; see `freeze_line.trace`), weights (where they are at hand), photos_per_second, tag, licence
        (both of the weights), pretrained_on, gmacs, imagenet (top-1, percent, as published), imagenet_side, source,
        transform. None where it is not known: layers and speed until they are counted and measured here, the last six
        for networks that are not in the short list.

    Raises
    ------
    ConfigError
        No network has `find` in its name.
    """
    names = _found(find.strip()) if find.strip() else ["small_cnn", *BY_NAME]
    if not names:
        raise ConfigError(f"no network has '{find}' in its name: give a shorter part, e.g. 'resnet'{naming.hint(find)}")
    notes = Notes()
    if speed or (layers and not all(map(notes.knows, names))):
        _measure(names, notes, speed, layers, progress or Progress(quiet=True))
    return [_row(name, notes) for name in names]


def _measure(names: list[str], notes: Notes, speed: bool, layers: bool, progress: Progress) -> None:
    task = progress.task("Measuring speed" if speed else "Counting layers", len(names))
    for name in names:
        with suppress(ConfigError):  # can't be built in the size that it says
            if layers:
                notes.count(name)
            if speed:
                notes.measure(name, _side(name), progress)
        task.advance(1)


def _found(find: str) -> list[str]:
    """Names that hold `find`, the short list's first; and weights by their full names where only those hold it."""
    own = [name for name in ("small_cnn", *BY_NAME) if find in name]
    rest = []
    for name in timm_names.names():
        if find in name:
            rest.append(name)
        else:
            rest += [f"{name}.{tag}" for tag in timm_names.tags(name) if find in f"{name}.{tag}"]
    return own + [name for name in rest if name not in own and timm_names.facts(name).square]


def _row(name: str, notes: Notes) -> Row:
    named, counted = BY_NAME.get(name), notes.size(name)
    known, side = timm_names.facts(name), _side(name)
    return {
        "name": name,
        "home": "frostline" if name == "small_cnn" else "torchvision" if name == "mobilenet_v2" else "timm",
        "parameters": named.parameters if named else counted.get("parameters", known.parameters),
        "photos": f"{side} x {side}" if side else None,
        "layers": counted.get("layers"),
        "blocks": counted.get("blocks"),
        "weights": at_hand(name),
        "photos_per_second": notes.speed(name, side),
        "tag": (named.tag if named else known.tag) or None,
        "licence": (named.licence if named else known.licence) or None,
        **_published(named),
    }


def _published(named: Named | None) -> Row:
    return {
        "pretrained_on": named and named.pretrained_on,
        "gmacs": named and named.gmacs,
        "imagenet": named and named.imagenet,
        "imagenet_side": named and named.imagenet_side,
        "source": (named and named.source) or None,
        "transform": named and named.transform.to_dict(),
    }


def _side(name: str) -> int:
    """Side of a network's photos, pixels; 0 where it is not known."""
    return OWN_SIDES.get(name) or side_of(name) or timm_names.facts(name).side or 0


def at_hand(name: str) -> str:
    """Where a network's weights would come from now."""
    if name == "small_cnn":
        return "none (from scratch)"
    if name in weights.KNOWN:
        return "in the cache" if weights.status(weights.KNOWN[name])["cached"] == "yes" else "package index"
    hub = timm_names.facts(name).hub
    if not hub:
        return "none"
    return "in the cache" if timm_weights.is_here(name, hub) else "timm's hub"
