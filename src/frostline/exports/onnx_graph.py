"""Artefacts as ONNX graphs, which ONNX Runtime runs as they are and OpenVINO reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
from onnx import compose, helper, parser

from frostline.exports.artefact import Core, Spec
from frostline.networks.compilation import to_onnx
from frostline.photos.decoding import Transform

OPSET = 18
"""The first whose Resize knows antialiasing."""
IR_VERSION = 8

# As Pillow: weights of fixed point, rounded to 8 bits after the columns and after the rows. ONNX Runtime's own for
# uint8 comes from there.
_NATIVE = """
  planes = Transpose <perm = [2, 0, 1]> (photo)
  zero = Constant <value_ints = [0]> ()
  one_photo = Unsqueeze (planes, zero)
  sizes = Constant <value_ints = [1, 3, {side}, {side}]> ()
  small = Resize <mode = "{mode}", antialias = 1, coordinate_transformation_mode = "half_pixel", cubic_coeff_a = -0.5,
                  exclude_outside = {outside}> (one_photo, , , sizes)
  pixels = Transpose <perm = [0, 2, 3, 1]> (small)
"""

_AXIS = """
  at_{a} = Constant <value_int = {axis}> ()
  long_{a} = Gather (shape, at_{a})
  length_{a} = Cast <to = 1> (long_{a})
  window_{a} = {window}
  border_{a} = Sub (length_{a}, window_{a})
  low_{a} = Mul (border_{a}, half)
  scale_{a} = Div (window_{a}, side)
  steps_{a} = Mul (outputs, scale_{a})
  centres_{a} = Add (steps_{a}, low_{a})
  range_{a} = Range (nought, length_{a}, one)
  places_{a} = Add (range_{a}, half)
  apart_{a} = Sub (places_{a}, centres_{a})
  near_{a} = Abs (apart_{a})
  reach_{a} = Max (scale_{a}, one)
  x_{a} = Div (near_{a}, reach_{a})
  {kernel}
  sum_{a} = ReduceSum (raw_{a}, last)
  weights_{a} = Div (raw_{a}, sum_{a})
"""

_LINEAR = """falling_{a} = Sub (one, x_{a})
  raw_{a} = Relu (falling_{a})"""

_CUBIC = """n1_{a} = Mul (x_{a}, one_half)
  n2_{a} = Sub (n1_{a}, two_half)
  n3_{a} = Mul (n2_{a}, x_{a})
  n4_{a} = Mul (n3_{a}, x_{a})
  inner_{a} = Add (n4_{a}, one)
  f1_{a} = Sub (x_{a}, five)
  f2_{a} = Mul (f1_{a}, x_{a})
  f3_{a} = Add (f2_{a}, eight)
  f4_{a} = Mul (f3_{a}, x_{a})
  f5_{a} = Sub (f4_{a}, four)
  outer_{a} = Mul (f5_{a}, minus_half)
  is_far_{a} = Less (x_{a}, two)
  far_{a} = Where (is_far_{a}, outer_{a}, nought)
  is_near_{a} = Less (x_{a}, one)
  raw_{a} = Where (is_near_{a}, inner_{a}, far_{a})"""

# The same with plain products, for windows between pixels and for engines whose Resize is another.
_PLAIN = """
  half = Constant <value = float {{0.5}}> ()
  nought = Constant <value = float {{0.0}}> ()
  one = Constant <value = float {{1.0}}> ()
  side = Constant <value = float {{{side}.0}}> ()
  one_half = Constant <value = float {{1.5}}> ()
  two_half = Constant <value = float {{2.5}}> ()
  two = Constant <value = float {{2.0}}> ()
  four = Constant <value = float {{4.0}}> ()
  five = Constant <value = float {{5.0}}> ()
  eight = Constant <value = float {{8.0}}> ()
  minus_half = Constant <value = float {{-0.5}}> ()
  most = Constant <value = float {{255.0}}> ()
  share = Constant <value = float {{{share}}}> ()
  last = Constant <value_ints = [1]> ()
  shape = Shape (photo)
  outputs_row = Range (half, side, one)
  outputs = Unsqueeze (outputs_row, last)
  {axes}
  planes_8 = Transpose <perm = [2, 0, 1]> (photo)
  planes = Cast <to = 1> (planes_8)
  across = Transpose <perm = [1, 0]> (weights_w)
  wide = MatMul (planes, across)
  wide_up = Add (wide, half)
  wide_whole = Floor (wide_up)
  wide_8 = Clip (wide_whole, nought, most)
  both = MatMul (weights_h, wide_8)
  both_up = Add (both, half)
  both_whole = Floor (both_up)
  both_8 = Clip (both_whole, nought, most)
  small = Cast <to = 2> (both_8)
  last_first = Transpose <perm = [1, 2, 0]> (small)
  at_first = Constant <value_ints = [0]> ()
  pixels = Unsqueeze (last_first, at_first)
"""


def core(network: Core, spec: Spec, path: Path) -> Any:
    """The network alone as ONNX, written to `path` and returned: pixels (1, S, S, 3) uint8 to probabilities (C,)."""
    import torch

    side = spec.transform.size
    example = torch.zeros(1, side, side, 3, dtype=torch.uint8)
    to_onnx(network, [example], path, inputs=["pixels"], outputs=["probabilities"], opset=OPSET)
    return onnx.load(path)


def whole(model: Any, spec: Spec, *, plain: bool = False) -> Any:
    """A core behind the graph that resizes: photo (H, W, 3) uint8 to probabilities (C,).

    Parameters
    ----------
    plain
        Resize with matrix products in place of the operator Resize.
    """
    graph = preparation(spec.transform, plain=plain)
    before = compose.add_prefix(graph, "prepare/", rename_inputs=False, rename_outputs=False)
    model.ir_version = before.ir_version
    return compose.merge_models(before, model, io_map=[("pixels", "pixels")])


def preparation(transform: Transform, *, plain: bool) -> Any:
    """The graph that brings a photo (H, W, 3) uint8 to pixels (1, S, S, 3) uint8, as
    `frostline.photos.decoding.prepare` does."""
    cubic, crop = transform.interpolation == "bicubic", transform.resize == "crop"
    if plain or crop:
        body = _PLAIN.format(side=transform.size, share=transform.crop_pct, axes=_axes(cubic=cubic, crop=crop))
    else:
        body = _NATIVE.format(side=transform.size, mode="cubic" if cubic else "linear", outside=int(cubic))
    head = f'<ir_version: {IR_VERSION}, opset_import: ["": {OPSET}]>'
    side = transform.size
    return parser.parse_model(
        f"{head} prepare (uint8[H, W, 3] photo) => (uint8[1, {side}, {side}, 3] pixels) {{ {body} }}"
    )


def _axes(*, cubic: bool, crop: bool) -> str:
    """The weights of rows and columns; the lengths of both come first, since a cut square's side depends on both."""
    window = "Mul (shorter, share)" if crop else "Identity (length_{a})"
    text = "".join(
        _AXIS.replace("{kernel}", _CUBIC if cubic else _LINEAR)
        .replace("{window}", window)
        .replace("{axis}", str(axis))
        .replace("{a}", name)
        for axis, name in enumerate("hw")
    )
    lines = text.splitlines()
    lengths = [line for line in lines if line.lstrip().startswith(("at_", "long_", "length_"))]
    rest = [line for line in lines if line not in lengths]
    return "\n".join([*lengths, "  shorter = Min (length_h, length_w)", *rest])


def labelled(model: Any, spec: Spec) -> Any:
    """The model with all that it tells of itself in its metadata."""
    model.producer_name, model.producer_version = "frostline", spec.metadata()["frostline"]
    helper.set_model_props(model, spec.metadata())
    return model
