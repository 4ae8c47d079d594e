"""The suffix as it is trained: the same function of the same parameters, with less work a step.

A convolution, the batch norm behind it and the clamp behind that (ReLU, ReLU6) become one step. With its statistics
fixed, a batch norm is a factor and a shift per channel: both belong into the convolution, where they cost a few
thousand products instead of two more passes over the activations each way. The gradients of a 1x1 convolution are taken
as matrix products. The clamp works in place, on what the convolution has just written. The mean over a map hands its
gradient back as what it is, one value for all places: PyTorch makes a map of it, and in another layout takes ten times
as long over that.
"""

from __future__ import annotations

import sys
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable

_Norm = nn.modules.batchnorm._BatchNorm


def fold(suffix: nn.Module) -> nn.Module:
    """A network that shares the layers of `suffix` and computes the same, its batch norms in evaluation mode.

    What is no recorded graph, or holds nothing to fold, comes back as it is. Gradients reach the same parameters; the
    last bits differ, since in bfloat16 there is one rounding less.
    """
    if not isinstance(suffix, fx.GraphModule):
        return suffix
    graph = fx.Graph()
    output = graph.graph_copy(suffix.graph, {})
    graph.output(output)
    folded = fx.GraphModule(suffix, graph)
    for node in list(graph.nodes):
        if type(_layer(folded, node)) is nn.Conv2d:
            _fold_convolution(folded, node)
        else:
            _fold_mean(folded, node)
    graph.eliminate_dead_code()
    folded.recompile()
    return folded


def _fold_convolution(network: fx.GraphModule, node: fx.Node) -> None:
    """Replace a convolution, and with it the batch norm and the clamp behind it, where nothing else reads what is
    between them."""
    convolution = cast(nn.Conv2d, _layer(network, node))
    if convolution.padding_mode != "zeros" or isinstance(convolution.padding, str):
        return
    chain = [node]
    norm = _next(network, chain)
    if _is_known(norm):
        chain += chain[-1].users
    else:
        norm = None
    last = chain[-1]
    if type(norm) in (nn.BatchNorm2d, type(None)) and _bounds(_next(network, chain)):
        last = next(iter(last.users))
    with last.graph.inserting_before(last):
        layers = [node.graph.get_attr(str(n.target)) for n in chain]
        clamp = [node.graph.get_attr(str(last.target))] if last is not chain[-1] else []
        joined = node.graph.call_function(_unit, (node.args[0], layers, clamp))
    last.replace_all_uses_with(joined)
    for old in dict.fromkeys((last, *reversed(chain))):
        node.graph.erase_node(old)


def _layer(network: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def _next(network: fx.GraphModule, chain: list[fx.Node]) -> nn.Module | None:
    """The layer that alone reads what the chain gives."""
    users = list(chain[-1].users)
    return _layer(network, users[0]) if len(users) == 1 and users[0].args == (chain[-1],) else None


def _is_known(norm: nn.Module | None) -> bool:
    """Whether it is a plain batch norm with statistics, or timm's, which has the activation in it; a subclass may do
    anything else."""
    fused = sys.modules["timm.layers"].BatchNormAct2d if "timm.layers" in sys.modules else nn.BatchNorm2d
    return type(norm) in (nn.BatchNorm2d, fused) and norm is not None and norm.running_var is not None


class _Bounds(NamedTuple):
    low: float
    high: float | None


def _bounds(layer: nn.Module | None) -> _Bounds | None:
    """Where an activation that is a clamp cuts."""
    if type(layer) is nn.ReLU:
        return _Bounds(0.0, None)
    if isinstance(layer, nn.ReLU6 | nn.Hardtanh) and type(layer) in (nn.ReLU6, nn.Hardtanh):
        return _Bounds(float(layer.min_val), float(layer.max_val))
    return None


def _unit(x: Tensor, layers: list[nn.Module], clamp: list[nn.Module]) -> Tensor:
    """What a convolution, its batch norm in evaluation mode and an activation make of (N, C, H, W)."""
    convolution = cast(nn.Conv2d, layers[0])
    norm = cast(_Norm, layers[1]) if len(layers) > 1 else None
    inside: Any = norm if norm is not None and type(norm) is not nn.BatchNorm2d else None
    plain = inside is not None and type(inside.drop) is nn.Identity
    bounds = _bounds(clamp[0] if clamp else inside.act if plain else None)
    statistics: tuple[Any, ...] = (None,) * 4
    if norm is not None:
        statistics = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    eps = 0.0 if norm is None else norm.eps
    c = convolution
    out = _Unit.apply(x, c.weight, c.bias, *statistics, eps, (c.stride, c.padding, c.dilation, c.groups), bounds)
    if inside is None or (plain and bounds):
        return cast(Tensor, out)
    return cast(Tensor, inside.act(inside.drop(out)))


class _Unit(torch.autograd.Function):
    """clamp(norm(convolution(x))), its products in the number format that autocast asks for, its sums in float32."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, gamma: Tensor | None, beta: Tensor | None,
        mean: Tensor | None, variance: Tensor | None, eps: float, shape: tuple[Any, ...], bounds: _Bounds | None,
    ) -> Tensor:  # fmt: skip
        """(N, C, H, W) to (N, O, H', W')."""
        kind = x.device.type
        wide = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        x = x.to(wide)
        scale = centre = factor = None
        used, shift = weight, bias
        if mean is not None and variance is not None:
            scale = torch.rsqrt(variance + eps)
            factor = scale if gamma is None else scale * gamma
            centre = -mean if bias is None else bias - mean
            used = weight * factor[:, None, None, None]
            shift = centre * factor if beta is None else torch.addcmul(beta, centre, factor)
        used, shift = used.to(wide), None if shift is None else shift.to(wide)
        out = nn.functional.conv2d(x, used, shift, *shape)
        if bounds:
            out = out.clamp_(bounds.low, bounds.high)
        ctx.save_for_backward(x, weight, used, gamma, scale, factor, centre, out if bounds else None)
        ctx.shape, ctx.bounds = shape, bounds
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight, bias, gamma and beta."""
        x, weight, used, gamma, scale, factor, centre, out = ctx.saved_tensors
        if ctx.bounds:
            gradient = _past_clamp(gradient, out, ctx.bounds)
        wanted = (ctx.needs_input_grad[0], any(ctx.needs_input_grad[i] for i in (1, 3)))  # frozen weights need none
        of_x, of_weight, of_shift = _gradients(gradient, x, used, ctx.shape, wanted=wanted)
        if factor is None:
            return of_x, of_weight, of_shift if ctx.needs_input_grad[2] else None, *(None,) * 7
        of_gamma = of_bias = None
        if gamma is not None and ctx.needs_input_grad[3]:
            of_gamma = ((of_weight * weight).flatten(1).sum(1) + of_shift * centre) * scale
        if ctx.needs_input_grad[2]:
            of_bias = of_shift * factor
        return (
            of_x,
            of_weight * factor[:, None, None, None] if ctx.needs_input_grad[1] else None,
            of_bias,
            of_gamma,
            of_shift if ctx.needs_input_grad[4] else None,
            *(None,) * 5,
        )


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, shape: tuple[Any, ...], *, wanted: tuple[bool, bool]
) -> tuple[Tensor | None, Any, Tensor]:
    """Gradients of x and of the weights (None where they are not wanted), and of the shift.

    Those of a 1x1 convolution are matrix products over all places of all photos. Under that name PyTorch takes two
    thirds of the time for the weights' on small maps; on a GPU its own kernels are as good.
    """
    if x.device.type != "cpu" or weight.shape[2:] != (1, 1) or shape != ((1, 1), (0, 0), (1, 1), 1):
        sizes, rest = [len(weight)], (*shape[:3], False, (0, 0), shape[3], (*wanted, True))
        found = torch.ops.aten.convolution_backward(gradient, x, weight, sizes, *rest)
        return cast("tuple[Tensor | None, Any, Tensor]", found)
    places, rows = gradient.permute(0, 2, 3, 1).shape[:3], _rows(gradient)
    of_x = (rows @ weight.flatten(1)).view(*places, -1).permute(0, 3, 1, 2) if wanted[0] else None
    return of_x, (rows.t() @ _rows(x)).view_as(weight) if wanted[1] else None, rows.sum(0)


def _rows(x: Tensor) -> Tensor:
    """(N, C, H, W) to (N H W, C): no copy where the channels lie last in memory."""
    return x.permute(0, 2, 3, 1).flatten(0, 2)


def _past_clamp(gradient: Tensor, out: Tensor, bounds: _Bounds) -> Tensor:
    """The gradient of what was clamped to `out`; what lies at a bound has none."""
    gradient, places = gradient.permute(0, 2, 3, 1), out.permute(0, 2, 3, 1)  # in the order in which they lie in memory
    if bounds.high is None:
        gradient = torch.ops.aten.threshold_backward(gradient, places, bounds.low)
    else:
        gradient = torch.ops.aten.hardtanh_backward(gradient, places, bounds.low, bounds.high)
    return gradient.permute(0, 3, 1, 2)


# ---- the mean over a map ---------------------------------------------------------------------------------------------


def _fold_mean(network: fx.GraphModule, node: fx.Node) -> None:
    """The mean over H and W, as a method or as the layer that makes a map of 1 x 1."""
    layer = _layer(network, node)
    method = node.op == "call_method" and node.target == "mean" and node.args[1:] == ((2, 3),) and not node.kwargs
    if not method and not (type(layer) is nn.AdaptiveAvgPool2d and layer.output_size in (1, (1, 1))):
        return
    with node.graph.inserting_before(node):
        pooled = node.graph.call_function(_mean, (node.args[0], not method))
    node.replace_all_uses_with(pooled)
    node.graph.erase_node(node)


def _mean(x: Tensor, keep: bool) -> Tensor:
    return cast(Tensor, _Mean.apply(x, keep))


class _Mean(torch.autograd.Function):
    """The mean over H and W of (N, C, H, W), as (N, C) or (N, C, 1, 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: bool) -> Tensor:
        """(N, C) or (N, C, 1, 1)."""
        ctx.shape = x.shape
        mean = nn.functional.avg_pool2d(x, x.shape[2:])  # sums in float32 too, in a tenth of the time that `mean` takes
        return mean if keep else mean.flatten(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """One value for all places: (N, C, H, W) that is not laid out in memory."""
        n, c, height, width = ctx.shape
        return (gradient.reshape(n, c, 1, 1) / (height * width)).expand(n, c, height, width), None
