"""MobileNetV2's layers (Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018, table 2).

The tensors' names, their order and their random start are torchvision's, so its published weights fit and a seed gives
the network that torchvision would (tested against it). Built here because importing it there brings PyTorch's compiler
along: a second of every run.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

_FIRST, _LAST, _CLASSES = 32, 1280, 1000
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Rows of the paper's table: factor of expansion, channels out, blocks, stride of the first one."""


class Bottleneck(nn.Module):
    """1x1 convolution to more channels, 3x3 on each channel, 1x1 back to few; the input is added where its shape is the
    same."""

    def __init__(self, into: int, out: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = into * factor
        widen = [_convolution(into, wide, 1)] if factor > 1 else []
        narrow = [nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out)]
        self.conv = nn.Sequential(*widen, _convolution(wide, wide, 3, stride, groups=wide), *narrow)
        self._residual = stride == 1 and into == out

    def forward(self, x: Tensor) -> Tensor:
        """(N, into, H, W) to (N, out, H / stride, W / stride)."""
        y = cast(Tensor, self.conv(x))
        return x + y if self._residual else y


def _convolution(into: int, out: int, side: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(into, out, side, stride, (side - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out), nn.ReLU6())


def features() -> nn.Sequential:
    """Photos (N, 3, H, W), normalised, to (N, 1280, H / 32, W / 32), with random weights."""
    blocks: list[nn.Module] = [_convolution(3, _FIRST, 3, 2)]
    into = _FIRST
    for factor, out, count, stride in _STAGES:
        for place in range(count):
            blocks.append(Bottleneck(into, out, 1 if place else stride, factor))
            into = out
    blocks.append(_convolution(into, _LAST, 1))
    nn.Linear(_LAST, _CLASSES)  # draws the random numbers of torchvision's classifier, which come before those below
    network = nn.Sequential(*blocks)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out")
    return network
