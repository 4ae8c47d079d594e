"""How accuracy grows with the number of photos, in small: measured beside a study, to say from how many on
fine-tuning pays.

The frozen and the fine-tuned strategy are trained again on nested shares of the training photos, on the activations
that the cache holds; all photos were trained on already. One repeat: the intervals are over the photos reported on.
`frostline sweep --photos` has more sizes and repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from frostline import documents
from frostline.documents import Study, Sweep
from frostline.documents.study import AgainstBaseline, Crossing, CurveDifference, DataCurve, PhotosNeeded
from frostline.errors import RunError
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.recipes import Strategy
from frostline.stats import intervals, sweep_stats
from frostline.stats.clusters import Clusters
from frostline.stats.predictions import Prediction, read_predictions, write_predictions
from frostline.training.evaluation import evaluate, torch_logits
from frostline.training.prepare import Prepared
from frostline.training.stages import TrainedHead, train_strategy

Log = Callable[..., None]

FOLDER = "learning"
PAIR = ("frozen", "fine-tuned")
SHARES = (1 / 16, 1 / 4)
"""Of the training photos; the last point is what the study itself trained on (with the validation photos, where those
joined in).
"""

_LEAST = 4  # photos of a class, in the mean
_STEPS = 100  # few photos get as many epochs as make so many steps, where the study itself may take more


def drawn(labels: Sequence[str], digests: Sequence[str], seed: int, repeat: int) -> dict[str, list[int]]:
    """Places of the photos of each class in an order drawn at random; it depends on seed, repeat and the photos'
    bytes, not on their names.
    """
    order = {}
    for number, label in enumerate(sorted(set(labels))):
        members = sorted((i for i, one in enumerate(labels) if one == label), key=lambda i: digests[i])
        order[label] = np.random.default_rng([seed, repeat, number]).permutation(members).tolist()
    return order


def subsets(
    labels: Sequence[str], digests: Sequence[str], sizes: Sequence[int], seed: int, repeat: int
) -> dict[int, list[int]]:
    """Nested, stratified subsets of photos: the first k of each class in an order drawn at random.

    A class with fewer than k photos gives all it has.

    Parameters
    ----------
    labels, digests
        Class and SHA-256 of each photo.
    sizes
        Photos of a class.

    Returns
    -------
    dict
        Ascending places in `labels`, by size.
    """
    order = drawn(labels, digests, seed, repeat)
    return {size: sorted(place for places in order.values() for place in places[:size]) for size in sizes}


def share_of(photos: Sequence[Photo], share: float, seed: int) -> list[int]:
    """Ascending places of a share of the photos in which each class has its own, at least one; smaller shares are
    parts of larger ones.
    """
    order = drawn([p.label for p in photos], [p.sha256 for p in photos], seed, 0)
    return sorted(place for places in order.values() for place in places[: max(1, round(share * len(places)))])


# ---- the curve -------------------------------------------------------------------------------------------------------


def curve(run: Path, prepared: Prepared, strategies: Sequence[Strategy], progress: Progress, log: Log) -> DataCurve:
    """``data_curve`` of study.json: accuracies by number of photos, where fine-tuning begins to pay, photos to 95 %
    of the final accuracy.

    What is trained on each share says its predictions to ``learning/``; what is there already is not trained again.

    Parameters
    ----------
    strategies
        Of the run, finished; those of `PAIR` among them.
    """
    training = prepared.part(prepared.split.train.tolist())
    shares = [s for s in SHARES if s * len(training) / len(prepared.classes) >= _LEAST]
    if not shares:
        return {"why_not": f"{len(training)} photos to train on are too few to leave some out and see what it costs"}
    pair = [next(s for s in strategies if s.name == name) for name in PAIR]
    task = progress.task("On fewer photos: frozen and fine-tuned", 2 * len(shares))
    counts, right = [], []
    for share in shares:
        some = _some(prepared, share)
        counts.append(len(some.split.train))
        right.append(_trained(run, some, pair, task.advance))
        log("fewer photos", photos=counts[-1])
    task.finish()
    joined = len(prepared.split.validation) if prepared.refits and any(s.refit for s in pair) else 0
    counts.append(len(training) + joined)
    right.append([_correct(read_predictions(run / s.name / "predictions.csv")) for s in pair])
    grid = sweep_stats.Grid(
        list(PAIR), np.array(counts) / len(prepared.classes), np.array(right).transpose(1, 0, 2)[:, :, None, :]
    )
    baseline = run / "baseline" / "predictions.csv"
    scratch = _correct(read_predictions(baseline)) if baseline.exists() else None
    clusters = prepared.clusters(prepared.reported())
    return _figures(grid, counts, scratch, len(training), prepared.config.seed, clusters)


def _some(prepared: Prepared, share: float) -> Prepared:
    """The same study with a share of the photos to train on, and to validate on where those aren't reported on."""
    train = prepared.split.train[share_of(prepared.part(prepared.split.train.tolist()), share, prepared.config.seed)]
    validation = prepared.split.validation
    if not prepared.validation_is_reported:
        validation = validation[share_of(prepared.part(validation.tolist()), share, prepared.config.seed)]
    return replace(prepared, split=replace(prepared.split, train=train, validation=validation))


def _trained(
    run: Path, prepared: Prepared, pair: Sequence[Strategy], advance: Callable[[int], None]
) -> list[list[bool]]:
    """Which of the photos reported on each strategy gets right after training on these."""
    head: TrainedHead | None = None
    answers = []
    for s in pair:
        file = run / FOLDER / f"{s.name}-{len(prepared.split.train)}.csv"
        if not file.exists():
            short = replace(s, recipe=replace(s.recipe, least_steps=min(s.recipe.least_steps, _STEPS)))
            start = head if s.head_first and s.head_recipe == pair[0].recipe else None
            strategy, quiet = short if s.head_first else s, Progress(quiet=True)
            prepared.fill_views(strategy, quiet)
            trained = train_strategy(strategy, prepared, None, head=start, progress=quiet, log=_unlogged)
            head = trained.head
            write_predictions(
                file, evaluate(trained, prepared, torch_logits(trained, prepared)).reported, prepared.classes
            )
        answers.append(_correct(read_predictions(file)))
        advance(1)
    return answers


def _unlogged(event: str, **values: Any) -> None:
    """The run's log has the epochs of its own strategies alone."""


def _correct(predictions: Sequence[Prediction]) -> list[bool]:
    return [p.correct for p in predictions]


def _figures(
    grid: sweep_stats.Grid,
    counts: Sequence[int],
    scratch: Sequence[bool] | None,
    scratch_photos: int,
    seed: int,
    clusters: Clusters,
) -> DataCurve:
    found = sweep_stats.resample(grid, seed, clusters)
    classes = counts[-1] / grid.per_class[-1]
    crossing = sweep_stats.crossing(grid, found, 1, 0)
    points = sweep_stats.curves(grid, found)
    for point in points:
        point["photos"] = round(point["per_class"] * classes)
    differences = _in_photos(crossing, classes)
    against = None if scratch is None else _against(grid, counts[0], np.array(scratch), scratch_photos, clusters)
    return {
        "source": "study",
        "photos": list(counts),
        "reported": grid.correct.shape[3],
        "curves": points,
        "crossing": crossing,
        "differences": differences,
        "photos_to_95": {name: _to_most(counts, found.mean[i]) for i, name in enumerate(grid.strategies)},
        "against_baseline": against,
    }


def _to_most(counts: Sequence[int], accuracies: np.ndarray) -> PhotosNeeded:
    """Photos to 95 % of the accuracy with all, off a straight line over the logarithm of the number."""
    wanted = 0.95 * accuracies[-1]
    first = int(np.argmax(accuracies >= wanted))
    if first == 0:
        return {"photos": float(counts[0]), "at_most": True}
    low, high = np.log(counts[first - 1]), np.log(counts[first])
    share = (wanted - accuracies[first - 1]) / (accuracies[first] - accuracies[first - 1])
    return {"photos": float(np.exp(low + share * (high - low))), "at_most": False}


def _against(
    grid: sweep_stats.Grid, photos: int, scratch: np.ndarray, scratch_photos: int, clusters: Clusters
) -> AgainstBaseline:
    """The frozen strategy on the fewest photos against the network from scratch on all of them."""
    compared = intervals.compare("frozen", grid.correct[0, 0, 0], "baseline", scratch, clusters)
    return {
        "photos": photos,
        "baseline_photos": scratch_photos,
        "difference": compared.difference,
        "ci": compared.ci,
        "p_value": compared.p_value,
    }


# ---- a sweep that was run --------------------------------------------------------------------------------------------


def from_sweep(run: Path, study: Study) -> DataCurve | None:
    """Crossing of frozen and fine-tuned in the sweep over numbers of photos beside `run` (``RUN-photos``).

    None where there is no such sweep, or it is of other photos or other training.
    """
    folder = run.with_name(f"{run.name}-photos")
    try:
        sweep = documents.read(folder, Sweep)
        same = sweep["status"] == "finished" and sweep["dataset"]["root"] == study["dataset"]["root"]
        pairs = {(c["reference"], c["challenger"]): c for c in sweep["crossings"]}
        if not same or not documents.trained_alike(sweep, study) or PAIR not in pairs:
            return None
        crossing = pairs[PAIR]
        differences = _in_photos(crossing, len(sweep["dataset"]["classes"]))
    except (RunError, KeyError, TypeError):  # none, or damaged: the study stands without it
        return None
    return {"source": folder.name, "crossing": crossing, "differences": differences}


def _in_photos(crossing: Crossing, classes: float) -> list[CurveDifference]:
    """Give a crossing its numbers of photos beside those of a class; takes its differences out of it and returns
    them.
    """
    differences = crossing.pop("differences")
    for difference in differences:
        difference["photos"] = round(difference["per_class"] * classes)
    crossing["at_photos"] = None if crossing["at"] is None else crossing["at"] * classes
    crossing["at_photos_ci"] = [end if isinstance(end, str) else end * classes for end in crossing["at_ci"]]
    return differences
