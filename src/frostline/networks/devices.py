"""The devices that PyTorch computes on: the processor, NVIDIA's and AMD's cards (cuda), Apple's (mps), Intel's (xpu).

All that depends on the kind of device stands here; the rest of frostline runs the same code on each of them. No
accelerator was at hand when this was written: `make bench-device` runs the tests and the measurements on one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from frostline.config import Device, Precision
from frostline.errors import ConfigError, RunError, one_line
from frostline.networks.engine import processor

CPU = torch.device("cpu")

ACCELERATORS = ("cuda", "mps", "xpu")
"""In the order in which `auto` looks for them."""

DEVICE_BATCH = 64
"""Photos that an accelerator takes at a time below the line, always: a photo's bits follow the size of its batch.
Reckoned and not measured: starting MobileNetV2's 150 kernels takes about 2 ms, in which no processor decodes 64."""

ROWS_SHARE = 0.5
"""The share of an accelerator's free memory that rows of the activation cache may take; the rest is for training."""

_VOLTA = (7, 0)  # from here on NVIDIA's cards multiply float16 in hardware; bfloat16 from (8, 0) on

_one_at_a_time = threading.RLock()


# ---- which device ----------------------------------------------------------------------------------------------------


def present() -> list[torch.device]:
    """The devices here: the processor, then one of each kind of accelerator that PyTorch sees."""
    return [CPU, *(torch.device(kind) for kind in ACCELERATORS if _is_present(kind))]


def _is_present(kind: str) -> bool:
    if kind == "mps":
        return torch.backends.mps.is_available()
    return torch.cuda.is_available() if kind == "cuda" else torch.xpu.is_available()


def choose(asked: Device = "auto") -> torch.device:
    """The device that `asked` comes to, set up to give the same bits each time where it can.

    `auto` takes the first accelerator that PyTorch sees and can compute on, else the processor.

    Raises
    ------
    ConfigError
        PyTorch sees no such device here, or can't compute on it.
    """
    if asked == "auto":
        device = next((d for d in present()[1:] if not fault(d)), CPU)
    elif asked != "cpu" and not _is_present(asked):
        raise ConfigError(f"device '{asked}': PyTorch sees none here; use --device cpu")
    else:
        device = torch.device(asked)
        if why := fault(device):
            raise ConfigError(f"device '{asked}': PyTorch can't compute on it ({why}); use --device cpu")
    _make_deterministic(device)
    return device


def fault(device: torch.device) -> str:
    """Why PyTorch can't compute on a device that it sees, in a line: a card too old or too new for it, an old driver.
    Empty where it can."""
    try:
        torch.ones(2, device=device).sum().item()
    except Exception as error:  # each backend has its own
        return one_line(error)
    return ""


def name(device: torch.device) -> str:
    """What a device calls itself: "NVIDIA H200", "Apple M3"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "xpu":
        return torch.xpu.get_device_name(device)
    return processor()  # Apple's accelerator is a part of it


# ---- number formats --------------------------------------------------------------------------------------------------


def half(device: torch.device) -> Precision:
    """The number format of 16 bits that an accelerator multiplies in hardware: bfloat16 where it can, which needs no
    scaling of losses, else float16; float32 where it has neither."""
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bfloat16"
        return "float16" if torch.cuda.get_device_capability(device) >= _VOLTA else "float32"
    if device.type == "xpu":
        return "bfloat16" if torch.xpu.is_bf16_supported(including_emulation=False) else "float16"
    if device.type == "mps":
        return "bfloat16" if torch.backends.mps.is_macos_or_newer(14, 0) else "float16"
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if fast else "float32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[object]:
    """Products in a number format of 16 bits with float32 weights and sums, or plain float32."""
    dtype = dtype_of(precision)
    halved = dtype != torch.float32
    return torch.autocast(device.type, dtype if halved else torch.bfloat16, enabled=halved, cache_enabled=False)


def dtype_of(precision: Precision) -> torch.dtype:
    """PyTorch's name of a settled number format."""
    return {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)


# ---- the same bits ---------------------------------------------------------------------------------------------------


def deterministic(device: torch.device) -> bool:
    """Whether the same seed gives the same bits on the same device; Apple's accelerator does not promise it."""
    return device.type != "mps"


def _make_deterministic(device: torch.device) -> None:
    """Ask PyTorch for kernels that give the same bits each time; where one has none, PyTorch warns and goes on.

    On the processor nothing is asked for. The kernels used here are deterministic anyway, and asking would import
    PyTorch's compiler (1 s).
    """
    if device.type == "cpu":
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # before CUDA's first matrix product
    torch.set_deterministic_debug_mode("warn")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # costs time only
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32: bundles are evaluated in it


def in_turn(device: torch.device) -> AbstractContextManager[object]:
    """Held while a thread computes: on Apple's accelerator one thread at a time, elsewhere PyTorch takes many."""
    return _one_at_a_time if device.type == "mps" else nullcontext()


# ---- copies and clocks -----------------------------------------------------------------------------------------------


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device; the copy goes on while the processor does, from memory that the system can't move."""
    return pinned(tensor, device).to(device, non_blocking=True)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """The same tensor in memory that a device copies from by itself, where there is such a thing."""
    return tensor.pin_memory() if device.type in ("cuda", "xpu") and not tensor.is_pinned() else tensor


def fetched(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Tensors of a device on the processor: all copies are begun, then waited for once."""
    if device.type not in ("cuda", "xpu"):
        return [t.cpu() for t in tensors]
    copies = [torch.empty(t.shape, dtype=t.dtype, pin_memory=True).copy_(t, non_blocking=True) for t in tensors]
    synchronise(device)
    return copies


def synchronise(device: torch.device) -> None:
    """Wait for all that was begun on a device: before a clock is read."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


# ---- memory ----------------------------------------------------------------------------------------------------------


def room_for_rows(device: torch.device) -> int:
    """Bytes that rows of the activation cache may take on a device; 0 on the processor, which reads them from the
    disk's cache."""
    if device.type == "cpu":
        return 0
    if device.type == "mps":
        free = torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    else:
        backend = _backend(device)
        unused = backend.memory_reserved(device) - backend.memory_allocated(device)  # PyTorch holds it for later
        free = backend.mem_get_info(device)[0] + unused
    return int(ROWS_SHARE * max(free, 0))


def peak_memory_mb(device: torch.device) -> float | None:
    """The most memory that PyTorch has held on a device so far, in MB of 10^6 bytes; None where nothing tells."""
    if device.type in ("cuda", "xpu"):
        return float(round(_backend(device).max_memory_allocated(device) / 1e6, 1))
    return None


def _backend(device: torch.device) -> Any:
    return torch.cuda if device.type == "cuda" else torch.xpu


@contextmanager
def memory_told(device: torch.device) -> Iterator[None]:
    """Tell in one line that a device's memory is full.

    Raises
    ------
    RunError
        It is.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"the memory of device '{device.type}' is full: close what else uses it, choose a smaller --image-size, or "
            "use --device cpu"
        ) from error
