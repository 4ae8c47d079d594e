"""Engines run a frozen prefix: photos in, the tensors at the line out. One method each; the rest of frostline knows no other.

ONNX Runtime runs MobileNetV2 about ten times faster than eager PyTorch on a CPU; PyTorch is the engine on CUDA, and the
reference that the tests hold the other against.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import onnx
import onnxruntime
import torch
from filelock import FileLock
from torch import fx

from frostline import freeze
from frostline.config import EngineKind
from frostline.files import replacing
from frostline.images import Pixels
from frostline.reading import thread_count

BATCH = 32
"""Photos a pass. The same everywhere, so that a photo's numbers never depend on which command asked for them."""

Arrays = list[np.ndarray]


class Engine(Protocol):
    """Runs a network that was compiled once."""

    def run(self, photos: Pixels) -> Arrays:
        """Photos (N, H, W, 3) uint8 to the tensors at the line, each (N, ...), float32 or uint8."""
        ...


class TorchEngine:
    """PyTorch in inference mode, on the CPU or on CUDA."""

    def __init__(self, network: fx.GraphModule, device: torch.device) -> None:
        self._network = network.to(device).eval()
        self._device = device

    def run(self, photos: Pixels) -> Arrays:
        """See `Engine.run`. Padded to whole batches: PyTorch picks its sums by the batch, so a photo's bits would follow."""
        missing = -len(photos) % BATCH
        padded = np.concatenate([photos, np.zeros((missing, *photos.shape[1:]), photos.dtype)])
        with torch.inference_mode():
            outputs = self._network(torch.from_numpy(padded).to(self._device))
        return [output[: len(photos)].cpu().numpy() for output in outputs]


class OnnxEngine:
    """ONNX Runtime on the CPU, from a compiled file."""

    def __init__(self, path: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or thread_count()
        # waiting threads would otherwise spin, on the very cores that decode the next photos
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(self, photos: Pixels) -> Arrays:
        """See `Engine.run`."""
        return cast(Arrays, self._session.run(None, {"photos": photos}))


def choose(kind: EngineKind, device: torch.device) -> EngineKind:
    """Settle `auto`: PyTorch where training runs on CUDA, else ONNX Runtime."""
    if kind != "auto":
        return kind
    return "torch" if device.type == "cuda" else "onnx"


def compiled(network: fx.GraphModule, kind: EngineKind, device: torch.device, *, size: int, folder: Path) -> Engine:
    """An engine for `network`, whose compiled form is kept in `folder` under a name that knows all that shaped it.

    Parameters
    ----------
    size
        Side of the photos, pixels.

    Raises
    ------
    RunError
        No room for the compiled file.
    """
    if choose(kind, device) == "torch":
        return TorchEngine(network, device)
    parts = (freeze.identity(network), network.code, str(size), torch.__version__, onnx.__version__)
    path = folder / f"{hashlib.sha256('|'.join(parts).encode()).hexdigest()[:32]}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            _export(network, size, path)
    return OnnxEngine(path)


def _export(network: fx.GraphModule, size: int, path: Path) -> None:
    """Write `network` as ONNX with the number of photos left open. Takes about 4 s, most of it the exporter's start."""
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    with _silent():
        program = torch.onnx.export(
            network.cpu().eval(),
            (example,),
            input_names=["photos"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101 - the exporter returns None only when it is given a file
    with replacing(path) as temporary:
        temporary.write_bytes(program.model_proto.SerializeToString())


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """The exporter prints and warns about its own insides: nothing that a user could act on."""
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
