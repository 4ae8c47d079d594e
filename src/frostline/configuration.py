"""A run's whole configuration from the few things that people say. Imports nothing heavy: a run's head start comes after it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frostline.config import (
    DEFAULT_BACKBONE,
    DEFAULT_STRATEGIES,
    USUAL_LOSS,
    Config,
    Loss,
    Preset,
    Protocol,
    default_backbone,
    resolve,
    strategy,
)
from frostline.errors import ConfigError
from frostline.files import sha256

SAMPLE = "builtin:sample"
"""In place of a folder: the flowers rendered by code."""


def configure(
    data: str | Path = SAMPLE,
    *,
    strategies: Sequence[str] = DEFAULT_STRATEGIES,
    backbone: str = "",
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: int | None = None,
    line: str | None = None,
    loss: Loss = USUAL_LOSS,
    **rest: Any,
) -> Config:
    """A whole configuration from the few things that people say; `rest` are fields of `Config`.

    Without a `backbone` the preset names it (`config.default_backbone`), unless `weights` are given: those are MobileNetV2's then.

    Raises
    ------
    ConfigError
        All that can't be used, in one line.
    """
    takes_line = next((name for name in ("fine-tuned", "fine-tuned-all") if name in strategies), None)
    if line is not None:
        resolve(line, 10**6)
        if takes_line is None:
            raise ConfigError(
                f"--line {line}: none of the strategies ({', '.join(strategies)}) is fine-tuned; add fine-tuned"
            )
    backbone = backbone or (DEFAULT_BACKBONE if rest.get("weights") else default_backbone(protocol, preset))
    rows = tuple(
        strategy(
            name, backbone=backbone, protocol=protocol, preset=preset, epochs=epochs,
            line=line if name == takes_line else None, loss=loss,
        )
        for name in strategies
    )  # fmt: skip
    if rest.get("twins", "auto") == "auto":  # the tutorial's split is a plain one
        rest["twins"] = "bytes" if protocol == "tutorial" else "near"
    for name in ("test", "weights", "exclude"):
        if rest.get(name):
            rest[name] = str(Path(rest[name]).resolve())
    if rest.get("exclude"):
        rest["exclude_sha256"] = _digest_of_list(Path(rest["exclude"]))
    where = str(data) if str(data) == SAMPLE else str(Path(data).resolve())
    return Config(data=where, strategies=rows, protocol=protocol, preset=preset, **rest)


def _digest_of_list(path: Path) -> str:
    """SHA-256 of a list of decisions, so that a run notices when it has changed."""
    try:
        return sha256(path)
    except FileNotFoundError:
        raise ConfigError(f"--exclude {path}: no such file; 'frostline check DATA --write FILE' makes one") from None
    except OSError as error:
        raise ConfigError(f"--exclude {path}: can't be read: {error.strerror}") from error
