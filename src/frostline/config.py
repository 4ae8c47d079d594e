"""The whole configuration of a run, as dataclasses: also the command line's options and the run folder's config.toml.

A strategy is (architecture, starting weights, freeze line); a recipe says how the part above the line is trained. Strategies,
protocols and presets are rows of the tables below: a new one is a new row.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from frostline.errors import ConfigError, nearest
from frostline.files import write_with

Weights = Literal["pretrained", "random"]
Protocol = Literal["tutorial", "rigorous"]
Preset = Literal["fast", "balanced", "best"]
Schedule = Literal["constant", "cosine"]
EngineKind = Literal["auto", "openvino", "onnx", "torch"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
StoredAs = Literal["float16", "float32"]
Balance = Literal["none", "loss", "sampling"]
Loss = Literal["cross-entropy", "robust"]
USUAL_LOSS: Loss = "cross-entropy"
Twins = Literal["near", "bytes"]
Resize = Literal["squash", "crop"]

ROBUST = 0.7
"""The exponent of the robust loss; its authors' own, see `train`."""

MOST_VIEWS = 16
"""Views of a photo at most, however few photos there are: the tenth differs little from those before."""

LEAST_TO_TELL = 50
"""Validation photos from which they have a say in how long to train. Of 20 photos the standard error itself is a guess:
fine-tuning that they stopped was two points worse than its whole course, on average; 100 photos, a fifth of them wrongly labelled, were
right to stop it, by five points (recipes/presets.md)."""

DEFAULT_BACKBONE = "mobilenet_v2"
TOGETHER = "mobilenet_v2+tf_efficientnet_lite0"
"""Two small networks side by side, in about twice the time of one; recipes/presets.md says what it brings."""
DEFAULT_STRATEGIES = ("baseline", "frozen", "fine-tuned")

OWN_SIDES = {"small_cnn": 224, "mobilenet_v2": 224, TOGETHER: 224}
"""Side of the photos in pixels of the networks that are known without importing what builds them; all want them bilinear."""


def enlarged(side: int, factor: float) -> int:
    """Side of photos `factor` times as large, pixels, rounded to 32."""
    return side if factor == 1 else max(32, 32 * round(side * factor / 32))


@dataclass(frozen=True)
class Recipe:
    """How the part above the line is trained."""

    epochs: int = 10
    """Passes over the training photos; an upper bound where `patience` is set."""
    batch_size: int = 32
    """Photos a step."""
    learning_rate: float = 1e-3
    """Adam's step size for the head, and for every layer when the starting weights are random."""
    learning_rate_above_line: float = 1e-4
    """The reduced step size for pretrained layers above the line."""
    weight_decay: float = 0.0
    """Decoupled weight decay (AdamW) on weight matrices; biases and norms are left out."""
    schedule: Schedule = "constant"
    """Step size from step to step: constant, or down a half cosine to nothing."""
    patience: int = 0
    """Stop after so many epochs that validation photos place clearly below the best, and keep the last that they don't; 0 = fixed epochs,
    keep the last."""
    label_smoothing: float = 0.0
    """Share of each target spread over all classes, 0 to below 1."""
    robust: float = 0.0
    """Exponent q of the generalised cross-entropy: a photo whose label the network finds unlikely pulls less, so that wrong ones count for
    less. 0 is cross-entropy, 1 the mean absolute error. Above 0 no label is smoothed."""
    hidden: int = 128
    """Width of the head's hidden layer; 0 = a linear head."""
    dropout: float = 0.5
    """Share of the hidden units dropped in training, 0 to below 1."""
    views: int = 1
    """Stored views of each training photo; view 0 is the clean one, the others are augmented."""
    least_pictures: int = 0
    """Few photos get more views: as many as make so many pictures to learn from, up to `MOST_VIEWS`."""
    least_steps: int = 0
    """Few photos make few steps an epoch: epochs and patience are multiplied until there is time for so many."""
    averaging: float = 0.0
    """What stays of the running mean of the weights at each step, e.g. 0.99; the mean is validated and kept; 0 = none."""


@dataclass(frozen=True)
class Strategy:
    """(architecture, starting weights, freeze line), and the recipe for what lies above the line."""

    name: str
    """Name of its folder in the run and of its row in every table."""
    backbone: str
    """`small_cnn`, `mobilenet_v2` or any timm name."""
    weights: Weights
    """`pretrained` (published weights, batch-norm statistics fixed) or `random` (seeded, statistics learnt)."""
    line: str
    """The layer at which the frozen ground ends: a layer number from the bottom, `top`, or `top-6`."""
    head_first: bool = False
    """Train the head alone on the frozen network before the layers above the line join in (LP-FT)."""
    recipe: Recipe = field(default_factory=Recipe)
    """Training of the strategy's own stage."""
    head_recipe: Recipe = field(default_factory=Recipe)
    """Training of the head stage where `head_first` is set."""
    enlarge: float = 1.0
    """Side of the photos as a multiple of the backbone's own, where the run names no size; rounded to 32 pixels."""
    test_views: int = 1
    """What the model looks at before it answers: 1 = the photo; 2 = its mirror image too, logits averaged (twice the time)."""
    refit: bool = False
    """Once validation has said for how long, train again, on training and validation photos together: that is the model
    which is reported on and kept. Not where validation photos are reported on, or were given as such."""


# ---- the strategies: a new one is a row ------------------------------------------------------------------------------

_ROWS: dict[str, tuple[str | None, Weights, str, bool]] = {
    # name: (backbone, or None for the one the user names; starting weights; line; head first)
    "baseline": ("small_cnn", "random", "0", False),
    "frozen": (None, "pretrained", "top", False),
    "fine-tuned": (None, "pretrained", "top-6", True),
    "fine-tuned-all": (None, "pretrained", "0", True),
    "scratch": (None, "random", "0", False),
}
STRATEGIES = tuple(_ROWS)

# ---- the recipes: protocol, then preset, then the kind of strategy ----------------------------------------------------

_SCRATCH = Recipe(schedule="cosine", weight_decay=0.01, learning_rate=5e-4)
_HEAD = Recipe(schedule="cosine", weight_decay=0.01, label_smoothing=0.1, dropout=0.3)
_THAWED = replace(_HEAD, learning_rate_above_line=3e-4)
_TUTORIAL = {"random": replace(_SCRATCH, views=2), "head": _HEAD, "thawed": replace(_THAWED, views=2)}
_RIGOROUS: dict[str, dict[str, Recipe]] = {
    "fast": {
        "random": replace(_SCRATCH, epochs=4, patience=2),
        "head": replace(_HEAD, epochs=10, patience=3, least_steps=200),
        "thawed": replace(_THAWED, epochs=4, patience=2, averaging=0.98, least_steps=100),
    },
    "balanced": {
        "random": replace(_SCRATCH, epochs=12, patience=4),
        "head": replace(_HEAD, epochs=20, patience=6, views=2, least_steps=400, least_pictures=2000),
        "thawed": replace(
            _THAWED, epochs=10, patience=4, views=2, averaging=0.99, least_steps=200, least_pictures=2000
        ),
    },
    "best": {
        "random": replace(_SCRATCH, epochs=30, patience=8, views=2),
        "head": replace(_HEAD, epochs=20, patience=6, views=4, least_steps=400, least_pictures=8000),
        "thawed": replace(
            _THAWED, epochs=15, patience=6, views=4, averaging=0.99, least_steps=400, least_pictures=8000
        ),
    },
}


@dataclass(frozen=True)
class _Look:
    """How a preset looks at photos, how far it thaws, whether validation photos join in at the end; only for pretrained networks, and never
    in the tutorial's protocol.
    """

    enlarge: float = 1.0
    test_views: int = 1
    thawed: str = ""
    """Line of the fine-tuned strategy, where it is not the row's own."""
    refit: bool = False


_LOOKS = {
    "fast": _Look(),
    "balanced": _Look(enlarge=9 / 7, refit=True),
    "best": _Look(10 / 7, 2, "top-27", refit=True),
}


def default_backbone(protocol: Protocol, preset: Preset) -> str:
    """The pretrained network of a run that names none."""
    return TOGETHER if (protocol, preset) == ("rigorous", "best") else DEFAULT_BACKBONE


def recipes(protocol: Protocol, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a protocol and preset, by kind of strategy: ``random``, ``head``, ``thawed``."""
    return _TUTORIAL if protocol == "tutorial" else _RIGOROUS[preset]


def strategy(
    name: str,
    *,
    backbone: str = DEFAULT_BACKBONE,
    protocol: Protocol = "rigorous",
    preset: Preset = "balanced",
    epochs: int | None = None,
    line: str | None = None,
    loss: Loss = USUAL_LOSS,
) -> Strategy:
    """Look up a strategy by name and give it its recipe.

    Raises
    ------
    ConfigError
        No such strategy; the nearest name is suggested.
    """
    if name not in _ROWS:
        raise ConfigError(f"unknown strategy '{name}'{nearest(name, STRATEGIES)}")
    if preset not in _RIGOROUS:
        raise ConfigError(f"unknown preset '{preset}'{nearest(preset, _RIGOROUS)}")
    if loss not in get_args(Loss):
        raise ConfigError(f"unknown loss '{loss}'{nearest(loss, get_args(Loss))}")
    fixed, weights, row_line, head_first = _ROWS[name]
    look = _LOOKS[preset] if protocol == "rigorous" and weights == "pretrained" else _Look()
    if name == "fine-tuned":
        row_line = look.thawed or row_line
    networks = backbone.count("+") + 1
    if networks > 1 and row_line.startswith("top-"):  # as many layers of each
        row_line = f"top-{networks * int(row_line.removeprefix('top-'))}"
    table = recipes(protocol, preset)
    kind = "random" if weights == "random" else "thawed" if head_first else "head"
    own, head = table[kind], table["head"]
    if epochs is not None:
        own, head = (replace(r, epochs=epochs, least_steps=0, least_pictures=0) for r in (own, head))
    if loss == "robust":
        own, head = (replace(r, robust=ROBUST, label_smoothing=0.0) for r in (own, head))
    return Strategy(
        name, fixed or backbone, weights, line or row_line, head_first, own, head, look.enlarge, look.test_views, look.refit
    )  # fmt: skip


def resolve(line: str, count: int) -> int:
    """Turn ``"0"``, ``"133"``, ``"top"`` or ``"top-6"`` into a number of frozen layers, 0 to `count`.

    Raises
    ------
    ConfigError
        Not of that form, or outside the network.
    """
    text = line.strip().lower()
    head, _, below = text.partition("-")
    number = below if head == "top" and below else text
    if text != "top" and not (number.isascii() and number.isdigit()):
        raise ConfigError(f"freeze line '{line}': expected a layer number, 'top' or 'top-6'")
    place = count if text == "top" else count - int(number) if head == "top" else int(number)
    if not 0 <= place <= count:
        raise ConfigError(f"freeze line '{line}': the network has {count} layers, so expected 0 to {count}")
    return place


def trained_alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two runs were trained in the same way, by their documents (study.json, sweep.json).

    An older version's tells less: beside a newer one it counts as other training.
    """
    return all(a.get(key) == b.get(key) for key in ("protocol", "preset", "balance", "loss", "backbones"))


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
        write_with(path, lambda temporary: temporary.write_text(tomli_w.dumps(document), encoding="utf-8"))

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
