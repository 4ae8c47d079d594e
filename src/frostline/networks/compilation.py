"""From PyTorch networks to engines: export once, keep the file under a name that knows all that shaped it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor, fx, nn

from frostline.config import EngineKind, Precision
from frostline.files import replacing
from frostline.networks import devices, freeze_line
from frostline.networks.devices import CPU
from frostline.networks.engine import EXPORT, PHOTOS, Arrays, Engine, Settled, opened, settle, signature

BATCH = 32
"""Photos in one batch of a PyTorch network on the processor. The same everywhere, so that a photo's numbers never
depend on which command asked for them."""


@dataclass(frozen=True)
class Runtime:
    """What a network runs on: an engine, and the device that training uses."""

    engine: EngineKind = "auto"
    device: torch.device = CPU
    numbers: Precision = "auto"
    """The number format of frozen layers in PyTorch. `auto`: the one of 16 bits that an accelerator has in hardware;
    float32 on the processor, where PyTorch is the reference."""

    @property
    def settled(self) -> Settled:
        """The engine that `auto` comes to here."""
        return settle(self.engine, accelerator=self.device.type != "cpu")

    @property
    def precision(self) -> Precision:
        """The number format that `numbers` comes to."""
        if self.numbers != "auto":
            return self.numbers
        return "float32" if self.device.type == "cpu" else devices.half(self.device)

    @property
    def signature(self) -> str:
        """What of it shapes the numbers of frozen layers; part of the name of all that is kept of them."""
        where = ""
        if self.settled == "torch":
            plain = (self.device.type, self.precision) == ("cpu", "float32")
            where = "cpu" if plain else f" {self.device.type} {self.precision}"
        return f"{signature(self.settled)}, from torch {torch.__version__}{where}"


class TorchEngine:
    """PyTorch in inference mode: the engine on accelerators, and in float32 on the processor the reference that the
    tests hold the others against.

    On an accelerator it has a copy of the network: others share the layers, on the processor.
    """

    def __init__(self, network: nn.Module, device: torch.device, precision: Precision = "float32") -> None:
        self.batch = BATCH
        self._network = network.to(device).eval() if device.type == "cpu" else network
        self._device, self._precision = device, precision
        if device.type != "cpu" or precision != "float32":
            self.batch = devices.DEVICE_BATCH
            self._network = copy.deepcopy(network).to(device).to(memory_format=torch.channels_last).eval()

    def expect(self, count: int) -> None:
        """See `Engine.expect`: it takes whole batches anyway."""

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        """See `Engine.run`. Padded to whole batches: PyTorch picks its sums by the batch, so a photo's bits would
        follow."""
        count, device = len(inputs[0]), self._device
        missing = -count % self.batch
        padded = [np.concatenate([a, np.zeros((missing, *a.shape[1:]), a.dtype)]) if missing else a for a in inputs]
        parts = []
        with devices.in_turn(device), devices.memory_told(device), torch.inference_mode():
            for start in range(0, len(padded[0]), self.batch):
                batch = [devices.sent(torch.from_numpy(a[start : start + self.batch]), device) for a in padded]
                parts.append(self._outputs(batch))
            whole = [torch.cat(piece)[:count] for piece in zip(*parts, strict=True)]
            return [t.numpy() for t in devices.fetched(whole, device)]

    def _outputs(self, batch: Sequence[Tensor]) -> list[Tensor]:
        with devices.autocast(self._device, self._precision):
            outputs = self._network(*batch)
        several = list(outputs) if isinstance(outputs, tuple | list) else [outputs]
        return [t.float() if t.is_floating_point() else t for t in several]  # NumPy has no bfloat16


def compiled(
    network: nn.Module,
    example: Sequence[Tensor],
    runtime: Runtime,
    *,
    half: bool,
    folder: Path,
) -> Engine:
    """An engine for `network`, whose exported form is kept in `folder`.

    Parameters
    ----------
    example
        Inputs of one photo, each (1, ...): their shapes are the shapes that the engine takes.
    half
        See `frostline.networks.engine.opened`.

    Raises
    ------
    RunError
        No room for the exported file.
    """
    if runtime.settled == "torch":
        return TorchEngine(network, runtime.device, runtime.precision if half else "float32")
    with exported(network, example, folder) as file:
        return opened(runtime.settled, file, half=half)


@contextlib.contextmanager
def exported(network: nn.Module, example: Sequence[Tensor], folder: Path) -> Iterator[Path]:
    """The file that holds `network` as ONNX for one photo at a time. It is written if it is not there yet, and kept as
    long as it is held.

    Raises
    ------
    RunError
        No room for it.
    """
    shapes = [(tuple(t.shape), str(t.dtype)) for t in example]
    parts = [freeze_line.identity(network), _code(network), str(shapes), str(EXPORT), torch.__version__]
    several = _counts_photos(network)
    if several:
        parts.append(PHOTOS)
    path = folder / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            with replacing(path) as temporary:
                to_onnx(network, example, temporary, several=several)
        os.utime(path)  # what was used last is evicted last
        yield path


def _counts_photos(network: nn.Module) -> bool:
    """Whether a recorded network reads how many photos there are, as transformers do, or may do so in a block that was
    not recorded inside. The exporter would write their number down for good."""
    if not isinstance(network, fx.GraphModule):
        return False
    return bool(freeze_line.blocks(network)) or any(
        (n.op == "call_method" and n.target == "size") or (n.target is getattr and n.args[1] == "shape")
        for n in network.graph.nodes
    )


def _code(network: nn.Module) -> str:
    """What a network does with its tensors."""
    return "\n".join(f"{name} {getattr(m, 'code', m.extra_repr())}" for name, m in network.named_modules())


def to_onnx(
    network: nn.Module,
    example: Sequence[Tensor],
    path: Path,
    *,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
    opset: int | None = None,
    several: bool = False,
) -> None:
    """Write `network` as ONNX, for inputs of exactly the example's shapes.

    By the exporter that records a run (0.3 s for MobileNetV2); what it can't take goes to the one that analyses the
    code (4 s).

    Parameters
    ----------
    opset
        The operators' version; None leaves it to the exporter.
    several
        For any number of photos, which the file calls `PHOTOS`; where the network allows for it.
    """
    if several and _for_several(network, example, path):
        return
    names = list(inputs) or [f"input_{i}" for i in range(len(example))]
    options = {"input_names": names, "output_names": list(outputs) or None, "opset_version": opset}
    network = network.cpu().eval()
    with silent(), freeze_line.one_thread():
        try:
            torch.onnx.export(network, tuple(example), path, dynamo=False, **options)  # type: ignore[arg-type]
        except Exception:  # a different one for each thing that it doesn't know; the other exporter's errors are shown
            options |= {"dynamo": True, "verbose": False}
            program = torch.onnx.export(network, tuple(example), **options)  # type: ignore[arg-type]
            assert program is not None  # noqa: S101 - the exporter returns None only when it is given a file
            path.write_bytes(program.model_proto.SerializeToString())


class _Plain(nn.Module):
    """A recorded network without its graph, which the exporter would take for its own."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> Any:
        return self.network(*inputs)


def _for_several(network: nn.Module, example: Sequence[Tensor], path: Path) -> bool:
    """Write `network` for any number of photos; False where the exporter can't."""
    network = _Plain(network.cpu().eval())
    with silent(), freeze_line.one_thread():
        try:
            with torch.inference_mode():
                found = network(*example)
            inputs = [f"input_{i}" for i in range(len(example))]
            outputs = [f"output_{i}" for i in range(len(found) if isinstance(found, tuple | list) else 1)]
            torch.onnx.export(
                network,
                tuple(example),
                path,
                dynamo=False,
                input_names=inputs,
                output_names=outputs,
                dynamic_axes={name: {0: PHOTOS} for name in (*inputs, *outputs)},
            )
        except Exception:  # a different one for each thing that it doesn't know
            return False
    return True


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """The exporters print and warn about their own insides: nothing that a user could act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
