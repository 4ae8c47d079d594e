"""Corruptions of photos at five severities: how a model fares outside the collection that it was trained on.

A new corruption is a row of `CORRUPTIONS` and the function that it names. robustness.csv, study.json, the report, the
claims and the progress bar follow. Its `kind` decides whether the tutorial's claim about hard photos counts it.

The operations are torchvision's (`torchvision.transforms.v2.functional`), which frostline needs anyway. Three libraries
were looked at and not taken: albumentations (not maintained since June 2025; its successor is under the AGPL and needs
OpenCV), imagecorruptions (the reference of Hendrycks and Dietterich, ICLR 2019, whose five severities and choice of
corruptions are followed here; it needs OpenCV and Numba), kornia (another tensor library for the same operations).

They act on the prepared photo: the square that the network sees. Amounts are shares of its side, so that they mean the
same at every size. Each photo has its own random generator (seeded by its bytes, the run's seed and the corruption),
the same at all five severities: a photo turned to the left at severity 1 is turned further to the left at severity 5.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from scipy import fft
from torch import Tensor
from torch.nn import functional as nn

from frostline.photos.decoding import Pixels


@cache
def _tv() -> Any:
    """torchvision's operations: two seconds to import, which a study spends after its answer."""
    from torchvision.transforms.v2 import functional

    return functional


def _bilinear() -> Any:
    from torchvision.transforms.v2 import InterpolationMode

    return InterpolationMode.BILINEAR


SEVERITIES = 5

Kind = Literal["lighting", "blur", "viewing angle", "occlusion", "other"]
"""The four that the tutorial blames for errors, and the rest."""
Operation = Callable[[Tensor, float, np.random.Generator], Tensor]
"""A photo (3, H, W) uint8, the amount, and its random generator, to the corrupted photo."""


@dataclass(frozen=True)
class Corruption:
    """One way in which photos get worse."""

    name: str
    title: str
    """For people."""
    kind: Kind
    amounts: tuple[float, float, float, float, float]
    """How much at severities 1 to 5, in the unit that `unit` names."""
    unit: str
    change: Operation


def corrupt(photo: Pixels, corruption: Corruption, severity: int, sha256: str, seed: int) -> Pixels:
    """A prepared photo (H, W, 3) uint8 corrupted at a severity from 1 to 5.

    Parameters
    ----------
    sha256
        Of the photo's file. With `seed` and the corruption it decides the direction of a rotation, the place of a
        patch and the like.
    """
    digest = hashlib.sha256(f"{seed}:{corruption.name}:{sha256}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest, "big"))
    tensor = torch.from_numpy(np.ascontiguousarray(photo.transpose(2, 0, 1)))
    changed = corruption.change(tensor, corruption.amounts[severity - 1], rng)
    return np.ascontiguousarray(changed.numpy().transpose(1, 2, 0))


# ---- the operations --------------------------------------------------------------------------------------------------


def _brightness(photo: Tensor, factor: float, _: np.random.Generator) -> Tensor:
    return cast(Tensor, _tv().adjust_brightness(photo, factor))


def _contrast(photo: Tensor, factor: float, _: np.random.Generator) -> Tensor:
    return cast(Tensor, _tv().adjust_contrast(photo, factor))


def _cast(photo: Tensor, amount: float, rng: np.random.Generator) -> Tensor:
    """Warm or cold light: red up and blue down, or the other way round (the diagonal model of von Kries)."""
    warm = amount if rng.random() < 0.5 else -amount
    gains = torch.tensor([1 + warm, 1.0, 1 - warm]).reshape(3, 1, 1)
    return (photo * gains).clamp_(0, 255).round_().to(torch.uint8)


def _filtered(photo: Tensor, kernel: Tensor) -> Tensor:
    """The photo (3, H, W) under a symmetric kernel (k, k), k odd, that sums to 1; its edge goes on as a mirror image.

    By Fourier transform: 6 ms at 288 x 288, where a kernel 41 wide takes 70 ms directly.
    """
    pad, (height, width) = kernel.shape[0] // 2, photo.shape[-2:]
    wide = nn.pad(photo[:, None].float(), (pad, pad, pad, pad), mode="reflect")[:, 0]
    shape = [fft.next_fast_len(side, real=True) for side in wide.shape[-2:]]
    product = torch.fft.rfft2(wide, s=shape) * torch.fft.rfft2(kernel, s=shape)
    clear = torch.fft.irfft2(product, s=shape)[:, 2 * pad : 2 * pad + height, 2 * pad : 2 * pad + width]
    return cast(Tensor, clear.round_().clamp_(0, 255).to(torch.uint8))


def _grid(radius: int) -> tuple[Tensor, Tensor]:
    steps = torch.arange(-radius, radius + 1, dtype=torch.float32)
    down, across = torch.meshgrid(steps, steps, indexing="ij")
    return down, across


def _defocus(photo: Tensor, share: float, _: np.random.Generator) -> Tensor:
    """A disc, as an open lens out of focus makes of a point; its edge is soft over a pixel."""
    radius = share * photo.shape[-1]
    down, across = _grid(math.ceil(radius + 0.5))
    disc = (radius + 0.5 - torch.hypot(down, across)).clamp(0, 1)
    return _filtered(photo, disc / disc.sum())


def _motion(photo: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """A line in any direction, as a hand that moves makes of a point."""
    half, angle = share * photo.shape[-1] / 2, rng.uniform(0, math.pi)
    down, across = _grid(math.ceil(half + 1))
    along = across * math.cos(angle) + down * math.sin(angle)
    beside = down * math.cos(angle) - across * math.sin(angle)
    line = (1 - beside.abs()).clamp(0, 1) * (half + 0.5 - along.abs()).clamp(0, 1)
    return _filtered(photo, line / line.sum())


def _rotation(photo: Tensor, degrees: float, rng: np.random.Generator) -> Tensor:
    angle = degrees if rng.random() < 0.5 else -degrees
    return cast(Tensor, _tv().rotate(photo, angle, interpolation=_bilinear(), fill=_fill(photo)))


def _perspective(photo: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """Seen from one side: the corners of that side move towards each other by `share` of the side's length each."""
    size = photo.shape[-1] - 1
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size]])
    side = int(rng.integers(4))  # between corner `side` and the next one
    moved = corners.astype(float)
    one, other = side, (side + 1) % 4
    step = share * (corners[other] - corners[one])
    moved[one] += step
    moved[other] -= step
    start, end = corners.tolist(), moved.round().astype(int).tolist()
    return cast(Tensor, _tv().perspective(photo, start, end, interpolation=_bilinear(), fill=_fill(photo)))


def _fill(photo: Tensor) -> list[float]:
    """The photo's mean colour, for what lies beyond its edge."""
    return cast(list[float], photo.float().mean((1, 2)).round().tolist())


def _occlusion(photo: Tensor, share: float, rng: np.random.Generator) -> Tensor:
    """A grey square over `share` of the area, wholly inside the photo; severity 5 covers what severity 1 does."""
    size = photo.shape[-1]
    side = round(math.sqrt(share) * size)
    top, left = (round(float(place) * (size - side)) for place in rng.uniform(0, 1, 2))
    grey = torch.full((3, side, side), 127, dtype=torch.uint8)
    return cast(Tensor, _tv().erase(photo, top, left, side, side, grey))


def _jpeg(photo: Tensor, quality: float, _: np.random.Generator) -> Tensor:
    """Pillow's encoder: torchvision's is deprecated."""
    stream = io.BytesIO()
    Image.fromarray(photo.permute(1, 2, 0).contiguous().numpy()).save(stream, "JPEG", quality=round(quality))
    return torch.from_numpy(np.array(Image.open(stream)).transpose(2, 0, 1).copy())


def _noise(photo: Tensor, sigma: float, rng: np.random.Generator) -> Tensor:
    """Gaussian noise in every channel of every pixel.

    numpy's, since torchvision's draws from the one generator that all threads share.
    """
    noise = torch.from_numpy(rng.standard_normal(tuple(photo.shape), dtype=np.float32))
    return (photo + 255 * sigma * noise).round_().clamp_(0, 255).to(torch.uint8)


def _scale(photo: Tensor, factor: float, _: np.random.Generator) -> Tensor:
    """The subject from farther away: the photo at `factor` of its size, in the middle of its own mean colour."""
    size = photo.shape[-1]
    small = max(1, round(factor * size))
    shrunk = cast(Tensor, _tv().resize(photo, [small, small], antialias=True))
    before = (size - small) // 2
    canvas = torch.tensor(_fill(photo)).to(torch.uint8).reshape(3, 1, 1).repeat(1, size, size)
    canvas[:, before : before + small, before : before + small] = shrunk
    return canvas


CORRUPTIONS: tuple[Corruption, ...] = (
    Corruption("dark", "Dark", "lighting", (0.7, 0.5, 0.35, 0.22, 0.12), "times the light", _brightness),
    Corruption("bright", "Bright", "lighting", (1.3, 1.7, 2.2, 3.0, 4.0), "times the light", _brightness),
    Corruption("contrast", "Low contrast", "lighting", (0.7, 0.5, 0.35, 0.22, 0.12), "times the contrast", _contrast),
    Corruption("colour-cast", "Colour cast", "lighting", (0.12, 0.25, 0.4, 0.55, 0.75), "of red against blue", _cast),
    Corruption("defocus", "Out of focus", "blur", (0.005, 0.01, 0.016, 0.024, 0.036), "of the side, radius", _defocus),
    Corruption("motion", "Motion blur", "blur", (0.02, 0.04, 0.07, 0.1, 0.14), "of the side, length", _motion),
    Corruption("rotation", "Rotation", "viewing angle", (10, 20, 35, 60, 90), "degrees", _rotation),
    Corruption("perspective", "Seen from one side", "viewing angle", (0.06, 0.12, 0.2, 0.28, 0.36), "of a side, twice",
               _perspective),
    Corruption("occlusion", "Partly hidden", "occlusion", (0.06, 0.12, 0.2, 0.32, 0.48), "of the area", _occlusion),
    Corruption("jpeg", "JPEG compression", "other", (40, 25, 15, 9, 5), "quality", _jpeg),
    Corruption("noise", "Noise", "other", (0.04, 0.08, 0.14, 0.22, 0.34), "of the range, standard deviation", _noise),
    Corruption("scale", "Farther away", "other", (0.8, 0.6, 0.45, 0.32, 0.22), "times the size", _scale),
)  # fmt: skip
"""Each at five severities, from everyday photos to what a person still recognises with effort."""
