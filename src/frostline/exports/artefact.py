"""What an exported model computes, and what travels inside it: a whole photo in, calibrated probabilities out.

An artefact is two graphs in one. The first brings a photo of any size to the square that the network was made for, as
Pillow would (`frostline.photos.decoding`); the second, `Core`, is the network with all that the bundle does around it:
scaling, the mirror image where the model looks at that too, half precision at the line, temperature, softmax.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

import frostline
from frostline.bundles.about import About
from frostline.bundles.bundle import Parts
from frostline.networks import freeze_line
from frostline.photos.decoding import Transform


@dataclass(frozen=True)
class Spec:
    """What an artefact tells of itself."""

    about: About
    int8: bool
    whole_photo: bool = True
    """Takes a photo of any size; else one that is already `size` x `size`."""

    @property
    def transform(self) -> Transform:
        """What a photo goes through first."""
        return Transform.from_dict(self.about.transform)

    def metadata(self) -> dict[str, str]:
        """Names and JSON values, for whatever place a format has for them."""
        about, side = self.about, self.transform.size
        shape = "(H, W, 3), any H and W" if self.whole_photo else f"(1, {side}, {side}, 3)"
        return {
            "frostline": frostline.__version__,
            "classes": json.dumps(about.classes, ensure_ascii=False),
            "transform": json.dumps(about.transform),
            "temperature": json.dumps(about.temperature),
            "test_views": json.dumps(about.test_views),
            "strategy": about.strategy,
            "backbone": about.backbone,
            "numbers": "int8" if self.int8 else "float32",
            "input": f"a decoded photo, upright RGB, uint8 {shape}",
            "output": f"probabilities, float32 ({len(about.classes)},), in the order of classes; temperature applied",
        }


class Core(nn.Module):
    """Prepared photos (1, S, S, 3) uint8 to calibrated probabilities (C,): what `frostline.bundle.Bundle.probabilities`
    computes."""

    def __init__(self, about: About, parts: Parts) -> None:
        super().__init__()
        parts.above.set_training(False)
        cut = parts.cut
        self.prefix = freeze_line.taps(parts.backbone.traced, [cut.line]) if cut.line else None
        self.above = parts.above
        self.views, self.temperature = about.test_views, about.temperature
        self.halved = about.stored_as == "float16"
        self.eval()

    def forward(self, photo: Tensor) -> Tensor:
        """See the class."""
        views = photo if self.views == 1 else torch.cat([photo, photo.flip(2)])
        live = (views,) if self.prefix is None else self.prefix(views)
        logits = self.above(*(self._as_stored(t) for t in live))
        return torch.softmax(logits.mean(0) / self.temperature, 0)

    def _as_stored(self, tensor: Tensor) -> Tensor:
        """As the cache keeps it: training saw numbers of half precision at the line."""
        return tensor.half().float() if self.halved and tensor.dtype.is_floating_point else tensor


class Whole(nn.Module):
    """A photo (H, W, 3) uint8 of any size to probabilities (C,)."""

    def __init__(self, core: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.core = core
        self._side, self._crop = transform.size, transform.crop_pct if transform.resize == "crop" else 0.0
        self._cubic = transform.interpolation == "bicubic"

    def forward(self, photo: Tensor) -> Tensor:
        """See the class. The columns first, then the rows, rounded in between, as Pillow does for photos that are wider
        than high."""
        planes = photo.permute(2, 0, 1).float()
        down, across = (self._weights(photo.shape[i], photo.shape[1 - i], planes) for i in (0, 1))
        wide = _rounded(planes @ across.T)
        return cast(Tensor, self.core(_rounded(down @ wide).to(torch.uint8).permute(1, 2, 0)[None]))

    def _weights(self, length: int, other: int, like: Tensor) -> Tensor:
        """(S, length): what each pixel of a side is made of, antialiased. Pillow's `precompute_coeffs`, as one
        matrix."""
        low: Any = 0.0
        window: Any = length
        if self._crop:
            window = self._crop * torch.sym_min(length, other)
            low = (length - window) / 2
        scale = window / self._side
        centres = low + (torch.arange(self._side, device=like.device)[:, None] + 0.5) * scale
        places = torch.arange(length, device=like.device) + 0.5
        distance = (places - centres).abs() / torch.sym_max(scale, 1.0)
        weights = _cubic(distance) if self._cubic else (1 - distance).clamp(min=0)
        return weights / weights.sum(1, keepdim=True)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel (1981) with a = -0.5, for distances of 0 or more."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor().clamp(0, 255)
