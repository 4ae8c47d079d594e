"""predictions.csv: what a model says of each photo, one row a photo. Its only writer, and its only reader.

The columns are path, true, predicted, confidence and p_<class> for every class. Where photos of a run are not
independent (one group, near-duplicates, the same bytes), a last column `cluster` has a number that those of one cluster
share: the same numbers for all strategies, sizes and seeds of one list of photos. `clusters` gives it to intervals.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from frostline.errors import RunError, one_line
from frostline.files import write_csv
from frostline.stats.clusters import Clusters, numbered

DIGITS = 6
"""Decimals of a probability in the file."""
CLUSTER = "cluster"
_NEEDED = ("path", "true", "predicted", "confidence")


@dataclass(frozen=True)
class Prediction:
    """What a model says of one photo."""

    path: str
    true: str
    """Its class where it is known, else empty."""
    predicted: str
    confidence: float
    """Calibrated probability of `predicted`."""
    probabilities: dict[str, float]
    """Of every class."""
    cluster: int | None = None
    """A number that it shares with the photos that it is not independent of, see `stats.clusters`; None: not known."""

    @property
    def correct(self) -> bool:
        """Whether the predicted class is the true one."""
        return self.true == self.predicted

    def as_written(self) -> Self:
        """The same as predictions.csv gives it back: numbers rounded to `DIGITS`."""
        rounded = {name: round(p, DIGITS) for name, p in self.probabilities.items()}
        return replace(self, confidence=round(self.confidence, DIGITS), probabilities=rounded)

    @classmethod
    def of(cls, path: str, true: str, classes: Sequence[str], probabilities: npt.NDArray[np.float64]) -> Self:
        """The prediction that `probabilities` (C,) of the `classes` come to."""
        top = int(probabilities.argmax())
        by_class = dict(zip(classes, probabilities.tolist(), strict=True))
        return cls(path, true, classes[top], float(probabilities[top]), by_class)


def clusters(predictions: Sequence[Prediction]) -> Clusters | None:
    """The cluster of each photo (N,), as the intervals of `stats` take them; None where all photos are independent, or
    the run is of an older version, which did not record them."""
    found = [p.cluster for p in predictions]
    known = np.array([number for number in found if number is not None], dtype=np.intp)
    return known if len(known) == len(found) and numbered(known) is not None else None


def clusters_of_all(predictions: Mapping[str, Sequence[Prediction]]) -> Clusters | None:
    """`clusters` of strategies on the same photos; None where there is no strategy."""
    return next(map(clusters, predictions.values()), None)


def header(classes: Sequence[str]) -> list[str]:
    """The columns of predictions.csv."""
    return [*_NEEDED, *(f"p_{c}" for c in classes)]


def row(prediction: Prediction) -> list[str]:
    """One line of predictions.csv."""
    numbers = (prediction.confidence, *prediction.probabilities.values())
    return [prediction.path, prediction.true, prediction.predicted, *(f"{x:.{DIGITS}f}" for x in numbers)]


def write_predictions(path: Path, predictions: Iterable[Prediction], classes: Sequence[str]) -> None:
    """Write predictions.csv, atomically.

    Raises
    ------
    RunError
        No room on the disk, or the folder can't be written.
    """
    rows = list(predictions)
    if clusters(rows) is None:
        write_csv(path, header(classes), map(row, rows))
    else:
        write_csv(path, [*header(classes), CLUSTER], ([*row(p), str(p.cluster)] for p in rows))


def read_predictions(path: Path, *, probabilities: bool = True) -> list[Prediction]:
    """Read a predictions.csv, in its order.

    Parameters
    ----------
    probabilities
        Read those of every class. Without them a file of many classes is read many times faster, and
        `Prediction.probabilities` is empty.

    Raises
    ------
    RunError
        The file is missing or damaged; the message names the column or the photo.
    """
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = list(reader.fieldnames or ())
            if missing := [name for name in _NEEDED if name not in columns]:
                raise RunError(f"{path} has no column {', '.join(missing)}: expected {', '.join(_NEEDED)}")
            kept = [name for name in columns if name.startswith("p_")] if probabilities else []
            return [_read_row(row, kept, path) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(f"can't read {path}: {one_line(error)}") from error


def _read_row(row: dict[str, str], kept: Sequence[str], path: Path) -> Prediction:
    numbers = {name: _number(row[name]) for name in ("confidence", *kept)}
    for name, number in numbers.items():
        if math.isnan(number):
            came = f"{name} {row[name]!r} of {row['path']}"
            raise RunError(f"{path}: {came}, expected a number from 0 to 1; resume or repeat the study")
    by_class = {name.removeprefix("p_"): numbers[name] for name in kept}
    cluster = int(row[CLUSTER]) if row.get(CLUSTER) else None
    return Prediction(row["path"], row["true"], row["predicted"], numbers["confidence"], by_class, cluster)


def _number(text: str | None) -> float:
    """The finite number that a cell holds, else NaN."""
    try:
        value = float(text or "")
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan
