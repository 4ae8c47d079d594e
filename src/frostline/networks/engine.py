"""Engines run compiled networks: the frozen prefix of a study, and whole bundles. The rest of frostline knows
`Engine.run` alone.

A CPU engine takes one photo at a time on one core, or a few where many come and that changes no bit (`Engine.expect`);
as many calls are under way as there are callers (`frostline.parallel.ahead`), and a photo's bits depend neither on its
neighbours nor on the number of cores. Nothing here imports PyTorch: `frostline predict` starts in a fraction of the
time. What turns a PyTorch network into a compiled file is `frostline.networks.compilation`.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from frostline.config import EngineKind, require
from frostline.parallel import thread_count

Arrays = list[npt.NDArray[Any]]

Settled = Literal["openvino", "onnx", "torch"]
"""What `auto` can come to."""


EXPORT = 2  # raise it whenever a network is exported in another way


PHOTOS = "photos"
"""What an exported network calls the number of its photos where that is left open."""


class Engine(Protocol):
    """Runs a network that was compiled once. May be called from many threads at once."""

    batch: int
    """How many photos are best given at a time."""

    def expect(self, count: int) -> None:
        """Say that about so many photos will come: an engine may get ready to take several at a time, where that
        changes no bit."""
        ...

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        """The network's inputs, each (N, ...), to its outputs, each (N, ...)."""
        ...


class OnnxEngine:
    """ONNX Runtime on the CPU, in float32."""

    batch = 1

    def __init__(self, model: Path | bytes) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_free_dimension_override_by_name(PHOTOS, 1)
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._names = [i.name for i in self._session.get_inputs()]

    def expect(self, count: int) -> None:
        """See `Engine.expect`: one at a time is as quick."""

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        """See `Engine.run`."""
        rows = [self._one([np.ascontiguousarray(a[i : i + 1]) for a in inputs]) for i in range(len(inputs[0]))]
        return _joined(rows)

    def _one(self, inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        outputs: Arrays = self._session.run(None, dict(zip(self._names, inputs, strict=True)))
        return outputs


_first_call = threading.Lock()
"""OpenVINO's Python layer sets tables up in its first inference, and two threads that meet there wait for each other
for ever (2026.4)."""


SEVERAL = 4
"""Photos that OpenVINO takes at a time where many come: each layer's weights are fetched once for all of them.
MobileNetV2 on two cores with 1 MB of cache each: 4.4 ms of a core for a photo one at a time, 4.0 two, 3.9 four, and
from eight on more than one at a time."""

MANY = 200
"""Photos from which getting ready for several at a time (0.2 s) pays."""

PAYS = 10
"""The same for a transformer, in times that it takes to compile it. ViT-Tiny gains up to 40 %, ViT-S 7 to 19 %, TinyViT
6 %, some nothing."""


class OpenVinoEngine:
    """OpenVINO on the CPU: bfloat16 products where the hardware has them and `half` allows, else float32.

    A stream is one core's worth of work; each calling thread has a request of its own.
    """

    def __init__(self, model: Path | bytes, *, half: bool) -> None:
        self.batch = 1
        self._settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if half and multiplies_bfloat16() else "f32",
            "NUM_STREAMS": thread_count(),
            "INFERENCE_NUM_THREADS": thread_count(),
            "ENABLE_CPU_PINNING": False,  # the same cores decode the next photos
        }
        self._model = _openvino().read_model(model)
        self._open = any(i.partial_shape.is_dynamic for i in self._model.inputs)
        if self._open:
            self._model.reshape(_shapes(self._model, 1))
        began = time.perf_counter()
        one = _openvino().compile_model(self._model, "CPU", self._settings)
        self._compiling = time.perf_counter() - began
        self._networks: dict[int, Any] = {1: one}  # by the number of photos that they take
        self._own = threading.local()
        with _first_call:
            self._infer([np.zeros(list(i.shape), i.element_type.to_dtype()) for i in one.inputs])

    def expect(self, count: int) -> None:
        """See `Engine.expect`. Tried on noise: what comes out otherwise, or can't be made for several at a time, stays
        one by one; so does a transformer that several at a time make no quicker."""
        if count < MANY or SEVERAL in self._networks:
            return
        rng = np.random.default_rng(0)
        ones = self._networks[1].inputs
        noise = [rng.integers(0, 256, [SEVERAL, *list(i.shape)[1:]]).astype(i.element_type.to_dtype()) for i in ones]
        began = time.perf_counter()
        if self._open:
            self.run([a[:1] for a in noise])
            if count * (time.perf_counter() - began) < PAYS * thread_count() * self._compiling:
                return
        wide = self._model.clone()
        try:
            wide.reshape(_shapes(wide, SEVERAL))
            self._networks[SEVERAL] = _openvino().compile_model(wide, "CPU", self._settings)
            together = self._infer(noise)
        except RuntimeError:  # made for one photo in one of its layers
            return
        if not all(np.array_equal(a, b) for a, b in zip(together, self.run(noise), strict=True)):
            return
        if not self._open or _seconds(lambda: self._infer(noise)) < _seconds(lambda: self.run(noise)):
            self.batch = SEVERAL

    def run(self, inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        """See `Engine.run`."""
        rows, start, count = [], 0, len(inputs[0])
        while start < count:
            end = start + (self.batch if count - start >= self.batch else 1)
            rows.append(self._infer([np.ascontiguousarray(a[start:end]) for a in inputs]))
            start = end
        return _joined(rows)

    def _infer(self, inputs: Sequence[npt.NDArray[Any]]) -> Arrays:
        """As many photos as one of the networks takes."""
        requests: dict[int, Any] = self._own.__dict__.setdefault("requests", {})
        count = len(inputs[0])
        if count not in requests:
            requests[count] = self._networks[count].create_infer_request()
        requests[count].infer(dict(enumerate(inputs)), share_inputs=True)
        return [output.data.copy() for output in requests[count].output_tensors]  # the next call overwrites them


def _shapes(model: Any, count: int) -> dict[Any, list[int]]:
    """The shapes of an OpenVINO model's inputs for so many photos."""
    sizes = {i: i.partial_shape for i in model.inputs}
    return {i: [count, *(shape[n].get_length() for n in range(1, len(shape)))] for i, shape in sizes.items()}


def _seconds(work: Callable[[], object]) -> float:
    """How long it takes: the quicker of two times."""
    found = []
    for _ in range(2):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


def _joined(rows: Sequence[Arrays]) -> Arrays:
    """The outputs (n, ...) of several calls as those of one."""
    return rows[0] if len(rows) == 1 else [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def settle(kind: EngineKind, *, accelerator: bool = False) -> Settled:
    """Settle `auto`: PyTorch where training runs on an accelerator; OpenVINO where the CPU multiplies bfloat16; else
    ONNX Runtime.

    Measured on two cores with AVX512-BF16 (MobileNetV2, 224 x 224): OpenVINO 470 photos/s in bfloat16 and 260 in
    float32, ONNX Runtime 260 in float32.

    Raises
    ------
    ConfigError
        There is no such engine.
    """
    require(engine=kind)
    if kind != "auto":
        return kind
    if accelerator:
        return "torch"
    return "openvino" if multiplies_bfloat16() else "onnx"


def signature(kind: Settled) -> str:
    """What of an engine shapes its numbers; part of the name of all that is kept of them."""
    if kind == "torch":
        return f"torch {metadata.version('torch')}"
    if kind == "onnx":
        return f"onnxruntime {metadata.version('onnxruntime')} float32"
    number = "bfloat16" if multiplies_bfloat16() else "float32"
    return f"openvino {metadata.version('openvino')} {number}"


def opened(kind: Settled, model: Path | bytes, *, half: bool) -> Engine:
    """An engine for a compiled network (ONNX, in a file or in memory).

    Parameters
    ----------
    half
        Whether products may be of bfloat16 where the hardware has them: for the frozen prefix, whose numbers shape
        training and prediction alike; not for what was trained on top of it.
    """
    return OpenVinoEngine(model, half=half) if kind == "openvino" else OnnxEngine(model)


def processor() -> str:
    """What this machine's processor calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@cache
def _openvino() -> Any:
    import openvino

    return openvino.Core()


@cache
def multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16 products (AVX512-BF16 or AMX), and OpenVINO, which uses them, is
    there."""
    try:
        return "BF16" in _openvino().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ImportError, RuntimeError):  # no wheel for this platform, or no CPU plug-in in it
        return False
