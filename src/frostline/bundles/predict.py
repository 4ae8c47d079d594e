"""Classify photos with a bundle: any number of paths in, a row each out, bad files listed, memory flat."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from frostline import wording
from frostline.bundles.bundle import Bundle, load
from frostline.errors import DataError, PhotoError, nearest
from frostline.fields import path_text
from frostline.networks.engine import MANY, SEVERAL
from frostline.parallel import ahead, groups
from frostline.photos import names, scan
from frostline.photos.loading import pixels
from frostline.photos.manifest import Manifest, Photo, Skip
from frostline.photos.split import clusters
from frostline.progress import Progress
from frostline.stats import clusters as dependence
from frostline.stats.predictions import Prediction
from frostline.stats.probabilities import Floats, estimate_prior, for_prior, softmax

_AHEAD = 64  # photos that may wait for the reader of the results, about

Prior = str | Mapping[str, float]
"""Class shares to assume: `train`, `equal`, `estimate`, a share for each class, or text as `probabilities.read_prior`
takes it."""


class File(NamedTuple):
    """What is to be classified."""

    path: str
    label: str = ""
    """Its class where it is known, else empty."""
    fault: str = ""
    """Why there is nothing to read: a folder that can't be entered."""


_Result = tuple[File, np.ndarray | PhotoError]


def predict(
    bundle: Bundle | str | Path,
    paths: str | Path | Iterable[str | Path],
    *,
    prior: Prior = "",
    on_photo: Callable[[], None] | None = None,
    known: Container[str] = (),
) -> Iterator[Prediction | Skip]:
    """Classify photos one after the other, as many as there are: files, or folders (all photos in them); one path may
    stand alone.

    Yields a `Prediction` for each photo in the order given, or a `Skip` with the reason for a file that is no
    readable photo.

    Parameters
    ----------
    prior
        How often each class is expected among these photos; empty = as the bundle was trained. With `estimate` the
        shares are those that fit the photos best (`probabilities.estimate_prior`): all are read before the first
        result, and the means of the results' probabilities are the shares found.
    on_photo
        Called as each photo has been read.
    known
        Files to pass over, by their path: those that a run before has classified.

    Raises
    ------
    BundleError
        `bundle` is a path that holds none.
    ConfigError
        `prior` can't be used, or what should be a path is none.
    """
    if isinstance(paths, str | PathLike):
        paths = [paths]
    if not isinstance(paths, Iterable) or isinstance(paths, bytes):
        path_text(paths, "paths")
    model = bundle if isinstance(bundle, Bundle) else load(bundle)
    results = _counted(_logits(model, (f for f in _files(paths, model.classes) if f.path not in known)), on_photo)
    shares = _given(model, prior)
    if prior == "estimate":
        return _estimated(model, results)
    return (_result(model, file, result, shares) for file, result in results)


def _counted(results: Iterable[_Result], on_photo: Callable[[], None] | None) -> Iterator[_Result]:
    for result in results:
        if on_photo is not None:
            on_photo()
        yield result


def _given(model: Bundle, prior: Prior) -> Floats | None:
    """The shares that `prior` names; None where there are none to correct for, or none yet."""
    if prior == "estimate":
        model.stands_for()  # raises where there is nothing to start from
        return None
    return model.prior(prior) if prior else None


def _estimated(model: Bundle, results: Iterable[_Result]) -> Iterator[Prediction | Skip]:
    kept = list(results)
    good = [result for _, result in kept if not isinstance(result, PhotoError)]
    shares = estimate_prior(np.stack(good), model.about.temperature, model.stands_for()) if good else None
    for file, result in kept:
        yield _result(model, file, result, shares)


def _result(model: Bundle, file: File, result: np.ndarray | PhotoError, shares: Floats | None) -> Prediction | Skip:
    if isinstance(result, PhotoError):
        return Skip(file.path, str(result))
    return _classified(model, file, _shifted(model, result[None], shares))


def _shifted(model: Bundle, logits: np.ndarray, shares: Floats | None) -> np.ndarray:
    """Logits (N, C) for photos with these class shares; None = as trained."""
    return logits if shares is None else for_prior(logits, model.about.temperature, model.stands_for(), shares)


def _logits(model: Bundle, files: Iterable[File]) -> Iterator[_Result]:
    """Logits (C,) of each file in order, or why there are none. A thread reads, decodes and runs a photo from end to
    end."""

    def work(group: Sequence[File]) -> list[np.ndarray | PhotoError]:
        loaded = [PhotoError(f.fault) if f.fault else pixels(Path(f.path), model.transform) for f in group]
        good = [result for result in loaded if not isinstance(result, PhotoError)]
        rows = iter(model.logits(np.stack(good)) if good else ())
        return [result if isinstance(result, PhotoError) else next(rows) for result in loaded]

    for group, results in ahead(work, _groups(model, files), depth=max(1, _AHEAD // max(model.batch, SEVERAL))):
        yield from zip(group, results, strict=True)


def _groups(model: Bundle, files: Iterable[File]) -> Iterator[list[File]]:
    """Files as many at a time as the model likes; once many have come it may like more. It waits for none: they may
    come through a pipe."""
    rest = iter(files)
    yield from groups(islice(rest, MANY), model.batch)
    if (further := next(rest, None)) is not None:
        model.expect(MANY)
        yield from groups(chain([further], rest), model.batch)


def _classified(model: Bundle, file: File, logits: np.ndarray) -> Prediction:
    """What logits (1, C) come to."""
    return Prediction.of(file.path, file.label, model.classes, softmax(logits, model.about.temperature)[0])


def _files(paths: Iterable[str | Path], classes: Sequence[str]) -> Iterator[File]:
    for path in (path_text(p, "a photo") for p in paths):
        # not Path.is_dir, which raises when the name is too long or a folder above may not be entered
        yield from _inside(path, classes) if os.path.isdir(path) else (File(path),)  # noqa: PTH112


def _inside(top: str, classes: Sequence[str]) -> Iterator[File]:
    """All files below a folder in natural order, hidden ones left out, with their class where the folder is named
    after one."""
    closed: list[OSError] = []
    for folder, folders, files in os.walk(top, onerror=closed.append):
        yield from _closed(closed)
        folders[:] = sorted((f for f in folders if not f.startswith(".")), key=names.natural)
        label = Path(folder).name if Path(folder).name in classes else ""
        for name in sorted(files, key=names.natural):
            if not names.is_litter(name):
                yield File(str(Path(folder) / name), label)
        links = (link for f in folders if os.path.islink(link := str(Path(folder) / f)))  # noqa: PTH114  # never raises
        for link in links:  # it may lead back up
            yield File(link, fault="a link to a folder is not followed: name that folder itself")
    yield from _closed(closed)


def _closed(errors: list[OSError]) -> Iterator[File]:
    """The folders that could not be read since the last call."""
    while errors:
        error = errors.pop(0)
        yield File(str(error.filename), fault=f"folder can't be read: {error.strerror}")


def evaluate_on(
    bundle: Bundle, data: Path, progress: Progress, *, seed: int = 0, prior: Prior = ""
) -> tuple[dict[str, Any], list[Prediction], list[Skip]]:
    """Measure a bundle on labelled photos; returns its figures, its predictions and the photos left out.

    The figures are of the photos that the bundle has not seen, where there are any: those that it was neither trained
    nor validated on, byte by byte, and whose group (by name) it knows no other photo of. Where it has seen some, the
    figures have ``trained_on``, ``validated_on``, ``known_groups`` and ``unseen`` (numbers of photos), ``all`` (photos,
    accuracy and its interval) and ``seen_words``. Near-duplicates of seen photos are not found. The predictions are of
    all photos.

    With a `prior`, as `predict` takes it, the figures have the shares assumed too. `estimate` looks at no label.

    Raises
    ------
    ConfigError
        `prior` can't be used.
    DataError
        No readable photos, or a class that the bundle doesn't know.
    BundleError
        The bundle's list of seen photos is missing or damaged.
    """
    shares = _given(bundle, prior)
    photos = scan.scan(data, least_classes=1, progress=progress)
    if strange := [c for c in photos.classes if c not in bundle.classes]:
        raise DataError(
            f"{data} has a class '{strange[0]}' that the bundle does not know{nearest(strange[0], bundle.classes)}"
        )
    kept, scores, skipped = _scored(bundle, photos, progress)
    if not kept:
        raise DataError(f"none of the {len(photos.photos)} photos in {data} could be read; the first: {skipped[0].why}")
    if prior == "estimate":
        shares = estimate_prior(scores, bundle.about.temperature, bundle.stands_for())
    scores = _shifted(bundle, scores, shares)
    assumed = {} if shares is None else {"prior": dict(zip(bundle.classes, shares.tolist(), strict=True))}
    probabilities = softmax(scores, bundle.about.temperature)
    return (
        {**_figures(bundle, kept, scores, seed), **assumed},
        [Prediction.of(p.path, p.label, bundle.classes, q) for p, q in zip(kept, probabilities, strict=True)],
        skipped,
    )


def _scored(bundle: Bundle, photos: Manifest, progress: Progress) -> tuple[list[Photo], Floats, list[Skip]]:
    """The photos that can be read, their logits (N, C), and the others."""
    task = progress.task("Classifying", len(photos.photos))
    kept: list[Photo] = []
    logits, skipped = [], list(photos.skipped)
    files = (File(str(photos.root / p.path), p.label) for p in photos.photos)
    for photo, (_, result) in zip(photos.photos, _logits(bundle, files), strict=True):
        if isinstance(result, PhotoError):
            skipped.append(Skip(photo.path, str(result)))
        else:
            kept.append(photo)
            logits.append(result)
        task.advance(1)
    return kept, np.stack(logits) if logits else np.zeros((0, len(bundle.classes))), skipped


def _figures(bundle: Bundle, photos: Sequence[Photo], scores: Floats, seed: int) -> dict[str, Any]:
    """The figures on the photos that the bundle has not seen, and what to know of the others."""
    from frostline.stats import metrics  # SciPy and scikit-learn, which `predict` can do without
    from frostline.stats.intervals import mean_interval

    truth = np.array([bundle.classes.index(p.label) for p in photos])
    own = clusters(photos)  # near-duplicates are not looked for: that costs as much again

    def measured(some: npt.NDArray[np.bool_]) -> dict[str, Any]:
        found = metrics.measure(scores[some], truth[some], bundle.classes, bundle.about.temperature, seed, own[some])
        return {**found.to_dict(), **_groups_told(photos, own, some)}

    everything = np.ones(len(photos), dtype=bool)
    told = _known(bundle, photos)
    if told is None:
        return measured(everything)
    counts, unseen = told
    if not unseen.any():
        return {**measured(everything), **counts, "seen_words": _none_unseen(len(photos), counts)}
    correct = (scores.argmax(1) == truth).astype(float)
    low, high = mean_interval(correct, own)
    total = {"photos": len(photos), "accuracy": float(correct.mean()), "accuracy_ci": [low, high]}
    return {**measured(unseen), **counts, "all": total, "seen_words": _some_unseen(total, counts)}


def _known(bundle: Bundle, photos: Sequence[Photo]) -> tuple[dict[str, int], npt.NDArray[np.bool_]] | None:
    """How many photos the bundle has seen, and which it has not (N,); None where it has seen none, or does not tell."""
    seen = bundle.seen
    if seen is None:
        return None
    trained = seen.trained_on(photos)
    validated = seen.validated_on(photos) & ~trained
    grouped = seen.of_known_groups(photos) & ~trained & ~validated
    unseen = ~(trained | validated | grouped)
    if unseen.all():
        return None
    parts = {"trained_on": trained, "validated_on": validated, "known_groups": grouped, "unseen": unseen}
    return {name: int(which.sum()) for name, which in parts.items()}, unseen


def _how_seen(total: int, counts: Mapping[str, int]) -> str:
    parts = [
        (counts["trained_on"], "trained on"),
        (counts["validated_on"], "validated on"),
        (counts["known_groups"], "of groups that it knows other photos of"),
    ]
    said = " and ".join(f"{count:,} {what}" for count, what in parts if count)
    return f"Of these {total:,} photos the bundle has seen {total - counts['unseen']:,} ({said})"


def _none_unseen(total: int, counts: Mapping[str, int]) -> str:
    if counts["trained_on"] == total:
        what = f"{total:,} of these {total:,} photos were trained on"
    else:
        what = _how_seen(total, counts)
    return f"{what}: the figures say nothing about new photos."


def _some_unseen(total: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    span = wording.span(total["accuracy_ci"])
    return (
        f"{_how_seen(total['photos'], counts)}: the figures are of the other {counts['unseen']:,}. On all: accuracy "
        f"{wording.percent(total['accuracy'])} (95 % CI {span})."
    )


def _groups_told(photos: Sequence[Photo], own: npt.NDArray[np.intp], some: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """``reported_groups`` as study.json has it, where photos share groups or bytes."""
    count, photo_count = len(np.unique(own[some])), int(some.sum())
    if count == photo_count:
        return {}
    grouped = any(photo.group for photo in photos)
    return {"reported_groups": {"groups": count, "words": dependence.words(photo_count, count, grouped=grouped)}}
