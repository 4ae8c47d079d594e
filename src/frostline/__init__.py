"""frostline: train from scratch, freeze a pretrained network, or fine-tune its upper layers? Measured on your own photos.

Read `frostline.fit` first (one strategy, from photos to bundle), then `frostline.freeze` (where the line cuts).
Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Config", "FrostlineError", "configure", "load", "predict", "study"]

if TYPE_CHECKING:
    from frostline.bundle import load
    from frostline.config import Config
    from frostline.configuration import configure
    from frostline.errors import FrostlineError
    from frostline.predict import predict
    from frostline.study import study

_HOMES = {
    "Config": "config",
    "FrostlineError": "errors",
    "configure": "configuration",
    "load": "bundle",
    "predict": "predict",
    "study": "study",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use, so that ``import frostline`` costs no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'frostline' has no attribute '{name}'; public names: {', '.join(__all__)}")
    from importlib import import_module

    return getattr(import_module(f"frostline.{_HOMES[name]}"), name)


class _Package(ModuleType):
    """Keeps `frostline.study` and `frostline.predict` functions: the import system would put the modules in their place."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
