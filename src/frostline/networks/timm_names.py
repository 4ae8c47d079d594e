"""timm's networks by name, without importing timm: the import takes seconds, and a list of names needs no network.

The names are read from timm's own source files, as installed: each network is a function under ``@register_model``.
What else is known of them stands in ``timm.json`` beside this file, as it was when that was made, with one version of
timm; a network of another version that it lacks has its name alone. ``python -m frostline.networks.timm_names`` makes
it again, in some minutes.
"""

from __future__ import annotations

import importlib.util
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FACTS = Path(__file__).with_name("timm.json")
_REGISTERED = re.compile(r"^@register_model\s*\ndef (\w+)\(", re.MULTILINE)


@dataclass(frozen=True)
class Known:
    """What is known of one network and one set of published weights."""

    name: str
    """As the user writes it: architecture, or architecture.tag."""
    tag: str = ""
    """Which published weights; empty: none are."""
    parameters: int | None = None
    """Without a classifier; None: not counted yet."""
    side: int | None = None
    """Of the square photos it was made for, pixels; None: it takes no square RGB photos, or that is not known."""
    square: bool = True
    """False where it is known to take no square RGB photos."""
    licence: str = ""
    """Of the weights, as timm has it."""
    hub: str = ""
    """A repository on the hub or a URL; empty: nowhere."""


@cache
def names() -> tuple[str, ...]:
    """All that ``timm.list_models()`` lists, sorted. 50 ms."""
    spec = importlib.util.find_spec("timm")
    folders = spec.submodule_search_locations if spec is not None else None
    files = [file for folder in folders or () for file in (Path(folder) / "models").glob("*.py")]
    found = (name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8")))
    return tuple(sorted(found, key=_in_numbers))


def _in_numbers(name: str) -> list[tuple[int, str]]:
    """A key that sorts resnet18 before resnet101, as timm does."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name.lower()) if part]


@cache
def _facts() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FACTS.read_text(encoding="utf-8"))
    return found


def tags(architecture: str) -> list[str]:
    """The published weights of an architecture, timm's default first; empty where none are known."""
    return list(_facts()["networks"].get(architecture, {}).get("tags", {}))


def facts(name: str) -> Known:
    """What is known of ``architecture`` (with timm's default weights) or ``architecture.tag``."""
    architecture, _, tag = name.partition(".")
    known = _facts()["networks"].get(architecture)
    if known is None or (tag and tag not in known["tags"]):
        return Known(name, tag)
    tag = tag or next(iter(known["tags"]), "")
    side, licence, hub = known["tags"].get(tag, (known["side"], "", ""))
    return Known(name, tag, known["parameters"], side, side is not None, licence, hub)


def _made() -> dict[str, Any]:
    """The contents of timm.json, from the timm that is installed."""
    import timm
    import torch
    from timm.models import get_arch_pretrained_cfgs

    networks: dict[str, Any] = {}
    for name in timm.list_models():
        published = {}
        for key, cfg in get_arch_pretrained_cfgs(name).items():
            if where := cfg.hf_hub_id or cfg.url:
                published[key.partition(".")[2]] = (_square(cfg), cfg.license or "", where)
        with torch.device("meta"):
            network = timm.create_model(name, num_classes=0)
        count = sum(p.numel() for p in network.parameters())
        networks[name] = {"parameters": count, "side": _square(timm.get_pretrained_cfg(name)), "tags": published}
    return {"timm": timm.__version__, "networks": networks}


def _square(cfg: Any) -> int | None:
    channels, height, width = cfg.input_size if cfg is not None else (3, 224, 224)
    return int(height) if channels == 3 and height == width else None


if __name__ == "__main__":
    made = _made()
    rows = ",\n".join(f"{json.dumps(name)}: {json.dumps(row)}" for name, row in made["networks"].items())
    FACTS.write_text(f'{{"timm": {json.dumps(made["timm"])}, "networks": {{\n{rows}\n}}}}\n', encoding="utf-8")
