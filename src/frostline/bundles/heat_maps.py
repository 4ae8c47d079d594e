"""Where in a photo a model looks: heat maps of the evidence for a class, and how far such a map can be trusted.

The map is HiResCAM (Draelos and Carin, 2020, arXiv:2011.08891): at the last tensor that still has a grid, gradient
times activation, summed over the channels. Where global average pooling follows, as in most networks here, it is
Grad-CAM (Selvaraju et al., 2017, arXiv:1610.02391) but for a factor; where the grid is flattened (the small CNN)
Grad-CAM averages the gradient over the grid and so loses the places, and HiResCAM does not. What is explained is a
class's logit less the mean of all classes' logits: only differences of logits mean anything to a softmax.

Why not a library: both that would do want a layer of one whole PyTorch module, where a model here is two recorded
graphs with the freeze line between them; captum brings Matplotlib along, grad-cam OpenCV and Matplotlib. The method
itself is thirty lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from frostline.errors import ConfigError
from frostline.photos.decoding import Pixels

if TYPE_CHECKING:  # the report lays maps over photos without PyTorch
    from torch import Tensor, fx

    from frostline.bundles.bundle import Parts

Heat = npt.NDArray[np.float32]

METHOD = "HiResCAM"
_BATCH = 16  # photos: what one needs below the grid is forgotten at once
_TOKENS_IN_FRONT = 8  # class, distillation and register tokens that a transformer may put before the grid's


# ---- maps ------------------------------------------------------------------------------------------------------------


def heat_maps(parts: Parts, photos: Pixels, classes: Sequence[int], *, test_views: int = 1) -> Heat:
    """Where the evidence for a class stands in each photo, float32 (N, h, w) at the network's own resolution, 0..1.

    1 is the place that speaks most for the class, 0 one that does not, or speaks against it; a map is all 0 where
    nothing does. Neither weights nor statistics change; the network is left in evaluation mode. May be called from
    many threads at once.

    Parameters
    ----------
    photos
        (N, H, W, 3) uint8, prepared as the network sees them.
    classes
        N class indices: what each photo is asked about.
    test_views
        As in bundle.json; 2: the map is the mean of the photo's and of its mirror image's, turned back.

    Raises
    ------
    ConfigError
        The network keeps no grid of places, so there is no map of it.
    """
    asked = np.asarray(classes, dtype=np.int64).reshape(len(photos), 1)
    return evidence(parts, photos, asked, test_views=test_views)[:, 0]


def evidence(parts: Parts, photos: Pixels, classes: npt.NDArray[np.int64], *, test_views: int = 1) -> Heat:
    """As `heat_maps`, of several classes for each photo in one pass: `classes` (N, K) to (N, K, h, w)."""
    signed = signed_maps(parts, photos, classes)
    if test_views == 2:
        mirrored = signed_maps(parts, np.ascontiguousarray(photos[:, :, ::-1]), classes)
        signed = np.asarray((signed + mirrored[..., ::-1]) / 2, dtype=np.float32)
    positive: Heat = np.maximum(signed, 0)
    most = positive.max((2, 3), keepdims=True)
    return np.asarray(np.divide(positive, most, out=np.zeros_like(positive), where=most > 0))


@dataclass(frozen=True)
class Grid:
    """A tensor of a network that still tells places apart."""

    name: str
    """Of its node in the recorded graph; those of both parts of a cut network have the same names."""
    layout: Literal["NCHW", "NHWC", "tokens"]
    side: int
    """Places in a row, and rows."""
    layer: str = ""
    """The layer that gives it, or what the recorded graph calls it where no layer does."""
    in_front: int = 0
    """Tokens before the grid's: (N, in_front + side * side, C)."""

    def laid_out(self, value: Tensor) -> Tensor:
        """The tensor as (N, C, side, side)."""
        if self.layout == "tokens":
            return value[:, self.in_front :].transpose(1, 2).reshape(len(value), -1, self.side, self.side)
        return value if self.layout == "NCHW" else value.permute(0, 3, 1, 2)


def grids(parts: Parts) -> list[Grid]:
    """Where the maps of a network are taken: its last tensor with a grid; of several networks side by side, the last
    one of each.

    Raises
    ------
    ConfigError
        There is none.
    """
    kept = parts.backbone.traced.meta  # looked for once: a transformer's takes some passes
    if "grids" not in kept:
        kept["grids"] = _find_grids(parts)
    found: list[Grid] = kept["grids"]
    return found


def _find_grids(parts: Parts) -> list[Grid]:
    graph = parts.backbone.traced.graph
    last = _last_grids(graph)
    if last and all(grid.layout != "tokens" for grid in last):
        return last
    # A transformer's class token gathers from the grid in attention: behind the last one the grid's own tokens lead
    # nowhere. So the last tensor that everything passes through and whose grid has a gradient.
    for grid in _narrows(graph):
        probe = np.random.default_rng(0).integers(0, 256, (1, *parts.backbone.example().shape[1:]), np.uint8)
        if np.any(_signed_at(parts, [grid], probe, np.zeros((1, 1), np.int64))):
            return [grid]
    raise ConfigError(
        f"{parts.backbone.name} keeps no grid of places up to its end, so there is no heat map of it: choose a "
        "convolutional network"
    )


def _grid(node: fx.Node) -> Grid | None:
    """What of a grid a value has; None: it tells no places apart."""
    like = node.meta.get("like")
    shape = () if like is None else tuple(int(s) for s in like.shape)
    layer = str(node.target) if node.op == "call_module" else node.name
    if len(shape) == 4 and shape[2] == shape[3] > 1:
        return Grid(node.name, "NCHW", shape[2], layer)
    if len(shape) == 4 and shape[1] == shape[2] > 1:
        return Grid(node.name, "NHWC", shape[1], layer)
    for in_front in range(_TOKENS_IN_FRONT) if len(shape) == 3 else ():
        side = isqrt(max(shape[1] - in_front, 0))
        if side > 1 and side * side == shape[1] - in_front:
            return Grid(node.name, "tokens", side, layer, in_front)
    return None


def _last_grids(graph: fx.Graph) -> list[Grid]:
    """The tensors with a grid that are met first on each way back from the output."""
    nodes = list(graph.nodes)
    found: list[Grid] = []
    ways = {nodes[-1]}
    for node in reversed(nodes):
        if node not in ways or node.op == "placeholder":
            continue
        grid = _grid(node)
        if grid is None:
            ways.update(node.all_input_nodes)
        else:
            found.append(grid)
    return found


def _narrows(graph: fx.Graph) -> Iterator[Grid]:
    """The tensors with a grid that every way from the photos to the features passes through, last first."""
    place = {node: i for i, node in enumerate(graph.nodes)}
    used: set[fx.Node] = {next(iter(reversed(graph.nodes)))}
    earliest = len(place)  # what the nodes walked so far read, at the lowest
    for node in reversed(graph.nodes):
        if node not in used or node.op in ("placeholder", "get_attr"):
            continue
        if earliest >= place[node] and (grid := _grid(node)) is not None:
            yield grid
        sources = [s for s in node.all_input_nodes if s.op != "get_attr"]
        used.update(sources)
        earliest = min([earliest, *(place[s] for s in sources)])


def signed_maps(parts: Parts, photos: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
    """Evidence for (above 0) and against (below) each class at each place, float32 (N, K, h, w)."""
    where = grids(parts)
    batches = [slice(i, i + _BATCH) for i in range(0, len(photos), _BATCH)] or [slice(0, 0)]
    return np.concatenate([_signed_at(parts, where, photos[b], classes[b]) for b in batches])


def _signed_at(parts: Parts, where: Sequence[Grid], photos: Pixels, classes: npt.NDArray[np.int64]) -> Heat:
    import torch

    parts.above.set_training(False)
    parts.cut.prefix.eval()
    device = next(parts.above.head.parameters()).device
    side = max(grid.side for grid in where)
    if not len(photos):
        return np.zeros((*classes.shape, side, side), np.float32)
    seen: dict[str, Tensor] = {}
    with torch.enable_grad():
        live = _run(parts.cut.prefix, where, seen, torch.from_numpy(np.ascontiguousarray(photos)).to(device))
        features = _run(parts.above.suffix, where, seen, *live)
        logits = parts.above.head(features.float())
        centred = logits - logits.mean(1, keepdim=True)
        maps = []
        for k in range(classes.shape[1]):
            asked = centred.gather(1, torch.from_numpy(classes[:, k : k + 1]).to(device)).sum()
            slopes = torch.autograd.grad(asked, [seen[g.name] for g in where], retain_graph=True)
            each = [
                _spread(g.laid_out(slope * seen[g.name].detach()).sum(1), side)
                for g, slope in zip(where, slopes, strict=True)
            ]
            maps.append(torch.stack(each).sum(0))
    return np.asarray(torch.stack(maps, 1).cpu().numpy(), dtype=np.float32)


def _spread(contributions: Tensor, side: int) -> Tensor:
    """Contributions to a logit (N, h, w) on a finer grid, in all the same."""
    from torch.nn.functional import interpolate

    h, w = contributions.shape[1:]
    if h == side:
        return contributions
    return interpolate(contributions[:, None], (side, side), mode="bilinear")[:, 0] * (h * w / side**2)


def _run(network: Any, where: Sequence[Grid], seen: dict[str, Tensor], *inputs: Tensor) -> Any:
    """Run a recorded graph, and from the grids on keep what a gradient needs; `seen` gets their tensors by name.

    Below the grids nothing is kept: a map costs one forward pass in inference mode, and next to nothing after it.
    """
    import torch
    from torch import fx

    names = {grid.name for grid in where}

    class Watching(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            sources = (self.env.get(s) for s in n.all_input_nodes)
            with torch.set_grad_enabled(any(isinstance(s, torch.Tensor) and s.requires_grad for s in sources)):
                value = super().run_node(n)
            if n.name in names and n.op != "placeholder":
                seen[n.name] = value.detach().requires_grad_()
                return seen[n.name].clone()  # the next function may work in place
            return value

    return Watching(network).run(*inputs)


# ---- pictures --------------------------------------------------------------------------------------------------------

# black, purple, orange, yellow: lighter as it gets hotter, so that it reads without colour vision
_COLOURS = np.array([(10, 5, 40), (90, 20, 110), (190, 55, 85), (245, 135, 30), (255, 225, 60)], dtype=np.float64)


def coloured(heat: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """The colour of each place of a heat map: (H, W) of 0..1 to (H, W, 3) of 0..255."""
    steps = np.linspace(0, 1, len(_COLOURS))
    return np.stack([np.interp(heat, steps, _COLOURS[:, channel]) for channel in range(3)], axis=2)


def overlay(photo: Pixels, heat: npt.NDArray[Any]) -> Image.Image:
    """A heat map laid over its photo: grey and dark where nothing speaks for the class, coloured where something does.

    Parameters
    ----------
    photo
        (H, W, 3) uint8 of any size, the part of the photo that the network sees.
    heat
        (h, w), 0..1, of any resolution; or integers 0..255, as explanations.json has them.
    """
    values = np.asarray(heat)
    values = values.astype(np.float32) / (255 if values.dtype.kind in "iu" else 1)
    height, width = photo.shape[:2]
    fine = Image.fromarray(values).resize((width, height), Image.Resampling.BICUBIC)
    hot = np.clip(np.asarray(fine), 0, 1)[..., None]  # (H, W, 1)
    colour = coloured(hot[..., 0])
    grey = photo.mean(2, keepdims=True) * 0.8
    base = hot * photo + (1 - hot) * grey
    share = 0.55 * hot
    return Image.fromarray(np.clip((1 - share) * base + share * colour, 0, 255).astype(np.uint8))
