"""Eight-bit integers: weights per output channel, activations in ranges measured on training photos.

ONNX Runtime's own quantiser does it once; ONNX Runtime and OpenVINO both run the result.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from frostline.networks.compilation import silent
from frostline.photos.decoding import Pixels

PHOTOS = 96
"""How many training photos the ranges are measured on."""
PERCENTILE = 99.99
"""What of an activation's values its range holds. The very largest of a hundred photos would take a bit from all
others."""
KINDS = ["Conv", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "MaxPool", "GlobalAveragePool"]


AT_ONCE = 4
"""Photos whose activations are held at a time: all of them would take 13 GB of memory at 288 pixels."""


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    """Photos one by one, in the pieces that the quantiser asks for."""

    def __init__(self, photos: Sequence[Pixels]) -> None:
        self._photos = photos
        self._rest: Iterator[Pixels] = iter(photos)

    def __len__(self) -> int:
        return len(self._photos)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Go on with these."""
        self._rest = iter(self._photos[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """The next photo's input, None after the last."""
        photo = next(self._rest, None)
        return None if photo is None else {"pixels": np.ascontiguousarray(photo[None])}


def int8(model: Any, photos: Sequence[Pixels]) -> Any:
    """A core (pixels (1, S, S, 3) uint8 to probabilities) in QDQ form: pairs of quantise and dequantise that runtimes
    fuse.

    Parameters
    ----------
    photos
        Prepared training photos (S, S, 3): neither validation nor test photos may shape a model.
    """
    stride = min(AT_ONCE, len(photos))
    whole = photos[: len(photos) // stride * stride]  # the quantiser takes whole pieces only
    with tempfile.TemporaryDirectory() as name, silent():
        folder = Path(name)
        onnx.save(model, folder / "core.onnx")
        quant_pre_process(str(folder / "core.onnx"), str(folder / "plain.onnx"), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(folder / "plain.onnx"),
            str(folder / "int8.onnx"),
            _Reader(whole),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.Percentile,
            op_types_to_quantize=KINDS,
            extra_options={"CalibPercentile": PERCENTILE, "CalibStridedMinMax": stride},
        )
        return onnx.load(folder / "int8.onnx")
