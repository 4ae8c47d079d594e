"""Probabilities of classes: softmax, and class shares that differ from those a model was trained on."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from frostline.errors import ConfigError, nearest

Floats = npt.NDArray[np.float64]


def softmax(logits: npt.NDArray[np.floating[Any]], temperature: float) -> npt.NDArray[np.float64]:
    """(N, C) probabilities in float64, so that a row sums to 1 to fifteen digits."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


# ---- class shares ----------------------------------------------------------------------------------------------------


def for_prior(logits: npt.NDArray[np.floating[Any]], temperature: float, stands_for: Floats, prior: Floats) -> Floats:
    """Logits (N, C) float64 for photos in which the classes have the shares `prior`, by Bayes' rule.

    Their softmax at `temperature` is ``p * prior / stands_for``, normalised, where p is the calibrated probability
    (Saerens, Latinne and Decaestecker, Neural Computation 2002; as an addition to the logits: Menon et al., ICLR 2021).
    The rule holds for probabilities, so what is added is the ratio's logarithm times the temperature.

    Parameters
    ----------
    stands_for
        (C,) the shares for which the model's probabilities hold. Where one is 0 the model never saw the class: it is
        left as it is.
    prior
        (C,) the shares among the photos at hand. Where one is 0 the class can't be.
    """
    with np.errstate(divide="ignore"):
        ratio = np.log(prior) - np.log(np.where(stands_for > 0, stands_for, 1.0))
    return np.asarray(logits + temperature * np.where(stands_for > 0, ratio, 0.0), dtype=np.float64)


def estimate_prior(logits: npt.NDArray[np.floating[Any]], temperature: float, stands_for: Floats) -> Floats:
    """The class shares (C,) among unlabelled photos that make what the model says of them most likely.

    Expectation maximisation (Saerens et al., 2002): shares give each photo's probabilities, whose means are the next
    shares, until they stay to within 1e-9 or for 1000 rounds. It asks for calibrated probabilities and for photos that
    differ in their shares alone.

    Parameters
    ----------
    logits
        (N, C) of all photos.
    """
    trained, shares = softmax(logits, temperature), stands_for
    for _ in range(1000):
        before = shares
        joint = trained * np.divide(before, stands_for, out=np.ones_like(before), where=stands_for > 0)
        shares = np.asarray((joint / joint.sum(1, keepdims=True)).mean(0))
        if np.abs(shares - before).max() < 1e-9:
            break
    return shares


def read_prior(given: str | Mapping[str, float], classes: Sequence[str]) -> Floats:
    """Class shares (C,), which sum to 1, from what a user gives.

    Parameters
    ----------
    given
        A share for each class; or text: ``rose=7,tulip=3``, or numbers alone in the order of `classes`, ``0.7,0.3``, or
        the name of a CSV with the columns class and share. Counts will do as well as shares.

    Raises
    ------
    ConfigError
        It is none of these, or a class is missing, unknown or named twice, or a number is none.
    """
    if not isinstance(given, str):
        return _shares([(name, str(share)) for name, share in given.items()], classes)
    if given.lower().endswith(".csv"):
        return _shares(_share_rows(Path(given)), classes)
    parts = [part.strip() for part in given.split(",")]
    named = [part.rpartition("=") for part in parts]
    if all(equals for _, equals, _ in named):
        return _shares([(name.strip(), share) for name, _, share in named], classes)
    if len(parts) == len(classes):
        return _shares(list(zip(classes, parts, strict=True)), classes)
    raise ConfigError(
        f"prior '{given}': expected train, equal, estimate, a CSV file (class,share), or a share for each of the "
        f"{len(classes)} classes, such as {classes[0]}=0.7,{classes[-1]}=0.3"
    )


def _share_rows(path: Path) -> list[tuple[str, str]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [(row["class"], row["share"] or "") for row in csv.DictReader(file)]
    except KeyError as error:
        raise ConfigError(f"prior {path} has no column {error}: expected class,share") from None
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"prior {path} can't be read: {reason}") from error


def _shares(rows: Sequence[tuple[str, str]], classes: Sequence[str]) -> Floats:
    """The shares in the order of `classes`, divided by their sum."""
    found: dict[str, float] = {}
    for name, text in rows:
        if name not in classes:
            raise ConfigError(f"prior: unknown class '{name}'{nearest(name, classes)}")
        if name in found:
            raise ConfigError(f"prior: class '{name}' is named twice")
        found[name] = _share(name, text)
    if missing := [name for name in classes if name not in found]:
        raise ConfigError(f"prior: no share for {', '.join(missing)}; give 0 for a class that can't be")
    values = np.array([found[name] for name in classes], dtype=np.float64)
    if not values.sum() > 0:
        raise ConfigError("prior: every share is 0; expected at least one above it")
    return np.asarray(values / values.sum())


def _share(name: str, text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 <= share < math.inf:
        raise ConfigError(f"prior: the share of {name} is '{text.strip()}': expected a number, 0 or more")
    return share
