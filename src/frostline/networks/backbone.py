"""Backbones: uint8 photos in, a feature vector out, with the scaling that the network was trained with inside the
graph."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn

from frostline import recipes
from frostline.config import Resize
from frostline.documents.shared import WeightsOrigin
from frostline.errors import ConfigError, WeightsError, nearest, one_line
from frostline.networks import freeze_line, mobilenet, naming, timm_names, timm_weights, translation, weights
from frostline.networks.lines import Lines
from frostline.networks.short_list import MARK, side_of
from frostline.networks.side_by_side import Joint, Part, in_turns
from frostline.networks.timm_weights import Held
from frostline.photos.decoding import IMAGENET_MEAN, IMAGENET_STD, Interpolation, Transform
from frostline.progress import Progress
from frostline.recipes import OWN_SIDES, TOGETHER, Weights


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
    """The tutorial's baseline below its head: three 3x3 convolutions (32, 64, 128; no padding), each with 2x2 max
    pooling.

    The pooling stands before the ReLU: the larger of four values is the same before and after a monotone function, and
    a quarter of the values is left to rectify.
    """

    def __init__(self) -> None:
        steps: list[nn.Module] = []
        for into, out in ((3, 32), (32, 64), (64, 128)):
            steps += [nn.Conv2d(into, out, 3), nn.MaxPool2d(2), nn.ReLU()]
        super().__init__(*steps, nn.Flatten())


class _Pooled(nn.Module):
    """MobileNetV2's feature layers and the global average pooling, which has no layer of its own to count."""

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def group_matcher(self, coarse: bool = False) -> dict[str, str]:  # noqa: ARG002
        """The blocks, by patterns of their layers' names; as timm's networks give them."""
        return {"blocks": r"^features\.(\d+)"}

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
    """Side of the square photos that it takes unless told otherwise, pixels: the short list's, else that which it was
    made for."""
    mean: tuple[float, float, float]
    """Subtracted after scaling to 0..1."""
    std: tuple[float, float, float]
    """Divided by."""
    source: weights.WeightsSpec | None
    """Where its published weights are known to be, or None (timm's hub, or no published weights)."""
    interpolation: Interpolation = "bilinear"
    """How its publisher resamples photos."""
    crop_pct: float = 0.875
    """Side of the central square that its publisher cuts, as a share of the photo's shorter side."""
    hub: str = ""
    """Where timm has its published weights: a repository on the hub or a URL; empty: nowhere."""
    fixed: bool = False
    """Made for photos of one size (most transformers)."""
    made_for: int = 0
    """Side of the square photos it was made for, pixels."""
    parts: tuple[Info, ...] = ()
    """The networks that stand side by side, where it is several."""

    def transform(self, image_size: int, resize: Resize) -> Transform:
        """The transform of its photos; `image_size` 0 takes the backbone's own."""
        size = image_size or self.image_size
        return Transform(size, resize, self.mean, self.std, self.interpolation, self.crop_pct)


class _Own(NamedTuple):
    """A network that is built here, and not by timm."""

    home: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    build: Callable[[], nn.Module]
    """The network without its classifier, with random weights."""


_OWN = {
    # A further network is a row here; the side of its photos stands in `recipes.OWN_SIDES`, its weights in
    # `weights.KNOWN`. Those of timm need none.
    "small_cnn": _Own("frostline", (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), SmallCNN),
    "mobilenet_v2": _Own("torchvision", IMAGENET_MEAN, IMAGENET_STD, lambda: _Pooled(mobilenet.features())),
}

EMBEDDED = ("small_cnn", "mobilenet_v2", "tf_efficientnet_lite0", "tf_efficientnet_lite1", "tf_efficientnet_lite2")
"""The networks whose weights come from the package index if need be."""


def info(name: str) -> Info:
    """Look up a backbone.

    Raises
    ------
    ConfigError
        Neither frostline's own nor one of timm's (the nearest name is suggested), or one that takes no square RGB
        photos.
    """
    if MARK in name:
        return _side_by_side(name)
    if name in _OWN:
        own, side = _OWN[name], OWN_SIDES[name]
        return Info(name, own.home, side, own.mean, own.std, weights.KNOWN.get(name), made_for=side)
    published = _published(name)
    channels, height, width = published.input_size
    if channels != 3 or height != width or len(published.mean) != 3:
        size = " x ".join(map(str, published.input_size))
        raise ConfigError(f"{name} takes {size} (channels x height x width): choose one that takes square RGB photos")
    return Info(
        name,
        "timm",
        side_of(name) or height,
        tuple(published.mean),
        tuple(published.std),
        weights.KNOWN.get(name),
        "bilinear" if published.interpolation == "bilinear" else "bicubic",  # what timm itself takes for any other word
        published.crop_pct,
        published.hf_hub_id or published.url or "",
        bool(published.fixed_input_size),
        height,
    )


def _side_by_side(name: str) -> Info:
    """Several networks as one: photos of the largest one's size, 0..1; each part scales them further."""
    parts = tuple(info(part.strip()) for part in name.split(MARK))
    if any(part.name == "small_cnn" or part.fixed for part in parts):
        raise ConfigError(f"{name}: expected pretrained networks that take photos of any size, such as {TOGETHER}")
    size = max(part.image_size for part in parts)
    return Info(name, "joint", size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), None, parts=parts)


def enlarged(name: str, factor: float) -> int:
    """Side of the photos in pixels, `factor` times a backbone's own, rounded to 32; 0 (its own) where it takes no
    other."""
    about = info(name)
    return 0 if about.fixed or factor == 1 else recipes.enlarged(about.image_size, factor)


def _published(name: str) -> Any:
    """What timm has published of a network and its weights (a `PretrainedCfg`)."""
    _preloaded()
    import timm
    from timm.models import get_arch_pretrained_cfgs

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture) or name.endswith("."):
        raise naming.unknown(name)
    tags = [key.partition(".")[2] for key in get_arch_pretrained_cfgs(architecture)]
    if tag not in ("", *tags):
        raise ConfigError(f"{architecture} has no published weights '{tag}'{nearest(tag, tags)}")
    return timm.get_pretrained_cfg(name) or timm.models.PretrainedCfg()


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
    origins: tuple[WeightsOrigin, ...] = ()
    """The published weights that it started from, one for each network; empty: random weights."""

    @property
    def layer_count(self) -> int:
        """Number of layers, those without parameters included: the place of a line above them all."""
        return len(freeze_line.layers(self.traced))

    @cached_property
    def lines(self) -> Lines:
        """The places where a freeze line may stand."""
        return Lines(self.name, self.traced, self.network.body)

    @property
    def blocks(self) -> list[str]:
        """The layers that are whole blocks, because they could not be recorded inside."""
        return freeze_line.blocks(self.traced)

    def example(self) -> Tensor:
        """One black photo, (1, H, W, 3) uint8."""
        return torch.zeros(1, self.transform.size, self.transform.size, 3, dtype=torch.uint8)


_preloading: list[threading.Thread] = []


def preload(names: Iterable[str]) -> None:
    """Start to import, in a thread, what some backbones are built with: 1.5 s in which photos can be listed.

    Raises
    ------
    ConfigError
        No network has one of the names: told before any photo is read.
    """
    parts = [part.strip() for name in names for part in name.split(MARK)]
    for part in parts:
        if part not in _OWN and part.partition(".")[0] not in timm_names.names():
            info(part)  # unknown, or a name that timm has given up
    if any(part not in _OWN for part in parts):
        thread = threading.Thread(target=import_module, args=("timm",), daemon=True)
        thread.start()
        _preloading.append(thread)


def _preloaded() -> None:
    """Wait for what `preload` began: two threads that import the same modules from two ends may see half of one."""
    while _preloading:
        _preloading.pop().join()


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
    body, origins = _body(about, transform.size, seed, start, path, progress or Progress(quiet=True))
    backbone = replace(assemble(name, Scaled(body, transform).eval(), transform), origins=tuple(origins))
    if backbone.blocks and progress is not None:
        kinds = {type(backbone.traced.get_submodule(block)).__name__ for block in backbone.blocks}
        progress.say(
            f"{name}: {len(backbone.blocks)} of its {len(backbone.lines.counted)} layers are whole blocks "
            f"({', '.join(sorted(kinds))}) that can't be recorded inside; the freeze line counts each as one"
        )
    return backbone


def skeleton(name: str, transform: Transform) -> Backbone:
    """The architecture alone, for a bundle that brings its own weights."""
    return assemble(name, Scaled(architecture(info(name), transform.size), transform).eval(), transform)


def assemble(name: str, network: Scaled, transform: Transform) -> Backbone:
    """Record a network's layers and name it by its contents."""
    for layer in network.modules():
        if getattr(layer, "inplace", False):  # it would overwrite the tensors at the line, which are kept
            layer.inplace = False  # type: ignore[assignment]
    side = transform.size
    noise = torch.randint(256, (2, side, side, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    traced = freeze_line.trace(network, noise)
    if isinstance(network.body, Joint):
        traced = in_turns(traced)
    return Backbone(name, network, traced, transform, freeze_line.features(traced))


def _body(
    about: Info, size: int, seed: int, start: Weights, path: Path | None, progress: Progress
) -> tuple[nn.Module, list[WeightsOrigin]]:
    """The network without its classifier, with its weights, and where those are from."""
    if about.parts:
        if path is not None:
            raise ConfigError(
                f"--weights {path}: {about.name} is several networks; their weights are fetched one by one"
            )
        bodies, origins = zip(*(_part(p, about.name, size, seed, start, progress) for p in about.parts), strict=True)
        joint = Joint([Part(body, part.mean, part.std) for body, part in zip(bodies, about.parts, strict=True)])
        return joint, [one for several in origins for one in several]
    if start == "pretrained" and about.home == "frostline":
        raise ConfigError(f"{about.name} has no published weights: start it from random weights")
    held = _held(about, path, progress) if start == "pretrained" else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = architecture(about, size)
        if held is not None:
            _fill(body, held, about, size)
    return body, [held.origin(about.name)] if held is not None else []


def _part(
    part: Info, whole: str, size: int, seed: int, start: Weights, progress: Progress
) -> tuple[nn.Module, list[WeightsOrigin]]:
    """One of the networks of A+B, whose weights --weights can't name."""
    try:
        return _body(part, size, seed, start, None, progress)
    except WeightsError as error:
        keep = f"'frostline weights {part.name} --path FILE' keeps a file, and " if part.home != "frostline" else ""
        raise WeightsError(
            f"{error}. It is one of {whole}: {keep}--backbone can name another, or one network alone"
        ) from error


def _held(about: Info, path: Path | None, progress: Progress) -> Held:
    """The file to start from."""
    if path is not None:
        return _given(about, path, progress)
    if about.source is None:
        return timm_weights.fetch(about.name, about.hub, progress)
    file = weights.fetch(about.source, progress=progress)
    return Held(file, about.source.sha256, about.source.filename)


def _given(about: Info, path: Path, progress: Progress) -> Held:
    """A file that the user gives: it has to fit the network, and that it is not known to be the published one is
    told."""
    held = timm_weights.given(about.name, path)
    if about.source is not None and held.sha256 == about.source.sha256:
        return replace(held, source=about.source.filename)
    known = f"the published file has {about.source.sha256}" if about.source else "that of the published file is unknown"
    progress.say(f"weights of {about.name}: {path} is taken as it is; its SHA-256 is {held.sha256}, {known}")
    return held


def _fill(body: nn.Module, held: Held, about: Info, size: int) -> None:
    """Load a file. Those of timm's hub go through timm's own loader, with the classifier, though it is not needed: only
    so does timm insist on every tensor."""
    if not held.revision:
        load(body, weights.load_state_dict(held.path), about.name)
        return
    file = {"file": str(held.path), "custom_load": False}
    try:
        state = _timm(about, size, pretrained=True, pretrained_cfg_overlay=file).state_dict()
    except ConfigError:
        raise
    except Exception as error:  # timm, torch and safetensors each have their own kinds
        raise timm_weights.no_weights(
            about.name, f"timm's hub ({about.hub}), {held.path}: {one_line(error)}"
        ) from error
    load(body, dict(state), about.name)


def checked(about: Info, path: Path) -> None:
    """Hold a file of weights against a network's architecture. Raises WeightsError where it is another network's."""
    with torch.random.fork_rng(devices=[]):
        load(architecture(about), weights.load_state_dict(path), about.name)


def architecture(about: Info, size: int = 0) -> nn.Module:
    """The network without its classifier, before `Scaled`; `size`: side of its photos in pixels, 0 = its own."""
    if about.parts:
        return Joint([Part(architecture(part, size), part.mean, part.std) for part in about.parts])
    if about.name in _OWN:
        return _OWN[about.name].build()
    return _timm(about, size, num_classes=0)


def _timm(about: Info, size: int, **options: Any) -> nn.Module:
    """One of timm's networks. Those made for one size of photo (most transformers) are given the other size."""
    _preloaded()
    import timm

    size = size or about.image_size
    resized = about.fixed and size != about.made_for
    try:
        return timm.create_model(about.name, **(options | ({"img_size": size} if resized else {})))
    except (TypeError, AssertionError) as error:
        if not resized:
            raise
        side = about.made_for
        raise ConfigError(
            f"{about.name} takes photos of {side} x {side} pixels only: leave --image-size out"
        ) from error


def load(body: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Fill a network without its classifier from a publisher's file, which may have one.

    Where a publisher names the tensors otherwise, timm's own rules rename them if it has some (those for DINOv2 are
    among them), or ours for torchvision's transformers and ConvNeXt (`translation`). Else they have to stand in the
    same order (the EfficientNet-Lites; torchvision's MobileNets and EfficientNets): they are renamed by position, and
    each has to be of the same kind (weight, bias, running mean, ...) and shape; only a classifier's weight and bias may
    be left over.

    Raises
    ------
    WeightsError
        The file is another network's.
    """
    wanted = body.state_dict()
    if not _fits(wanted, state):
        state = translation.renamed(state, wanted)
    if not _fits(wanted, state):
        module = sys.modules[type(body).__module__]
        rules = getattr(module, "checkpoint_filter_fn", None) or getattr(module, "_filter_fn", None)
        with suppress(Exception):  # they were written for files of the right kind, and fail in many ways on others
            state = rules(dict(state), body) if rules else state
    if not _fits(wanted, state):
        added = translation.epsilon(state)
        state = _by_position(wanted, state, name)
        state = translation.with_epsilon(state, body, added) if added is not None else state
    body.load_state_dict({key: state[key] for key in wanted})


def _fits(wanted: dict[str, Tensor], state: dict[str, Tensor]) -> bool:
    return all(key in state and state[key].shape == tensor.shape for key, tensor in wanted.items())


def _by_position(wanted: dict[str, Tensor], state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """`state` under the names of `wanted`. Counters of steps are left as they are: not every publisher kept them."""
    counters, tensors = _sorted_out(wanted)
    _, found = _sorted_out(state)
    found = {k: translation.shaped(t, like) for (k, t), like in zip(found.items(), _padded(tensors), strict=False)}
    for (key, tensor), (other, came) in zip(tensors.items(), found.items(), strict=False):
        if tensor.shape != came.shape or _kind(key) != _kind(other):
            raise WeightsError(
                f"the weights are not those of {name}: {other} {tuple(came.shape)} stands where "
                f"{key} {tuple(tensor.shape)} is expected"
            )
    rest = list(found)[len(tensors) :]
    if len(found) < len(tensors) or [_kind(key) for key in rest] not in ([], ["weight"], ["weight", "bias"]):
        raise WeightsError(
            f"the weights are not those of {name}: {len(found)} tensors, expected {len(tensors)} and a classifier's two"
        )
    return dict(zip(tensors, found.values(), strict=False)) | counters


def _padded(tensors: dict[str, Tensor]) -> Iterator[Tensor]:
    """The tensors, then for ever one that no other has the shape of."""
    yield from tensors.values()
    while True:
        yield torch.empty(0)


def _sorted_out(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """(the counters that batch norms keep, all other tensors)."""
    counters = {k: v for k, v in state.items() if _kind(k) == "num_batches_tracked"}
    return counters, {k: v for k, v in state.items() if k not in counters}


def _kind(key: str) -> str:
    return key.rpartition(".")[2]
