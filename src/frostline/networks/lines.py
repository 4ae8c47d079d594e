"""What a line means: a layer number, a block's name or a share of the parameters, as a place in a recorded network.

A *place* is a number of layers as `freeze_line` counts them, those without parameters included: 0 leaves all above the
line, `len(layers)` nothing. Users say a line in one of three ways that mean the same in every network:

- a layer number, counted over the layers that hold parameters (``120``; ``top-6``, from the top);
- a block, a stage or a layer by its name (``features.17``, ``stages.2``): the line stands below it;
- a share (``30%``): the highest line with at least that share of the backbone's parameters above it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple, cast

import torch
from torch import fx, nn

from frostline.documents.shared import Unfrozen
from frostline.errors import ConfigError
from frostline.networks import freeze_line, thawing
from frostline.networks.short_list import MARK
from frostline.networks.side_by_side import Joint, Part
from frostline.recipes import LINE_FORMS, Strategy, resolve, share_of

LOWER = "50%"
"""A line that is suggested where hardly anything is trained."""
NEAR = 0.05
"""A block's edge is near a line where the layers between them hold at most this share of the parameters."""


class Block(NamedTuple):
    """Layers that stand together under one name."""

    name: str
    start: int
    """The place below its first layer."""
    top: int
    """The place above its last layer with parameters."""


class Lines:
    """The places of a recorded network where a line may stand."""

    def __init__(self, name: str, traced: fx.GraphModule, body: nn.Module) -> None:
        self._traced = traced
        self._network = name
        self._bodies = _bodies(name, body)
        self.layers = freeze_line.layers(traced)
        self.top = len(self.layers)
        """The highest place: all layers are frozen."""
        self._levels = _levels(traced)
        self.total = sum(p.numel() for p, _ in self._levels.values())
        """Parameters of the backbone."""
        first_calls = {name: place for place, name in reversed(list(enumerate(self.layers)))}
        self.counted = sorted(p for name, p in first_calls.items() if _has_parameters(traced.get_submodule(name)))
        """The places of the layers with parameters."""
        self._found: dict[tuple[str, bool], int] = {}

    def place(self, strategy: Strategy) -> int:
        """The place of a strategy's line, 0 to `top`.

        Raises
        ------
        ConfigError
            The network has no such line; the nearest name is suggested.
        """
        return self.find(strategy.line, strategy.line_counts == "all")

    def find(self, line: str, count_all: bool = False) -> int:
        """The place of a line; `count_all`: a number counts the layers without parameters too, as Keras does.

        Raises
        ------
        ConfigError
            As `place`.
        """
        key = (line.strip(), count_all)
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def _find(self, text: str, count_all: bool) -> int:
        if (share := share_of(text)) is not None:
            return self._by_share(share)
        if not _is_number(text):
            return self._by_name(text)
        if count_all:
            return resolve(text, self.top)
        return self._by_number(resolve(text, len(self.counted), "layers with parameters"))

    def frozen(self, place: int, count_all: bool = False) -> tuple[int, int]:
        """(layers below a place, layers in all), as the numbers of `find` count them."""
        return (place, self.top) if count_all else (sum(p < place for p in self.counted), len(self.counted))

    def above(self, place: int) -> int:
        """Parameters above a place."""
        return sum(p.numel() for p in self._between(place, self.top).values())

    def share(self, place: int) -> float:
        """The share of the backbone's parameters above a place, 0 to 1."""
        return self.above(place) / self.total if self.total else 0.0

    def upper(self, strategy: Strategy) -> int:
        """The place of a strategy's upper line, above which layers are frozen too.

        Raises
        ------
        ConfigError
            As `place`; or nothing is left between the two lines.
        """
        place, upper = self.place(strategy), self.find(strategy.upper_line, strategy.line_counts == "all")
        if upper < self.top and upper <= place:
            raise ConfigError(
                f"{strategy.name}: nothing of {self._network} is between line '{strategy.line}' and upper_line "
                f"'{strategy.upper_line}': choose a lower line, --line 80%, or a higher upper_line"
            )
        return upper

    def between(self, strategy: Strategy) -> int:
        """Parameters between a strategy's lines, whichever of them it trains."""
        return sum(p.numel() for p in self._between(self.place(strategy), self.upper(strategy)).values())

    def trained(self, strategy: Strategy) -> dict[str, int]:
        """How many numbers a strategy trains in the backbone, by the names of the parameters: see `thawing.trained`.

        Raises
        ------
        ConfigError
            It trains norms or attention, and there are none between its lines; or as `upper`.
        """
        place = self.place(strategy)
        found = thawing.trained(self._traced, self._between(place, self.upper(strategy)), strategy)
        if not found and strategy.trains != "all":
            what, instead = {
                "norms": ("norms or biases", "fine-tuned"),
                "lora": ("attention with linear layers (qkv or q, k, v; proj)", "fine-tuned or fine-tuned-norms"),
            }[strategy.trains]
            raise ConfigError(
                f"{strategy.name}: {self._network} has no {what} above line '{strategy.line}'; choose a lower line, "
                f"--line {LOWER}, or the strategy {instead}"
            )
        return found

    def unfrozen(self, strategy: Strategy, head: int) -> Unfrozen:
        """What a strategy trains, as study.json has it; `head`: parameters of the head."""
        place, upper, trained = self.place(strategy), self.upper(strategy), self.trained(strategy)
        frozen, layers = self.frozen(place, strategy.line_counts == "all")
        blocks = [b for b in self.blocks if b.top > place and b.start < upper]
        if strategy.trains != "all":
            levels = {self._levels[name][1] for name in trained}
            blocks = [b for b in blocks if any(b.start < level <= b.top for level in levels)]
        backbone = sum(trained.values())
        found: Unfrozen = {
            "line": strategy.line,
            "frozen_layers": frozen,
            "layers": layers,
            "head": head,
            "backbone": backbone,
            "share": backbone / self.total if self.total else 0.0,
            "blocks": [b.name for b in blocks],
            "partly": [b.name for b in blocks if any(b.start <= p < b.top for p in self._frozen_within(place, upper))],
        }
        if strategy.trains != "all":
            found["trains"] = strategy.trains
        if strategy.trains == "lora":
            found["rank"] = strategy.rank
        if upper < self.top:
            found["upper_line"] = strategy.upper_line
            found["frozen_above"] = layers - self.frozen(upper, strategy.line_counts == "all")[0]
        return found

    def _frozen_within(self, place: int, upper: int) -> list[int]:
        """The layers with parameters that stand outside two places."""
        return [p for p in self.counted if p < place or p >= upper]

    def _between(self, place: int, upper: int) -> dict[str, nn.Parameter]:
        """The parameters between two places, by name."""
        every = self._levels.items()
        return {name: p for name, (p, level) in every if (level > place or place == 0) and level <= upper}

    @cached_property
    def blocks(self) -> list[Block]:
        """The blocks that hold parameters, from the photos up: those of timm's own grouping (``blocks.9``,
        ``layers.3.blocks.0``), and layers that stand alone."""
        found: dict[tuple[object, ...], Block] = {}
        for place, layer in enumerate(self.layers):
            key, name = self._block_of(layer)
            start, top = (found[key].start, found[key].top) if key in found else (place, 0)
            found[key] = Block(found[key].name if key in found else name, start, top)
            if _has_parameters(self._traced.get_submodule(layer)):
                found[key] = found[key]._replace(top=place + 1)
        return [block for block in found.values() if block.top]

    @cached_property
    def edges(self) -> list[Block]:
        """The blocks below which one tensor of each network crosses the line, from the photos up."""
        return [b for b in self.blocks if 0 < b.start < self.top and self._crossing(b.start)[0] == len(self._bodies)]

    def width(self, place: int) -> int:
        """How many numbers of a photo cross the line at a place."""
        return self._crossing(place)[1]

    # ---- the three ways ----------------------------------------------------------------------------------------------

    def _by_number(self, number: int) -> int:
        """Above the first `number` layers with parameters. Layers without parameters that follow are frozen where
        fewer numbers cross the line then (a pooling, say)."""
        if number in (0, len(self.counted)):
            return 0 if number == 0 else self.top
        gap = range(self.counted[number - 1] + 1, self.counted[number] + 1)
        return min(gap, key=self.width) if self._can_cut(gap[0]) else gap[0]

    def _by_share(self, share: float) -> int:
        if share == 0:
            return self.top
        for number in range(len(self.counted) - 1, 0, -1):
            below = self.counted[number - 1] + 1
            if self.share(below) >= share and self._can_cut(below) and self.share(self._by_number(number)) >= share:
                return self._at_edge(self._by_number(number), share)
        return 0

    def _at_edge(self, place: int, share: float) -> int:
        """The block's edge near a place where no more numbers cross the line, else the place. Of networks side by side
        the edges of one are none of the other."""
        if len(self._bodies) > 1:
            return place
        most, width = self.share(place) + NEAR, self.width(place)
        near = (b.start for b in self.edges if share <= self.share(b.start) <= most and self.width(b.start) <= width)
        return max(near, default=place)

    def _by_name(self, name: str) -> int:
        wanted = name.removeprefix("body.")
        if len(self._bodies) > 1 and not any(_within(self._said(layer), wanted) for layer in self.layers):
            wanted = next((f"{n}.{wanted}" for n in self._bodies if self._knows(f"{n}.{wanted}")), wanted)
        places = [p for p, layer in enumerate(self.layers) if _within(self._said(layer), wanted)]
        if not places:
            said = [self._said(layer) for layer in self.layers]
            known = {".".join(parts[:n]) for parts in (s.split(".") for s in said) for n in range(1, len(parts) + 1)}
            close = difflib.get_close_matches(wanted, sorted(known), n=1, cutoff=0.4)
            hint = f"; did you mean '{close[0]}'?" if close else ";"
            raise ConfigError(
                f"freeze line '{name}': {self._network} has no layer or block of that name{hint} expected "
                f"{LINE_FORMS}; its blocks: {', '.join(_shortened([b.name for b in self.blocks]))}"
            )
        return places[0]

    def _knows(self, name: str) -> bool:
        return any(_within(self._said(layer), name) for layer in self.layers)

    # ---- names and what crosses --------------------------------------------------------------------------------------

    def _said(self, layer: str) -> str:
        """A layer's name as users say it: without the wrappers around the network."""
        _, name, own = self._owner(layer)
        return f"{name}.{own}" if len(self._bodies) > 1 else own

    def _owner(self, layer: str) -> tuple[nn.Module | None, str, str]:
        """(the network that a layer belongs to, its name, the layer's name in it)."""
        if len(self._bodies) == 1:
            ((name, body),) = self._bodies.items()
            return body, name, layer.removeprefix("body.")
        found = re.fullmatch(r"body\.parts\.(\d+)\.body\.(.+)", layer)
        if not found:
            return None, self._network, layer.removeprefix("body.")
        name, body = list(self._bodies.items())[int(found[1])]
        return body, name, found[2]

    def _block_of(self, layer: str) -> tuple[tuple[object, ...], str]:
        """(what the layers of one block have in common, its name)."""
        body, network, own = self._owner(layer)
        prefix = f"{network}." if len(self._bodies) > 1 else ""
        for number, (pattern, apart) in enumerate(self._patterns[network] if body is not None else ()):
            if match := pattern.match(own):
                same = (number, *match.groups()) if apart else (number,)
                return (network, *same), prefix + match[0].rstrip(".")
        first = own.partition(".")[0]
        inner = ".".join(own.split(".")[:2])
        alone = inner if first == "head" or (network, first) in self._holders else first  # ours is called the head too
        return (network, alone), prefix + alone

    @cached_property
    def _holders(self) -> set[tuple[str, str]]:
        """(network, module) that hold blocks, so that they are none themselves."""
        owned = [self._owner(layer)[1:] for layer in self.layers]
        return {
            (network, own.partition(".")[0])
            for network, own in owned
            if "." in own and any(pattern.match(own) for pattern, apart in self._patterns.get(network, ()) if apart)
        }

    @cached_property
    def _patterns(self) -> Mapping[str, list[tuple[re.Pattern[str], bool]]]:
        return {name: list(_patterns(body)) for name, body in self._bodies.items()}

    def _crossing(self, place: int) -> tuple[int, int]:
        """(tensors, numbers of a photo) that cross the line at a place; many where it can't stand there."""
        try:
            shapes = freeze_line.boundary(self._traced, place)
        except ConfigError:  # a layer runs on both sides
            return 1000, 2**62
        return len(shapes), sum(int(torch.Size(shape).numel()) for shape in shapes)

    def _can_cut(self, place: int) -> bool:
        return self._crossing(place)[0] < 1000


def _bodies(name: str, body: nn.Module) -> dict[str, nn.Module]:
    """The networks by name: several where they stand side by side."""
    if not isinstance(body, Joint):
        return {name: body}
    names = [part.strip() for part in name.split(MARK)]
    twice = len(set(names)) < len(names)
    parts = [cast(Part, part).body for part in body.parts]
    return {f"{n}.{i}" if twice else n: p for i, (n, p) in enumerate(zip(names, parts, strict=True))}


def _patterns(body: nn.Module) -> Iterator[tuple[re.Pattern[str], bool]]:
    """How the layers of a network are grouped into blocks, by timm's `group_matcher`: what names of layers match, and
    whether matches of different numbers are different blocks."""
    matcher: Callable[..., Any] | None = getattr(body, "group_matcher", None)
    specs: Any = None
    with suppress(Exception):  # a few of timm's networks have none, or one that can't be asked
        specs = matcher(coarse=False) if matcher is not None else None
    if not isinstance(specs, dict):
        return
    for spec in specs.values():
        for entry in spec if isinstance(spec, list | tuple) else [(spec, None)]:
            if isinstance(entry[0], str):
                pattern = re.compile(entry[0])
                yield pattern, pattern.groups > 0


def _levels(traced: fx.GraphModule) -> dict[str, tuple[nn.Parameter, int]]:
    """Each parameter with its level, by name: it is above every place below that level, and below from it on. They are
    those of layers, and those that functions read from the network itself (position embeddings, scales)."""
    nodes = list(traced.graph.nodes)
    seen, order = 0, {}
    for node in nodes:
        seen += node.op == "call_module"
        order[node] = seen
    carried = freeze_line.of_photos(nodes)
    highest: dict[fx.Node, int] = {}
    for node in reversed(nodes):  # what no photo shapes is computed again wherever it is needed
        users = [order[u] if u in carried or u.op == "output" else highest[u] for u in node.users]
        highest[node] = max([order[node], *users])
    found: dict[nn.Parameter, tuple[str, int]] = {}
    for node in nodes:
        target = str(node.target)
        if node.op == "call_module":
            parameters = {f"{target}.{own}": p for own, p in traced.get_submodule(target).named_parameters()}
            at = order[node] if node in carried else highest[node]
        elif node.op == "get_attr":
            value = _attribute(traced, target)
            parameters, at = {target: value} if isinstance(value, nn.Parameter) else {}, highest[node]
        else:
            continue
        for name, parameter in parameters.items():
            first, level = found.get(parameter, (name, 0))
            found[parameter] = (first, max(level, at))
    return {name: (parameter, level) for parameter, (name, level) in found.items()}


def _attribute(traced: fx.GraphModule, name: str) -> object:
    value: object = traced
    for part in name.split("."):
        value = getattr(value, part)
    return value


def _has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters())


def _within(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")


def _is_number(text: str) -> bool:
    return text.isascii() and (text.isdigit() or text.lower().split("-")[0] == "top")


def _shortened(names: Sequence[str]) -> list[str]:
    return list(names) if len(names) < 5 else [*names[:2], "...", *names[-2:]]
