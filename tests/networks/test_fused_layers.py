"""The suffix as it is trained: the same function and the same gradients as the suffix that is kept."""

from __future__ import annotations

from typing import cast

import pytest
import torch
from torch import Tensor, fx, nn

from frostline.networks import backbone as backbones
from frostline.networks import freeze_line
from frostline.networks.fused_layers import fold
from frostline.recipes import resolve


def _moved_statistics(network: nn.Module) -> None:
    """Batch norms that do something: random weights leave them at mean 0, variance 1, factor 1."""
    for norm in (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)):
        for tensor in (norm.running_mean, norm.bias) if norm.affine else (norm.running_mean,):
            nn.init.normal_(tensor, std=0.2)  # type: ignore[arg-type]
        for tensor in (norm.running_var, norm.weight) if norm.affine else (norm.running_var,):
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
        ("efficientnet_b0", "top-30"),
    ],
)
def test_folded_suffix_computes_and_learns_the_same(name: str, line: str) -> None:
    torch.manual_seed(0)
    network = backbones.build(name, "random", image_size=64)
    _moved_statistics(network.network)
    cut = freeze_line.cut(network.traced, resolve(line, network.layer_count))
    photos = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    inputs = [t.detach() for t in cut.prefix(photos)]
    freeze_line.fixed_statistics(cut.suffix, training=True)
    folded = fold(cut.suffix)

    out, gradients = _gradients(folded, inputs, cut.suffix)
    plain, expected = _gradients(cut.suffix, inputs, cut.suffix)

    assert _norms_left(folded) <= 1  # one whose convolution lies below the line stays
    torch.testing.assert_close(out, plain, rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected.keys()
    for key, value in expected.items():
        assert (gradients[key] - value).norm() <= 1e-3 * value.norm() + 1e-5, key


class _Small(nn.Module):
    """One of each: 1x1 and others, with and without bias, norm and clamp, strides, groups, a residual and a map's mean
    as a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(6, 8, 1), nn.BatchNorm2d(8), nn.ReLU6()),
            *(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8, affine=False), nn.ReLU()),
            *(nn.Conv2d(8, 6, 1, bias=False), nn.BatchNorm2d(6)),
        )
        self.down = nn.Sequential(nn.Conv2d(6, 8, 1, stride=2), nn.BatchNorm2d(8), nn.Hardtanh(-1, 1))
        self.last = nn.Sequential(
            nn.Conv2d(8, 8, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 5, 1, bias=False), nn.SiLU()
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.last(self.down(self.body(x) + x)).flatten(1))


def _cut_of_small() -> tuple[fx.GraphModule, Tensor]:
    torch.manual_seed(1)
    network = _Small()
    _moved_statistics(network)
    x = 2 * torch.randn(4, 6, 6, 6)
    traced = freeze_line.trace(network, x)
    freeze_line.fixed_statistics(traced, training=True)
    return traced, x


def test_in_float64_folding_moves_no_gradient() -> None:
    traced, x = _cut_of_small()
    traced.double()
    twins = [x.double().requires_grad_(), x.double().requires_grad_()]
    before = {k: v.clone() for k, v in traced.named_buffers()}
    out, gradients = _gradients(fold(traced), [twins[0]], traced)
    plain, expected = _gradients(traced, [twins[1]], traced)

    torch.testing.assert_close(out, plain, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(twins[0].grad, twins[1].grad, rtol=1e-10, atol=1e-12)
    assert gradients.keys() == expected.keys() == dict(traced.named_parameters()).keys()
    for key, value in expected.items():
        torch.testing.assert_close(gradients[key], value, rtol=1e-10, atol=1e-12, msg=key)
    assert all(torch.equal(v, before[k]) for k, v in traced.named_buffers())  # the statistics are frozen


def test_every_clamp_and_norm_of_a_small_network_is_folded() -> None:
    traced, _ = _cut_of_small()
    nodes = cast(fx.GraphModule, fold(traced)).graph.nodes
    left = [type(traced.get_submodule(str(node.target))) for node in nodes if node.op == "call_module"]
    assert left == [nn.SiLU]


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_in_bfloat16_gradients_are_as_near_as_the_plain_ones(memory: torch.memory_format) -> None:
    traced, x = _cut_of_small()
    x = x.to(memory_format=memory)
    _, exact = _gradients(traced, [x], traced)
    with torch.autocast("cpu", torch.bfloat16):
        out, gradients = _gradients(fold(traced), [x.bfloat16()], traced)
        _, plain = _gradients(traced, [x.bfloat16()], traced)

    def far(some: dict[str, Tensor]) -> float:
        return sum(float((some[k] - v).norm() / v.norm()) for k, v in exact.items())

    assert out.dtype == torch.bfloat16
    assert all(g.dtype == torch.float32 for g in gradients.values())
    assert far(gradients) <= 1.5 * far(plain)


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
            return cast(Tensor, (self.norm(x) + x).mean((2, 3)))

    network = Twice()
    _moved_statistics(network)
    x = torch.rand(2, 3, 4, 4)
    traced = freeze_line.trace(network, x)
    assert _norms_left(fold(traced)) == 1
    torch.testing.assert_close(fold(traced)(x), network.eval()(x))


def test_what_is_no_recorded_graph_comes_back() -> None:
    plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    assert fold(plain) is plain
