"""The number format of training: bfloat16 products where the hardware has them, else float32."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from frostline.config import Precision


def settle(precision: Precision, device: torch.device) -> Precision:
    """What `auto` comes to: bfloat16 where the hardware multiplies it, else float32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """bfloat16 products with float32 master weights and sums, or plain float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False)


def converted(live: Sequence[Tensor], precision: Precision) -> list[Tensor]:
    """Stored rows (float16) in the number format of the computation. uint8 photos stay: the network scales them."""
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    return [_converted(t, dtype) if t.is_floating_point() else t for t in live]


def _converted(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The number format, and for images the memory layout that convolutions read fastest.

    From float16 to bfloat16 by way of float32, and the layout last: PyTorch takes twice as long for all of it in one
    pass.
    """
    rows = rows.float().to(dtype)
    return rows.contiguous(memory_format=torch.channels_last) if rows.dim() == 4 else rows
