"""How accuracy grows with the number of photos, in small: measured beside a study, to say from how many on
fine-tuning pays.

The frozen and the fine-tuned strategy are trained again on shares of the training photos, on the activations that the
cache holds; twice, on other photos each time, so that the luck of training is in the intervals. All photos were trained
on already, once. Each share is trained as the study's own models were: with as many views of each photo, for the same
part of the recipe's epochs (few photos get more of them, as anywhere in frostline), and with its validation photos
where the study's models had theirs. `frostline sweep --photos` has more sizes and repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from frostline import documents
from frostline.documents import StrategyRow, Study, Sweep
from frostline.documents.strategy import Refit
from frostline.documents.study import AgainstBaseline, Crossing, CurveDifference, DataCurve, PhotosNeeded
from frostline.errors import RunError
from frostline.photos.manifest import Photo
from frostline.progress import Progress
from frostline.recipes import Strategy
from frostline.stats import sweep_stats
from frostline.stats.clusters import Clusters
from frostline.stats.means import mean
from frostline.stats.predictions import Prediction, read_predictions, write_predictions
from frostline.training.evaluation import evaluate, torch_logits
from frostline.training.optimiser import stretched
from frostline.training.prepare import Prepared
from frostline.training.stages import train_for, train_strategy

Log = Callable[..., None]

FOLDER = "learning"
PAIR = ("frozen", "fine-tuned")
SHARES = (1 / 16, 1 / 4)
"""Of the training photos; the last point is what the study itself trained on (with the validation photos, where those
joined in).
"""

_LEAST = 4  # photos of a class, in the mean
REPEATS = 2
"""Training runs on each share, each on photos drawn anew."""


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


def share_of(photos: Sequence[Photo], share: float, seed: int, repeat: int = 0) -> list[int]:
    """Ascending places of a share of the photos in which each class has its own, at least one; of one repeat, smaller
    shares are parts of larger ones.
    """
    order = drawn([p.label for p in photos], [p.sha256 for p in photos], seed, repeat)
    return sorted(place for places in order.values() for place in places[: max(1, round(share * len(places)))])


def shares(photos: int, classes: int) -> list[float]:
    """Those of `SHARES` that leave enough of so many training photos to train on."""
    return [share for share in SHARES if share * photos / classes >= _LEAST]


# ---- the curve -------------------------------------------------------------------------------------------------------


def curve(
    run: Path,
    prepared: Prepared,
    strategies: Sequence[Strategy],
    rows: Mapping[str, StrategyRow],
    progress: Progress,
    log: Log,
) -> DataCurve:
    """``data_curve`` of study.json: accuracies by number of photos, where fine-tuning begins to pay, photos to 95 %
    of the final accuracy.

    What is trained on each share says its predictions to ``learning/``; what is there already is not trained again.

    Parameters
    ----------
    strategies, rows
        Of the run, finished; those of `PAIR` among them.
    """
    training = prepared.part(prepared.split.train.tolist())
    some_shares = shares(len(training), len(prepared.classes))
    if not some_shares:
        return {"why_not": f"{len(training)} photos to train on are too few to leave some out and see what it costs"}
    pair = [next(s for s in strategies if s.name == name) for name in PAIR]
    task = progress.task("On fewer photos: frozen and fine-tuned", 2 * len(some_shares) * REPEATS)
    counts, correct = [], []
    for share in some_shares:
        some = [_some(prepared, share, repeat) for repeat in range(REPEATS)]
        joined = len(some[0].split.validation) if any("refit" in rows[s.name] for s in pair) else 0
        counts.append(len(some[0].split.train) + joined)
        correct.append(
            [[_trained(run, one, s, rows[s.name], len(training), task.advance) for one in some] for s in pair]
        )
        log("fewer photos", photos=counts[-1])
    task.finish()
    joined = len(prepared.split.validation) if any("refit" in rows[s.name] for s in pair) else 0
    counts.append(len(training) + joined)
    own = [_correct(read_predictions(run / s.name / "predictions.csv")) for s in pair]
    correct.append([[one] * REPEATS for one in own])
    grid = sweep_stats.Grid(
        list(PAIR), np.array(counts) / len(prepared.classes), np.array(correct).transpose(1, 0, 2, 3)
    )
    baseline = run / "baseline" / "predictions.csv"
    scratch = _correct(read_predictions(baseline)) if baseline.exists() else None
    clusters = prepared.clusters(prepared.reported())
    return _figures(grid, counts, scratch, len(training), prepared.config.seed, clusters)


def _some(prepared: Prepared, share: float, repeat: int) -> Prepared:
    """The same study with a share of the photos to train on, and to validate on where those aren't reported on."""
    seed = prepared.config.seed
    train, validation = prepared.split.train, prepared.split.validation
    train = train[share_of(prepared.part(train.tolist()), share, seed, repeat)]
    if not prepared.validation_is_reported:
        validation = validation[share_of(prepared.part(validation.tolist()), share, seed, repeat)]
    split = replace(prepared.split, train=train, validation=validation)
    return replace(prepared, split=split, training_seed=seed + repeat)


def _trained(
    run: Path, prepared: Prepared, strategy: Strategy, row: StrategyRow, full: int, advance: Callable[[int], None]
) -> list[bool]:
    """Which of the photos reported on a strategy gets right after training on these.

    Parameters
    ----------
    row
        Of the study's own model, trained on `full` photos before its refit: this one is trained alike.
    """
    repeat = prepared.training_seed - prepared.config.seed
    file = run / FOLDER / f"{strategy.name}-{len(prepared.split.train)}-{repeat}.csv"
    if not file.exists():
        quiet = Progress(quiet=True)
        if "refit" in row:
            alike, epochs = _alike(strategy, row["refit"], full, len(prepared.split.train))
            trained, _ = train_for(alike, prepared.joined(), None, epochs, progress=quiet, log=_unlogged)
        else:
            prepared.fill_views(strategy, quiet)
            trained = train_strategy(strategy, prepared, None, head=None, progress=quiet, log=_unlogged)
        predictions = evaluate(trained, prepared, torch_logits(trained, prepared)).reported
        write_predictions(file, predictions, prepared.classes)
    advance(1)
    return _correct(read_predictions(file))


def _alike(strategy: Strategy, refit: Refit, full: int, photos: int) -> tuple[Strategy, tuple[int, int]]:
    """The strategy and its epochs (of the head, of its own layers) for `photos` training photos: the views of the
    study's own model on `full` photos, and the same part of the recipe's epochs as that model was refitted for.
    """
    recipes, epochs = [], []
    for recipe, kept in ((strategy.head_recipe, refit["head_epochs"]), (strategy.recipe, refit["epochs"])):
        whole, few = stretched(recipe, full), stretched(recipe, photos)
        recipes.append(replace(few, views=whole.views, patience=0, least_steps=0, least_pictures=0))
        epochs.append(max(1, round(few.epochs * kept / whole.epochs)))
    return replace(strategy, head_recipe=recipes[0], recipe=recipes[1]), (epochs[0], epochs[1])


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
    clusters: Clusters | None,
) -> DataCurve:
    found = sweep_stats.resample(grid, seed, clusters)
    classes = counts[-1] / grid.per_class[-1]
    crossing = sweep_stats.crossing(grid, found, 1, 0)
    points = sweep_stats.curves(grid, found)
    for point in points:
        point["photos"] = round(point["per_class"] * classes)
        if point["photos"] == counts[-1]:
            del point["repeats"][1:]  # the study's own model stands in for every repeat
    differences = _in_photos(crossing, classes)
    against = None if scratch is None else _against(grid, counts[0], np.array(scratch), scratch_photos, clusters)
    return {
        "source": "study",
        "photos": list(counts),
        "runs": [*[grid.correct.shape[2]] * (len(counts) - 1), 1],
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
    grid: sweep_stats.Grid, photos: int, scratch: np.ndarray, scratch_photos: int, clusters: Clusters | None
) -> AgainstBaseline:
    """The frozen strategy on the fewest photos, in the mean over its repeats, against the network from scratch on all.

    The interval adds up the variances over photos and over repeats, with Student's t for independent photos.
    """
    runs = grid.correct[0, 0]
    gap = mean(runs.mean(0) - scratch, clusters)
    luck = float(runs.mean(1).var(ddof=1)) / len(runs) if len(runs) > 1 else 0.0
    found = gap._replace(error=float(np.hypot(gap.error, np.sqrt(luck))))
    return {
        "photos": photos,
        "baseline_photos": scratch_photos,
        "difference": found.value,
        "ci": found.ci,
        "p_value": min(found.above, found.below),
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
