"""Backbones: uint8 photos in, a feature vector out, with the scaling that the network was trained with inside the graph."""

from __future__ import annotations

import dataclasses
import difflib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from frostline import freeze, weights
from frostline.config import Weights
from frostline.errors import ConfigError, WeightsError, nearest
from frostline.images import IMAGENET_MEAN, IMAGENET_STD, Resize, Transform
from frostline.progress import Progress


class Scaled(nn.Module):
    """A network behind its own scaling: photos (N, H, W, 3) uint8 in, features (N, F) out."""

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, transform: Transform) -> None:
        super().__init__()
        self.body = body
        # not part of the network's weights: the transform holds them
        self.register_buffer("mean", 255 * torch.tensor(transform.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", 255 * torch.tensor(transform.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, photos: Tensor) -> Tensor:
        """Photos (N, H, W, 3) uint8 to features (N, F)."""
        channels_first = photos.permute(0, 3, 1, 2).float()
        return cast(Tensor, self.body((channels_first - self.mean) / self.std))


class SmallCNN(nn.Sequential):
    """The tutorial's baseline below its head: three 3x3 convolutions (32, 64, 128; no padding), each with 2x2 max pooling.

    The pooling stands before the ReLU: the larger of four values is the same before and after a monotone function, and a
    quarter of the values is left to rectify.
    """

    def __init__(self) -> None:
        steps: list[nn.Module] = []
        for into, out in ((3, 32), (32, 64), (64, 128)):
            steps += [nn.Conv2d(into, out, 3), nn.MaxPool2d(2), nn.ReLU()]
        super().__init__(*steps, nn.Flatten())


class _Pooled(nn.Module):
    """torchvision's feature layers and the global average pooling, which has no layer of its own to count."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, C)."""
        return cast(Tensor, self.features(x)).mean((2, 3))


@dataclass(frozen=True)
class Info:
    """What is known of a backbone before it is built."""

    name: str
    """As the user writes it."""
    home: str
    """`frostline`, `torchvision` or `timm`."""
    image_size: int
    """Side of the square photos it was made for, pixels."""
    mean: tuple[float, float, float]
    """Subtracted after scaling to 0..1."""
    std: tuple[float, float, float]
    """Divided by."""
    source: weights.WeightsSpec | None
    """Where its published weights are known to be, or None (timm's hub, or no published weights)."""

    def transform(self, image_size: int, resize: Resize) -> Transform:
        """The transform of its photos; `image_size` 0 takes the backbone's own."""
        return Transform(image_size or self.image_size, resize, self.mean, self.std)


EMBEDDED = ("small_cnn", "mobilenet_v2")


def info(name: str) -> Info:
    """Look up a backbone.

    Raises
    ------
    ConfigError
        Neither frostline's own nor one of timm's; the nearest name is suggested.
    """
    if name == "small_cnn":
        return Info(name, "frostline", 224, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), None)
    if name == "mobilenet_v2":
        return Info(name, "torchvision", 224, IMAGENET_MEAN, IMAGENET_STD, weights.KNOWN[name])
    import timm

    if name.partition(".")[0] not in timm.list_models():
        close = difflib.get_close_matches(name, [*EMBEDDED, *timm.list_models()], n=1, cutoff=0.4)
        known = (
            nearest(name, EMBEDDED) if not close else f"; did you mean '{close[0]}'? ('frostline backbones' lists them)"
        )
        raise ConfigError(f"unknown backbone '{name}'{known}")
    published = timm.get_pretrained_cfg(name)
    settings: dict[str, Any] = dataclasses.asdict(published) if published else {}
    size = int(settings.get("input_size", (3, 224, 224))[-1])
    mean, std = (tuple(settings.get(key, usual)) for key, usual in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)))
    return Info(name, "timm", size, mean, std, weights.KNOWN.get(name))


@dataclass(frozen=True)
class Backbone:
    """A network ready to be cut."""

    name: str
    network: Scaled
    """The whole network, in evaluation mode."""
    traced: fx.GraphModule
    """The same layers, recorded in execution order."""
    transform: Transform
    """What its photos go through first."""
    features: int
    """Length of its feature vector."""

    @property
    def layer_count(self) -> int:
        """Number of layers that the line can count."""
        return len(freeze.layers(self.traced))

    def example(self) -> Tensor:
        """One black photo, (1, H, W, 3) uint8."""
        return torch.zeros(1, self.transform.size, self.transform.size, 3, dtype=torch.uint8)


def preload(names: Iterable[str]) -> None:
    """Start to import, in a thread, what these backbones are built with: 1.5 s in which photos can be listed."""
    if "mobilenet_v2" in names:
        threading.Thread(target=import_module, args=("torchvision.models.mobilenetv2",), daemon=True).start()


def build(
    name: str,
    start: Weights,
    *,
    seed: int = 0,
    image_size: int = 0,
    resize: Resize = "squash",
    path: Path | None = None,
    progress: Progress | None = None,
) -> Backbone:
    """Make a backbone with published or with seeded random weights, and record its layers.

    Raises
    ------
    ConfigError
        Unknown name, a photo size that it can't take, or a network that can't be recorded.
    WeightsError
        Its published weights could not be had.
    """
    about = info(name)
    transform = about.transform(image_size, resize)
    network = Scaled(_body(about, seed, start, path, progress), transform).eval()
    return assemble(name, network, transform)


def skeleton(name: str, transform: Transform) -> Backbone:
    """The architecture alone, for a bundle that brings its own weights."""
    return assemble(name, Scaled(_architecture(info(name)), transform).eval(), transform)


def assemble(name: str, network: Scaled, transform: Transform) -> Backbone:
    """Record a network's layers and name it by its contents."""
    for layer in network.modules():
        if getattr(layer, "inplace", False):  # it would overwrite the tensors at the line, which are kept
            layer.inplace = False  # type: ignore[assignment]
    example = torch.zeros(2, transform.size, transform.size, 3, dtype=torch.uint8)
    traced = freeze.trace(network, example)
    with torch.no_grad():
        features = int(network(example).shape[1])
    return Backbone(name, network, traced, transform, features)


def _body(about: Info, seed: int, start: Weights, path: Path | None, progress: Progress | None) -> nn.Module:
    if start == "pretrained" and about.home == "frostline":
        raise ConfigError(f"{about.name} has no published weights: start it from random weights")
    file = _weights_file(about, path, progress) if start == "pretrained" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if start == "pretrained" and file is None:
            return _from_hub(about.name)
        body = _architecture(about)
    if file is not None:
        _load(body, weights.load_state_dict(file), about.name)
    return body


def _weights_file(about: Info, path: Path | None, progress: Progress | None) -> Path | None:
    """The file to start from; None: only timm's hub has it."""
    if about.source is not None:
        return weights.fetch(about.source, path=path, progress=progress)
    if path is not None and progress is not None:
        progress.say(f"weights of {about.name}: {path} is taken unchecked, no SHA-256 of its published file is known")
    return path


def _architecture(about: Info) -> nn.Module:
    if about.home == "frostline":
        return SmallCNN()
    if about.home == "torchvision":
        from torchvision.models import mobilenet_v2

        return _Pooled(mobilenet_v2().features)
    import timm

    return timm.create_model(about.name, pretrained=False, num_classes=0)


def _from_hub(name: str) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the hub's client raises a different family of errors in each version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"no weights for '{name}': timm's hub answered: {reason[:200]}; connect to the hub or choose mobilenet_v2"
        ) from error


def _load(body: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Fill a network without its classifier from a publisher's file, which has one.

    Where a publisher names the tensors otherwise (the EfficientNet-Lites), they stand in the same order: they are renamed by
    position, and every shape must agree.
    """
    wanted = body.state_dict()
    if not set(wanted) <= set(state):
        counters = {k for k in wanted if k.endswith("num_batches_tracked")}
        learnt = [(k, v) for k, v in wanted.items() if k not in counters]
        found = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
        if len(found) < len(learnt) or any(v.shape != f.shape for (_, v), f in zip(learnt, found, strict=False)):
            raise WeightsError(f"the weights are not those of {name}: its tensors have other shapes")
        state = {k: f for (k, _), f in zip(learnt, found, strict=False)} | {k: wanted[k] for k in counters}
    try:
        body.load_state_dict({k: state[k] for k in wanted})
    except RuntimeError as error:
        raise WeightsError(f"the weights are not those of {name}: {' '.join(str(error).split())[:200]}") from error


def listing(find: str = "") -> list[dict[str, Any]]:
    """What `frostline backbones` shows: the embedded networks, or timm's whose names hold `find`."""
    import timm

    names = timm.list_models(f"*{find}*") if find else list(EMBEDDED)
    if find:
        names = [n for n in EMBEDDED if find in n] + [n for n in names if n not in EMBEDDED]
    return [_row(info(name)) for name in names]


def _row(about: Info) -> dict[str, Any]:
    with torch.device("meta"):  # the shapes alone: no memory, no initialisation
        body = _architecture(about)
    cached = about.source is not None and weights.status(about.source)["cached"] == "yes"
    start = "in the cache" if cached else "package index" if about.source else "timm's hub"
    return {
        "name": about.name,
        "home": about.home,
        "parameters": sum(p.numel() for p in body.parameters()),
        "photos": f"{about.image_size} x {about.image_size}",
        "weights": "none (from scratch)" if about.home == "frostline" else start,
    }
