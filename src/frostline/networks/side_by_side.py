"""Several backbones side by side, as one: ``mobilenet_v2+tf_efficientnet_lite0``.

Each sees the same photo, scaled as its publisher did; their features stand one behind the other. Their layers
take turns, aligned at the top, so that a line has as many layers of each above it (those without parameters included).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, fx, nn


class Part(nn.Module):
    """One of the networks, behind its own scaling."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.body = body
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, photos: Tensor) -> Tensor:
        """Photos (N, 3, H, W), 0..1, to features (N, F)."""
        return cast(Tensor, self.body((photos - self.mean) / self.std))


class Joint(nn.Module):
    """Networks that take the same photos."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, photos: Tensor) -> Tensor:
        """Photos (N, 3, H, W), 0..1, to features (N, sum of F)."""
        return torch.cat([part(photos) for part in self.parts], 1)


def in_turns(traced: fx.GraphModule) -> fx.GraphModule:
    """The same graph with the networks' layers in turns, aligned at the top. One network's graph comes back as it
    is."""
    nodes = list(traced.graph.nodes)
    owners = _owners(nodes)
    if not owners:
        return traced
    count = max(owners.values()) + 1
    above = _layers_above(nodes, owners, count)
    order = sorted(owners, key=lambda node: (-above[node], owners[node]))  # stable: each network keeps its own order
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    free = [n for n in nodes if n not in owners]
    first = [n for n in free if not _needs(n, owners)]
    for node in [*first, *order, *(n for n in free if n not in first)]:
        copies[node] = graph.node_copy(node, lambda source: copies[source])
    return fx.GraphModule(traced, graph)


def _owners(nodes: Sequence[fx.Node]) -> dict[fx.Node, int]:
    """Which network each value belongs to: a layer by its name, the rest by what it is computed from."""
    owners: dict[fx.Node, int] = {}
    for node in nodes:
        names = str(node.target).split(".") if node.op in ("call_module", "get_attr") else []
        if "parts" in names:
            owners[node] = int(names[names.index("parts") + 1])
            continue
        sources = {owners[source] for source in node.all_input_nodes if source in owners}
        if len(sources) == 1 and node.op != "output":
            owners[node] = sources.pop()
    return owners


def _layers_above(nodes: Sequence[fx.Node], owners: dict[fx.Node, int], count: int) -> dict[fx.Node, int]:
    """How many layers of its own network run after each value."""
    left = [sum(n.op == "call_module" and owners.get(n) == k for n in nodes) for k in range(count)]
    above = {}
    for node in nodes:
        if node in owners:
            left[owners[node]] -= node.op == "call_module"
            above[node] = left[owners[node]]
    return above


def _needs(node: fx.Node, owners: dict[fx.Node, int]) -> bool:
    """Whether a value that belongs to no network is computed from one that does."""
    return any(source in owners or _needs(source, owners) for source in node.all_input_nodes)
