"""Classify photos with a bundle: any number of paths in, a row each out, bad files listed, memory flat."""

from __future__ import annotations

import csv
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from frostline import evaluate, manifest, metrics
from frostline.bundle import Bundle, load
from frostline.engine import BATCH, thread_count
from frostline.errors import DataError, PhotoError, RunError, nearest
from frostline.images import Pixels, prepare
from frostline.manifest import Skip
from frostline.progress import Progress


@dataclass(frozen=True)
class Classified:
    """What a bundle says of one photo."""

    path: str
    true: str
    """Its class where it is known, else empty."""
    predicted: str
    confidence: float
    """Calibrated probability of `predicted`."""
    probabilities: dict[str, float]
    """Of every class."""


def predict(bundle: Bundle | str | Path, paths: Iterable[str | Path]) -> Iterator[Classified | Skip]:
    """Classify photos one after the other, as many as there are: files, or folders (all photos in them).

    Yields a `Classified` for each photo in the order given, or a `Skip` with the reason for a file that is no readable photo.

    Raises
    ------
    BundleError
        `bundle` is a path that holds none.
    """
    model = bundle if isinstance(bundle, Bundle) else load(bundle)
    with ThreadPoolExecutor(thread_count()) as pool:
        ahead = _ahead(pool, model, _files(paths, model.classes))
        while group := list(islice(ahead, BATCH)):
            yield from _classified(model, group)


def _classified(model: Bundle, group: Sequence[tuple[str, str, Pixels | PhotoError]]) -> Iterator[Classified | Skip]:
    good = [pixels for _, _, pixels in group if not isinstance(pixels, PhotoError)]
    rows = iter(model.probabilities(np.stack(good)) if good else ())
    for path, true, pixels in group:
        if isinstance(pixels, PhotoError):
            yield Skip(path, str(pixels))
        else:
            p = next(rows)
            top = int(p.argmax())
            yield Classified(
                path, true, model.classes[top], float(p[top]), dict(zip(model.classes, p.tolist(), strict=True))
            )


Waiting = tuple[str, str, Future["Pixels | PhotoError"]]


def _ahead(
    pool: ThreadPoolExecutor, model: Bundle, files: Iterable[tuple[str, str]]
) -> Iterator[tuple[str, str, Pixels | PhotoError]]:
    """Photos in their order, decoded a few batches ahead of the network."""
    queue: deque[Waiting] = deque()
    for path, true in files:
        queue.append((path, true, pool.submit(_pixels, path, model)))
        if len(queue) > 3 * BATCH:
            yield _result(queue.popleft())
    while queue:
        yield _result(queue.popleft())


def _result(waiting: Waiting) -> tuple[str, str, Pixels | PhotoError]:
    return waiting[0], waiting[1], waiting[2].result()


def _pixels(path: str, model: Bundle) -> Pixels | PhotoError:
    try:
        if not Path(path).is_file():  # a pipe would hang
            return PhotoError("no such file" if not Path(path).exists() else "not a regular file")
        return prepare(Path(path).read_bytes(), model.transform)
    except (OSError, ValueError) as error:
        return PhotoError(f"unreadable: {getattr(error, 'strerror', None) or error}")
    except PhotoError as error:
        return error


def _files(paths: Iterable[str | Path], classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(file, its class where its folder is named after one); folders are walked in natural order, hidden files left out."""
    for path in paths:
        if Path(path).is_dir():
            for folder, folders, names in os.walk(path):
                folders[:] = sorted((f for f in folders if not f.startswith(".")), key=manifest.natural)
                label = Path(folder).name if Path(folder).name in classes else ""
                for name in sorted(names, key=manifest.natural):
                    if not manifest.is_litter(name):
                        yield str(Path(folder) / name), label
        else:
            yield str(path), ""


def read_predictions(path: Path) -> list[Classified]:
    """Read a predictions.csv.

    Raises
    ------
    RunError
        It is missing, or its columns are others.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_from_row(row) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError) as error:
        raise RunError(f"{path} can't be read as predictions: {error}") from error


def _from_row(row: dict[str, str]) -> Classified:
    probabilities = {k.removeprefix("p_"): float(v) for k, v in row.items() if k.startswith("p_")}
    return Classified(row["path"], row["true"], row["predicted"], float(row["confidence"]), probabilities)


def evaluate_on(
    bundle: Bundle, data: Path, progress: Progress, *, seed: int = 0
) -> tuple[dict[str, Any], list[evaluate.Prediction], list[Skip]]:
    """Measure a bundle on labelled photos; returns its figures, its predictions and the photos left out.

    Raises
    ------
    DataError
        No readable photos, or a class that the bundle doesn't know.
    """
    photos = manifest.scan(data, least_classes=1)
    if strange := [c for c in photos.classes if c not in bundle.classes]:
        raise DataError(
            f"{data} has a class '{strange[0]}' that the bundle does not know{nearest(strange[0], bundle.classes)}"
        )
    task = progress.task("Classifying", len(photos.photos))
    logits, labels, kept, skipped = [], [], [], list(photos.skipped)
    with ThreadPoolExecutor(thread_count()) as pool:
        ahead = _ahead(pool, bundle, ((str(photos.root / p.path), p.path) for p in photos.photos))
        known = iter(photos.photos)
        while group := list(islice(ahead, BATCH)):
            good = []
            for (_, path, pixels), photo in zip(group, islice(known, len(group)), strict=True):
                if isinstance(pixels, PhotoError):
                    skipped.append(Skip(path, str(pixels)))
                else:
                    good.append(pixels)
                    kept.append(photo)
                    labels.append(bundle.classes.index(photo.label))
            if good:
                logits.append(bundle.logits(np.stack(good)))
            task.advance(len(group))
    if not kept:
        raise DataError(f"none of the {len(photos.photos)} photos in {data} could be read; the first: {skipped[0].why}")
    scores, truth = torch.cat(logits), np.array(labels)
    calibration = evaluate.Calibration(bundle.about.temperature, True)
    figures = evaluate.figures(scores, truth, bundle.classes, calibration, seed)
    shares = metrics.softmax(scores, calibration.temperature)
    return (
        figures.to_dict(),
        [evaluate.Prediction(p.path, p.label, q) for p, q in zip(kept, shares, strict=True)],
        skipped,
    )
