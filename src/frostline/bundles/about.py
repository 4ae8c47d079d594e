"""bundle.json: what a bundle says of itself, read and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from frostline.config import StoredAs
from frostline.documents import read_object
from frostline.documents.bundle import BundleFigures, NeighboursFile, SeenFile, ThresholdRow, TransformFigures
from frostline.documents.shared import WeightsOrigin
from frostline.errors import BundleError, FrostlineError, RunError, one_line
from frostline.networks import naming
from frostline.networks.short_list import MARK
from frostline.photos.decoding import Transform
from frostline.stats import thresholds

SCHEMA = 4


@dataclass(frozen=True)
class About:
    """bundle.json."""

    strategy: str
    backbone: str
    weights: str
    """What it started from: pretrained or random."""
    line: int
    """Layers below the freeze line, those without parameters included."""
    layers: int
    """Layers in all, those without parameters included."""
    classes: list[str]
    """In the order of the outputs."""
    transform: TransformFigures
    """What a photo goes through first; see `frostline.photos.decoding.Transform`."""
    hidden: int
    """Width of the head's hidden layer; 0 = linear."""
    stored_as: StoredAs
    """Number format at the line in training, kept in prediction."""
    temperature: float
    """What logits are divided by."""
    figures: BundleFigures
    """Accuracy and the like, with what they were measured on."""
    test_views: int = 1
    """1: a photo is looked at once; 2: its mirror image too, and the logits are averaged."""
    priors: list[float] = field(default_factory=list)
    """Each class's share of the training photos; empty in bundles of schema 1, which don't tell."""
    stands_for: list[float] = field(default_factory=list)
    """The class shares for which the probabilities hold: `priors`, or equal ones when training was balanced."""
    thresholds: list[ThresholdRow] = field(default_factory=list)
    """Confidence at which a precision is reached, as `frostline.stats.thresholds.table` has it; empty where no
    validation photos could tell."""
    pretrained_weights: list[WeightsOrigin] = field(default_factory=list)
    """Of each network that started from published weights; empty in bundles of older versions, which don't tell."""
    neighbours: NeighboursFile = field(default_factory=NeighboursFile)
    """{"photos", "sha256"} of neighbours.safetensors; empty where the bundle has none."""
    seen: SeenFile = field(default_factory=SeenFile)
    """{"trained", "validated", "sha256"} of seen.safetensors; empty in bundles of schema 3 and before."""


def digest(folder: str | Path) -> str:
    """The SHA-256 of a bundle's weights, as bundle.json has it: what tells bundles apart. Raises BundleError."""
    with readable(Path(folder)):
        return read_about(Path(folder))[1]


@contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turn a refusal to read the bundle into a BundleError of one line."""
    try:
        yield
    except OSError as error:
        name, reason = error.filename or folder, error.strerror or one_line(error)
        raise BundleError(f"can't read {name}: {reason}") from error


def read_about(path: Path) -> tuple[About, str]:
    """What bundle.json says, and the SHA-256 of the weights beside it. Raises BundleError."""
    file = path / "bundle.json"
    if not file.is_file():
        hint = f": did you mean {path / 'bundle'}?" if (path / "bundle" / "bundle.json").is_file() else ""
        raise BundleError(f"{path} is not a bundle: expected a folder with bundle.json and model.safetensors{hint}")
    try:
        document = read_object(file)
        schema = int(document["schema"])
        digest = str(document["sha256"])
        about = {k: v for k, v in document.items() if k not in ("frostline", "schema", "sha256")}
    except RunError as error:
        raise BundleError(f"{error}: copy the bundle again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is damaged ({type(error).__name__}: {error}): copy the bundle again") from error
    if schema > SCHEMA:
        raise BundleError(
            f"{file} has schema {schema}, this frostline reads up to {SCHEMA}: pip install --upgrade frostline"
        )
    try:
        known = About(**about)
    except TypeError as error:
        raise BundleError(f"{file} is damaged ({error}): copy the bundle again") from error
    _check(known, path)
    return known, digest


def _check(about: About, path: Path) -> None:
    """Refuse what no run could have written, before it turns into wrong predictions."""
    problems = []
    if type(about.line) is not int or about.line < 0:
        problems.append(f"line {about.line!r}: expected 0 or more")
    if not isinstance(about.temperature, int | float) or not 0 < about.temperature < math.inf:
        problems.append(f"temperature {about.temperature!r}: expected above 0")
    if about.stored_as not in get_args(StoredAs):
        problems.append(f"stored_as {about.stored_as!r}: expected {' or '.join(get_args(StoredAs))}")
    if not isinstance(about.classes, list) or not all(isinstance(c, str) for c in about.classes):
        problems.append(f"classes {about.classes!r}: expected a list of names")
    else:
        problems += _share_problems(about)
    if not isinstance(about.neighbours, dict):
        problems.append(f"neighbours {about.neighbours!r}: expected photos and sha256")
    if not isinstance(about.seen, dict):
        problems.append(f"seen {about.seen!r}: expected trained, validated and sha256")
    problems += thresholds.problems(about.thresholds)
    if about.test_views not in (1, 2):
        problems.append(f"test_views {about.test_views!r}: expected 1 or 2")
    try:
        Transform.from_dict(about.transform)
    except FrostlineError as error:
        problems.append(str(error))
    if problems:
        raise damaged(path, problems)


def _share_problems(about: About) -> Iterator[str]:
    for name in ("priors", "stands_for"):
        shares = getattr(about, name)
        numbers = isinstance(shares, list) and all(isinstance(s, int | float) and 0 <= s <= 1 for s in shares)
        if not numbers or (
            shares and (len(shares) != len(about.classes) or not math.isclose(sum(shares), 1, abs_tol=1e-6))
        ):
            yield f"{name} {shares!r}: expected a share for each class, 1 in all"


def damaged(path: Path, problems: Sequence[str]) -> BundleError:
    """The error that names what is wrong with a bundle."""
    return BundleError(f"{path / 'bundle.json'} is damaged ({'; '.join(problems)}): copy the bundle again")


def licences_of(about: About) -> dict[str, str]:
    """The licence of each network's published weights, by its name; empty where it isn't known.

    A bundle of an older version doesn't tell: then those of timm's default weights are taken.
    """
    if about.weights != "pretrained":
        return {}
    if about.pretrained_weights:
        return {origin["network"]: origin["licence"] for origin in about.pretrained_weights}
    return {name.strip(): naming.licence_of(name.strip()) for name in about.backbone.split(MARK)}
