"""Strategies, protocols and presets as rows of tables: a new one is a new row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from frostline.errors import ConfigError, nearest

Weights = Literal["pretrained", "random"]


Protocol = Literal["tutorial", "rigorous"]


Preset = Literal["fast", "balanced", "best"]


Schedule = Literal["constant", "cosine"]


Balance = Literal["none", "loss", "sampling"]


Loss = Literal["cross-entropy", "robust"]


USUAL_LOSS: Loss = "cross-entropy"


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
