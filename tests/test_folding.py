"""The suffix as it is trained: the same function and the same gradients as the suffix that is kept."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, fx, nn

from frostline import backbone as backbones
from frostline import freeze
from frostline.folding import fold


def _moved_statistics(network: nn.Module) -> None:
    """Batch norms that do something: random weights leave them at mean 0, variance 1, factor 1."""
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.bias):
            nn.init.normal_(tensor, std=0.2)  # type: ignore[arg-type]
        for tensor in (norm.running_var, norm.weight):
            nn.init.uniform_(tensor, 0.5, 1.5)  # type: ignore[arg-type]


def _gradients(body: nn.Module, inputs: list[Tensor], owner: nn.Module) -> tuple[Tensor, dict[str, Tensor]]:
    owner.zero_grad()
    out = body(*inputs)
    (out * torch.linspace(-1, 1, out.shape[1])).sum().backward()
    return out.detach(), {k: p.grad.clone() for k, p in owner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("mobilenet_v2", "top-6"),
        ("mobilenet_v2", "top-30"),
        ("resnet18", "top-20"),
        ("tf_efficientnet_lite0", "top-20"),
        ("mobilenetv3_small_050", "top-20"),
    ],
)
def test_folded_suffix_computes_and_learns_the_same(name: str, line: str) -> None:
    torch.manual_seed(0)
    network = backbones.build(name, "random", image_size=64)
    _moved_statistics(network.network)
    cut = freeze.cut(network.traced, freeze.resolve(line, network.layer_count))
    photos = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    inputs = [t.detach() for t in cut.prefix(photos)]
    freeze.fixed_statistics(cut.suffix, training=True)
    folded = fold(cut.suffix)

    out, gradients = _gradients(folded, inputs, cut.suffix)
    plain, expected = _gradients(cut.suffix, inputs, cut.suffix)

    assert _norms_left(folded) <= 1  # one whose convolution lies below the line stays
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        assert (gradients[key] - value).norm() <= 1e-3 * value.norm() + 1e-5, key


def _norms_left(network: nn.Module) -> int:
    nodes = cast(fx.GraphModule, network).graph.nodes
    layers = [network.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"]
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in layers)


def test_a_convolution_that_is_read_twice_stays() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, photos: Tensor) -> Tensor:
            x = self.conv(photos)
            return (self.norm(x) + x).mean((2, 3))

    network = Twice()
    _moved_statistics(network)
    x = torch.rand(2, 3, 4, 4)
    traced = freeze.trace(network, x)
    assert _norms_left(fold(traced)) == 1
    torch.testing.assert_close(fold(traced)(x), network.eval()(x))


def test_what_is_no_recorded_graph_comes_back() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert fold(plain) is plain
