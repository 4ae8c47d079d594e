"""A bundle is a model ready to use: safetensors, JSON and a model card in one folder. Nothing in it is ever executed.

It holds all that turns a photo into a class: the whole network, the line at which it is cut, the transform, the class
names and the temperature. So a reloaded bundle gives the predictions that its run gave, bit for bit on the same
machine.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

import frostline
from frostline import documents
from frostline.bundles import neighbours, seen
from frostline.cache.folder import cache_dir
from frostline.config import EngineKind
from frostline.errors import BundleError, ConfigError, FrostlineError, one_line
from frostline.fields import path_of
from frostline.files import replacing, write_text
from frostline.networks.engine import EXPORT, Engine, opened, settle
from frostline.photos.decoding import Pixels, Transform
from frostline.recipes import Recipe, Strategy
from frostline.stats.probabilities import Floats, read_prior, softmax

if TYPE_CHECKING:  # PyTorch is imported only where a network is written, or compiled for the first time
    import torch
    from torch import Tensor, nn

    from frostline.networks import freeze_line
    from frostline.networks.backbone import Backbone
    from frostline.networks.compilation import Runtime
    from frostline.networks.trainable import Above
from frostline.bundles.about import SCHEMA, About, damaged, read_about, readable


@dataclass(frozen=True)
class Parts:
    """A bundle's network in PyTorch."""

    backbone: Backbone
    cut: freeze_line.Cut
    above: Above

    def on(self, device: torch.device) -> Parts:
        """A copy of the network on a device: others share its layers, on the processor."""
        cut = replace(self.cut, prefix=copy.deepcopy(self.cut.prefix).to(device))
        return replace(self, cut=cut, above=copy.deepcopy(self.above).to(device))


class Outputs(NamedTuple):
    """The outputs of a network for N photos."""

    logits: npt.NDArray[np.float32]
    """(N, classes)"""
    features: npt.NDArray[np.float32]
    """(N, D): before the head, or its hidden layer; see `frostline.bundles.neighbours`."""


class Bundle:
    """A loaded model. May be used from many threads at once."""

    def __init__(self, about: About, engines: Sequence[Engine], parts: Parts | None = None, folder: Path | None = None):
        self.about = about
        self.transform = Transform.from_dict(about.transform)
        """What a photo goes through first."""
        self._prefix = engines[0] if about.line else None
        self._above = engines[-1]
        self._given = parts
        self._folder = folder

    @property
    def folder(self) -> Path | None:
        """Where it was loaded from; None for one that was put together in memory."""
        return self._folder

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the outputs."""
        return self.about.classes

    @cached_property
    def parts(self) -> Parts:
        """The network in PyTorch, built when it is first asked for.

        Raises
        ------
        BundleError
            The folder that it was loaded from is no longer what it was.
        """
        if self._given is not None:
            return self._given
        assert self._folder is not None  # noqa: S101 - a bundle comes with parts or from a folder
        return _rebuild(self._folder, self.about)

    @property
    def batch(self) -> int:
        """How many photos are best given at a time."""
        return max(engine.batch for engine in (self._prefix, self._above) if engine)

    def expect(self, count: int) -> None:
        """Say that about so many photos have come or will come (`Engine.expect`)."""
        for engine in (self._prefix, self._above):
            if engine:
                engine.expect(count)

    def logits(self, photos: Pixels) -> npt.NDArray[np.float32]:
        """Prepared photos (N, H, W, 3) uint8 to logits (N, classes)."""
        return self.outputs(photos).logits

    def outputs(self, photos: Pixels) -> Outputs:
        """Prepared photos (N, H, W, 3) uint8 to logits and features; the features are those of the photos as they
        are."""
        clean = self._once(photos)
        if self.about.test_views == 1:
            return clean
        mirrored = self._once(np.ascontiguousarray(photos[:, :, ::-1]))
        return clean._replace(logits=both_sides(clean.logits, mirrored.logits))

    def _once(self, photos: Pixels) -> Outputs:
        live = [photos] if self._prefix is None else self._prefix.run([photos])
        return self.outputs_at_line([a if a.dtype == np.uint8 else a.astype(self.about.stored_as) for a in live])

    def outputs_at_line(self, live: Sequence[npt.NDArray[Any]]) -> Outputs:
        """The tensors at the line, as the cache stores them, each (N, ...), to logits and features."""
        wide = [a if a.dtype == np.uint8 else a.astype(np.float32) for a in live]
        logits, features = (np.asarray(output, dtype=np.float32) for output in self._above.run(wide))
        return Outputs(logits, features)

    @cached_property
    def neighbours(self) -> neighbours.Neighbours | None:
        """The training photos that it keeps, read when they are first asked for; None where it keeps none.

        Raises
        ------
        BundleError
            They are missing or damaged.
        """
        if not self.about.neighbours or self._folder is None:
            return None
        return neighbours.read(
            self._folder / neighbours.FILE, str(self.about.neighbours.get("sha256")), len(self.classes)
        )

    @cached_property
    def seen(self) -> seen.Seen | None:
        """The photos that it was trained and validated on, read when they are first asked for; None where it does not
        tell (an older version wrote it).

        Raises
        ------
        BundleError
            The file is missing or damaged.
        """
        if not self.about.seen or self._folder is None:
            return None
        return seen.read(self._folder / seen.FILE, str(self.about.seen.get("sha256")))

    def stands_for(self) -> Floats:
        """The class shares (C,) for which its probabilities hold.

        Raises
        ------
        ConfigError
            The bundle is of an older version, which did not keep them.
        """
        if not self.about.stands_for:
            raise ConfigError(
                "this bundle does not tell the class shares it was trained on: train it again to use a prior"
            )
        return np.array(self.about.stands_for)

    def prior(self, wanted: str | Mapping[str, float]) -> Floats:
        """Class shares (C,) by name: `train` (those of the training photos), `equal`, or as
        `probabilities.read_prior` reads them.

        Raises
        ------
        ConfigError
            They can't be read, or the bundle is of an older version, which did not keep its own.
        """
        self.stands_for()
        if wanted == "equal":
            return np.full(len(self.classes), 1 / len(self.classes))
        return np.array(self.about.priors) if wanted == "train" else read_prior(wanted, self.classes)

    def probabilities(self, photos: Pixels) -> npt.NDArray[np.float64]:
        """Prepared photos (N, H, W, 3) uint8 to calibrated probabilities (N, classes)."""
        return softmax(self.logits(photos), self.about.temperature)


def both_sides(clean: npt.NDArray[np.float32], mirrored: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Logits (N, C) from those of the photos and of their mirror images."""
    return np.asarray((clean + mirrored) / 2, dtype=np.float32)


# ---- compiled forms --------------------------------------------------------------------------------------------------


def assembled(about: About, parts: Parts, runtime: Runtime) -> Bundle:
    """A compiled model in memory: what a run evaluates, and what its bundle will load as."""
    from frostline.networks.compilation import compiled

    parts.above.set_training(False)
    folder = cache_dir() / "engines"
    engines = [
        compiled(network, example, runtime, half=half, folder=folder) for network, example, half in _networks(parts)
    ]
    return Bundle(about, engines, parts)


def _networks(parts: Parts) -> list[tuple[nn.Module, list[Tensor], bool]]:
    """(network, its inputs for one photo, whether half precision will do): what is frozen, then what was trained."""
    import torch

    from frostline.networks import freeze_line
    from frostline.networks.trainable import Telling

    cut = parts.cut
    live = [torch.zeros(1, *s, dtype=d) for s, d in zip(cut.shapes, cut.dtypes, strict=True)]
    above: list[tuple[nn.Module, list[Tensor], bool]] = [(Telling(parts.above, neighbours.WIDEST), live, False)]
    if not cut.line:
        return above
    prefix = freeze_line.taps(parts.backbone.traced, [cut.line])  # the very network that filled the cache
    return [(prefix, [parts.backbone.example()], True), *above]


def _files(about: About, digest: str) -> list[Path]:
    """Where the compiled forms of a bundle are kept: found by its contents alone, without PyTorch."""
    kept = {k: v for k, v in asdict(about).items() if k in ("backbone", "line", "classes", "transform", "hidden")}
    shaped_by = json.dumps([digest, kept, metadata.version("torch"), EXPORT], sort_keys=True)
    name = hashlib.sha256(shaped_by.encode()).hexdigest()[:32]
    parts = ("prefix", "above") if about.line else ("above",)
    return [cache_dir() / "engines" / f"{name}-{part}.onnx" for part in parts]


def _keep(about: About, digest: str, parts: Parts) -> None:
    """Give the exported networks the names under which `load` looks for them."""
    from frostline.networks.compilation import exported

    parts.above.set_training(False)
    for (network, example, _), file in zip(_networks(parts), _files(about, digest), strict=True):
        with exported(network, example, file.parent) as source, replacing(file) as temporary:
            try:
                os.link(source, temporary)
            except OSError:  # a file system without hard links
                shutil.copyfile(source, temporary)


# ---- on disk ---------------------------------------------------------------------------------------------------------


def state(backbone: Backbone, above: Above) -> dict[str, Tensor]:
    """All tensors of the model: the backbone's, those above the line as trained, and the head's."""
    tensors = {f"backbone.{k}": v for k, v in backbone.network.state_dict().items()}
    tensors |= {f"backbone.{k}": v for k, v in above.suffix.state_dict().items() if f"backbone.{k}" in tensors}
    tensors |= {f"head.{k}": v for k, v in above.head.state_dict().items()}
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def save(folder: Path, about: About, parts: Parts, card: str, known: bytes = b"", photos: bytes = b"") -> None:
    """Write a bundle: all files into a folder beside, which then takes its place in one step.

    Parameters
    ----------
    known
        The training photos that it keeps, as `neighbours.to_bytes` gives them; `about` tells of them.
    photos
        Which photos it has seen, as `seen.to_bytes` gives them; `about` tells of them.

    Raises
    ------
    RunError
        No room, or no right to write there.
    """
    from safetensors.torch import save as to_bytes

    with replacing(folder) as temporary:
        temporary.mkdir()
        model = to_bytes(state(parts.backbone, parts.above), metadata={"format": "pt"})
        (temporary / "model.safetensors").write_bytes(model)  # safetensors' own writer hides why a disk refuses
        digest = hashlib.sha256(model).hexdigest()
        document = {"frostline": frostline.__version__, "schema": SCHEMA, "sha256": digest, **asdict(about)}
        documents.write(temporary, documents.Bundle, document)
        write_text(temporary / "README.md", card)
        if known:
            (temporary / neighbours.FILE).write_bytes(known)
        if photos:
            (temporary / seen.FILE).write_bytes(photos)
        if folder.exists():
            shutil.rmtree(folder)
    _keep(about, digest, parts)


def load(folder: str | Path, engine: EngineKind = "auto") -> Bundle:
    """Read a bundle. Only safetensors and JSON are read: nothing in a bundle can run.

    It is compiled on first use (2 to 6 s, most of it PyTorch's start), and the compiled form is kept in the cache
    folder.

    Raises
    ------
    BundleError
        Not a bundle, damaged, or of a later version; the message says which.
    """
    path = path_of(folder, "bundle")
    about, digest = _whole(path)
    kind = settle(engine)
    if kind == "torch":
        from frostline.networks.compilation import Runtime

        return assembled(about, _rebuild(path, about), Runtime(kind))
    files = _files(about, digest)
    if not all(file.exists() for file in files):
        _keep(about, digest, _rebuild(path, about))
    halves = (True, False)[-len(files) :]
    engines = [opened(kind, file, half=half) for file, half in zip(files, halves, strict=True)]
    return Bundle(about, engines, folder=path)


def of_run(folder: Path, backbone: Backbone, runtime: Runtime) -> Bundle:
    """A strategy's bundle on what its run computes on: in PyTorch on the run's device, or as `load` gives it.

    Raises
    ------
    BundleError
        As `load`.
    """
    if runtime.settled != "torch":
        return load(folder, runtime.engine)
    about, _ = _whole(folder)
    return assembled(about, parts_on(backbone, folder), runtime)


def _whole(path: Path) -> tuple[About, str]:
    """What bundle.json says, and the SHA-256 of the weights, which is the one that they have."""
    with readable(path):
        about, digest = read_about(path)
        model = path / "model.safetensors"
        if not model.is_file():
            raise BundleError(f"{model} is missing: copy the whole bundle folder")
        if hashlib.sha256(model.read_bytes()).hexdigest() != digest:
            raise BundleError(f"{model} is damaged (its SHA-256 is not the one in bundle.json): copy the bundle again")
    return about, digest


def compiled_here(folder: str | Path, engine: EngineKind = "auto") -> bool:
    """Whether `load` finds a bundle's compiled form in the cache and so needs no PyTorch. Raises BundleError."""
    with readable(Path(folder)):
        about, digest = read_about(Path(folder))
    return settle(engine) != "torch" and all(file.exists() for file in _files(about, digest))


def _rebuild(path: Path, about: About) -> Parts:
    """The network of a bundle whose bytes are known to be whole."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from frostline.networks import backbone as backbones
    from frostline.networks import freeze_line
    from frostline.networks.trainable import Above, make_head

    try:
        tensors = load_file(path / "model.safetensors")
        backbone = backbones.skeleton(about.backbone, Transform.from_dict(about.transform))
        _fill(backbone.network, tensors, "backbone.")
        head = make_head(backbone.features, len(about.classes), Recipe(hidden=about.hidden), 0)
        _fill(head, tensors, "head.")
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, FrostlineError) as error:
        raise BundleError(f"{path} can't be loaded: {one_line(error)}") from error
    if about.line > backbone.layer_count:
        raise damaged(path, [f"line {about.line}: expected 0 to {backbone.layer_count}"])
    cut = freeze_line.cut(backbone.traced, about.line)
    return Parts(backbone, cut, Above(cut.suffix, head, learn_statistics=about.weights == "random"))


def parts_on(backbone: Backbone, folder: Path) -> Parts:
    """The network of a bundle that was trained on `backbone`, which is shared and stays as it is: no recording of its
    layers again.

    Raises
    ------
    BundleError
        `folder` holds no bundle.
    """
    from safetensors.torch import load_file

    from frostline.networks import freeze_line
    from frostline.networks.trainable import Above, make_head

    with readable(folder):
        about, _ = read_about(folder)
        tensors = load_file(folder / "model.safetensors")
    cut = freeze_line.cut(backbone.traced, about.line)
    suffix = detached(cut)
    suffix.load_state_dict({k: tensors.get(f"backbone.{k}", v) for k, v in suffix.state_dict().items()})
    head = make_head(backbone.features, len(about.classes), Recipe(hidden=about.hidden), 0)
    _fill(head, tensors, "head.")
    return Parts(backbone, cut, Above(suffix, head, learn_statistics=about.weights == "random"))


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def head_of(folder: Path) -> dict[str, Tensor]:
    """The head's tensors of a bundle, for a strategy that starts from it."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "model.safetensors")
    return {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}


def describe(strategy: Strategy, backbone: Backbone, cut: freeze_line.Cut, classes: list[str], **rest: Any) -> About:
    """bundle.json for a trained strategy."""
    return About(
        strategy=strategy.name,
        backbone=strategy.backbone,
        weights=strategy.weights,
        line=cut.line,
        layers=backbone.layer_count,
        classes=classes,
        transform=backbone.transform.to_dict(),
        hidden=strategy.recipe.hidden,
        test_views=strategy.test_views,
        pretrained_weights=list(backbone.origins),
        **rest,
    )


def detached(cut: freeze_line.Cut) -> nn.Module:
    """A copy of the part above the line, to train without touching the backbone that others share."""
    return copy.deepcopy(cut.suffix)
