"""Strategies, protocols and presets as rows of tables: a new one is a new row."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, NamedTuple, get_args

from frostline.errors import ConfigError, nearest
from frostline.fields import AT_LEAST_0, AT_LEAST_1, RATE, SHARE, Within

Weights = Literal["pretrained", "random"]


Protocol = Literal["tutorial", "rigorous"]


TUTORIAL_TITLE = "Transfer Learning in Convolutional Neural Networks: Frozen vs Fine-Tuning"
TUTORIAL_URL = "https://github.com/sreeja2817/Transfer-Learning-in-CNN-Frozen-vs-Fine-Tuning"
"""What the protocol `tutorial` repeats, and whose claims a study measures."""


Preset = Literal["fast", "balanced", "best"]


Schedule = Literal["constant", "cosine"]


Balance = Literal["none", "loss", "sampling"]


Loss = Literal["cross-entropy", "robust"]


USUAL_LOSS: Loss = "cross-entropy"


ROBUST = 0.7
"""The exponent of the robust loss; its authors' own, see `train`."""


MOST_VIEWS = 16
"""Augmented views of a photo at most, however few photos there are: the tenth differs little from those before."""


LineCount = Literal["parameters", "all"]
"""Which layers a number in a freeze line counts: those with parameters, or all, as Keras does."""


Trains = Literal["all", "norms", "lora"]
"""What is trained between a strategy's lines, see `frostline.networks.thawing`."""


LEAST_TO_TELL = 50
"""Early stopping needs at least so many validation photos. With 20 of them the standard error itself is a guess:
stopped early, fine-tuning was two points worse than its whole course, on average. With 100 of them, a fifth wrongly
labelled, early stopping gained five points (recipes/presets.md)."""


DEFAULT_BACKBONE = "mobilenet_v2"


TOGETHER = "mobilenet_v2+tf_efficientnet_lite0"
"""Two small networks side by side, in about twice the time of one; recipes/presets.md says what it brings."""


DEFAULT_STRATEGIES = ("baseline", "frozen", "fine-tuned")


OWN_SIDES = {"small_cnn": 224, "mobilenet_v2": 224, TOGETHER: 224}
"""Side of the photos in pixels of the networks that are known without importing what builds them; all want them
bilinear."""


def enlarged(side: int, factor: float) -> int:
    """Side of photos `factor` times as large, pixels, rounded to 32."""
    return side if factor == 1 else max(32, 32 * round(side * factor / 32))


@dataclass(frozen=True)
class Recipe:
    """How the part above the line is trained."""

    epochs: Annotated[int, AT_LEAST_1] = 10
    """Passes over the training photos; an upper bound where `patience` is set."""
    batch_size: Annotated[int, AT_LEAST_1] = 32
    """Photos in a batch."""
    learning_rate: Annotated[float, RATE] = 1e-3
    """Adam's learning rate for the head, and for every layer when the starting weights are random."""
    learning_rate_above_line: Annotated[float, RATE] = 1e-4
    """The reduced learning rate for pretrained layers above the line."""
    weight_decay: Annotated[float, AT_LEAST_0] = 0.0
    """Decoupled weight decay (AdamW) on weight matrices; biases and norms are left out."""
    schedule: Schedule = "constant"
    """The learning rate from step to step: constant, or down a half cosine to nothing."""
    patience: Annotated[int, AT_LEAST_0] = 0
    """Early stopping: stop after so many epochs that are clearly below the best on the validation set, and keep the
    last epoch that is not; 0 = fixed epochs, keep the last."""
    label_smoothing: Annotated[float, SHARE] = 0.0
    """Share of each target spread over all classes, 0 to below 1."""
    robust: Annotated[float, Within("0 to 1", lambda x: 0 <= x <= 1)] = 0.0
    """Exponent q of the generalised cross-entropy: a photo whose label the network finds unlikely has a smaller
    gradient, so wrong labels count for less. 0 is cross-entropy, 1 the mean absolute error. Above 0 no label is
    smoothed."""
    hidden: Annotated[int, AT_LEAST_0] = 128
    """Width of the head's hidden layer; 0 = a linear head."""
    dropout: Annotated[float, SHARE] = 0.5
    """Share of the hidden units dropped in training, 0 to below 1."""
    views: Annotated[int, AT_LEAST_1] = 1
    """Stored views of each training photo; view 0 is the photo itself, the others are augmented views."""
    least_pictures: Annotated[int, AT_LEAST_0] = 0
    """With few photos there are more augmented views of each: enough for so many training pictures, up to `MOST_VIEWS`
    views."""
    least_steps: Annotated[int, AT_LEAST_0] = 0
    """With few photos an epoch has few steps: epochs and patience are multiplied until training has so many steps."""
    averaging: Annotated[float, SHARE] = 0.0
    """Decay of the running mean of the weights, for each step, e.g. 0.99; the mean is validated and kept; 0 = no
    averaging."""


_SHARE = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?) ?%")
_PLACE = re.compile(r"[0-9]{1,9}|top(-[0-9]{1,9})?", re.IGNORECASE)
_NAME = re.compile(r"(?!top|bottom)[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")


def is_line(text: str) -> bool:
    """Whether a text has the form of a freeze line; whether a network has this line, `networks.lines` knows."""
    plain = text.strip()
    return share_of(plain) is not None or bool(_PLACE.fullmatch(plain) or _NAME.fullmatch(plain))


LINE_FORMS = "a layer number (100), top, top-6, a share of the parameters (30%) or a block's name (features.17)"


A_LINE = Within(LINE_FORMS, is_line)


@dataclass(frozen=True)
class Strategy:
    """(architecture, starting weights, freeze line), and the recipe for what lies above the line."""

    name: str
    """Name of its folder in the run and of its row in every table."""
    backbone: str
    """`small_cnn`, `mobilenet_v2` or any timm name."""
    weights: Weights
    """`pretrained` (published weights, batch-norm statistics fixed) or `random` (seeded, statistics trained)."""
    line: Annotated[str, A_LINE]
    """The freeze line: layers below it are frozen. A layer number from the bottom, `top`, `top-6`, the name of a block
    (`features.17`) or a share of the backbone's parameters that is above it (`30%`); see `frostline.networks.lines`."""
    head_first: bool = False
    """Train the head alone on the frozen network, then the layers above the line with it (LP-FT)."""
    recipe: Recipe = field(default_factory=Recipe)
    """Training of the strategy's own stage."""
    head_recipe: Recipe = field(default_factory=Recipe)
    """Training of the head stage where `head_first` is set."""
    enlarge: Annotated[float, Within("0.5 to 4 times the backbone's own size", lambda x: 0.5 <= x <= 4)] = 1.0
    """Side of the photos as a multiple of the backbone's own, where the run names no size; rounded to 32 pixels."""
    test_views: Annotated[int, Within("1 (the photo) or 2 (its mirror image too)", lambda x: x in (1, 2))] = 1
    """Test-time augmentation: 1 = the photo alone; 2 = its mirror image too, logits averaged (twice the time)."""
    refit: bool = False
    """Once the validation set has chosen the number of epochs, train again on training and validation photos together.
    That model is reported on and kept. Not done where validation photos are reported on, or were given as such."""
    line_counts: LineCount = "parameters"
    """Which layers a number in `line` counts: `parameters`, those that hold some; `all`, as in the tutorial's protocol
    and in runs whose configuration does not say it."""
    line_asked: bool = True
    """The user named the line: it stands however little is trained above it. A preset's own line is refused there."""
    trains: Trains = "all"
    """What is trained above the line: `all` layers, `norms` (norms and biases alone), or `lora` (low-rank adapters of
    attention's linear layers, merged into these when training ends)."""
    upper_line: Annotated[str, A_LINE] = "top"
    """Layers above this second line stay frozen too, so that a window is trained; `top`: none do."""
    rank: Annotated[int, AT_LEAST_1] = 8
    """Rank of the adapters of `lora`."""


# ---- the strategies: a new one is a row ------------------------------------------------------------------------------


class _Row(NamedTuple):
    """What tells a strategy from the others."""

    weights: Weights = "pretrained"
    line: str = ""
    """Empty: the preset's."""
    head_first: bool = True
    backbone: str = ""
    """Empty: the one that the user names."""
    trains: Trains = "all"
    upper_line: str = "top"
    rate: float = 1.0
    """Learning rate above the line, as a multiple of the fine-tuned strategy's."""


_ROWS = {
    "baseline": _Row("random", "0", head_first=False, backbone="small_cnn"),
    "frozen": _Row(line="top", head_first=False),
    "fine-tuned": _Row(),
    "fine-tuned-all": _Row(line="0"),
    "scratch": _Row("random", "0", head_first=False),
    # recipes/thawing.md has what the next three were measured to bring
    "fine-tuned-window": _Row(line="65%", upper_line="30%"),
    "fine-tuned-norms": _Row(line="65%", trains="norms", rate=10),
    "fine-tuned-lora": _Row(trains="lora", rate=10),
}


STRATEGIES = tuple(_ROWS)


# ---- the recipes: protocol, then preset, then the kind of strategy ---------------------------------------------------

_SCRATCH = Recipe(schedule="cosine", weight_decay=0.01, learning_rate=5e-4)


_HEAD = Recipe(schedule="cosine", weight_decay=0.01, label_smoothing=0.1, dropout=0.3)


_FINE_TUNED = replace(_HEAD, learning_rate_above_line=3e-4)


_TUTORIAL = {"random": replace(_SCRATCH, views=2), "head": _HEAD, "fine-tuned": replace(_FINE_TUNED, views=2)}


_RIGOROUS: dict[str, dict[str, Recipe]] = {
    "fast": {
        "random": replace(_SCRATCH, epochs=4, patience=2),
        "head": replace(_HEAD, epochs=10, patience=3, least_steps=200),
        "fine-tuned": replace(_FINE_TUNED, epochs=4, patience=2, averaging=0.98, least_steps=100),
    },
    "balanced": {
        "random": replace(_SCRATCH, epochs=12, patience=4),
        "head": replace(_HEAD, epochs=20, patience=6, views=2, least_steps=400, least_pictures=2000),
        "fine-tuned": replace(
            _FINE_TUNED, epochs=10, patience=4, views=2, averaging=0.99, least_steps=200, least_pictures=2000
        ),
    },
    "best": {
        "random": replace(_SCRATCH, epochs=30, patience=8, views=2),
        "head": replace(_HEAD, epochs=20, patience=6, views=4, least_steps=400, least_pictures=8000),
        "fine-tuned": replace(
            _FINE_TUNED, epochs=15, patience=6, views=4, averaging=0.99, least_steps=400, least_pictures=8000
        ),
    },
}


@dataclass(frozen=True)
class _Extras:
    """What a preset changes beside the recipe: size of photos, test-time augmentation, freeze line, refitting.

    Only for pretrained networks, and never in the tutorial's protocol.
    """

    enlarge: float = 1.0
    test_views: int = 1
    line: str = "30%"
    """Freeze line of the fine-tuned strategy."""
    line_of_two: str = "20.24%"
    """The same for networks side by side."""
    refit: bool = False


_EXTRAS = {
    # The shares put the line of MobileNetV2 below the tutorial's six layers (32.4 % of its parameters), with "best"
    # below its block features.15 (68.6 %); beside EfficientNet-Lite0, as many layers of each.
    "fast": _Extras(),
    "balanced": _Extras(enlarge=9 / 7, refit=True),
    "best": _Extras(10 / 7, 2, "65%", "57%", refit=True),
}


_TUTORIAL_LINE = 6
"""Layers of each network above the fine-tuned strategy's line in the tutorial's protocol, as Keras counts them."""


def default_backbone(protocol: Protocol, preset: Preset) -> str:
    """The pretrained network of a run that names none."""
    return TOGETHER if (protocol, preset) == ("rigorous", "best") else DEFAULT_BACKBONE


def recipes(protocol: Protocol, preset: Preset) -> dict[str, Recipe]:
    """The recipes of a protocol and preset, by kind of strategy: ``random``, ``head``, ``fine-tuned``."""
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
    row = _ROWS[name]
    table = recipes(protocol, preset)
    head = table["head"]
    own = table["random" if row.weights == "random" else "fine-tuned" if row.head_first else "head"]
    own = replace(own, learning_rate_above_line=row.rate * own.learning_rate_above_line)
    if epochs is not None:
        own, head = (replace(r, epochs=epochs, least_steps=0, least_pictures=0) for r in (own, head))
    if loss == "robust":
        own, head = (replace(r, robust=ROBUST, label_smoothing=0.0) for r in (own, head))
    extras = _EXTRAS[preset] if protocol == "rigorous" and row.weights == "pretrained" else _Extras()
    return Strategy(
        name=name,
        backbone=row.backbone or backbone,
        weights=row.weights,
        line=line or row.line or _usual_line(backbone, protocol, extras),
        head_first=row.head_first,
        recipe=own,
        head_recipe=head,
        enlarge=extras.enlarge,
        test_views=extras.test_views,
        refit=extras.refit,
        line_counts="all" if protocol == "tutorial" else "parameters",
        line_asked=line is not None,
        trains=row.trains,
        upper_line=row.upper_line,
    )


def takes_line(name: str) -> bool:
    """Whether a strategy's line can be moved: it is fine-tuned."""
    return name in _ROWS and _ROWS[name].head_first


def _usual_line(backbone: str, protocol: Protocol, extras: _Extras) -> str:
    """The line of the fine-tuned strategy."""
    networks = backbone.count("+") + 1
    if protocol == "tutorial":
        return f"top-{networks * _TUTORIAL_LINE}"
    return extras.line if networks == 1 else extras.line_of_two


def trains_the_head_of(other: Strategy, strategy: Strategy) -> bool:
    """Whether `other` trains the very head that `strategy` would train first: same network, line at the top, same
    recipe."""
    same = (other.backbone, other.weights, other.recipe) == (strategy.backbone, strategy.weights, strategy.head_recipe)
    return same and other.line == "top" and strategy.head_first


def share_of(line: str) -> float | None:
    """The share that a line like ``30%`` or ``12.5 %`` says, 0 to 1; None where it says something else."""
    found = _SHARE.fullmatch(line.strip())
    return float(found[1]) / 100 if found and float(found[1]) <= 100 else None


def resolve(line: str, count: int, layers: str = "layers") -> int:
    """Turn ``"0"``, ``"133"``, ``"top"`` or ``"top-6"`` into a number of frozen layers, 0 to `count`; `layers`: what an
    error calls what is counted.

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
        raise ConfigError(f"freeze line '{line}': the network has {count} {layers}, so expected 0 to {count}")
    return place
