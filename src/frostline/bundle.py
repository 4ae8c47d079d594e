"""A bundle is a model ready to use: safetensors, JSON and a model card in one folder. Nothing in it is ever executed.

It holds all that turns a photo into a class: the whole network, the line at which it is cut, the transform, the class names and the
temperature. So a reloaded bundle gives the predictions that its run gave, bit for bit on the same machine.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

import frostline
from frostline import backbone as backbones
from frostline import freeze, metrics
from frostline.backbone import Backbone
from frostline.config import EngineKind, Recipe, StoredAs, Strategy
from frostline.engine import Engine, compiled
from frostline.errors import BundleError, FrostlineError
from frostline.files import replacing, write_json, write_text
from frostline.images import Pixels, Transform
from frostline.train import Above, logits_of, make_head
from frostline.weights import cache_dir

SCHEMA = 1


@dataclass(frozen=True)
class About:
    """bundle.json."""

    strategy: str
    backbone: str
    weights: str
    """What it started from: pretrained or random."""
    line: int
    """Layers below the freeze line."""
    layers: int
    """Layers in all."""
    classes: list[str]
    """In the order of the outputs."""
    transform: dict[str, Any]
    """What a photo goes through first; see `frostline.images.Transform`."""
    hidden: int
    """Width of the head's hidden layer; 0 = linear."""
    stored_as: StoredAs
    """Number format at the line in training, kept in prediction."""
    temperature: float
    """What logits are divided by."""
    figures: dict[str, Any]
    """Accuracy and the like, with what they were measured on."""


class Bundle:
    """A loaded model."""

    def __init__(
        self, about: About, backbone: Backbone, cut: freeze.Cut, above: Above, kind: EngineKind = "auto"
    ) -> None:
        self.about = about
        self.backbone = backbone
        self.cut = cut
        self.above = above
        self._kind: EngineKind = kind
        self._engine: Engine | None = None

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the outputs."""
        return self.about.classes

    @property
    def transform(self) -> Transform:
        """What a photo goes through first."""
        return self.backbone.transform

    def logits(self, photos: Pixels) -> Tensor:
        """Prepared photos (N, H, W, 3) uint8, N at most 32, to logits (N, classes)."""
        cpu = torch.device("cpu")
        live = [photos] if self.cut.line == 0 else self._prefix().run(photos)
        stored = [a if a.dtype == np.uint8 else a.astype(self.about.stored_as) for a in live]
        return logits_of(self.above, [torch.from_numpy(a) for a in stored], cpu)

    def probabilities(self, photos: Pixels) -> np.ndarray:
        """Prepared photos (N, H, W, 3) uint8, N at most 32, to calibrated probabilities (N, classes)."""
        return metrics.softmax(self.logits(photos), self.about.temperature)

    def _prefix(self) -> Engine:
        if self._engine is None:
            self._engine = compiled(
                self.cut.prefix,
                self._kind,
                torch.device("cpu"),
                size=self.transform.size,
                folder=cache_dir() / "engines",
            )
        return self._engine


def state(backbone: Backbone, above: Above) -> dict[str, Tensor]:
    """All tensors of the model: the backbone's, those above the line as trained, and the head's."""
    tensors = {f"backbone.{k}": v for k, v in backbone.network.state_dict().items()}
    tensors |= {f"backbone.{k}": v for k, v in above.suffix.state_dict().items() if f"backbone.{k}" in tensors}
    tensors |= {f"head.{k}": v for k, v in above.head.state_dict().items()}
    return {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}


def save(folder: Path, about: About, backbone: Backbone, above: Above, card: str) -> None:
    """Write a bundle: all files into a folder beside, which then takes its place in one step.

    Raises
    ------
    RunError
        No room, or no right to write there.
    """
    with replacing(folder) as temporary:
        temporary.mkdir()
        model = to_bytes(state(backbone, above), metadata={"format": "pt"})
        (temporary / "model.safetensors").write_bytes(model)  # safetensors' own writer hides why a disk refuses
        digest = hashlib.sha256(model).hexdigest()
        document = {"frostline": frostline.__version__, "schema": SCHEMA, "sha256": digest, **asdict(about)}
        write_json(temporary / "bundle.json", document)
        write_text(temporary / "README.md", card)
        if folder.exists():
            shutil.rmtree(folder)


def load(folder: str | Path, engine: EngineKind = "auto") -> Bundle:
    """Read a bundle. Only safetensors and JSON are read: nothing in a bundle can run.

    Raises
    ------
    BundleError
        Not a bundle, damaged, or of a later version; the message says which.
    """
    path = Path(folder)
    with _readable(path):
        about, digest = _about(path)
        model = path / "model.safetensors"
        if not model.is_file():
            raise BundleError(f"{model} is missing: copy the whole bundle folder")
        if hashlib.sha256(model.read_bytes()).hexdigest() != digest:
            raise BundleError(f"{model} is damaged (its SHA-256 is not the one in bundle.json): copy the bundle again")
    try:
        tensors = load_file(model)
        backbone = backbones.skeleton(about.backbone, Transform.from_dict(about.transform))
        _fill(backbone.network, tensors, "backbone.")
        head = make_head(backbone.features, len(about.classes), Recipe(hidden=about.hidden), 0)
        _fill(head, tensors, "head.")
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, FrostlineError) as error:
        raise BundleError(f"{path} can't be loaded: {' '.join(str(error).split())[:300]}") from error
    _check(about, backbone, path)
    cut = freeze.cut(backbone.traced, about.line)
    above = Above(cut.suffix, head, learn_statistics=about.weights == "random")
    return Bundle(about, backbone, cut, above, engine)


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name, reason = error.filename or folder, error.strerror or " ".join(str(error).split())
        raise BundleError(f"can't read {name}: {reason}") from error


def _about(path: Path) -> tuple[About, str]:
    file = path / "bundle.json"
    if not file.is_file():
        hint = f": did you mean {path / 'bundle'}?" if (path / "bundle" / "bundle.json").is_file() else ""
        raise BundleError(f"{path} is not a bundle: expected a folder with bundle.json and model.safetensors{hint}")
    try:
        document: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        schema = int(document["schema"])
        digest = str(document["sha256"])
        about = {k: v for k, v in document.items() if k not in ("frostline", "schema", "sha256")}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{file} is damaged ({type(error).__name__}: {error}): copy the bundle again") from error
    if schema > SCHEMA:
        raise BundleError(
            f"{file} has schema {schema}, this frostline reads up to {SCHEMA}: pip install --upgrade frostline"
        )
    try:
        return About(**about), digest
    except TypeError as error:
        raise BundleError(f"{file} is damaged ({error}): copy the bundle again") from error


def _check(about: About, backbone: Backbone, path: Path) -> None:
    """Refuse what no run could have written, before it turns into wrong predictions."""
    problems = []
    if type(about.line) is not int or not 0 <= about.line <= backbone.layer_count:
        problems.append(f"line {about.line!r}: expected 0 to {backbone.layer_count}")
    if not isinstance(about.temperature, int | float) or not 0 < about.temperature < math.inf:
        problems.append(f"temperature {about.temperature!r}: expected above 0")
    if about.stored_as not in get_args(StoredAs):
        problems.append(f"stored_as {about.stored_as!r}: expected {' or '.join(get_args(StoredAs))}")
    if problems:
        raise BundleError(f"{path / 'bundle.json'} is damaged ({'; '.join(problems)}): copy the bundle again")


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    module.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})


def head_of(folder: Path) -> dict[str, Tensor]:
    """The head's tensors of a bundle, for a strategy that starts from it."""
    tensors = load_file(folder / "model.safetensors")
    return {k.removeprefix("head."): v for k, v in tensors.items() if k.startswith("head.")}


def describe(strategy: Strategy, backbone: Backbone, cut: freeze.Cut, classes: list[str], **rest: Any) -> About:
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
        **rest,
    )


def detached(cut: freeze.Cut) -> nn.Module:
    """A copy of the part above the line, to train without touching the backbone that others share."""
    return copy.deepcopy(cut.suffix)
