"""One strategy, from photos to bundle. This file reads top to bottom as the product.

    photos -> manifest -> split -> backbone cut at the line -> activations (cache) -> train suffix and head -> evaluate
    -> bundle

`frostline.training.prepare.prepare` does the part that all strategies of a study share, up to the activations; `fit`
the rest. A strategy with `refit` is trained a second time, with the validation photos among the training photos.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from frostline.bundles import bundle, card, neighbours, seen
from frostline.bundles.about import About
from frostline.documents.bundle import BundleFigures, NeighboursFile, SeenFile
from frostline.documents.strategy import Seconds, StrategyRow
from frostline.networks import devices
from frostline.progress import Progress
from frostline.recipes import Strategy
from frostline.stats import metrics, thresholds
from frostline.stats.predictions import write_predictions
from frostline.training.evaluation import Evaluation, class_shares, compiled_logits, evaluate, outputs_of, torch_logits
from frostline.training.prepare import Prepared, network_name
from frostline.training.stages import (
    VALIDATION_BY_EPOCH,
    Log,
    TrainedHead,
    TrainedStrategy,
    labels_of,
    refit,
    stored_examples,
    train_strategy,
    write_history,
    write_validation_by_epoch,
)

VALIDATION = "validation.csv"
"""What the model says of validation photos before it is trained on them."""
BEFORE_REFIT = "before_refit.csv"
"""What that same model says of the photos reported on."""


def fit(
    strategy: Strategy, prepared: Prepared, folder: Path, *, head_from: StrategyRow | None, progress: Progress, log: Log
) -> Evaluation:
    """Train, evaluate and write one strategy; returns its row of study.json, with its predictions.

    Parameters
    ----------
    folder
        The strategy's folder in the run: gets history.csv, validation_by_epoch.npz, predictions.csv, validation.csv
        (where validation photos are not the ones reported on), before_refit.csv (where there was a refit and the photos
        reported on may be of another kind) and bundle/, and a checkpoint until it is done.
    head_from
        The finished row of a strategy whose head this one starts from (the frozen one's), or None to train the head
        here.
    log
        Called with an event's name and its values.

    Raises
    ------
    RunError
        No room on the disk, or training failed (the loss is not a number).
    """
    # -- train, and with the validation photos a second time where the strategy asks for that
    head = _head_of(head_from, folder.parent) if head_from is not None else None
    trained = train_strategy(strategy, prepared, folder, head=head, progress=progress, log=log)
    validated = torch_logits(trained, prepared)  # the model that was not trained on the validation photos
    trained_on, refitted = prepared, None
    if strategy.refit and prepared.refits:
        trained_on = prepared.joined()
        trained, refitted = refit(trained, prepared, folder, progress=progress, log=log)
    trained_at = time.perf_counter()

    # -- evaluate, compiled as it will be used
    about = _about(trained, trained_on)
    model = bundle.assembled(about, trained.parts, prepared.runtime)
    compiled = compiled_logits(model)
    row, reported, validation, before = evaluate(trained, prepared, compiled, validated if refitted else compiled)
    if refitted:
        row["refit"] = refitted

    # -- write the figures, and the model ready to use
    known, kept = _training_photos(trained, trained_on, model)
    photos, told = _seen(trained_on)
    about = replace(
        about,
        temperature=row["temperature"],
        figures=_headline(row, prepared),
        neighbours=kept,
        seen=told,
        thresholds=thresholds.of(validation),
    )
    write_history(folder / "history.csv", trained.state)
    write_validation_by_epoch(folder / VALIDATION_BY_EPOCH, trained.state)
    write_predictions(folder / "predictions.csv", reported, prepared.classes)
    for name, predictions in ((VALIDATION, validation), (BEFORE_REFIT, before)):
        if predictions:
            write_predictions(folder / name, predictions, prepared.classes)
    text = card.write(about, prepared.config, prepared.photos.counts())
    bundle.save(folder / "bundle", about, trained.parts, text, known, photos)
    evaluating = time.perf_counter() - trained_at
    spent = {"prefix": prepared.prefix_seconds, "train": training_seconds(row), "evaluate": evaluating}
    row["seconds"] = cast(Seconds, {k: round(v, 3) for k, v in {**spent, "total": sum(spent.values())}.items()})
    row["peak_rss_mb"] = peak_memory_mb()
    if (held := devices.peak_memory_mb(prepared.device)) is not None:
        row["peak_device_mb"] = held
    return Evaluation(row, reported, validation, before)


def _head_of(row: StrategyRow, run: Path) -> TrainedHead:
    """The head of a strategy that is finished."""
    return TrainedHead(bundle.head_of(run / row["name"] / "bundle"), row["history"], row["best_epoch"])


def _about(trained: TrainedStrategy, trained_on: Prepared) -> About:
    """bundle.json before the model is evaluated."""
    priors, stands_for = class_shares(trained_on)
    return bundle.describe(
        trained.strategy,
        trained.parts.backbone,
        trained.parts.cut,
        trained_on.classes,
        stored_as=trained_on.taps[network_name(trained.strategy), trained.line].stored_as,
        temperature=1.0,
        figures={},
        priors=priors,
        stands_for=stands_for,
    )


def _training_photos(
    trained: TrainedStrategy, trained_on: Prepared, model: bundle.Bundle
) -> tuple[bytes, NeighboursFile]:
    """The features of the training photos, by which a bundle finds those that resemble a new photo; and their row of
    bundle.json.
    """
    photos = trained_on.part(trained_on.split.train.tolist())
    most = neighbours.MOST if trained.line else neighbours.MOST_FROM_PIXELS
    photos = [photos[i] for i in neighbours.chosen(labels_of(photos, trained_on.classes), most)]
    store = trained_on.taps[network_name(trained.strategy), trained.line].store
    examples = stored_examples(store, photos, trained_on)
    features = np.concatenate([seen.features for seen in outputs_of(model, examples, 0)])
    known = neighbours.to_bytes(features, examples.labels, [p.path for p in photos])
    return known, neighbours.describe(known, len(photos))


def _seen(trained_on: Prepared) -> tuple[bytes, SeenFile]:
    """Which photos the model has seen, for its bundle; and their row of bundle.json."""
    train = trained_on.part(trained_on.split.train.tolist())
    validation = trained_on.part(trained_on.split.validation.tolist())
    photos = seen.to_bytes(train, validation)
    return photos, seen.describe(photos, len(train), len(validation))


def _headline(row: StrategyRow, prepared: Prepared) -> BundleFigures:
    """The figures that a bundle carries: the metrics that its card shows, and the plain calibration error, which
    readers of bundle.json know."""
    shown = [metric for metric in metrics.METRICS if "card" in metric.pages or metric.name == "ece_shipped"]
    names = [name for metric in shown for name in (metric.name, f"{metric.name}_ci") if name in row]
    about = {
        "reported_on": prepared.reported_on,
        "photos": len(prepared.reported()),
        "rendered": prepared.rendered,
        "refit": "refit" in row,
        **({"unfrozen": row["unfrozen"]} if "unfrozen" in row else {}),
    }
    return cast(BundleFigures, {**about, **{name: value for name, value in row.items() if name in names}})


def training_seconds(row: StrategyRow) -> float:
    """Seconds in training, the head's own stage included.

    Added up over epochs and not by this process's clock: part of a resumed run was trained before.
    """
    once = sum(epoch["seconds"] for epoch in [*row["head_history"], *row["history"]])
    return float(once + (row["refit"]["seconds"] if "refit" in row else 0.0))


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MB of 10^6 bytes; 0 where the system can't tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6, 1)
