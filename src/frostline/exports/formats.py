"""The formats that a model is exported to: what writes each, and what it can hold. A new format is one more row."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from frostline.errors import ConfigError, MissingExtraError, RunError, nearest
from frostline.exports import example_code
from frostline.exports.artefact import Core, Spec, Whole
from frostline.files import write_text
from frostline.networks.compilation import silent
from frostline.photos.decoding import Pixels


class Order(NamedTuple):
    """What is to be written."""

    core: Core
    spec: Spec
    calibration: Sequence[Pixels]
    """Prepared photos (S, S, 3) that int8 is calibrated on; none in float32."""


class Form(NamedTuple):
    """One format."""

    file: str
    """The artefact's name; `also` are the files that belong to it."""
    write: Callable[[Order, Path], None]
    """Writes it into a folder."""
    example: str
    also: tuple[str, ...] = ()
    int8: bool = False
    whole_photo: bool = True
    """Resizes inside; else it takes photos of one size."""


def chosen(name: str, *, int8: bool) -> Form:
    """The format of this name.

    Raises
    ------
    ConfigError
        Unknown, or one that has no int8 here.
    """
    if name not in FORMS:
        raise ConfigError(f"unknown format '{name}'{nearest(name, FORMS)}")
    if int8 and not FORMS[name].int8:
        can = " or ".join(n for n, form in FORMS.items() if form.int8)
        raise ConfigError(
            f"--int8 with --format {name}: nothing here runs that faster than float32; use --format {can}"
        )
    return FORMS[name]


# ---- ONNX and OpenVINO -----------------------------------------------------------------------------------------------


def _graph(order: Order, *, plain: bool) -> Any:
    """The ONNX graph, photo to probabilities; quantised where photos to calibrate on were given."""
    from frostline.exports import onnx_graph

    with tempfile.TemporaryDirectory() as folder:
        model = onnx_graph.core(order.core, order.spec, Path(folder) / "core.onnx")
        if order.calibration:
            from frostline.exports import int8

            model = int8.int8(model, order.calibration)
    return onnx_graph.labelled(onnx_graph.whole(model, order.spec, plain=plain), order.spec)


def _onnx(order: Order, folder: Path) -> None:
    (folder / "model.onnx").write_bytes(_graph(order, plain=False).SerializeToString())


def _openvino(order: Order, folder: Path) -> None:
    try:
        import openvino
    except ImportError:
        raise RunError("--format openvino: there is no OpenVINO for this platform; use --format onnx") from None
    # OpenVINO's own Pillow-like interpolation takes a second for a large photo (2026.4); products take milliseconds
    network = openvino.Core().read_model(_graph(order, plain=True).SerializeToString())
    for name, value in order.spec.metadata().items():
        network.set_rt_info(value, ["frostline", name])
    openvino.save_model(network, folder / "model.xml", compress_to_fp16=False)


# ---- PyTorch and LiteRT ----------------------------------------------------------------------------------------------


def _torch(order: Order, folder: Path) -> None:
    """A program of `torch.export`: graph and raw tensors, no code."""
    whole = Whole(copy.deepcopy(order.core), order.spec.transform).eval().to(memory_format=torch.channels_last)
    rows, columns = (torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    photo = torch.zeros(120, 160, 3, dtype=torch.uint8)
    with silent(), torch.no_grad():
        program = torch.export.export(whole, (photo,), dynamic_shapes={"photo": {0: rows, 1: columns}})
        told = {"frostline.json": json.dumps(order.spec.metadata(), ensure_ascii=False)}
        torch.export.save(program, folder / "model.pt2", extra_files=told)


def _litert(order: Order, folder: Path) -> None:
    """For phones and small boards. Its shapes are fixed, so the photo is resized before; scaling and all else is
    inside."""
    try:
        with silent(), contextlib.redirect_stderr(io.StringIO()):
            import litert_torch
    except ImportError:
        raise MissingExtraError("litert-torch", "litert") from None
    side = order.spec.transform.size
    core = _Floats(copy.deepcopy(order.core)).eval()
    with _quiet_output():
        edge = litert_torch.convert(core, (torch.zeros(1, side, side, 3, dtype=torch.uint8),))
        edge.export(str(folder / "model.tflite"))
    write_text(folder / "model.json", json.dumps(order.spec.metadata(), indent=1, ensure_ascii=False) + "\n")


class _Floats(torch.nn.Module):
    def __init__(self, core: Core) -> None:
        super().__init__()
        core.halved = False  # a rounding of one part in two thousand; the converter folds it away
        self.core = core

    def forward(self, photo: torch.Tensor) -> torch.Tensor:
        return self.core(photo)  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet_output() -> Any:
    """The converter writes its steps straight to the process's own stdout and stderr."""
    kept = [os.dup(number) for number in (1, 2)]
    with silent(), Path(os.devnull).open("w") as nothing:
        try:
            for number in (1, 2):
                os.dup2(nothing.fileno(), number)
            yield
        finally:
            for number, copy_ in zip((1, 2), kept, strict=True):
                os.dup2(copy_, number)
                os.close(copy_)


FORMS = {
    "onnx": Form("model.onnx", _onnx, example_code.ONNX, int8=True),
    "openvino": Form("model.xml", _openvino, example_code.OPENVINO, also=("model.bin",), int8=True),
    "torch": Form("model.pt2", _torch, example_code.TORCH),
    "litert": Form("model.tflite", _litert, example_code.LITERT, also=("model.json",), whole_photo=False),
}
