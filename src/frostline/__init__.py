"""frostline: train from scratch, freeze a pretrained network, or fine-tune its upper layers? Measured on your photos.

Read `frostline.training.strategy` first (one strategy, from photos to bundle), then `frostline.networks.freeze_line`
(where the line cuts). Nothing heavy is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Config", "FrostlineError", "configure", "load", "predict", "study"]

if TYPE_CHECKING:
    from frostline.bundles.bundle import load
    from frostline.bundles.predict import predict
    from frostline.config import Config, configure
    from frostline.errors import FrostlineError
    from frostline.studies.study import study

_HOMES = {
    "Config": "config",
    "FrostlineError": "errors",
    "configure": "config",
    "load": "bundles.bundle",
    "predict": "bundles.predict",
    "study": "studies.study",
}


if not TYPE_CHECKING:  # type checkers know the names above, and no others

    def __getattr__(name: str) -> Any:
        """Import a public name from its home on first use, so that ``import frostline`` costs no torch."""
        if name not in _HOMES:
            raise AttributeError(f"module 'frostline' has no attribute '{name}'; public names: {', '.join(__all__)}")
        return getattr(import_module(f"frostline.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
