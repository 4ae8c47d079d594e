"""The freeze line: cut a network at any layer into a frozen prefix and a trainable suffix.

A *layer* is a leaf module in execution order, as Keras counts layers. Line 0 leaves everything trainable; line n (of n
layers) freezes the whole backbone. What users say for it is in `frostline.networks.lines`. The cut may fall inside a
block: whatever tensors are live at the line (a residual branch beside the main one, say) are the boundary, so prefix
followed by suffix computes, bit for bit, what the whole network computes.
"""

from __future__ import annotations

import hashlib
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from frostline.errors import ConfigError

NORMS = (nn.modules.batchnorm._BatchNorm,)
"""Layers whose statistics move in training mode."""


class _LayerTracer(fx.Tracer):
    """Records a network layer by layer: modules without children are leaves, and so is what can't be looked into."""

    def __init__(self, opaque: tuple[type[nn.Module], ...], functions: tuple[Callable[..., Any], ...]) -> None:
        super().__init__(autowrap_functions=functions)
        self._opaque = opaque
        self.failed: nn.Module | None = None
        """The innermost module that could not be recorded."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return not any(True for _ in m.children()) or isinstance(m, self._opaque)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            self.failed = self.failed or m
            raise


class _Shapes(fx.Interpreter):
    """Runs a graph once to learn what each value is, and remembers which one could not be computed."""

    failed: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        try:
            value = super().run_node(n)
        except Exception:
            self.failed = n
            raise
        n.meta["type"] = type(value)
        if isinstance(value, torch.Size | int):
            n.meta["value"] = value
        if isinstance(value, Tensor):
            n.meta["like"] = value.detach().to("meta")  # shape and type, no data
            n.meta["largest"] = _largest(value)
        return value


def _largest(tensor: Tensor) -> float:
    """The largest magnitude of its numbers; 0 where it holds none, or none that are computed."""
    known = tensor.is_floating_point() and tensor.numel() and not tensor.is_meta
    return float(tensor.detach().abs().max()) if known else 0.0


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch computes on the calling core alone meanwhile.

    Where the other cores have work (photos being decoded, say), threads that wait for one another cost a multiple of
    what they save: a forward pass of one photo takes 1 s in place of 0.1.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def trace(network: nn.Module, photos: Tensor) -> fx.GraphModule:
    """Record `network` as a graph whose modules are its layers, in execution order.

    A block whose Python can't be recorded (control flow that depends on the data or its shape) counts as one layer: the
    innermost such block, so that all around it is still recorded layer by layer. `blocks` tells which.

    Parameters
    ----------
    network
        Takes one tensor. Left in evaluation mode: the graph shares its layers.
    photos
        An example input, used once to learn which values of the graph are tensors, and that the graph computes the
        same; on the device "meta" it only gives the shapes.

    Raises
    ------
    ConfigError
        It can't be recorded at all.
    """
    network.eval()
    opaque, functions = _opaque()
    while True:
        tracer = _LayerTracer(opaque, functions)
        shapes: _Shapes | None = None
        try:
            traced = fx.GraphModule(network, tracer.trace(network))
            shapes = _Shapes(traced)
            with torch.no_grad(), one_thread():
                _check_same(shapes.run(photos), network(photos))
        except Exception as error:
            block = tracer.failed if shapes is None else _around(network, tracer, shapes.failed)
            if block is None or type(block) in (type(network), *opaque):
                reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
                raise ConfigError(f"{type(network).__name__} can't be recorded layer by layer: {reason}") from error
            opaque = (*opaque, type(block))
        else:
            _fix_sizes(traced)
            return traced


def _fix_sizes(traced: fx.GraphModule) -> None:
    """Write the sizes of tensors as numbers, but for the batch: photos have one size here. Else a tensor would cross
    the line, and be stored, for its size alone."""
    for node in list(traced.graph.nodes):
        if node.op != "call_function" or node.target is not operator.getitem or not isinstance(node.args[1], int):
            continue
        sizes, place = node.args
        value, shape = node.meta.get("value"), sizes.meta.get("value")
        if isinstance(shape, torch.Size) and isinstance(value, int) and place % len(shape) != 0:
            for user in list(node.users):
                user.args = fx.map_arg(user.args, partial(_instead, node, value))
                user.kwargs = fx.map_arg(user.kwargs, partial(_instead, node, value))
            traced.graph.erase_node(node)
    for node in traced.graph.nodes:
        if node.op == "call_method" and node.target in ("reshape", "view") and "like" in node.meta:
            _fix_shape(node)
    for node in reversed(traced.graph.nodes):
        if not node.users and issubclass(node.meta.get("type", object), torch.Size | int):
            traced.graph.erase_node(node)
    traced.recompile()


def _fix_shape(node: fx.Node) -> None:
    """Let a reshaping find the batch by itself: all other sizes are known. So it needs no other tensor for its size."""
    source, *rest = node.args
    together = len(rest) == 1 and isinstance(rest[0], tuple | list)
    sizes: list[Any] = list(cast(Sequence[Any], rest[0])) if together else rest
    first, *others = sizes
    if isinstance(first, fx.Node) and not any(isinstance(size, fx.Node) for size in others):
        shape = (-1, *(int(size) for size in node.meta["like"].shape[1:]))
        node.args = (source, shape) if together else (source, *shape)


def _instead(old: fx.Node, value: int, node: fx.Node) -> fx.Node | int:
    return value if node is old else node


def _check_same(recorded: Tensor, whole: Tensor) -> None:
    """Refuse a recording in which Python's decisions for the example were taken for good."""
    if not whole.is_meta and not torch.allclose(recorded, whole, rtol=1e-4, atol=1e-6, equal_nan=True):
        raise ValueError("it would compute something else")


def features(traced: fx.GraphModule) -> int:
    """Length F of the feature vectors (N, F) that a recorded network gives.

    Raises
    ------
    ConfigError
        It gives something else.
    """
    (output,) = (n for n in traced.graph.nodes if n.op == "output")
    like = output.meta.get("like")
    if like is None or like.dim() != 2:
        shape = "no tensor" if like is None else " x ".join(map(str, like.shape))
        raise ConfigError(f"the network gives {shape}, expected a feature vector for each photo: choose another one")
    return int(like.shape[1])


def _around(network: nn.Module, tracer: _LayerTracer, node: fx.Node | None) -> nn.Module | None:
    """The innermost module that was looked into when `node` was recorded; without a node all that the network holds."""
    if node is None:
        return next(network.children(), None)
    stack = node.meta.get("nn_module_stack", {})
    for name, _ in reversed(stack.values()):
        module = network.get_submodule(name)
        if not tracer.is_leaf_module(module, name):
            return module
    return None


def blocks(traced: fx.GraphModule) -> list[str]:
    """The dotted names of the layers that hold further layers with weights, since what goes on inside could not be
    recorded."""
    return [
        name
        for name in layers(traced)
        if any(True for child in traced.get_submodule(name).children() for _ in child.parameters())
    ]


def _opaque() -> tuple[tuple[type[nn.Module], ...], tuple[Callable[..., Any], ...]]:
    """Modules and functions of timm that can't be looked into; its fused norm-and-activation counts as one layer."""
    if "timm" not in sys.modules:  # then no layer here is timm's, and half a second and 30 MB are saved
        return (), ()
    layers: Any = import_module("timm.layers")
    modules = (*layers.get_notrace_modules(), layers.BatchNormAct2d)
    return modules, tuple(layers.get_notrace_functions())


def layers(traced: fx.GraphModule) -> list[str]:
    """The dotted names of a recorded network's layers, in execution order; the line counts these from the bottom."""
    return [str(node.target) for node in traced.graph.nodes if node.op == "call_module"]


@dataclass(frozen=True)
class Cut:
    """A network in two parts that share their layers with the whole."""

    prefix: fx.GraphModule
    """Photos to a tuple of the tensors that are live at the line."""
    suffix: fx.GraphModule
    """Those tensors to features (N, F)."""
    line: int
    """Layers below the line."""
    shapes: tuple[tuple[int, ...], ...]
    """Shape of each live tensor, without the batch."""
    dtypes: tuple[torch.dtype, ...]
    """Type of each live tensor: uint8 photos at line 0, floating point above."""
    largest: float
    """The largest magnitude in any of them when the network was recorded, for an image of noise."""


def cut(traced: fx.GraphModule, line: int) -> Cut:
    """Cut a recorded network above its first `line` layers.

    The prefix takes every node that runs before layer number `line`, so functions without parameters (a residual sum,
    the global pooling at the top) fall below the line where they can. At line 0 the prefix is empty: the boundary is
    the photos.

    Raises
    ------
    ConfigError
        A layer with weights runs on both sides of the line, so that it can't be frozen and trained at once; or what
        crosses the line has no row for each photo.
    """
    nodes = list(traced.graph.nodes)
    below = _below(nodes, line)
    _check_shared(traced, nodes, below)
    above = [n for n in nodes if n not in below and n.op != "placeholder"]
    live, again = _crossing(nodes, below, above)
    _check_photos(nodes, live)
    prefix = _subgraph(traced, [n for n in nodes if n in below or n.op == "placeholder"], inputs=[], outputs=live)
    suffix = _subgraph(traced, [n for n in nodes if n in again or n in above], inputs=live, outputs=None)
    metas = [n.meta["like"] for n in live]
    shapes = tuple(tuple(int(s) for s in m.shape[1:]) for m in metas)
    largest = max(float(n.meta["largest"]) for n in live)
    return Cut(prefix, suffix, line, shapes, tuple(m.dtype for m in metas), largest)


def boundary(traced: fx.GraphModule, line: int) -> tuple[tuple[int, ...], ...]:
    """Shapes, without the batch, of the tensors that are live at a line: those of `cut`, without building its two
    networks.

    Raises
    ------
    ConfigError
        As `cut`.
    """
    nodes = list(traced.graph.nodes)
    below = _below(nodes, line)
    _check_shared(traced, nodes, below)
    live, _ = _crossing(nodes, below, [n for n in nodes if n not in below and n.op != "placeholder"])
    _check_photos(nodes, live)
    return tuple(tuple(int(s) for s in n.meta["like"].shape[1:]) for n in live)


def taps(traced: fx.GraphModule, lines: Iterable[int]) -> fx.GraphModule:
    """One network that gives the boundary tensors of several lines in a single pass, line after line.

    They are copied at their line: the next layer may work in place (most activations do) and would change them.
    """
    nodes = list(traced.graph.nodes)
    order = list(lines)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    kept: dict[int, list[fx.Node]] = {}
    done = 0
    for line in sorted(set(order)):
        below = _below(nodes, line)
        run = [n for n in nodes if n in below or n.op == "placeholder"]
        for node in run[done:]:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
        done = len(run)
        live, _ = _crossing(nodes, below, [n for n in nodes if n not in below and n.op != "placeholder"])
        kept[line] = [graph.call_method("clone", (copies[n],)) for n in live]
    graph.output(tuple(node for line in order for node in kept[line]))
    return fx.GraphModule(traced, graph)


def _below(nodes: list[fx.Node], line: int) -> set[fx.Node]:
    """The nodes that run before layer number `line`."""
    if line == 0:
        return set()
    below: set[fx.Node] = set()
    seen = 0
    for node in nodes:
        if node.op == "output":
            break
        if node.op == "call_module":
            if seen == line:
                break
            seen += 1
        if node.op != "placeholder":
            below.add(node)
    return below


def _crossing(nodes: list[fx.Node], below: set[fx.Node], above: list[fx.Node]) -> tuple[list[fx.Node], set[fx.Node]]:
    """What the part above needs from below: tensors, which cross the line; and the rest, which is computed again above
    it.

    Parameters read as attributes, sizes and other values that are the same for every photo can't be stored per photo;
    the nodes that make them are repeated in the suffix, from tensors that cross.
    """
    tensors: set[fx.Node] = set()
    again: set[fx.Node] = set()
    carried = of_photos(nodes)
    queue = [source for node in above for source in node.all_input_nodes]
    sources = below | {n for n in nodes if n.op == "placeholder"}
    while queue:
        node = queue.pop()
        if node not in sources or node in tensors or node in again:
            continue
        if node in carried and node.meta.get("type") is Tensor:
            tensors.add(node)
        else:
            again.add(node)
            queue += node.all_input_nodes
    return [n for n in nodes if n in tensors], again


def of_photos(nodes: Iterable[fx.Node]) -> set[fx.Node]:
    """The nodes whose values follow from the photos' pixels: not those that need parameters and sizes alone."""
    carried: set[fx.Node] = set()
    for node in nodes:  # in execution order
        sizes = issubclass(node.meta.get("type", object), torch.Size | int | float | torch.dtype | torch.device)
        if node.op == "placeholder" or (not sizes and any(source in carried for source in node.all_input_nodes)):
            carried.add(node)
    return carried


def _check_shared(traced: fx.GraphModule, nodes: list[fx.Node], below: set[fx.Node]) -> None:
    calls = [n for n in nodes if n.op == "call_module"]
    for name in {str(n.target) for n in calls if n in below} & {str(n.target) for n in calls if n not in below}:
        if any(True for _ in traced.get_submodule(name).parameters()):
            raise ConfigError(f"layer '{name}' runs on both sides of the freeze line: choose another line")


def _check_photos(nodes: list[fx.Node], live: list[fx.Node]) -> None:
    """Refuse a line at which a photo is no row of a tensor: inside a block that attends within windows, say."""
    (photos,) = (n.meta["like"].shape[0] for n in nodes if n.op == "placeholder")
    if any(n.meta["like"].dim() == 0 or n.meta["like"].shape[0] != photos for n in live):
        raise ConfigError("photos can't be kept apart at this freeze line: choose another line, a block's edge say")


def _subgraph(
    traced: fx.GraphModule, nodes: list[fx.Node], *, inputs: list[fx.Node], outputs: list[fx.Node] | None
) -> fx.GraphModule:
    """A graph of `nodes` alone, sharing the layers of `traced`; `outputs` None keeps the network's own output."""
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {n: graph.placeholder(f"live_{i}") for i, n in enumerate(inputs)}
    for node in nodes:
        if node not in copies:
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    if outputs is not None:
        graph.output(tuple(copies[n] for n in outputs))
    return fx.GraphModule(traced, graph)


def fixed_statistics(network: nn.Module, training: bool) -> None:
    """Set training or evaluation mode, with every batch norm in evaluation mode: its statistics stay as published.

    Moving statistics are the field's most frequent defect: they change a frozen network although no gradient reaches
    it.
    """
    network.train(training)
    for module in network.modules():
        if isinstance(module, NORMS):
            module.eval()


def parameter_counts(prefix: nn.Module, suffix: nn.Module, head: nn.Module) -> tuple[int, int]:
    """(total, trainable): the prefix is frozen, all above the line learns."""
    above = parameter_count(suffix) + parameter_count(head)
    return parameter_count(prefix) + above, above


def parameter_count(network: nn.Module) -> int:
    """Parameters of a network."""
    return sum(p.numel() for p in network.parameters())


def identity(network: nn.Module) -> str:
    """SHA-256 over the names and bytes of all tensors: what tells two networks of one architecture apart."""
    digest = hashlib.sha256()
    for key, value in sorted(_tensors(network), key=lambda item: item[0]):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype};".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _tensors(network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, those outside the state too (the scaling of the photos shapes activations)."""
    yield from network.named_parameters()
    yield from network.named_buffers()
