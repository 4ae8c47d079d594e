"""The number format of training: products of 16 bits where the hardware has them, else float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from frostline.config import Precision
from frostline.networks import devices


def settle(precision: Precision, device: torch.device) -> Precision:
    """What `auto` comes to: bfloat16 where the hardware multiplies it, float16 on an older accelerator, else
    float32."""
    return devices.half(device) if precision == "auto" else precision


def converted(live: Sequence[Tensor], precision: Precision) -> list[Tensor]:
    """Stored rows (float16) in the number format of the computation. uint8 photos stay: the network scales them."""
    dtype = devices.dtype_of(precision)
    return [_converted(t, dtype) if t.is_floating_point() else t for t in live]


def _converted(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The number format, and for images the memory layout that convolutions read fastest.

    From float16 to bfloat16 by way of float32, and the layout last: PyTorch takes twice as long for all of it in one
    pass.
    """
    rows = rows.float().to(dtype)
    return rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows
